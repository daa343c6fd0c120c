"""Keras randomness without a seed: fresh in each run, decided by the hidden seed."""

import random

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from fedcore.tensorflow import _graph, tf_computation

F32 = tf.TensorSpec([], tf.float32)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def runs(computation, as_arrays, *args, seed=None):
    result = as_arrays(computation(*args, seed=seed))
    assert all(np.isfinite(array).all() for array in result)
    return result


def check_seeds(computation, as_arrays, *args):
    """Same seed, same bits; other seed or none, other bits; two traces, same bytes."""
    assert computation.executable.has_seed
    assert computation.graph == computation.again
    first = runs(computation, as_arrays, *args, seed=[1, 2])
    assert same(first, runs(computation, as_arrays, *args, seed=[1, 2]))
    assert not same(first, runs(computation, as_arrays, *args, seed=[1, 3]))
    assert not same(first, runs(computation, as_arrays, *args, seed=[2, 2]))
    fresh = runs(computation, as_arrays, *args)
    assert not same(fresh, runs(computation, as_arrays, *args))


def initial_weights():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(3)])
    return model.trainable_variables


def test_initial_weights(traced, as_arrays):
    computation = traced(initial_weights)
    check_seeds(computation, as_arrays)
    kernels = runs(computation, as_arrays, seed=[5, 6])
    assert not np.array_equal(kernels[0][:3], kernels[2])
    limit = np.sqrt(6 / 7)
    assert np.abs(kernels[0]).max() <= limit


def test_dropout_in_training(traced, as_arrays, train, batches_spec, batches):
    def build():
        return keras.Sequential(
            [
                layers.Input((4,)),
                layers.Dropout(0.5),
                layers.Dense(3, kernel_initializer="ones"),
            ]
        )

    fit = train(build, lambda: keras.optimizers.SGD(0.1))
    check_seeds(traced(fit, batches_spec()), as_arrays, batches())


def test_the_global_generator(traced, as_arrays):
    def fn(x):
        return keras.random.normal((3,)) * x, keras.random.normal((3,))

    computation = traced(fn, F32)
    check_seeds(computation, as_arrays, 1.0)
    first, second = runs(computation, as_arrays, 1.0, seed=[1, 2])
    assert not np.array_equal(first, second)


def test_a_seeded_draw_needs_no_hidden_seed(traced, as_arrays):
    def fn(x):
        return keras.random.normal((3,), seed=4) * x

    computation = traced(fn, F32)
    assert not computation.executable.has_seed
    np.testing.assert_array_equal(
        computation(1.0).numpy(), keras.random.normal((3,), seed=4).numpy()
    )


def test_one_unseeded_initializer_gives_the_same_values_each_time(traced, as_arrays):
    def fn():
        initializer = keras.initializers.RandomNormal()
        other = keras.initializers.RandomNormal()
        return initializer((3,)), initializer((3,)), other((3,))

    one, two, other = runs(traced(fn), as_arrays, seed=[1, 2])
    np.testing.assert_array_equal(one, two)  # as in eager Keras
    assert not np.array_equal(one, other)


_OUTSIDE = keras.initializers.RandomNormal()


def test_an_unseeded_initializer_made_outside(traced, as_arrays):
    computation = traced(lambda: _OUTSIDE((3,)))
    check_seeds(computation, as_arrays)


def test_keras_outside_a_trace_is_as_before():
    np.testing.assert_array_equal(_OUTSIDE((3,)).numpy(), _OUTSIDE((3,)).numpy())
    layer = layers.Dropout(0.5)
    ones = np.ones([1000], np.float32)
    first, second = layer(ones, training=True), layer(ones, training=True)
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(3)
    drawn = keras.random.normal((3,)).numpy()
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(drawn, keras.random.normal((3,)).numpy())


def test_a_trace_leaves_the_random_state_of_python_and_keras_alone(traced):
    keras.utils.set_random_seed(3)
    expected = (random.random(), keras.random.normal((3,)).numpy())
    keras.utils.set_random_seed(3)
    traced(initial_weights)
    traced(lambda: keras.random.normal((3,)))
    assert random.random() == expected[0]
    np.testing.assert_array_equal(keras.random.normal((3,)).numpy(), expected[1])


def test_a_call_in_a_computation_draws_from_its_seed(traced, as_arrays):
    inner = tf_computation(lambda: keras.random.normal((3,)))

    def fn():
        return inner(), inner()

    computation = traced(fn)
    check_seeds(computation, as_arrays)
    first, second = runs(computation, as_arrays, seed=[1, 2])
    assert not np.array_equal(first, second)


def test_a_call_in_a_loop_draws_anew_each_time(traced, as_arrays):
    inner = tf_computation(lambda: keras.random.normal(()))

    def fn():
        drawn = tf.TensorArray(tf.float32, 4)
        for i in tf.range(4):
            drawn = drawn.write(i, inner())
        return drawn.stack()

    computation = traced(fn)
    check_seeds(computation, as_arrays)
    (drawn,) = runs(computation, as_arrays, seed=[1, 2])
    assert len(set(drawn.tolist())) == 4


def test_stateful_tensorflow_randomness_is_left_alone(traced):
    computation = traced(lambda: tf.random.normal([3]))
    assert not computation.executable.has_seed
    assert not np.array_equal(computation().numpy(), computation().numpy())


def test_a_fresh_seed_is_two_int32():
    seed = _graph.fresh_seed()
    assert seed.shape == (2,)
    assert seed.dtype == np.int32
