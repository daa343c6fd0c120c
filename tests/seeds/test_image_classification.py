"""Seed document 000, "Federated Learning for Image Classification", line by line.

The names are mapped, and what the document elides is filled in; the order is its own.
"""

import collections
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import seed_data
import tensorflow as tf

import fedcore
import fedlearn

NUM_CLIENTS = 10
NUM_EPOCHS = 5
BATCH_SIZE = 20
SHUFFLE_BUFFER = 100
PREFETCH_BUFFER = 10
NUM_ROUNDS = 11

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def emnist():
    return seed_data.load_data()


def preprocess(dataset):
    def batch_format_fn(element):
        """Flatten a batch `pixels` and return the features as an `OrderedDict`."""
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 784]),
            y=tf.reshape(element["label"], [-1, 1]),
        )

    return (
        dataset.repeat(NUM_EPOCHS)
        .shuffle(SHUFFLE_BUFFER, seed=1)
        .batch(BATCH_SIZE)
        .map(batch_format_fn)
        .prefetch(PREFETCH_BUFFER)
    )


def make_federated_data(client_data, client_ids, road=seed_data.ROADS["tf.data"]):
    return [preprocess(road(client_data, x)) for x in client_ids]


@pytest.fixture(scope="module", params=seed_data.ROADS.values(), ids=seed_data.ROADS)
def federated_train_data(emnist, request):
    emnist_train, _ = emnist
    sample_clients = emnist_train.client_ids[0:NUM_CLIENTS]
    return make_federated_data(emnist_train, sample_clients, request.param)


def create_keras_model():
    return tf.keras.models.Sequential(
        [
            tf.keras.layers.InputLayer(shape=(784,)),
            tf.keras.layers.Dense(10, kernel_initializer="zeros"),
            tf.keras.layers.Softmax(),
        ]
    )


@pytest.fixture(scope="module")
def model_fn(federated_train_data):
    spec = federated_train_data[0].element_spec

    def model_fn():
        # We _must_ create a new model here, and _not_ capture it from an external
        # scope.
        keras_model = create_keras_model()
        return fedlearn.from_keras_model(
            keras_model,
            input_spec=spec,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(),
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
        )

    return model_fn


def test_the_greeting():
    greeting = fedcore.federated_computation(lambda: "Hello, World!")()
    assert greeting == b"Hello, World!"


