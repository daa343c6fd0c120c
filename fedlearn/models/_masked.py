"""A Keras model's step that leaves rows of a batch out, where that is provably exact.

A compiled client loop runs on batches of one size. The last, smaller batch of a client is
filled up, and a mask says which rows count. That is exact where every row goes through
the model, the loss and the metrics on its own: so all of them have to be recognised, by
their exact class; of anything else nothing is assumed.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedlearn.metrics import NumBatchesCounter, NumExamplesCounter
from fedlearn.models._batch import inputs_of, labels_of
from fedlearn.models._keras import KerasModel
from fedlearn.models._losses import MeanLoss, Term
from fedlearn.models._model import BatchOutput
from fedlearn.models._stateless import KerasState
from fedlearn.models._weights import ModelWeights

_LAYERS = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Dense,
    keras.layers.ELU,
    keras.layers.Flatten,
    keras.layers.InputLayer,
    keras.layers.LeakyReLU,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Reshape,
    keras.layers.Softmax,
    keras.layers.Subtract,
)

_ACTIVATIONS = frozenset(
    keras.activations.get(name)
    for name in (
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "log_softmax",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softmax",
        "softplus",
        "softsign",
        "tanh",
    )
)

# Their values are one for each row (or more, of which the mean is taken).
_LOSSES = (
    keras.losses.BinaryCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.Huber,
    keras.losses.KLDivergence,
    keras.losses.LogCosh,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Poisson,
    keras.losses.SparseCategoricalCrossentropy,
)

# Means over rows, which weigh a row by its `sample_weight`.
_METRICS = (
    keras.metrics.BinaryAccuracy,
    keras.metrics.BinaryCrossentropy,
    keras.metrics.CategoricalAccuracy,
    keras.metrics.CategoricalCrossentropy,
    keras.metrics.KLDivergence,
    keras.metrics.LogCoshError,
    keras.metrics.MeanAbsoluteError,
    keras.metrics.MeanAbsolutePercentageError,
    keras.metrics.MeanSquaredError,
    keras.metrics.MeanSquaredLogarithmicError,
    keras.metrics.Poisson,
    keras.metrics.RootMeanSquaredError,
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.SparseCategoricalCrossentropy,
    keras.metrics.SparseTopKCategoricalAccuracy,
    keras.metrics.TopKCategoricalAccuracy,
)


@attrs.frozen(eq=False)
class MaskedModel:
    """A Keras model as functions of values and of a mask, `float32[?]`, for the rows."""

    model: KerasModel
    state: KerasState

    def forward(
        self,
        weights: ModelWeights,
        local: list[Any],
        batch: Any,
        training: bool,
        mask: tf.Tensor,
    ) -> tuple[BatchOutput, Any, list[Any]]:
        """As `PureModel.forward` on the rows of `batch` whose mask is 1."""

        def run() -> BatchOutput:
            keras_model = self.model.keras_model
            predictions = self.model.predict_on_batch(inputs_of(batch), training)
            loss = _total_loss(self.model.terms, labels_of(batch), predictions, mask)
            for penalty in keras_model.losses:
                loss += tf.cast(penalty, loss.dtype)
            return BatchOutput(loss, predictions, _rows(mask))

        return self.state.call(
            run, list(weights.trainable), list(weights.non_trainable), list(local)
        )

    def update_metrics(
        self, unfinalized: Any, batch: Any, output: BatchOutput, mask: tf.Tensor
    ) -> Any:
        """As `PureModel.update_metrics` on the rows of `batch` whose mask is 1."""
        labels, predictions = labels_of(batch), output.predictions
        updated = collections.OrderedDict()
        for metric in self.model.metrics:
            old = list(unfinalized[metric.name])
            if type(metric) is NumBatchesCounter:
                new = [old[0] + tf.ones_like(old[0])]
            elif type(metric) is NumExamplesCounter:
                new = [old[0] + tf.cast(_rows(mask), old[0].dtype)]
            elif isinstance(metric, MeanLoss):
                rows = tf.cast(_rows(mask), metric.dtype)
                loss = _total_loss(self.model.terms, labels, predictions, mask)
                new = [old[0] + tf.cast(loss, metric.dtype) * rows, old[1] + rows]
            else:
                new = metric.stateless_update_state(
                    old, labels, predictions, sample_weight=mask
                )
            updated[metric.name] = new
        return updated


def masked_model(model: KerasModel, state: KerasState) -> MaskedModel | None:
    """The model with masks; None if some part of it may look at a batch as a whole."""
    has_rows = all(
        type(spec) is tf.TensorSpec and spec.shape.rank and spec.shape[0] is None
        for spec in tf.nest.flatten(model.input_spec)
    )
    if not (
        has_rows
        and _is_row_wise(model.keras_model)
        and all(_is_mean_of_rows(term.loss) for term in model.terms)
        and all(_is_known(metric) for metric in model.metrics)
        and _gives_rows(model)
    ):
        return None
    return MaskedModel(model, state)


def _gives_rows(model: KerasModel) -> bool:
    """Whether every loss has values by row, before they are reduced."""

    def values(batch: Any) -> list[tf.Tensor]:
        predictions = model.predict_on_batch(inputs_of(batch), True)
        return [_values(term, labels_of(batch), predictions) for term in model.terms]

    traced = tf.function(values, autograph=False).get_concrete_function(
        model.input_spec
    )
    shapes = [tensor.shape for tensor in traced.outputs]
    return all(shape.rank and shape[0] is None for shape in shapes)


def _is_row_wise(layer: Any) -> bool:
    if getattr(layer, "activity_regularizer", None) is not None:
        return False
    if isinstance(layer, keras.Model):
        return _is_plain_model(layer) and all(map(_is_row_wise, layer.layers))
    if type(layer) not in _LAYERS:
        return False
    if isinstance(layer, keras.layers.Softmax):
        return layer.axis == -1
    activation = getattr(layer, "activation", None)
    return activation is None or activation in _ACTIVATIONS


def _is_plain_model(model: keras.Model) -> bool:
    """Whether it is nothing but its layers: sequential, or a graph of layers."""
    if not type(model).__module__.startswith("keras."):
        return False  # the user's own `call`
    operations = getattr(model, "operations", model.layers)
    return all(isinstance(op, keras.layers.Layer) for op in operations)


def _is_mean_of_rows(loss: keras.losses.Loss) -> bool:
    return (
        type(loss) in _LOSSES
        and loss.reduction in ("sum_over_batch_size", "sum")
        and getattr(loss, "axis", -1) == -1
        and getattr(loss, "ignore_class", None) is None
    )


def _is_known(metric: keras.metrics.Metric) -> bool:
    if type(metric) in (NumBatchesCounter, NumExamplesCounter):
        return True
    if isinstance(metric, MeanLoss):
        return True
    return (
        type(metric) in _METRICS
        and getattr(metric, "axis", -1) == -1
        and getattr(metric, "ignore_class", None) is None
    )


def _total_loss(
    terms: Sequence[Term], y_true: Any, y_pred: Any, mask: tf.Tensor
) -> tf.Tensor:
    total = _masked_loss(terms[0], y_true, y_pred, mask)
    for term in terms[1:]:
        total += _masked_loss(term, y_true, y_pred, mask)
    return total


def _masked_loss(term: Term, y_true: Any, y_pred: Any, mask: tf.Tensor) -> tf.Tensor:
    values = _values(term, y_true, y_pred)
    mask = tf.cast(mask, values.dtype)
    by_row = tf.reshape(mask, [-1, *[1] * (values.shape.rank - 1)])
    value = tf.reduce_sum(tf.where(by_row > 0, values, tf.zeros_like(values)))
    if term.loss.reduction == "sum_over_batch_size":
        in_a_row = tf.cast(tf.size(values[0]), values.dtype)
        value /= tf.reduce_sum(mask) * in_a_row
    return value if term.weight is None else term.weight * value


def _values(term: Term, y_true: Any, y_pred: Any) -> tf.Tensor:
    """The loss before Keras reduces it, as `keras.losses.Loss.__call__` makes it."""
    dtype = term.loss.dtype
    predictions = keras.ops.convert_to_tensor(term.select(y_pred), dtype=dtype)
    labels = keras.ops.convert_to_tensor(term.select(y_true), dtype=dtype)
    return term.loss.call(labels, predictions)


def _rows(mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_sum(mask), tf.int32)
