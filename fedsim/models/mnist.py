"""Keras models for MNIST-like digits."""

from __future__ import annotations

import collections

import keras
import tensorflow as tf


class _NumExamples(keras.metrics.Sum):
    """Counts the examples seen."""

    def __init__(self, name: str = "num_examples", dtype: str = "int64"):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(keras.ops.shape(y_pred)[0], sample_weight)


def create_simple_keras_model(learning_rate: float = 0.1) -> keras.Model:
    """Makes a compiled softmax regression: one dense layer that starts at zero.

    Args:
        learning_rate: Of plain SGD.

    Returns:
        A `keras.Model` from `float32[?,784]` to the probabilities of ten digits,
        `float32[?,10]`.
    """
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(10, activation="softmax", kernel_initializer="zeros"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(), _NumExamples()],
    )
    return model


def keras_dataset_from_emnist(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns EMNIST examples into what `create_simple_keras_model` takes.

    Args:
        dataset: `<label=int32,pixels=float32[28,28]>*`.

    Returns:
        `<x=float32[784],y=int32>*`.
    """
    return dataset.map(
        lambda example: collections.OrderedDict(
            x=tf.reshape(example["pixels"], [784]), y=example["label"]
        )
    )


def create_keras_model(compile_model: bool = False) -> keras.Model:
    """Makes a convolutional network for digits, with the same weights each time.

    Two 5x5 convolutions (32 and 64 filters), each with 2x2 max pooling, a dense layer
    of 1024 units with dropout, and ten outputs.

    Args:
        compile_model: Compiles the model with SGD and the cross-entropy of logits.

    Returns:
        A `keras.Model` from `float32[?,784]` to ten logits, `float32[?,10]`.
    """
    seeds = iter(range(1, 5))

    def normal():
        return keras.initializers.RandomNormal(seed=next(seeds))

    def convolution(filters):
        return keras.layers.Conv2D(
            filters, 5, padding="same", activation="relu", kernel_initializer=normal()
        )

    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Reshape((28, 28, 1)),
            convolution(32),
            keras.layers.MaxPooling2D(2, padding="same"),
            convolution(64),
            keras.layers.MaxPooling2D(2, padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(1024, activation="relu", kernel_initializer=normal()),
            keras.layers.Dropout(0.4, seed=1),
            keras.layers.Dense(10, kernel_initializer=normal()),
        ]
    )
    if compile_model:
        model.compile(
            optimizer=keras.optimizers.SGD(0.1),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy()],
        )
    return model
