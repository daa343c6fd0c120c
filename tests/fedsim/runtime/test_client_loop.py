"""Rounds of real models are the same on every road: columnar, tf.data, reference."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounds import (
    activity_regularizer,
    against_last,
    assert_rounds_are_one,
    assert_same,
    averaging,
    batch_normalization,
    centred,
    columnar,
    convolution,
    dense,
    gaussian_noise,
    kernel_regularizer,
    layer_normalization,
    loss_of,
    model_fn,
    rounds,
    seeded_dropout,
    sgd,
    two_epochs,
    unseeded_dropout,
)

from fedlearn.algorithms import build_fed_eval, build_weighted_fed_avg
from fedsim import runtime

LAYERS = [
    activity_regularizer,
    batch_normalization,
    convolution,
    dense,
    gaussian_noise,
    kernel_regularizer,
    layer_normalization,
    seeded_dropout,
    unseeded_dropout,
]


@pytest.mark.filterwarnings("ignore:.*BatchNorm.*")
@pytest.mark.parametrize("layers", LAYERS, ids=lambda f: f.__name__)
def test_training_is_the_same_on_every_road(layers):
    assert_rounds_are_one(averaging(layers))


@pytest.mark.filterwarnings("ignore:.*BatchNorm.*")
@pytest.mark.parametrize(
    "layers", [dense, batch_normalization, unseeded_dropout], ids=lambda f: f.__name__
)
def test_evaluation_is_the_same_on_every_road(layers):
    process = build_fed_eval(model_fn(layers))
    assert_rounds_are_one(process, lambda d: d.batch(4), number=1)


def test_dropout_differs_between_clients_and_seeds():
    process = averaging(unseeded_dropout)
    one, same, other = (
        rounds(process, columnar(two_epochs), runtime.local_context(seed=seed))
        for seed in (5, 5, 6)
    )
    assert_same(same, one, tolerance=0)
    assert not all(np.array_equal(a, b) for a, b in zip(one, other))


def tokens(seed, n):
    rng = np.random.default_rng(seed)
    return collections.OrderedDict(
        x=rng.integers(0, 7, (n, 5)).astype(np.int64),
        y=rng.integers(0, 3, n).astype(np.int32),
    )


@pytest.mark.slow
def test_embedding_and_lstm():
    def layers():
        return [
            keras.layers.Embedding(7, 4),
            keras.layers.LSTM(3),
            keras.layers.Dense(3),
        ]

    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 5], tf.int64), y=tf.TensorSpec([None], tf.int32)
    )
    process = build_weighted_fed_avg(model_fn(layers, spec=spec), sgd)
    assert_rounds_are_one(process, make=tokens)


def test_embedding():
    def layers():
        return [
            keras.layers.Embedding(7, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]

    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 5], tf.int64), y=tf.TensorSpec([None], tf.int32)
    )
    process = build_weighted_fed_avg(model_fn(layers, spec=spec), sgd)
    assert_rounds_are_one(process, make=tokens)


# --- Losses that look at a batch as a whole -----------------------------------------


def running_sum(y, p):
    return tf.square(tf.cumsum(p) - tf.cumsum(y)[:, None])


def ranked(y, p):
    return tf.square(tf.sort(p, 0) - tf.sort(y)[:, None])


def halves(y, p):
    return tf.square(p[: tf.shape(p)[0] // 2]) + tf.reduce_sum(y)


def reversed_rows(y, p):
    return tf.square(p - tf.reverse(p, [0]) - y[:, None])


def over_length(y, p):
    return tf.square(p - y[:, None]) * tf.cast(tf.shape(p)[0], tf.float32)


@pytest.mark.parametrize(
    "per_batch",
    [
        against_last,
        centred,
        halves,
        over_length,
        ranked,
        reversed_rows,
        running_sum,
    ],
    ids=lambda f: f.__name__,
)
def test_a_loss_of_the_batch_as_a_whole(per_batch):
    fn = model_fn(dense, loss_of(per_batch), metrics=False)
    assert_rounds_are_one(
        build_weighted_fed_avg(fn, lambda: keras.optimizers.SGD(0.01))
    )


def weighted_examples(seed, n):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    weight = rng.uniform(0.1, 2.0, n)
    return collections.OrderedDict(
        x=rng.normal(size=(n, 6)).astype(np.float32),
        y=np.stack([label, weight], 1).astype(np.float32),
    )


def test_a_loss_that_weighs_the_examples():
    def weighed(y, p):
        label, weight = tf.cast(y[:, 0], tf.int32), y[:, 1]
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(label, p)
        return weight * each / tf.reduce_sum(weight)

    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 6], tf.float32), y=tf.TensorSpec([None, 2], tf.float32)
    )
    fn = model_fn(dense, loss_of(weighed), spec, metrics=False)
    assert_rounds_are_one(build_weighted_fed_avg(fn, sgd), make=weighted_examples)
