"""A masked step is the step on the rows that count."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedlearn
from fedlearn.models import ModelWeights
from fedlearn.models._pure import pure_model
from fedsim import runtime
from fedsim.datasets.columnar import Columns
from fedsim.runtime import _kernel

CLASSES = keras.losses.SparseCategoricalCrossentropy
ACCURACY = keras.metrics.SparseCategoricalAccuracy


def spec(y_dtype=tf.int32, y_shape=()):
    return collections.OrderedDict(
        x=tf.TensorSpec([None, 4], tf.float32),
        y=tf.TensorSpec([None, *y_shape], y_dtype),
    )


def layers(*more, **dense):
    return [keras.layers.Input((4,)), keras.layers.Dense(3, **dense), *more]


def pure(made_layers=layers, loss=None, metrics=(ACCURACY,), input_spec=None):
    def model_fn():
        return fedlearn.from_keras_model(
            keras.Sequential(made_layers()),
            loss or CLASSES(from_logits=True),
            input_spec or spec(),
            metrics=[metric() for metric in metrics],
        )

    return pure_model(model_fn)


def regression(loss, metrics=()):
    return pure(loss=loss, metrics=metrics, input_spec=spec(tf.float32, (3,)))


def batch_of(model, rows):
    rng = np.random.default_rng(1)
    y = model.input_spec["y"]
    shape = [rows, *y.shape[1:]]
    labels = (
        rng.integers(0, 3, shape)
        if y.dtype.is_integer
        else rng.uniform(0.1, 0.9, shape)
    )
    return collections.OrderedDict(
        x=tf.constant(rng.normal(size=[rows, 4]), tf.float32),
        y=tf.constant(labels, y.dtype),
    )


def one_step(model, batch, mask=None):
    rng = np.random.default_rng(2)
    weights = ModelWeights(
        [
            tf.constant(rng.normal(size=t.shape), tf.float32)
            for t in model.weights_type.trainable
        ],
        [],
    )
    with tf.GradientTape() as tape:
        tape.watch(weights.trainable)
        if mask is None:
            output, _, _ = model.forward(weights, [], batch, True)
            metrics = model.update_metrics(model.begin_metrics(), batch, output)
        else:
            output, _, _ = model.masked.forward(weights, [], batch, True, mask)
            metrics = model.masked.update_metrics(
                model.begin_metrics(), batch, output, mask
            )
    gradients = tape.gradient(output.loss, weights.trainable)
    return output.loss, output.num_examples, gradients, metrics


CASES = {
    "classes": pure,
    "sum": lambda: pure(loss=CLASSES(from_logits=True, reduction="sum")),
    "deep": lambda: pure(
        lambda: layers(keras.layers.ReLU(), keras.layers.Dense(3, "softmax")),
        loss=CLASSES(),
    ),
    "regularised": lambda: pure(lambda: layers(kernel_regularizer="l2")),
    "squares": lambda: regression(
        keras.losses.MeanSquaredError(), (keras.metrics.MeanAbsoluteError,)
    ),
    "huber": lambda: regression(
        keras.losses.Huber(), (keras.metrics.RootMeanSquaredError,)
    ),
    "binary": lambda: regression(
        keras.losses.BinaryCrossentropy(from_logits=True),
        (keras.metrics.BinaryAccuracy,),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_a_masked_step_is_the_step_on_the_rows_that_count(case, rows):
    model = CASES[case]()
    whole = batch_of(model, 5)
    part = tf.nest.map_structure(lambda t: t[:rows], whole)
    filled = tf.nest.map_structure(
        lambda t: tf.concat([t[:rows], tf.repeat(t[:1], 5 - rows, 0)], 0), whole
    )
    mask = tf.cast(tf.range(5) < rows, tf.float32)
    found = tf.nest.flatten(one_step(model, filled, mask))
    wanted = tf.nest.flatten(one_step(model, part))
    assert [t.dtype for t in found] == [t.dtype for t in wanted]
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@keras.saving.register_keras_serializable("fedlearn_tests")
class Centred(keras.layers.Layer):
    def call(self, inputs):
        return inputs - tf.reduce_mean(inputs, axis=0)


class OwnLoss(CLASSES):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) * tf.cast(tf.shape(y_pred)[0], tf.float32)


class OwnMetric(ACCURACY):
    pass


REFUSED = {
    "batch normalisation": lambda: pure(
        lambda: layers(keras.layers.BatchNormalization())
    ),
    "dropout": lambda: pure(lambda: layers(keras.layers.Dropout(0.5))),
    "a layer of one's own": lambda: pure(lambda: layers(Centred())),
    "an activation of one's own": lambda: pure(
        lambda: layers(activation=lambda x: x - tf.reduce_mean(x))
    ),
    "activity regularisation": lambda: pure(lambda: layers(activity_regularizer="l2")),
    "a loss of one's own": lambda: pure(loss=OwnLoss(from_logits=True)),
    "hinge": lambda: regression(keras.losses.Hinge()),
    "an ignored class": lambda: pure(loss=CLASSES(from_logits=True, ignore_class=1)),
    "a metric of one's own": lambda: pure(metrics=(OwnMetric,)),
    "a metric over thresholds": lambda: regression(
        keras.losses.MeanSquaredError(), (keras.metrics.AUC,)
    ),
}


@pytest.mark.filterwarnings("ignore:Batch normalisation")
@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_assumed_of_what_is_not_recognised(case):
    model = REFUSED[case]()
    assert model is not None
    assert model.masked is None


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self(tf.zeros([1, 4]))

    def call(self, inputs):
        return self.dense(inputs) - tf.reduce_mean(inputs)


def functional(inner):
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(inputs))


@pytest.mark.parametrize(
    ("make", "is_masked"),
    [
        (lambda: functional(keras.layers.Dense(3)), True),
        (
            lambda: functional(lambda x: keras.ops.flip(keras.layers.Dense(3)(x), 0)),
            False,
        ),
        (Subclassed, False),
    ],
)
def test_a_graph_of_layers_is_recognised(make, is_masked):
    model = pure_model(
        lambda: fedlearn.from_keras_model(make(), CLASSES(from_logits=True), spec())
    )
    assert (model.masked is not None) == is_masked


SIZES = (7, 12, 3, 5)


def columns(first_row=1.0):
    """Clients' rows; `first_row` is what the first row of all holds."""
    rng = np.random.default_rng(3)
    clients = []
    for i, n in enumerate(SIZES):
        x = rng.normal(size=(n, 4)).astype(np.float32)
        x[0] *= first_row if i == 0 else 1
        y = rng.integers(0, 3, n).astype(np.int32)
        clients.append((str(i), collections.OrderedDict(x=x, y=y)))
    return Columns.from_clients(clients)


