"""Rounds of small models over uneven clients, to compare roads and contexts with."""

import collections
import functools

import keras
import numpy as np
import tensorflow as tf

import fedcore
import fedlearn
from fedlearn.algorithms import build_weighted_fed_avg
from fedsim import runtime
from fedsim.datasets.columnar import Columns

# An empty client, clients of less than a batch, and of whole and partial batches.
SIZES = (7, 0, 12, 3, 5)
SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 6], tf.float32), y=tf.TensorSpec([None], tf.int32)
)


def examples(seed, n):
    rng = np.random.default_rng(seed)
    return collections.OrderedDict(
        x=rng.normal(size=(n, 6)).astype(np.float32),
        y=rng.integers(0, 3, n).astype(np.int32),
    )


@functools.cache
def columns(make=examples):
    return Columns.from_clients([(str(i), make(i, n)) for i, n in enumerate(SIZES)])


def columnar(form, make=examples):
    return [form(columns(make).dataset(str(i))) for i in range(len(SIZES))]


def tf_data(form, make=examples):
    return [
        form(tf.data.Dataset.from_tensor_slices(make(i, n)))
        for i, n in enumerate(SIZES)
    ]


ROADS = {"columnar": columnar, "tf.data": tf_data}


def two_epochs(dataset):
    return dataset.repeat(2).batch(4)


def rounds(process, data, context, number=2):
    """The states and metrics of some rounds from the first state, as flat arrays."""
    results = []
    with fedcore.context.use(context):
        state = process.initialize()
        for _ in range(number):
            output = process.next(state, data)
            state = output.state
            results.append((state, output.metrics))
    return [np.asarray(leaf) for leaf in tf.nest.flatten(results)]


def assert_same(found, wanted, tolerance=1e-5):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if tolerance and b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, tolerance, tolerance)
        else:
            np.testing.assert_array_equal(a, b)


def assert_rounds_are_one(process, form=two_epochs, make=examples, number=2):
    """Columnar and tf.data rounds equal the reference's, on tf.data."""
    wanted = rounds(
        process, tf_data(form, make), runtime.reference_context(seed=5), number
    )
    assert all(np.isfinite(leaf).all() for leaf in wanted if leaf.dtype.kind == "f")
    for road in ROADS.values():
        context = runtime.local_context(seed=5)
        assert_same(rounds(process, road(form, make), context, number), wanted)


# --- Models -------------------------------------------------------------------------


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def model_fn(layers, loss=crossentropy, spec=SPEC, metrics=True):
    def fn():
        inputs = keras.Input(spec["x"].shape[1:], dtype=spec["x"].dtype)
        return fedlearn.from_keras_model(
            keras.Sequential([inputs, *layers()]),
            loss(),
            spec,
            metrics=[keras.metrics.SparseCategoricalAccuracy()] if metrics else None,
        )

    return fn


def dense():
    return [keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)]


def convolution():
    return [
        keras.layers.Reshape((3, 2, 1)),
        keras.layers.Conv2D(4, 2, padding="same", activation="relu"),
        keras.layers.MaxPooling2D((2, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]


def batch_normalization():
    return [
        keras.layers.Dense(5),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("tanh"),
        keras.layers.Dense(3),
    ]


def seeded_dropout():
    return [keras.layers.Dense(8), keras.layers.Dropout(0.5, seed=3), *dense()]


def unseeded_dropout():
    return [keras.layers.Dense(8), keras.layers.Dropout(0.5), *dense()]


def activity_regularizer():
    return [keras.layers.Dense(5, activity_regularizer="l2"), keras.layers.Dense(3)]


def kernel_regularizer():
    l2 = keras.regularizers.L2(0.1)
    return [keras.layers.Dense(5, kernel_regularizer=l2), keras.layers.Dense(3)]


def layer_normalization():
    return [keras.layers.LayerNormalization(), *dense()]


def gaussian_noise():
    return [keras.layers.GaussianNoise(0.3), *dense()]


def sgd():
    return keras.optimizers.SGD(0.1)


@functools.cache
def averaging(layers):
    return build_weighted_fed_avg(model_fn(layers), sgd)


def loss_of(per_batch):
    class Loss(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return per_batch(tf.cast(y_true, tf.float32), y_pred)

    return Loss


def centred(y, p):
    return tf.square(p - tf.reduce_mean(p, 0) - y[:, None])


def against_last(y, p):
    return tf.square(p - p[-1]) + tf.abs(y[:, None] - p)