def test_looking_at_the_data(emnist, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    emnist_train, _ = emnist
    assert len(emnist_train.client_ids) >= NUM_CLIENTS
    assert emnist_train.element_type_structure == OrderedDict(
        [
            ("label", tf.TensorSpec(shape=(), dtype=tf.int32)),
            ("pixels", tf.TensorSpec(shape=(28, 28), dtype=tf.float32)),
        ]
    )
    example_dataset = emnist_train.create_tf_dataset_for_client(
        emnist_train.client_ids[0]
    )
    example_element = next(iter(example_dataset))
    assert 0 <= example_element["label"].numpy() <= 9
    plt.imshow(example_element["pixels"].numpy(), cmap="gray", aspect="equal")

    plt.figure(figsize=(20, 4))
    for j, example in enumerate(example_dataset.take(40)):
        plt.subplot(4, 10, j + 1)
        plt.imshow(example["pixels"].numpy(), cmap="gray", aspect="equal")

    f = plt.figure(figsize=(12, 7))
    f.suptitle("Label Counts for a Sample of Clients")
    for i in range(6):
        client_dataset = emnist_train.create_tf_dataset_for_client(
            emnist_train.client_ids[i]
        )
        plot_data = collections.defaultdict(list)
        for example in client_dataset:
            label = example["label"].numpy()
            plot_data[label].append(label)
        plt.subplot(2, 3, i + 1)
        plt.title(f"Client {i}")
        for j in range(10):
            plt.hist(
                plot_data[j], density=False, bins=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
            )

    plot_data = collections.defaultdict(list)
    for example in example_dataset:
        plot_data[example["label"].numpy()].append(example["pixels"].numpy())
    f = plt.figure(figsize=(12, 5))
    f.suptitle("Client #0's Mean Image Per Label")
    for j in [j for j in range(10) if plot_data[j]]:
        mean_img = np.mean(plot_data[j], 0)
        plt.subplot(2, 5, j + 1)
        plt.imshow(mean_img.reshape((28, 28)))
        plt.axis("off")
    f.savefig(tmp_path / "mean.png")
    assert (tmp_path / "mean.png").stat().st_size > 1000
    plt.close("all")


def test_preprocessing_gives_batches(federated_train_data):
    sample_batch = tf.nest.map_structure(
        lambda x: x.numpy(), next(iter(federated_train_data[0]))
    )
    assert list(sample_batch) == ["x", "y"]
    assert sample_batch["x"].shape == (20, 784)
    assert sample_batch["y"].shape == (20, 1)
    assert sample_batch["y"].dtype == np.int32
    assert len(federated_train_data) == NUM_CLIENTS


def test_ten_rounds_with_tensorboard(model_fn, federated_train_data, tmp_path):
    iterative_process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.02),
        server_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=1.0),
    )
    assert iterative_process.initialize.type_signature.formatted_representation() == (
        "( -> <\n"
        "  global_model_weights=<\n"
        "    trainable=<\n"
        "      float32[784,10],\n"
        "      float32[10]\n"
        "    >,\n"
        "    non_trainable=<>\n"
        "  >,\n"
        "  distributor=<>,\n"
        "  client_work=<>,\n"
        "  aggregator=<\n"
        "    value_sum_process=<>,\n"
        "    weight_sum_process=<>\n"
        "  >,\n"
        "  finalizer=<\n"
        "    int64\n"
        "  >\n"
        ">@SERVER)"
    )
    logdir = str(tmp_path / "logs")
    summary_writer = tf.summary.create_file_writer(logdir)
    state = iterative_process.initialize()
    losses = []
    with summary_writer.as_default():
        for round_num in range(1, NUM_ROUNDS):
            result = iterative_process.next(state, federated_train_data)
            state = result.state
            metrics = result.metrics
            assert list(metrics) == [
                "distributor",
                "client_work",
                "aggregator",
                "finalizer",
            ]
            for name, value in metrics["client_work"]["train"].items():
                tf.summary.scalar(name, value, step=round_num)
            losses.append(metrics["client_work"]["train"]["loss"])
    assert losses[-1] < 0.75 * losses[0]
    assert list((tmp_path / "logs").iterdir())


MnistVariables = collections.namedtuple(
    "MnistVariables", "weights bias num_examples loss_sum accuracy_sum"
)


def create_mnist_variables():
    return MnistVariables(
        weights=tf.Variable(
            lambda: tf.zeros(dtype=tf.float32, shape=(784, 10)),
            name="weights",
            trainable=True,
        ),
        bias=tf.Variable(
            lambda: tf.zeros(dtype=tf.float32, shape=(10)), name="bias", trainable=True
        ),
        num_examples=tf.Variable(0.0, name="num_examples", trainable=False),
        loss_sum=tf.Variable(0.0, name="loss_sum", trainable=False),
        accuracy_sum=tf.Variable(0.0, name="accuracy_sum", trainable=False),
    )


def predict_on_batch(variables, x):
    return tf.nn.softmax(tf.matmul(x, variables.weights) + variables.bias)


def mnist_forward_pass(variables, batch):
    y = predict_on_batch(variables, batch["x"])
    predictions = tf.cast(tf.argmax(y, 1), tf.int32)

    flat_labels = tf.reshape(batch["y"], [-1])
    loss = -tf.reduce_mean(
        tf.reduce_sum(tf.one_hot(flat_labels, 10) * tf.math.log(y), axis=[1])
    )
    accuracy = tf.reduce_mean(tf.cast(tf.equal(predictions, flat_labels), tf.float32))

    num_examples = tf.cast(tf.size(batch["y"]), tf.float32)

    variables.num_examples.assign_add(num_examples)
    variables.loss_sum.assign_add(loss * num_examples)
    variables.accuracy_sum.assign_add(accuracy * num_examples)

    return loss, predictions


def get_local_unfinalized_metrics(variables):
    return collections.OrderedDict(
        num_examples=[variables.num_examples],
        loss=[variables.loss_sum, variables.num_examples],
        accuracy=[variables.accuracy_sum, variables.num_examples],
    )


def get_metric_finalizers():
    return collections.OrderedDict(
        num_examples=tf.function(func=lambda x: x[0]),
        loss=tf.function(func=lambda x: x[0] / x[1]),
        accuracy=tf.function(func=lambda x: x[0] / x[1]),
    )


