"""Seed document 001, "Building Your Own Federated Learning Algorithm", line by line."""

import json

import numpy as np
import pytest
import seed_data
import tensorflow as tf

import fedcore
import fedlearn

NUM_CLIENTS = 10
BATCH_SIZE = 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def emnist():
    return seed_data.load_data()


def preprocess(dataset):
    def batch_format_fn(element):
        """Flatten a batch of EMNIST data and return a (features, label) tuple."""
        return (
            tf.reshape(element["pixels"], [-1, 784]),
            tf.reshape(element["label"], [-1, 1]),
        )

    return dataset.batch(BATCH_SIZE).map(batch_format_fn)


@pytest.fixture(scope="module", params=seed_data.ROADS.values(), ids=seed_data.ROADS)
def federated_train_data(emnist, request):
    emnist_train, _ = emnist
    client_ids = sorted(emnist_train.client_ids)[:NUM_CLIENTS]
    return [preprocess(request.param(emnist_train, x)) for x in client_ids]


def create_keras_model():
    return tf.keras.models.Sequential(
        [
            tf.keras.layers.InputLayer(shape=(784,)),
            tf.keras.layers.Dense(10, kernel_initializer="zeros"),
            tf.keras.layers.Softmax(),
        ]
    )


INPUT_SPEC = (
    tf.TensorSpec([None, 784], tf.float32),
    tf.TensorSpec([None, 1], tf.int32),
)


def model_fn():
    keras_model = create_keras_model()
    return fedlearn.from_keras_model(
        keras_model,
        input_spec=INPUT_SPEC,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


@tf.function
def client_update(model, dataset, server_weights, client_optimizer):
    """Performs training (using the server model weights) on the client's dataset."""
    # Initialize the client model with the current server weights.
    client_weights = model.trainable_variables
    # Assign the server weights to the client model.
    tf.nest.map_structure(lambda x, y: x.assign(y), client_weights, server_weights)

    # Use the client_optimizer to update the local model.
    for batch in dataset:
        with tf.GradientTape() as tape:
            # Compute a forward pass on the batch of data
            outputs = model.forward_pass(batch)

        # Compute the corresponding gradient
        grads = tape.gradient(outputs.loss, client_weights)
        grads_and_vars = zip(grads, client_weights)

        # Apply the gradient using a client optimizer.
        client_optimizer.apply_gradients(grads_and_vars)

    return client_weights


@tf.function
def server_update(model, mean_client_weights):
    """Updates the server model weights as the average of the client model weights."""
    model_weights = model.trainable_variables
    # Assign the mean client weights to the server model.
    tf.nest.map_structure(lambda x, y: x.assign(y), model_weights, mean_client_weights)
    return model_weights


def test_the_first_computations_and_their_types():
    federated_float_on_clients = fedcore.FederatedType(tf.float32, fedcore.CLIENTS)
    assert str(federated_float_on_clients) == "{float32}@CLIENTS"

    @fedcore.federated_computation(fedcore.FederatedType(tf.float32, fedcore.CLIENTS))
    def get_average_temperature(client_temperatures):
        return fedcore.federated_mean(client_temperatures)

    assert (
        str(get_average_temperature.type_signature)
        == "({float32}@CLIENTS -> float32@SERVER)"
    )
    mean = get_average_temperature([68.5, 70.3, 69.8])
    np.testing.assert_allclose(mean, 69.53334, rtol=1e-6)

    @fedcore.tf_computation(tf.float32)
    def add_half(x):
        return tf.add(x, 0.5)

    assert str(add_half.type_signature) == "(float32 -> float32)"

    @fedcore.federated_computation(fedcore.FederatedType(tf.float32, fedcore.CLIENTS))
    def add_half_on_clients(x):
        return fedcore.federated_map(add_half, x)

    assert (
        str(add_half_on_clients.type_signature)
        == "({float32}@CLIENTS -> {float32}@CLIENTS)"
    )
    assert add_half_on_clients([1.0, 2.0]) == [1.5, 2.5]


@pytest.fixture(scope="module")
def federated_algorithm():
    @fedcore.tf_computation
    def server_init():
        model = model_fn()
        return model.trainable_variables

    @fedcore.federated_computation
    def initialize_fn():
        return fedcore.federated_value(server_init(), fedcore.SERVER)

    dummy_model = model_fn()
    tf_dataset_type = fedcore.SequenceType(dummy_model.input_spec)
    assert str(tf_dataset_type) == "<float32[?,784],int32[?,1]>*"

    model_weights_type = server_init.type_signature.result
    assert str(model_weights_type) == "<float32[784,10],float32[10]>"

    @fedcore.tf_computation(tf_dataset_type, model_weights_type)
    def client_update_fn(tf_dataset, server_weights):
        model = model_fn()
        client_optimizer = tf.keras.optimizers.SGD(learning_rate=0.01)
        return client_update(model, tf_dataset, server_weights, client_optimizer)

    @fedcore.tf_computation(model_weights_type)
    def server_update_fn(mean_client_weights):
        model = model_fn()
        return server_update(model, mean_client_weights)

    federated_server_type = fedcore.FederatedType(model_weights_type, fedcore.SERVER)
    federated_dataset_type = fedcore.FederatedType(tf_dataset_type, fedcore.CLIENTS)

    @fedcore.federated_computation(federated_server_type, federated_dataset_type)
    def next_fn(server_weights, federated_dataset):
        # Broadcast the server weights to the clients.
        server_weights_at_client = fedcore.federated_broadcast(server_weights)

        # Each client computes their updated weights.
        client_weights = fedcore.federated_map(
            client_update_fn, (federated_dataset, server_weights_at_client)
        )

        # The server averages these updates.
        mean_client_weights = fedcore.federated_mean(client_weights)

        # The server updates its model.
        server_weights = fedcore.federated_map(server_update_fn, mean_client_weights)

        return server_weights

    return fedcore.templates.IterativeProcess(
        initialize_fn=initialize_fn, next_fn=next_fn
    )


def evaluate(server_state, dataset):
    keras_model = create_keras_model()
    keras_model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )
    keras_model.set_weights(server_state)
    return keras_model.evaluate(dataset, verbose=0)


