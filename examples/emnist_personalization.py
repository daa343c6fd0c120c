"""Gives every client a model of its own, in two ways, and says who gains.

You learn to personalise. *Fine-tuning* trains the server's model on a client's own digits;
*Ditto* (Li et al., 2021) trains a model of each client all along, held near the server's
and kept in a `ClientStateStore`. A personalisation evaluation measures both. Every third
writer's scanner gives white ink on black paper: no linear model is right for all.

    python examples/emnist_personalization.py

It leaves a picture with a point for each client and prints the means on held-out digits:

    40 with black ink: baseline_metrics 0.656, fine-tuned 0.761, Ditto 0.801
    20 with white ink: baseline_metrics 0.028, fine-tuned 0.118, Ditto 0.723
"""

import collections
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import fedcore
import fedlearn
import fedsim

_SETS = ["auto", "emnist", "synthetic"]
_DATASET = flags.DEFINE_enum("dataset", "synthetic", _SETS, "which digits to take")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder that holds the real set")
_WRITERS = flags.DEFINE_integer("writers", 60, "clients, a third of them in a round")
_ROUNDS = flags.DEFINE_integer("rounds", 40, "rounds of training", lower_bound=1)
_RATE = flags.DEFINE_float("client_learning_rate", 0.02, "step size on the clients")
_STRENGTH = flags.DEFINE_float("strength", 0.1, "how near Ditto holds clients: its λ")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "personal_output", "for the picture")


def scanned(source):
    """Columns of the writers' digits: ink 1 on paper 0, or for every third 0 on 1."""
    clients = []
    for number, name in enumerate(source.client_ids[: _WRITERS.value]):
        batch = next(iter(source.client(name).batch(10_000)))
        paper_is_1 = np.reshape(batch["pixels"], [-1, 784])
        x = paper_is_1 if number % 3 == 0 else 1 - paper_is_1
        clients.append((name, collections.OrderedDict(x=x, y=batch["label"])))
    return fedsim.datasets.Columns.from_clients(clients)


def model_fn():
    dense = keras.layers.Dense(10, "softmax", kernel_initializer="zeros")
    return fedlearn.models.from_keras_model(
        keras.Sequential([keras.Input((784,)), dense]),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        input_spec=collections.OrderedDict(
            x=tf.TensorSpec([None, 784], tf.float32), y=tf.TensorSpec([None], tf.int32)
        ),
    )


def train_ditto(process, train):
    state, rng = process.initialize(), np.random.default_rng(1)
    first = process.initialize_client(process.get_model_weights(state))
    kept, number = fedsim.ClientStateStore(first), max(1, len(train.client_ids) // 3)
    for round_num in range(_ROUNDS.value):
        cohort = list(rng.choice(train.client_ids, number, replace=False))
        data = [train.dataset(c).repeat(3).batch(20) for c in cohort]
        output = process.next(state, kept.select(cohort, round_num), data)
        state = output.state
        kept.update(cohort, output.client_states, round_num)
        kept.prune(round_num)
    return process.get_model_weights(state), kept


@tf.function
def accuracy_of(model, dataset):
    batch = dataset.batch(10_000).get_single_element()
    best = tf.argmax(model.predict_on_batch(batch["x"]), 1, tf.int32)
    return tf.reduce_mean(tf.cast(best == batch["y"], tf.float32))


def fine_tuned():
    @tf.function
    def personalize(model, train_data, test_data, own_weights):
        variables = model.trainable_variables
        for batch in train_data.repeat(5).batch(20):
            with tf.GradientTape() as tape:
                loss = model.forward_pass(batch).loss
            for variable, gradient in zip(variables, tape.gradient(loss, variables)):
                variable.assign_sub(_RATE.value * gradient)
        return accuracy_of(model, test_data)

    return personalize


def ditto():
    @tf.function
    def personalize(model, train_data, test_data, own_weights):
        for variable, value in zip(model.trainable_variables, own_weights):
            variable.assign(value)
        return accuracy_of(model, test_data)

    return personalize


def main(_):
    sets = fedsim.datasets.emnist.load(_DATASET.value, cache_dir=_DATA_DIR.value)
    train, test = map(scanned, sets)
    sgd = fedlearn.optimizers.build_sgdm(_RATE.value)
    process = fedlearn.algorithms.build_ditto(
        model_fn, sgd, proximal_strength=_STRENGTH.value
    )
    weights, kept = train_ditto(process, train)
    evaluate = fedlearn.algorithms.build_personalization_eval_computation(
        model_fn,
        {"fine-tuned": fine_tuned, "Ditto": ditto},
        accuracy_of,
        max_num_clients=_WRITERS.value,
        context_tff_type=process.initialize_client.type_signature.result,
    )
    found, white = {}, train.client_ids[::3]
    black = [client for client in train.client_ids if client not in white]
    for scanner, group in [("black ink", black), ("white ink", white)]:
        data = [(train.dataset(c), test.dataset(c)) for c in group]
        clients = [
            collections.OrderedDict(train_data=a, test_data=b, context=own)
            for (a, b), own in zip(data, kept.select(group))
        ]
        found[scanner] = evaluate(weights, clients)
        means = [f"{way} {y.mean():.3f}" for way, y in found[scanner].items()]
        print(f"{len(group)} with {scanner}: {', '.join(means)}")
    folder = pathlib.Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    plot(found, folder)


def plot(found, folder):
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for offset, color, (scanner, ways) in zip((0, 0.35), ("C0", "C1"), found.items()):
        for place, (way, y) in enumerate(ways.items()):
            x = place + offset + np.linspace(-0.1, 0.1, len(y))
            label = f"{scanner}, {len(y)} clients" if way == "Ditto" else None
            axes.plot(x, y, "o", color=color, alpha=0.35, label=label)
            axes.hlines(y.mean(), x.min(), x.max(), color=color, linewidth=3)
    axes.set_xticks([0.175, 1.175, 2.175], ["server's model", *list(ways)[1:]])
    axes.set_ylabel("accuracy on the client's held-out digits; bar: mean")
    axes.legend(loc="lower right")
    figure.savefig(folder / "personalization.png", dpi=110, bbox_inches="tight")
    print(f"The picture is in {folder}")


if __name__ == "__main__":
    with fedcore.context.use(fedsim.local_context(seed=1)):
        app.run(main)
