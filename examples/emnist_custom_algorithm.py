"""Writes Federated Averaging from scratch, out of the federated operators.

You learn how an algorithm is put together: TensorFlow for what one place computes
(`tf_computation`), federated operators for what moves between the places
(`federated_computation`), and the type that says both.

    python examples/emnist_custom_algorithm.py --learning_rate_decay=0.9 --clip_norm=1.0

It prints the type of a round, then the loss and accuracy of the server's model on held-out
writers, and leaves a picture. Without flags the rate stays and nothing is clipped:

    (<server_state=<weights=<float32[784,10],float32[10]>,learning_rate=float32>@SERVER,...
    round  0  loss 2.3026  accuracy 0.100
    round 15  loss 2.1421  accuracy 0.280
"""

import collections
import pathlib

import numpy as np
import tensorflow as tf
from absl import app, flags

import fedcore
import fedlearn
import fedsim

_SETS = ["auto", "emnist", "synthetic"]
_DATASET = flags.DEFINE_enum("dataset", "auto", _SETS, "auto: real digits if possible")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder that holds the real set")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "rounds of training", lower_bound=1)
_CLIENTS = flags.DEFINE_integer("clients_per_round", 10, "drawn anew in each round")
_RATE = flags.DEFINE_float("client_learning_rate", 0.01, "first step size on clients")
_DECAY = flags.DEFINE_float("learning_rate_decay", 1.0, "its factor each round")
_CLIP = flags.DEFINE_float("clip_norm", None, "longest gradient of a client's step")
_SEED = flags.DEFINE_integer("seed", 1, "makes a run repeatable")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "custom_output", "for the picture")


def preprocess(dataset):
    """Batches of `(pixels: float32[?,784], label: int32[?,1])`."""

    def flatten(batch):
        return tf.reshape(batch["pixels"], [-1, 784]), batch["label"][:, tf.newaxis]

    return dataset.batch(20).map(flatten)


def create_keras_model():
    dense = tf.keras.layers.Dense(10, "softmax", kernel_initializer="zeros")
    return tf.keras.Sequential([tf.keras.layers.Input((784,)), dense])


def model_fn(input_spec):
    loss = tf.keras.losses.SparseCategoricalCrossentropy()
    return fedlearn.from_keras_model(create_keras_model(), loss, input_spec)


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
        weights = model_fn(input_spec).trainable_variables
        return collections.OrderedDict(weights=weights, learning_rate=_RATE.value)

    state_type = server_init.type_signature.result
    dataset_type = fedcore.SequenceType(fedcore.to_type(input_spec))

    @fedcore.tf_computation(dataset_type, state_type)
    def client_update_fn(dataset, server):
        model = model_fn(input_spec)
        return client_update(model, dataset, server["weights"], server["learning_rate"])

    @fedcore.tf_computation(state_type, state_type.weights)
    def server_update_fn(server, mean_weights):
        rate = server["learning_rate"] * _DECAY.value
        return collections.OrderedDict(weights=mean_weights, learning_rate=rate)

    @fedcore.federated_computation
    def initialize_fn():
        return fedcore.federated_value(server_init(), fedcore.SERVER)

    @fedcore.federated_computation(
        fedcore.type_at_server(state_type), fedcore.type_at_clients(dataset_type)
    )
    def next_fn(server_state, data):
        at_clients = fedcore.federated_broadcast(server_state)
        weights = fedcore.federated_map(client_update_fn, (data, at_clients))
        mean_weights = fedcore.federated_mean(weights)
        return fedcore.federated_map(server_update_fn, (server_state, mean_weights))

    return fedcore.templates.IterativeProcess(initialize_fn, next_fn)


def evaluate(server_weights, dataset):
    """Loss and accuracy of the server's model, by Keras."""
    model = create_keras_model()
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.set_weights(server_weights)
    return model.evaluate(dataset, verbose=0)


def plot(history, folder):
    from matplotlib import pyplot as plt

    rounds, losses, accuracies = zip(*history)
    figure, axes = plt.subplots(layout="constrained")
    axes.plot(rounds, losses, "o-", label="loss")
    axes.plot(rounds, accuracies, "o-", label="accuracy")
    axes.set(xlabel="round", title="The server's model on held-out writers")
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "custom_algorithm.png", dpi=120)
    print(f"The picture is in {folder}")


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
        if round_num > 0:
            clients = rng.choice(train.client_ids, _CLIENTS.value, replace=False)
            data = [preprocess(train.create_tf_dataset_for_client(c)) for c in clients]
            state = algorithm.next(state, data)
        if round_num % 5 == 0 or round_num == _ROUNDS.value:
            loss, accuracy = evaluate(state["weights"], test_data)
            history.append((round_num, loss, accuracy))
            print(f"round {round_num:2d}  loss {loss:.4f}  accuracy {accuracy:.3f}")

    plot(history, pathlib.Path(_OUTPUT_DIR.value))


if __name__ == "__main__":
    app.run(main)