def test_the_types_of_the_algorithm(federated_algorithm):
    assert (
        str(federated_algorithm.initialize.type_signature)
        == "( -> <float32[784,10],float32[10]>@SERVER)"
    )
    assert str(federated_algorithm.next.type_signature) == (
        "(<server_weights=<float32[784,10],float32[10]>@SERVER,"
        "federated_dataset={<float32[?,784],int32[?,1]>*}@CLIENTS> -> "
        "<float32[784,10],float32[10]>@SERVER)"
    )


def test_the_server_learns(federated_algorithm, federated_train_data, emnist):
    _, emnist_test = emnist
    central_emnist_test = emnist_test.create_tf_dataset_from_all_clients().take(1000)
    central_emnist_test = preprocess(central_emnist_test).cache()
    server_state = federated_algorithm.initialize()
    before, _ = evaluate(server_state, central_emnist_test)
    np.testing.assert_allclose(before, np.log(10), rtol=1e-4)
    for _ in range(15):
        server_state = federated_algorithm.next(server_state, federated_train_data)
    after, _ = evaluate(server_state, central_emnist_test)
    assert after < before - 0.1


def test_the_metrics_are_those_of_tff(
    federated_algorithm, federated_train_data, emnist, test_data
):
    path = test_data.parent / "goldens" / "tff_0_40_custom_algorithm.json"
    if not path.exists():
        pytest.skip(f"the goldens are not there: {path}")
    golden = json.loads(path.read_text())
    assert str(federated_algorithm.next.type_signature) == golden["next_type"]
    _, emnist_test = emnist
    clients = sorted(emnist_test.client_ids)[:60]
    datasets = [emnist_test.create_tf_dataset_for_client(c) for c in clients]
    pooled = datasets[0]
    for dataset in datasets[1:]:
        pooled = pooled.concatenate(dataset)
    pooled = preprocess(pooled)
    wanted = golden["eval_first_60_test_clients"]

    server_state = federated_algorithm.initialize()
    for round_num in range(16):
        if f"round_{round_num}" in wanted:
            loss, accuracy = evaluate(server_state, pooled)
            expected = wanted[f"round_{round_num}"]
            np.testing.assert_allclose(loss, expected["loss"], rtol=2e-4)
            differing = wanted["examples"] * abs(accuracy - expected["accuracy"])
            assert differing <= 3.01
        server_state = federated_algorithm.next(server_state, federated_train_data)
