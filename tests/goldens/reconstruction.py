"""Writes `reconstruction_tff_0_40.json`: what real TFF 0.40 does in federated reconstruction.

Run it with the interpreter of a TFF 0.40 installation, not with the project's:

    /opt/tff040/bin/python tests/goldens/reconstruction.py

The tests share `CASES`, `client_data` and `process_arguments`, which say it all and take
the Keras and the reconstruction module to use.
"""

import collections
import json
import pathlib

ROUNDS = 3
ITEMS, FACTORS = 5, 2
# Name: what differs from the plain case.
CASES = {
    "plain": {},
    "factorization": {"model": "factorization"},
    "only_global": {"local": False},
    "depends_on_training": {"extra": "training"},
    "frozen": {"extra": "frozen"},
    "batch_normalization": {"extra": "batch_normalization"},
    "momentum_and_adam": {"optimizers": "momentum"},
    "all_data_twice": {"split": (2, 3, 2, None, False)},
    "some_steps": {"split": (3, 2, 1, 1, True)},
    "no_reconstruction": {"split": (0, None, 1, None, False)},
    "uniform": {"weighting": "UNIFORM"},
    "weight_from_metrics": {"weighting": "metrics"},
}


def client_data(tf, np, case):
    """Datasets of three clients, of whom one has no data after the split."""
    if case.get("model") == "factorization":
        x = np.array([0, 1, 2, 3, 4, 0, 2], np.int32)
        y = np.array([1, 2, 3, 1, 0, 2, 1], np.float32)
    else:
        x = np.array([1, -1, 0.5, 2, 1.5, 3, -2], np.float32)
        y = np.array([1, -2, 1, 3, 2, 2.5, -1], np.float32)

    def dataset(part):
        columns = collections.OrderedDict(
            x=x[part].reshape(-1, 1), y=y[part].reshape(-1, 1)
        )
        return tf.data.Dataset.from_tensor_slices(columns).batch(2)

    return [dataset(slice(0, 5)), dataset(slice(2, 7)), dataset(slice(0, 1))]


def make_model(tf, np, keras, wrap, case):
    def constant(value):
        return keras.initializers.Constant(value)

    if case.get("model") == "factorization":
        table = np.arange(ITEMS * FACTORS, dtype=np.float32).reshape(ITEMS, FACTORS) / 8
        inputs = keras.layers.Input((1,), dtype="int32")
        items = keras.layers.Embedding(
            ITEMS, FACTORS, embeddings_initializer=constant(table)
        )
        user = keras.layers.Dense(
            1, use_bias=False, kernel_initializer=constant(0.5), name="user"
        )
        outputs = user(keras.layers.Flatten()(items(inputs)))
        model, shared, local = keras.Model(inputs, outputs), [items], [user]
        dtype = tf.int32
    else:
        inputs = keras.layers.Input((1,))
        first = keras.layers.Dense(1, kernel_initializer=constant(0.5))
        second = keras.layers.Dense(1, kernel_initializer=constant(0.7))
        extra = []
        if case.get("extra") == "frozen":
            extra = [keras.layers.Dense(1, kernel_initializer=constant(2.0))]
            extra[0].trainable = False
        if case.get("extra") == "batch_normalization":
            extra = [keras.layers.BatchNormalization()]
        if case.get("extra") == "training":

            class DoubledInInference(keras.layers.Layer):
                def call(self, x, training=None):
                    return x if training else 2 * x

            extra = [DoubledInInference()]
        outputs = inputs
        for layer in (first, second, *extra):
            outputs = layer(outputs)
        model, shared, local = keras.Model(inputs, outputs), [first, *extra], [second]
        if not case.get("local", True):
            shared, local = shared + local, []
        dtype = tf.float32
    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 1], dtype), y=tf.TensorSpec([None, 1], tf.float32)
    )
    return wrap(model, global_layers=shared, local_layers=local, input_spec=spec)


def process_arguments(tf, np, keras, reconstruction, weighting, case):
    """The arguments of `build_training_process`, `model_fn` included."""
    sgd = keras.optimizers.SGD
    arguments = {
        "model_fn": lambda: make_model(
            tf, np, keras, reconstruction.from_keras_model, case
        ),
        "loss_fn": lambda: keras.losses.MeanSquaredError(),
        "metrics_fn": lambda: [keras.metrics.MeanAbsoluteError(name="absolute")],
        "client_optimizer_fn": lambda: sgd(0.05),
        "reconstruction_optimizer_fn": lambda: sgd(0.02),
    }
    if case.get("optimizers") == "momentum":
        arguments["server_optimizer_fn"] = lambda: sgd(0.5, momentum=0.9)
        arguments["client_optimizer_fn"] = lambda: sgd(0.05, momentum=0.5)
        arguments["reconstruction_optimizer_fn"] = lambda: keras.optimizers.Adam(0.1)
    if "split" in case:
        arguments["dataset_split_fn"] = reconstruction.build_dataset_split_fn(
            *case["split"]
        )
    if case.get("weighting") == "UNIFORM":
        arguments["client_weighting"] = weighting.UNIFORM
    if case.get("weighting") == "metrics":
        arguments["client_weighting"] = lambda outputs: outputs["absolute"][1] + 1.0
    return arguments


def evaluation_arguments(arguments):
    names = (
        "model_fn",
        "loss_fn",
        "metrics_fn",
        "reconstruction_optimizer_fn",
        "dataset_split_fn",
    )
    return {name: arguments[name] for name in names if name in arguments}


def run(tf, np, keras, reconstruction, weighting, case):
    arguments = process_arguments(tf, np, keras, reconstruction, weighting, case)
    data = client_data(tf, np, case)
    process = reconstruction.build_training_process(**arguments)
    evaluate = reconstruction.build_federated_evaluation(
        **evaluation_arguments(arguments)
    )
    found = {
        "next": str(process.next.type_signature),
        "evaluation": str(evaluate.type_signature),
        "rounds": [],
    }
    state = process.initialize()
    for _ in range(ROUNDS):
        state, metrics = process.next(state, data)
        weights = process.get_model_weights(state)
        found["rounds"].append(
            {
                "train": {k: float(v) for k, v in metrics["train"].items()},
                "trainable": [np.asarray(w).tolist() for w in weights.trainable],
                "non_trainable": [
                    np.asarray(w).tolist() for w in weights.non_trainable
                ],
                "eval": {
                    k: float(v) for k, v in evaluate(weights, data)["eval"].items()
                },
            }
        )
    return found


def main():
    import numpy as np
    import tensorflow as tf
    import tensorflow_federated as tff

    results = {
        name: run(
            tf,
            np,
            tf.keras,
            tff.learning.reconstruction,
            tff.learning.ClientWeighting,
            case,
        )
        for name, case in CASES.items()
    }
    path = pathlib.Path(__file__).parent / "reconstruction_tff_0_40.json"
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
