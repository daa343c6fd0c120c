"""Writes Federated Averaging from scratch, out of the federated operators.

You learn how an algorithm is put together: TensorFlow for what one place computes
(`tf_computation`), federated operators for what moves between the places
(`federated_computation`), and the type that says both. `--learning_rate_decay=0.9` lets
the clients' rate fall, which the server keeps and broadcasts, `--clip_norm=1.0` clips the
gradients of each step.

    python examples/emnist_custom_algorithm.py

It prints the type of a round, then the loss and accuracy of the server's model on held-out
writers, and leaves a picture of them:

    (<server_state=<weights=<float32[784,10],float32[10]>,learning_rate=float32>@SERVER,...
    round  0  loss 2.3026  accuracy 0.098
    round 15  loss 2.1510  accuracy 0.315
"""

import collections
import pathlib

import numpy as np
import tensorflow as tf
from absl import app, flags

import fedcore
import fedlearn
import fedsim

_SETS = ["auto", "emnist", "synthetic"]  # auto: the real set if it can be had
_DATASET = flags.DEFINE_enum("dataset", "auto", _SETS, "which digits to take")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder that holds the real set")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "rounds of training", lower_bound=1)
_CLIENTS = flags.DEFINE_integer("clients_per_round", 10, "drawn anew in each round")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "examples of a step")
_RATE = flags.DEFINE_float("client_learning_rate", 0.01, "first step size on clients")
_DECAY = flags.DEFINE_float(
    "learning_rate_decay", 1.0, "its factor from round to round"
)
_CLIP = flags.DEFINE_float("clip_norm", None, "longest gradient of a client's step")
_SEED = flags.DEFINE_integer("seed", 1, "makes a run repeatable")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "folder for the picture")


def preprocess(dataset):
    """Batches of `(pixels: float32[?,784], label: int32[?,1])`."""

    def flatten(element):
        return (
            tf.reshape(element["pixels"], [-1, 784]),
            tf.reshape(element["label"], [-1, 1]),
        )

    return dataset.batch(_BATCH_SIZE.value).map(flatten)


def create_keras_model():
    dense = tf.keras.layers.Dense(10, kernel_initializer="zeros")
    return tf.keras.Sequential(
        [tf.keras.layers.Input((784,)), dense, tf.keras.layers.Softmax()]
    )


def model_fn(input_spec):
    return fedlearn.from_keras_model(
        create_keras_model(),
        input_spec=input_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


@tf.function
def client_update(model, dataset, server_weights, learning_rate):
    """Trains on one client's data, from the server's weights on."""
    client_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), client_weights, server_weights)
    for batch in dataset:
        with tf.GradientTape() as tape:
            outputs = model.forward_pass(batch)
        gradients = tape.gradient(outputs.loss, client_weights)
        if _CLIP.value is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, _CLIP.value)
        for weight, gradient in zip(client_weights, gradients):
            weight.assign_sub(learning_rate * gradient)
    return client_weights


def build_algorithm(input_spec):
    """Federated Averaging (McMahan et al., 2017, arXiv:1602.05629) as a process."""

    @fedcore.tf_computation
    def server_init():
        return collections.OrderedDict(
            weights=model_fn(input_spec).trainable_variables,
            learning_rate=tf.constant(_RATE.value),
        )

    state_type = server_init.type_signature.result
    dataset_type = fedcore.SequenceType(fedcore.to_type(input_spec))

    @fedcore.tf_computation(dataset_type, state_type)
    def client_update_fn(dataset, server):
        model = model_fn(input_spec)
        return client_update(model, dataset, server["weights"], server["learning_rate"])

    @fedcore.tf_computation(state_type, state_type.weights)
    def server_update_fn(server, mean_weights):
        return collections.OrderedDict(
            weights=mean_weights, learning_rate=server["learning_rate"] * _DECAY.value
        )

    @fedcore.federated_computation
    def initialize_fn():
        return fedcore.federated_value(server_init(), fedcore.SERVER)

    @fedcore.federated_computation(
        fedcore.FederatedType(state_type, fedcore.SERVER),
        fedcore.FederatedType(dataset_type, fedcore.CLIENTS),
    )
    def next_fn(server_state, federated_dataset):
        server_at_clients = fedcore.federated_broadcast(server_state)
        client_weights = fedcore.federated_map(
            client_update_fn, (federated_dataset, server_at_clients)
        )
        mean_weights = fedcore.federated_mean(client_weights)
        return fedcore.federated_map(server_update_fn, (server_state, mean_weights))

    return fedcore.templates.IterativeProcess(initialize_fn, next_fn)


def evaluate(server_weights, dataset):
    """Loss and accuracy of the server's model, by Keras."""
    model = create_keras_model()
    model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )
    model.set_weights(server_weights)
    return model.evaluate(dataset, verbose=0)


def plot(history, path):
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    rounds, *values = zip(*history)
    for panel, name, of_rounds in zip(panels, ["loss", "accuracy"], values):
        panel.plot(rounds, of_rounds, "o-")
        panel.set(xlabel="round", title=f"{name} on held-out writers")
    figure.savefig(path, dpi=120)
    print(f"The curve is in {path}")


def main(_):
    train, test = fedsim.datasets.emnist.load(
        _DATASET.value, cache_dir=_DATA_DIR.value, seed=_SEED.value
    )
    test_data = preprocess(test.create_tf_dataset_from_all_clients(seed=0).take(1000))
    algorithm = build_algorithm(test_data.element_spec)
    print(algorithm.next.type_signature)

    rng = np.random.default_rng(_SEED.value)
    state, history = algorithm.initialize(), []
    for round_num in range(_ROUNDS.value + 1):
        if round_num % 5 == 0 or round_num == _ROUNDS.value:
            loss, accuracy = evaluate(state["weights"], test_data)
            history.append((round_num, loss, accuracy))
            print(f"round {round_num:2d}  loss {loss:.4f}  accuracy {accuracy:.3f}")
        clients = rng.choice(train.client_ids, _CLIENTS.value, replace=False)
        data = [preprocess(train.create_tf_dataset_for_client(c)) for c in clients]
        if round_num < _ROUNDS.value:
            state = algorithm.next(state, data)

    if _OUTPUT_DIR.value:
        folder = pathlib.Path(_OUTPUT_DIR.value)
        folder.mkdir(parents=True, exist_ok=True)
        plot(history, folder / "custom_algorithm.png")


if __name__ == "__main__":
    app.run(main)
