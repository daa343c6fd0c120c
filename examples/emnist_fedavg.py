"""Trains a digit classifier by Federated Averaging on handwriting, split by writer.

You learn the whole way of a federated training: client data, a Keras model, a learning
process, rounds over random clients, evaluation on held-out examples, TensorBoard, pictures.

    python examples/emnist_fedavg.py                      # real EMNIST if it can be had
    python examples/emnist_fedavg.py --dataset=synthetic  # generated digits, offline

It prints a line a round and leaves two pictures and TensorBoard logs in --output_dir:

    round   5  train loss 1.6542  accuracy 0.547  |  held-out loss 1.4010  accuracy 0.662
"""

import collections
import pathlib
import sys

import numpy as np
import tensorflow as tf
from absl import app, flags
from tqdm import tqdm

import fedcore
import fedlearn
import fedsim

_DATASET = flags.DEFINE_enum(
    "dataset",
    "auto",
    ["auto", "emnist", "synthetic"],
    "auto: the real set if it is in the cache or can be downloaded, else generated digits",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder that holds the real set")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "rounds of training", lower_bound=1)
_CLIENTS = flags.DEFINE_integer(
    "clients_per_round", 10, "clients of a round, drawn anew each time", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("client_epochs", 5, "passes of a client over its data")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 20, "examples of a step", lower_bound=1
)
_CLIENT_RATE = flags.DEFINE_float("client_learning_rate", 0.02, "client step size")
_SERVER_RATE = flags.DEFINE_float("server_learning_rate", 1.0, "server step size")
_EVAL_EVERY = flags.DEFINE_integer("rounds_per_evaluation", 5, "rounds between two")
_SEED = flags.DEFINE_integer("seed", 1, "makes a run repeatable")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo_output", "pictures and logs")


def preprocess(dataset, epochs):
    """Batches of `x: float32[?,784]`, `y: int32[?,1]`, shuffled for training."""

    def flatten(element):
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 784]),
            y=tf.reshape(element["label"], [-1, 1]),
        )

    if epochs > 1:
        dataset = dataset.repeat(epochs).shuffle(100, seed=_SEED.value)
    return dataset.batch(_BATCH_SIZE.value).map(flatten)


def federated_data(source, client_ids, epochs=1):
    return [
        preprocess(source.create_tf_dataset_for_client(c), epochs) for c in client_ids
    ]


def build_model_fn(input_spec):
    def model_fn():
        keras_model = tf.keras.Sequential(
            [
                tf.keras.layers.Input((784,)),
                tf.keras.layers.Dense(10, kernel_initializer="zeros"),
                tf.keras.layers.Softmax(),
            ]
        )
        return fedlearn.from_keras_model(
            keras_model,
            input_spec=input_spec,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(),
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
        )

    return model_fn


def log(writer, metrics, step):
    with writer.as_default(step=step):
        for name, value in metrics.items():
            tf.summary.scalar(name, value)


def plot_clients(source, path, clients=6, digits=12):
    """A few clients' digits, and how many of each they have."""
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(12, 1.1 * clients))
    grid = figure.add_gridspec(clients, digits + 5)
    for row, client in enumerate(source.client_ids[:clients]):
        data = list(source.create_tf_dataset_for_client(client).as_numpy_iterator())
        for column, example in enumerate(data[:digits]):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(example["pixels"], cmap="gray")
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(client, rotation=0, ha="right", va="center", fontsize=8)
        axes = figure.add_subplot(grid[row, digits + 1 :])
        axes.bar(range(10), np.bincount([e["label"] for e in data], minlength=10))
        axes.set_xticks(range(10) if row == clients - 1 else [])
    figure.suptitle("Some clients: their hand, and how many of each digit they wrote")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def plot_history(history, path):
    """Loss and accuracy, of each round's training and on held-out examples."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    for panel, name in zip(panels, ["loss", "sparse_categorical_accuracy"]):
        for part, style in [("train", "-"), ("held-out", "o-")]:
            points = [(r, m[name]) for r, p, m in history if p == part]
            panel.plot(*zip(*points), style, label=part, markersize=4)
        panel.set(xlabel="round", title=name.replace("_", " "))
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv):
    del argv
    train, test = fedsim.datasets.emnist.load(
        _DATASET.value, cache_dir=_DATA_DIR.value, seed=_SEED.value
    )
    folder = pathlib.Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    plot_clients(train, folder / "clients.png")
    writers = {
        "train": tf.summary.create_file_writer(str(folder / "logs" / "train")),
        "held-out": tf.summary.create_file_writer(str(folder / "logs" / "held_out")),
    }

    test_data = federated_data(test, test.client_ids)
    model_fn = build_model_fn(test_data[0].element_spec)
    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=lambda: tf.keras.optimizers.SGD(_CLIENT_RATE.value),
        server_optimizer_fn=lambda: tf.keras.optimizers.SGD(_SERVER_RATE.value),
    )
    evaluation = fedlearn.build_federated_evaluation(model_fn)

    rng, history = np.random.default_rng(_SEED.value), []
    state = process.initialize()
    for round_num in tqdm(range(1, _ROUNDS.value + 1), unit="round", file=sys.stderr):
        clients = rng.choice(
            train.client_ids, min(_CLIENTS.value, len(train.client_ids)), replace=False
        )
        output = process.next(state, federated_data(train, clients, _EPOCHS.value))
        state, metrics = output.state, output.metrics["client_work"]["train"]
        history.append((round_num, "train", metrics))
        line = f"round {round_num:3d}  train {describe(metrics)}"
        if round_num % _EVAL_EVERY.value == 0 or round_num in (1, _ROUNDS.value):
            weights = process.get_model_weights(state)
            held_out = evaluation(weights, test_data)["eval"]
            history.append((round_num, "held-out", held_out))
            line += f"  |  held-out {describe(held_out)}"
        tqdm.write(line)
        for part, values in [h[1:] for h in history if h[0] == round_num]:
            log(writers[part], values, round_num)
    plot_history(history, folder / "history.png")
    print(f"Pictures and TensorBoard logs are in {folder.resolve()}")


def describe(metrics):
    accuracy = metrics["sparse_categorical_accuracy"]
    return f"loss {metrics['loss']:.4f}  accuracy {accuracy:.3f}"


if __name__ == "__main__":
    with fedcore.context.use(fedsim.local_context(seed=1)):
        app.run(main)