class MnistModel(fedlearn.Model):
    def __init__(self):
        self._variables = create_mnist_variables()

    @property
    def trainable_variables(self):
        return [self._variables.weights, self._variables.bias]

    @property
    def non_trainable_variables(self):
        return []

    @property
    def local_variables(self):
        return [
            self._variables.num_examples,
            self._variables.loss_sum,
            self._variables.accuracy_sum,
        ]

    @property
    def input_spec(self):
        return collections.OrderedDict(
            x=tf.TensorSpec([None, 784], tf.float32),
            y=tf.TensorSpec([None, 1], tf.int32),
        )

    @tf.function
    def predict_on_batch(self, x, training=True):
        del training
        return predict_on_batch(self._variables, x)

    @tf.function
    def forward_pass(self, batch, training=True):
        del training
        loss, predictions = mnist_forward_pass(self._variables, batch)
        num_exmaples = tf.shape(batch["x"])[0]
        return fedlearn.BatchOutput(
            loss=loss, predictions=predictions, num_examples=num_exmaples
        )

    @tf.function
    def report_local_unfinalized_metrics(self) -> OrderedDict[str, list[tf.Tensor]]:
        """Creates an `OrderedDict` of metric names to unfinalized values."""
        return get_local_unfinalized_metrics(self._variables)

    def metric_finalizers(
        self,
    ) -> OrderedDict[str, Callable[[list[tf.Tensor]], tf.Tensor]]:
        """Creates an `OrderedDict` of metric names to finalizers."""
        return get_metric_finalizers()

    @tf.function
    def reset_metrics(self):
        """Resets metrics variables to initial value."""
        for var in self.local_variables:
            var.assign(tf.zeros_like(var))


def test_a_hand_written_model_is_the_same_as_one_of_keras(emnist, model_fn):
    emnist_train, _ = emnist
    first_rounds = []
    for make_model in (MnistModel, model_fn):
        process = fedlearn.algorithms.build_weighted_fed_avg(
            make_model,
            client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.02),
        )
        # Made anew for each: a shuffled dataset has another order the second time.
        data = make_federated_data(emnist_train, emnist_train.client_ids[:NUM_CLIENTS])
        output = process.next(process.initialize(), data)
        first_rounds.append(output.metrics["client_work"]["train"]["loss"])
    np.testing.assert_allclose(*first_rounds, rtol=1e-4)


def test_a_hand_written_model_trains_and_is_evaluated(emnist, federated_train_data):
    iterative_process = fedlearn.algorithms.build_weighted_fed_avg(
        MnistModel,
        client_optimizer_fn=lambda: tf.keras.optimizers.SGD(learning_rate=0.02),
    )
    state = iterative_process.initialize()
    rounds = []
    for _ in range(1, NUM_ROUNDS):
        result = iterative_process.next(state, federated_train_data)
        state = result.state
        rounds.append(result.metrics["client_work"]["train"])
    assert list(rounds[0]) == ["num_examples", "loss", "accuracy"]
    assert rounds[-1]["loss"] < 0.75 * rounds[0]["loss"]

    evaluation = fedlearn.build_federated_evaluation(MnistModel)
    assert str(evaluation.type_signature) == (
        "(<server_model_weights=<trainable=<float32[784,10],float32[10]>,"
        "non_trainable=<>>@SERVER,federated_dataset={<x=float32[?,784],y=int32[?,1]>*}"
        "@CLIENTS> -> <eval=<num_examples=float32,loss=float32,accuracy=float32>>"
        "@SERVER)"
    )
    model_weights = iterative_process.get_model_weights(state)
    train_metrics = evaluation(model_weights, federated_train_data)
    assert train_metrics["eval"]["loss"] < 0.75 * rounds[0]["loss"]

    emnist_train, emnist_test = emnist
    sample_clients = emnist_train.client_ids[0:NUM_CLIENTS]
    federated_test_data = make_federated_data(emnist_test, sample_clients)
    test_metrics = evaluation(model_weights, federated_test_data)
    assert (
        0 < test_metrics["eval"]["num_examples"] < train_metrics["eval"]["num_examples"]
    )
    assert test_metrics["eval"]["accuracy"] > 0.3
