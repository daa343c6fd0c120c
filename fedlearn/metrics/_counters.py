"""Keras metrics that count examples and batches."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def num_rows(value: Any) -> tf.Tensor:
    """The size of the first dimension of the first tensor in `value`."""
    first = tf.nest.flatten(value)[0]
    if isinstance(first, tf.RaggedTensor):
        return first.nrows()
    return tf.shape(first)[0]


class NumExamplesCounter(keras.metrics.Sum):
    """Counts the examples seen: the rows of the predictions of each batch."""

    def __init__(self, name: str = "num_examples", dtype: Any = tf.int64):
        super().__init__(name=name, dtype=keras.backend.standardize_dtype(dtype))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds the number of rows of `y_pred`.

        Args:
            y_true: Labels of the batch; not looked at.
            y_pred: Predictions for the batch, a tensor or a structure of tensors.
            sample_weight: Not looked at.
        """
        del y_true, sample_weight
        self.total.assign_add(tf.cast(num_rows(y_pred), self.dtype))


class NumBatchesCounter(keras.metrics.Sum):
    """Counts the batches seen."""

    def __init__(self, name: str = "num_batches", dtype: Any = tf.int64):
        super().__init__(name=name, dtype=keras.backend.standardize_dtype(dtype))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds one.

        Args:
            y_true: Labels of the batch; not looked at.
            y_pred: Predictions for the batch; not looked at.
            sample_weight: Not looked at.
        """
        del y_true, y_pred, sample_weight
        self.total.assign_add(tf.constant(1, self.dtype))
