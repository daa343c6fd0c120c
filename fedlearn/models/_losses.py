"""The loss of a Keras model with one or several outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedlearn.metrics._counters import num_rows
from fedlearn.metrics._keras_versions import check_one_keras, is_loss


@attrs.frozen
class Term:
    """One weighted loss of one output; the whole output where `index` is None."""

    loss: keras.losses.Loss
    weight: float | None = None
    index: int | None = None
    name: str | None = None

    def __call__(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        value: Any = self.loss(self.select(y_true), self.select(y_pred))
        if value.shape.rank == 1 and value.shape[0] == 0:
            value = tf.reduce_sum(value)  # Keras does not reduce an empty batch
        if value.shape.rank not in (0, None):
            raise TypeError(
                f"A model needs a loss that is a scalar, found shape {value.shape} from "
                f"`{type(self.loss).__name__}`.\n"
                "Use reduction='sum_over_batch_size' or 'sum'."
            )
        return value if self.weight is None else self.weight * value

    def select(self, outputs: Any) -> Any:
        """The output, or the label, that the loss is of."""
        if self.index is None:
            return outputs
        return outputs[self.name if isinstance(outputs, Mapping) else self.index]


def total_loss(terms: Sequence[Term], y_true: Any, y_pred: Any) -> tf.Tensor:
    """The weighted sum of the losses of all outputs."""
    total = terms[0](y_true, y_pred)
    for term in terms[1:]:
        total += term(y_true, y_pred)
    return total


def loss_terms(
    keras_model: keras.Model, loss: Any, loss_weights: Any
) -> tuple[Term, ...]:
    """The terms of the loss that the user describes by `loss` and `loss_weights`."""
    if not isinstance(loss, (list, dict)):
        if loss_weights is not None:
            raise ValueError(
                "`from_keras_model` needs a list of losses to use `loss_weights`, found "
                "one loss."
            )
        return (Term(_checked_loss(loss, keras_model)),)
    names = _output_names(keras_model, loss)
    if len(loss) != len(names):
        raise ValueError(
            f"`from_keras_model` needs one loss for each of the model's {len(names)} "
            f"outputs, found {len(loss)}.\nThe outputs are {names}."
        )
    weights = _checked_weights(loss, loss_weights)
    keys = range(len(loss)) if isinstance(loss, list) else names
    if isinstance(loss, dict):
        if set(loss) != set(names):
            raise ValueError(
                f"`from_keras_model` needs losses for the outputs {names}, found "
                f"{list(loss)}."
            )
    if len(names) == 1:
        only = _checked_loss(loss[keys[0]], keras_model)
        return (Term(only, weights and weights[keys[0]]),)
    return tuple(
        Term(
            _checked_loss(loss[key], keras_model),
            weights and weights[key],
            index,
            name,
        )
        for index, (key, name) in enumerate(zip(keys, names))
    )


class MeanLoss(keras.metrics.Mean):
    """The mean over the examples of the loss without regularisation."""

    def __init__(self, terms: Sequence[Term]):
        super().__init__(name="loss")
        self._terms = tuple(terms)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None):
        del sample_weight
        rows = tf.cast(num_rows(y_pred), self.dtype)
        loss = tf.cast(total_loss(self._terms, y_true, y_pred), self.dtype)
        # An empty batch has a loss of 0 / 0, which must not reach the sum.
        self.total.assign_add(tf.math.multiply_no_nan(loss, rows))
        self.count.assign_add(rows)


def mean_loss_metric(terms: Sequence[Term]) -> keras.metrics.Metric:
    """A fresh `MeanLoss`."""
    return MeanLoss(terms)


def _checked_loss(loss: Any, keras_model: Any) -> keras.losses.Loss:
    if not is_loss(loss):
        raise TypeError(
            "`from_keras_model` needs a `keras.losses.Loss` (or, for several outputs, a "
            f"list of them) at `loss`, found `{type(loss).__name__}`.\n"
            "Pass for example keras.losses.SparseCategoricalCrossentropy()."
        )
    check_one_keras("from_keras_model", "loss", loss, keras_model)
    return loss


def _checked_weights(loss: list | dict, loss_weights: Any) -> Any:
    if loss_weights is None:
        return None
    if not isinstance(loss_weights, type(loss)):
        raise TypeError(
            f"`from_keras_model` needs a {type(loss).__name__} at `loss_weights`, as at "
            f"`loss`, found `{type(loss_weights).__name__}`."
        )
    if len(loss_weights) != len(loss) or (
        isinstance(loss, dict) and set(loss) != set(loss_weights)
    ):
        raise ValueError(
            f"`from_keras_model` needs one loss weight for each of {len(loss)} losses, "
            f"found {loss_weights}."
        )
    values = loss_weights.values() if isinstance(loss, dict) else loss_weights
    for weight in values:
        if not isinstance(weight, float):
            raise TypeError(
                "`from_keras_model` needs floats at `loss_weights`, found "
                f"`{type(weight).__name__}`."
            )
    return loss_weights


def _output_names(keras_model: keras.Model, loss: list | dict) -> list[Any]:
    """Names of the model's outputs; of a subclassed model only the loss knows them.

    A sequential model has one output and no name for it.
    """
    if getattr(keras_model, "outputs", None) is None:
        return list(loss) if isinstance(loss, dict) else [None] * len(loss)
    outputs = getattr(keras_model, "output", None)
    if isinstance(outputs, Mapping):
        return list(outputs)
    return list(getattr(keras_model, "output_names", [None]))