def scaled(batch):
    return collections.OrderedDict(x=batch["x"] * 2, y=batch["y"])


def centred(batch):
    x = batch["x"]
    return collections.OrderedDict(x=x - tf.reduce_mean(x, 0), y=batch["y"])


def one_round(context, mapped, clients=(0, 1, 2, 3), rows=None):
    def model_fn():
        model = keras.Sequential(layers(kernel_initializer="ones"))
        return fedlearn.from_keras_model(model, CLASSES(from_logits=True), spec())

    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn, lambda: keras.optimizers.SGD(0.1)
    )
    rows = rows or columns()
    data = [rows.dataset(str(i)).repeat(2).batch(4).map(mapped) for i in clients]
    with fedcore.context.use(context):
        output = process.next(process.initialize(), data)
    roads = [str(road) for road in context._workers.roads.values()]
    return tf.nest.flatten((output.state.global_model_weights, output.metrics)), roads


@pytest.mark.parametrize(("mapped", "is_masked"), [(scaled, True), (centred, False)])
def test_a_round_with_masks_is_the_round_without_xla(mapped, is_masked):
    found, roads = one_round(runtime.local_context(seed=1), mapped)
    wanted, _ = one_round(runtime.local_context(seed=1, xla=False), mapped)
    assert (roads == ["columnar, XLA (masked)"]) == is_masked
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_no_row_of_another_client_fills_a_batch_up():
    rows = columns(first_row=np.nan)
    found, roads = one_round(runtime.local_context(seed=1), scaled, (1, 2, 3), rows)
    assert roads == ["columnar, XLA (masked)"]
    assert np.isfinite(found[0]).all()


def test_a_masked_kernel_is_made_alone():
    before = _kernel.kernels_made.count
    one_round(runtime.local_context(seed=1), scaled)
    assert _kernel.kernels_made.count == before + 1
