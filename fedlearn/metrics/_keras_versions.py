"""Which Keras an object comes from: the one place that knows there are two."""

from __future__ import annotations

import sys
from typing import Any

import keras


def is_metric(value: Any) -> bool:
    """Whether `value` is a Keras 3 metric."""
    return isinstance(value, keras.metrics.Metric)


def is_loss(value: Any) -> bool:
    """Whether `value` is a Keras 3 loss."""
    return isinstance(value, keras.losses.Loss)


def is_model(value: Any) -> bool:
    """Whether `value` is a Keras 3 model."""
    return isinstance(value, keras.Model)


def is_keras_2(value: Any) -> bool:
    """Whether `value` is a model, layer, loss or metric of `tf_keras` (Keras 2).

    `tf_keras` is never imported for this: an object of it can only be here if somebody
    else has imported it.
    """
    tf_keras = sys.modules.get("tf_keras")
    if tf_keras is None:
        return False
    layer, loss = tf_keras.layers.Layer, tf_keras.losses.Loss
    return isinstance(value, (layer, loss))


def check_not_keras_2(function: str, argument: str, value: Any) -> None:
    """Raises a `TypeError` that says what to do if `value` is an object of Keras 2."""
    if is_keras_2(value):
        raise TypeError(
            f"`{function}` needs Keras 3 objects, found a `{type(value).__name__}` of "
            f"tf_keras (Keras 2) at `{argument}`.\n"
            "Build it with `keras`; `tf.keras` is Keras 3 unless TF_USE_LEGACY_KERAS=1 "
            "is set."
        )
