"""Writes `optimizers_tff_<version>.json`: what real TFF's optimizers do in ten steps.

Run it with the interpreter of a TFF 0.40 or 0.87 installation, not with the project's:

    /opt/tff040/bin/python tests/goldens/tff_optimizers.py

Weights and gradients follow from `weights_and_gradients` alone, which the tests share.
Every step runs inside a `tf.function` whose state is tensors, as it is in a round.
"""

import collections
import json
import math
import pathlib

STEPS = 10
CASES = (
    ("sgd", "build_sgdm", {"learning_rate": 0.3}),
    ("sgdm", "build_sgdm", {"learning_rate": 0.3, "momentum": 0.9}),
    ("adagrad", "build_adagrad", {"learning_rate": 0.3}),
    (
        "adagrad_epsilon",
        "build_adagrad",
        {"learning_rate": 0.3, "initial_preconditioner_value": 0.02, "epsilon": 0.5},
    ),
    ("rmsprop", "build_rmsprop", {"learning_rate": 0.3}),
    (
        "rmsprop_epsilon",
        "build_rmsprop",
        {"learning_rate": 0.3, "decay": 0.7, "epsilon": 0.5},
    ),
    ("adam", "build_adam", {"learning_rate": 0.3}),
    (
        "adam_epsilon",
        "build_adam",
        {"learning_rate": 0.3, "beta_1": 0.6, "beta_2": 0.8, "epsilon": 0.5},
    ),
    ("yogi", "build_yogi", {"learning_rate": 0.3}),
    (
        "yogi_epsilon",
        "build_yogi",
        {
            "learning_rate": 0.3,
            "beta_1": 0.6,
            "beta_2": 0.8,
            "epsilon": 0.5,
            "initial_preconditioner_value": 0.02,
        },
    ),
    ("adamw", "build_adamw", {"learning_rate": 0.3}),
    (
        "adamw_decay",
        "build_adamw",
        {
            "learning_rate": 0.3,
            "beta_1": 0.6,
            "beta_2": 0.8,
            "epsilon": 0.5,
            "weight_decay": 0.1,
        },
    ),
    ("adafactor", "build_adafactor", {"learning_rate": 0.3}),
    (
        "adafactor_absolute",
        "build_adafactor",
        {
            "learning_rate": 0.3,
            "beta_2_decay": -0.6,
            "epsilon_1": 1e-3,
            "epsilon_2": 0.1,
            "clip_threshold": 0.5,
            "relative_step": False,
        },
    ),
)


def weights_and_gradients(step):
    """Returns flat numbers: weights (used at step 0) and gradients, ten of each."""
    weights = [math.sin(1.0 + 2.0 * i) for i in range(10)]
    gradients = [math.cos(3.0 * i + 0.7 * step) * (0.1 + 0.3 * i) for i in range(10)]
    return weights, gradients


def run(build):
    """Returns the state's keys with their dtypes and, per step, the weights after it."""
    import tensorflow as tf

    def nest(flat):
        return collections.OrderedDict(
            a=tf.constant(flat[:6], tf.float32, [3, 2]),
            b=tf.constant(flat[6:], tf.float32),
        )

    weights = nest(weights_and_gradients(0)[0])
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), weights)
    optimizer = build()
    state = tf.nest.map_structure(tf.convert_to_tensor, optimizer.initialize(specs))
    layout = [
        [key, [t.dtype.name for t in tf.nest.flatten(value)]]
        for key, value in state.items()
    ]
    step_fn = tf.function(optimizer.next)
    trajectory = []
    for step in range(STEPS):
        state, weights = step_fn(state, weights, nest(weights_and_gradients(step)[1]))
        trajectory.append(
            [float(x) for part in "ab" for x in weights[part].numpy().flatten()]
        )
    return {"state": layout, "weights": trajectory}


def main():
    import tensorflow_federated as tff

    results = collections.OrderedDict()
    for name, builder, arguments in CASES:
        build = getattr(tff.learning.optimizers, builder, None)
        if build is not None:
            results[name] = run(lambda: build(**arguments))
            results[name].update(builder=builder, arguments=arguments)
    version = "_".join(tff.__version__.split(".")[:2])
    path = pathlib.Path(__file__).with_name(f"optimizers_tff_{version}.json")
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
