"""Which Keras an object comes from: the one place that knows there are two."""

from __future__ import annotations

import sys
from typing import Any

import keras

_KERAS_3, _KERAS_2 = "keras (Keras 3)", "tf_keras (Keras 2)"


def is_metric(value: Any) -> bool:
    """Whether `value` is a metric of Keras 3 or of Keras 2."""
    return isinstance(value, (keras.metrics.Metric, *_of_keras_2("metrics", "Metric")))


def is_loss(value: Any) -> bool:
    """Whether `value` is a loss of Keras 3 or of Keras 2."""
    return isinstance(value, (keras.losses.Loss, *_of_keras_2("losses", "Loss")))


def is_model(value: Any) -> bool:
    """Whether `value` is a model of Keras 3 or of Keras 2."""
    return isinstance(value, (keras.Model, *_of_keras_2("models", "Model")))


def is_batch_normalization(value: Any) -> bool:
    """Whether `value` is a batch normalisation of Keras 3 or of Keras 2."""
    name = "BatchNormalization"
    kinds = (keras.layers.BatchNormalization, *_of_keras_2("layers", name))
    return isinstance(value, kinds)


def is_compiled(model: Any) -> bool:
    """Whether `compile` was called on a model."""
    return model._is_compiled if is_keras_2(model) else model.compiled


def is_keras_2(value: Any) -> bool:
    """Whether `value` is a model, layer, loss or metric of `tf_keras` (Keras 2).

    `tf_keras` is never imported for this: an object of it can only be here if somebody
    else has imported it.
    """
    kinds = (*_of_keras_2("layers", "Layer"), *_of_keras_2("losses", "Loss"))
    return isinstance(value, kinds)


def _of_keras_2(module: str, name: str) -> tuple[type, ...]:
    found = getattr(sys.modules.get("tf_keras"), module, None)
    return (getattr(found, name),) if hasattr(found, name) else ()


def check_not_keras_2(function: str, argument: str, value: Any) -> None:
    """Raises a `TypeError` that says what to do if `value` is an object of Keras 2."""
    if is_keras_2(value):
        raise TypeError(
            f"`{function}` needs Keras 3 objects, found a `{type(value).__name__}` of "
            f"{_KERAS_2} at `{argument}`.\n"
            "Build it with `keras`; `tf.keras` is Keras 3 unless TF_USE_LEGACY_KERAS=1 "
            "is set."
        )


def check_one_keras(function: str, argument: str, value: Any, model: Any) -> None:
    """Raises a `TypeError` if `value` is of another Keras than `model` is."""
    if is_keras_2(value) != is_keras_2(model):
        came, wanted = _KERAS_3, _KERAS_2
        if is_keras_2(value):
            came, wanted = wanted, came
        raise TypeError(
            f"`{function}` needs objects of one Keras, found a `{type(value).__name__}` "
            f"of {came} at `{argument}` for a model of {wanted}.\n"
            f"Take that of `{wanted.split()[0]}`, or make the model with "
            f"`{came.split()[0]}`."
        )
