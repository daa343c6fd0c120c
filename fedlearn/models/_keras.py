"""A `Model` of a Keras model."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from fedlearn.metrics import (
    MetricFinalizersType,
    NumBatchesCounter,
    NumExamplesCounter,
    create_keras_metric_finalizer,
)
from fedlearn.metrics._counters import num_rows
from fedlearn.metrics._fresh import build_lazy_metric
from fedlearn.metrics._keras_versions import (
    check_one_keras,
    is_batch_normalization,
    is_compiled,
    is_metric,
    is_model,
)
from fedlearn.models._batch import (
    checked_input_spec,
    inputs_of,
    labels_of,
    predictions_of,
)
from fedlearn.models._losses import MeanLoss, Term, loss_terms, total_loss
from fedlearn.models._model import BatchOutput, Model

_FUNCTION = "from_keras_model"


def from_keras_model(
    keras_model: keras.Model,
    loss: Any,
    input_spec: Any,
    loss_weights: Any = None,
    metrics: list[keras.metrics.Metric]
    | list[Callable[[], keras.metrics.Metric]]
    | None = None,
) -> Model:
    """Wraps a Keras model for the learning algorithms.

    The loss of a batch is that of `loss` plus what the layers add (regularisation). It is
    given predictions as they are: Keras does not reach through a last softmax or sigmoid
    for the logits, so a probability that is 0 or 1 in float32 has no gradient, as in TFF.
    A model that ends in logits, with a loss `from_logits=True`, has one everywhere. The
    metrics are the given ones, then the mean `loss` over all examples (without
    regularisation), `num_examples` and `num_batches`.

    Args:
        keras_model: A built model (sequential, functional, or subclassed and called
            once) that is not compiled. Make it anew in each call of `model_fn`. A model
            of `tf_keras` (Keras 2) is taken with losses and metrics of `tf_keras`; its
            clients run on the general road.
        loss: A `keras.losses.Loss`, called with labels and predictions. For several
            outputs a list with one for each, or a dict by the outputs' names.
        input_spec: What one batch looks like: inputs and labels, as a mapping of `x` and
            `y` or a sequence of two, of `tf.TensorSpec`s; or the type of it.
        loss_weights: For a list (or dict) of losses, the floats they are multiplied by.
        metrics: Keras metrics, or functions without arguments that make them. Those of a
            model with several outputs are given all labels and all predictions.

    Returns:
        A `Model`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the model is compiled or not built, `input_spec` does not have the
            two parts, or losses, weights and outputs differ in number.
    """
    if not is_model(keras_model):
        raise TypeError(
            f"`{_FUNCTION}` needs a Keras model at `keras_model`, found "
            f"`{type(keras_model).__name__}`."
        )
    input_spec = checked_input_spec(_FUNCTION, input_spec)
    if is_compiled(keras_model):
        raise ValueError(
            f"`{_FUNCTION}` needs a model that is not compiled, found "
            f"`{keras_model.name}`, which is.\n"
            "Leave out `compile`; loss, metrics and optimizers are given separately."
        )
    check_built(_FUNCTION, keras_model)
    terms = loss_terms(keras_model, loss, loss_weights)
    metrics = _checked_metrics(metrics)
    _warn_of_batch_normalization(keras_model)
    return KerasModel(keras_model, terms, input_spec, metrics)


class KerasModel(Model):
    """A Keras model, its loss and its metrics."""

    def __init__(
        self,
        keras_model: keras.Model,
        terms: tuple[Term, ...],
        input_spec: Any,
        metrics: list[Any],
    ):
        self.keras_model = keras_model
        self.terms = terms
        self._input_spec = input_spec
        self.metrics = [m if is_metric(m) else _constructed(m) for m in metrics]
        for metric in self.metrics:
            check_one_keras(_FUNCTION, "metrics", metric, keras_model)
        self._finalizer_sources = list(metrics)
        for default in (
            lambda: MeanLoss(terms),
            NumExamplesCounter,
            NumBatchesCounter,
        ):
            metric = default()
            if metric.name not in [m.name for m in self.metrics]:
                self.metrics.append(metric)
                self._finalizer_sources.append(default)
        self._build_metrics()
        _check_names(self.metrics)

    def _build_metrics(self) -> None:
        y_true = y_pred = labels_of(self._input_spec)
        outputs = getattr(self.keras_model, "outputs", None)
        if outputs is not None and len(outputs) == 1:
            y_pred = outputs[0]
        for metric in self.metrics:
            build_lazy_metric(metric, y_true, y_pred)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        return list(self.keras_model.trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        return list(self.keras_model.non_trainable_weights)

    @property
    def local_variables(self) -> list[keras.Variable]:
        return [v for metric in self.metrics for v in metric.variables]

    @property
    def input_spec(self) -> Any:
        return self._input_spec

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        return predictions_of(self.keras_model, x, training)

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        output = self.batch_output(batch_input, training)
        for metric in self.metrics:
            metric.update_state(labels_of(batch_input), output.predictions)
        return output

    def batch_output(self, batch_input: Any, training: bool) -> BatchOutput:
        """The forward pass without the metrics."""
        inputs = inputs_of(batch_input)
        predictions = self.predict_on_batch(inputs, training)
        loss = total_loss(self.terms, labels_of(batch_input), predictions)
        for penalty in self.keras_model.losses:
            loss += tf.cast(penalty, loss.dtype)
        return BatchOutput(loss, predictions, num_rows(inputs))

    def report_local_unfinalized_metrics(
        self,
    ) -> collections.OrderedDict[str, list[tf.Tensor]]:
        return collections.OrderedDict(
            (metric.name, [tf.convert_to_tensor(v) for v in metric.variables])
            for metric in self.metrics
        )

    def metric_finalizers(self) -> MetricFinalizersType:
        return collections.OrderedDict(
            (metric.name, create_keras_metric_finalizer(source))
            for metric, source in zip(self.metrics, self._finalizer_sources)
        )

    def reset_metrics(self) -> None:
        for metric in self.metrics:
            metric.reset_state()


def check_built(function: str, keras_model: keras.Model) -> None:
    """Raises a `ValueError` if a layer of the model has not made its weights yet."""
    unbuilt = [layer.name for layer in keras_model._flatten_layers() if not layer.built]
    if unbuilt:
        raise ValueError(
            f"`{function}` needs a built model, found no weights yet in {unbuilt}.\n"
            "Begin a sequential model with keras.Input(shape), or call the model once on "
            "a batch, before wrapping it."
        )


def _checked_metrics(metrics: Any) -> list[Any]:
    if metrics is None:
        return []
    if not isinstance(metrics, list):
        raise TypeError(
            f"`{_FUNCTION}` needs a list at `metrics`, found `{type(metrics).__name__}`."
        )
    for metric in metrics:
        if not is_metric(metric) and not callable(metric):
            raise TypeError(
                f"`{_FUNCTION}` needs Keras metrics, or functions without arguments that "
                f"make them, at `metrics`, found `{type(metric).__name__}`: {metric!r}.\n"
                "Pass for example keras.metrics.SparseCategoricalAccuracy()."
            )
    if len({is_metric(metric) for metric in metrics}) == 2:
        raise TypeError(
            f"`{_FUNCTION}` needs either metrics or functions that make them at "
            f"`metrics`, found both: {metrics}."
        )
    return metrics


def _constructed(constructor: Callable[[], Any]) -> keras.metrics.Metric:
    metric = constructor()
    if not is_metric(metric):
        raise TypeError(
            f"`{_FUNCTION}` needs functions that make Keras metrics at `metrics`, found "
            f"`{type(metric).__name__}` made by `{constructor!r}`."
        )
    return metric


def _check_names(metrics: list[keras.metrics.Metric]) -> None:
    names = [metric.name for metric in metrics]
    for metric in metrics:
        if names.count(metric.name) > 1:
            raise ValueError(
                f"`{_FUNCTION}` needs metrics of different names, found `{metric.name}` "
                f"{names.count(metric.name)} times.\nGive one another name=..."
            )
        if not metric.variables:
            raise ValueError(
                f"`{_FUNCTION}` needs metrics with state, found none in `{metric.name}`."
                "\nMake its variables with self.add_variable(...) in `__init__`."
            )


def _warn_of_batch_normalization(keras_model: keras.Model) -> None:
    for layer in keras_model._flatten_layers():
        if is_batch_normalization(layer):
            warnings.warn(
                f"Batch normalisation (layer `{layer.name}`) has non-trainable weights, "
                "which federated training leaves at their initial values. Consider "
                "keras.layers.GroupNormalization.",
                UserWarning,
                stacklevel=3,
            )
            return
