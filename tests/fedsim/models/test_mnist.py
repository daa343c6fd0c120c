"""Keras models for digits."""

import keras
import numpy as np
import tensorflow as tf

from fedsim.datasets import emnist
from fedsim.models import mnist


def batches():
    data = emnist.get_synthetic().create_tf_dataset_for_client("synthetic1")
    converted = mnist.keras_dataset_from_emnist(data).batch(10)
    return converted.map(lambda e: (e["x"], e["y"]))


def test_dataset_from_emnist():
    data = emnist.get_synthetic().create_tf_dataset_for_client("synthetic1")
    converted = mnist.keras_dataset_from_emnist(data)
    assert list(converted.element_spec.items()) == [
        ("x", tf.TensorSpec([784], tf.float32)),
        ("y", tf.TensorSpec([], tf.int32)),
    ]
    one, other = next(iter(data)), next(iter(converted))
    np.testing.assert_array_equal(other["x"], np.ravel(one["pixels"]))


def test_simple_model_starts_at_zero_and_counts_examples():
    model = mnist.create_simple_keras_model(learning_rate=0.25)
    assert [w.shape for w in model.weights] == [(784, 10), (10,)]
    assert all((w.numpy() == 0).all() for w in model.trainable_weights)
    assert float(model.optimizer.learning_rate) == 0.25
    found = model.evaluate(batches(), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], np.log(10), rtol=1e-6)
    assert found["num_examples"] == 10
    np.testing.assert_allclose(model(np.zeros((2, 784))), 0.1, rtol=1e-6)


def test_simple_model_learns():
    model = mnist.create_simple_keras_model()
    model.fit(batches().repeat(30), shuffle=False, verbose=0)
    assert model.evaluate(batches(), verbose=0, return_dict=True)["loss"] < 1.5


def test_convolutional_model():
    model = mnist.create_keras_model()
    assert model.count_params() == 3_274_634
    assert model.output_shape == (None, 10)
    assert not model.compiled
    again = mnist.create_keras_model()
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_convolutional_model_compiled():
    model = mnist.create_keras_model(compile_model=True)
    assert model.compiled
    x, y = next(iter(batches()))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, model(x))
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], float(loss), rtol=1e-5)
