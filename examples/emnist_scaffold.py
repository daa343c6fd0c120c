"""Trains on clients that each know two digits only: SCAFFOLD beside Federated Averaging.

You learn how clients keep a state from round to round: a process whose `next` takes the
states of the round's clients and returns them changed, and a `ClientStateStore` that holds
them by client. SCAFFOLD (Karimireddy et al., 2020) keeps control variates there, which
take the drift out of the steps of clients whose data differ.

    python examples/emnist_scaffold.py

It prints the accuracy on held-out digits of all kinds and leaves a picture:

    round  10  FedAvg 0.784  SCAFFOLD 0.839
    round  40  FedAvg 0.853  SCAFFOLD 0.915
    30 clients keep a control variate, ClientStateStore(in scaffold_output/...
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
_WRITERS = flags.DEFINE_integer("writers", 60, "writers whose digits are dealt out")
_CLIENTS = flags.DEFINE_integer("clients", 30, "clients they are dealt to")
_COHORT = flags.DEFINE_integer("clients_per_round", 10, "clients of a round")
_ROUNDS = flags.DEFINE_integer("rounds", 40, "rounds of training", lower_bound=1)
_RATE = flags.DEFINE_float("client_learning_rate", 0.05, "step size on the clients")
_SEED = flags.DEFINE_integer("seed", 1, "makes a run repeatable")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "scaffold_output", "what is left")


def examples_of(source):
    """All digits of the first writers: ink is 1 and paper 0."""
    datasets = source.clients(source.client_ids[: _WRITERS.value])
    batches = [next(iter(dataset.batch(10_000))) for dataset in datasets]
    pixels = np.concatenate([batch["pixels"] for batch in batches]).reshape(-1, 784)
    return 1 - pixels, np.concatenate([batch["label"] for batch in batches])


def deal(pixels, labels, rng):
    """Clients with two shards each of the digits sorted by label (McMahan et al., 2017)."""
    shards = np.array_split(np.argsort(labels, kind="stable"), 2 * _CLIENTS.value)
    hands = rng.permutation(len(shards)).reshape(_CLIENTS.value, 2)
    rows = [np.concatenate([shards[i], shards[j]]) for i, j in hands]
    return fedsim.datasets.Columns.from_clients(
        (f"client {k:02d}", collections.OrderedDict(x=pixels[r], y=labels[r]))
        for k, r in enumerate(rows)
    )


def preprocess(dataset):
    return dataset.repeat(5).shuffle(500, seed=_SEED.value).batch(20)


def model_fn():
    dense = keras.layers.Dense(10, "softmax", kernel_initializer="zeros")
    return fedlearn.models.from_keras_model(
        keras.Sequential([keras.Input((784,)), dense]),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        input_spec=collections.OrderedDict(
            x=tf.TensorSpec([None, 784], tf.float32), y=tf.TensorSpec([None], tf.int32)
        ),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )


def main(_):
    train, test = fedsim.datasets.emnist.load(
        _DATASET.value, cache_dir=_DATA_DIR.value, seed=_SEED.value
    )
    rng = np.random.default_rng(_SEED.value)
    columns = deal(*examples_of(train), rng)
    data = {c: preprocess(columns.dataset(c)) for c in columns.client_ids}
    pixels, labels = examples_of(test)
    held_out = [[collections.OrderedDict(x=pixels, y=labels)]]

    fed_avg = fedlearn.algorithms.build_unweighted_fed_avg(
        model_fn, lambda: keras.optimizers.SGD(_RATE.value)
    )
    scaffold = fedlearn.algorithms.build_scaffold(
        model_fn, _RATE.value, num_clients=len(data)
    )
    averaged, corrected = fed_avg.initialize(), scaffold.initialize()
    folder = pathlib.Path(_OUTPUT_DIR.value)
    kept = fedsim.ClientStateStore(
        scaffold.initialize_client(scaffold.get_model_weights(corrected)),
        directory=folder / "control_variates",
    )
    kept.rewind(0)  # what an earlier run has left there

    evaluation = fedlearn.build_federated_evaluation(model_fn)

    def accuracy(state):
        metrics = evaluation(state.global_model_weights, held_out)["eval"]
        return metrics["sparse_categorical_accuracy"]

    history = []
    for round_num in range(_ROUNDS.value):
        cohort = list(rng.choice(columns.client_ids, _COHORT.value, replace=False))
        cohort_data = [data[client] for client in cohort]
        averaged = fed_avg.next(averaged, cohort_data).state

        output = scaffold.next(corrected, kept.select(cohort, round_num), cohort_data)
        corrected = output.state
        kept.update(cohort, output.client_states, round_num)
        kept.prune(round_num)

        history.append([accuracy(state) for state in (averaged, corrected)])
        if round_num % 10 == 9 or round_num == _ROUNDS.value - 1:
            one, other = history[-1]
            print(f"round {round_num + 1:3d}  FedAvg {one:.3f}  SCAFFOLD {other:.3f}")
    print(f"{len(kept.client_ids)} clients keep a control variate, {kept}")
    plot(columns, history, folder / "scaffold.png")


def plot(columns, history, path):
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    counts = [
        np.bincount(next(iter(columns.dataset(c).batch(10**6)))["y"], minlength=10)
        for c in columns.client_ids
    ]
    image = left.imshow(counts, aspect="auto", cmap="Blues")
    figure.colorbar(image, ax=left, label="examples")
    left.set(xlabel="digit", ylabel="client", title="What the clients have")
    left.set_xticks(range(10))
    for name, accuracies in zip(["FedAvg", "SCAFFOLD"], zip(*history)):
        right.plot(range(1, len(history) + 1), accuracies, label=name)
    right.set(xlabel="round", ylabel="accuracy", title="Held-out digits of all kinds")
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=110)
    print(f"The picture is in {path}")


if __name__ == "__main__":
    with fedcore.context.use(fedsim.local_context(seed=1)):
        app.run(main)
