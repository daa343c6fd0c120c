"""A `FunctionalModel` of a Keras model."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from fedlearn.metrics._counters import num_rows
from fedlearn.metrics._fresh import apart
from fedlearn.metrics._keras_versions import check_not_keras_2, is_metric, is_model
from fedlearn.models._batch import inputs_of, labels_of, predictions_of
from fedlearn.models._functional import (
    FunctionalModel,
    KerasFunctionalModelError,
    empty_metrics_state,
    noop_finalize_metrics,
    noop_update_metrics,
)
from fedlearn.models._keras import check_built
from fedlearn.models._model import BatchOutput
from fedlearn.models._stateless import KerasState

_FUNCTION = "functional_model_from_keras"


class KerasFunctionalModel(FunctionalModel):
    """A `FunctionalModel` that knows its Keras model, so that random states can travel."""

    def __init__(self, keras_model: keras.Model, loss_fn: Any, **kwargs: Any):
        self.keras_model, self.loss_fn = keras_model, loss_fn
        self.keras_state = KerasState.of(keras_model)
        super().__init__(**kwargs)

    def forward(self, weights: tuple, local: list, batch: Any, training: bool) -> tuple:
        """The forward pass with the local state as argument and result."""

        def run() -> BatchOutput:
            predictions = predictions_of(self.keras_model, inputs_of(batch), training)
            loss = self.loss_fn(labels_of(batch), predictions)
            return BatchOutput(loss, predictions, num_rows(labels_of(batch)))

        output, _, local = self.keras_state.call(run, *weights, local)
        return output, local


def functional_model_from_keras(
    keras_model: keras.Model | Callable[[], keras.Model],
    loss_fn: keras.losses.Loss,
    input_spec: Any,
    metrics_constructor: Callable[[], Any] | None = None,
) -> FunctionalModel:
    """Makes a `FunctionalModel` of a Keras model.

    The current weights of the Keras model become the initial weights. As in TFF, losses
    added by the layers (regularisation) are no part of the loss; use `from_keras_model`
    for those.

    Args:
        keras_model: A built Keras model, or a function without arguments that makes one.
        loss_fn: The loss, called with labels and predictions.
        input_spec: Structure of `tf.TensorSpec` of a batch, inputs and labels.
        metrics_constructor: Optional function that makes the metrics: one Keras metric,
            a list, or an `OrderedDict` of them by name.

    Returns:
        A `FunctionalModel`.

    Raises:
        KerasFunctionalModelError: If the model has batch normalisation.
        TypeError: If `metrics_constructor` makes no metrics.
        ValueError: If there is no Keras model, or it is not built.
    """
    check_not_keras_2(_FUNCTION, "loss_fn", loss_fn)
    keras_model = _constructed(keras_model)
    check_built(_FUNCTION, keras_model)
    for layer in keras_model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            raise KerasFunctionalModelError(
                f"`{_FUNCTION}` needs layers whose weights only the optimizer changes, "
                f"found batch normalisation in layer `{layer.name}`.\n"
                "Use keras.layers.GroupNormalization."
            )
    state = KerasState.of(keras_model)
    initial_weights = (
        tuple(v.numpy() for v in state.trainable),
        tuple(v.numpy() for v in state.non_trainable),
    )

    def predict(model_weights: Any, x: Any, training: bool = True) -> Any:
        trainable, non_trainable = model_weights
        predictions, _, _ = state.call(
            lambda: predictions_of(keras_model, x, training),
            list(trainable),
            list(non_trainable),
            [_drawn(v) for v in state.local],
        )
        return predictions

    @tf.function
    def forward_pass(model_weights: Any, batch: Any, training: bool = True) -> Any:
        predictions = predict(model_weights, inputs_of(batch), training)
        y_true = labels_of(batch)
        return BatchOutput(loss_fn(y_true, predictions), predictions, num_rows(y_true))

    return KerasFunctionalModel(
        keras_model,
        loss_fn,
        initial_weights=initial_weights,
        forward_pass_fn=forward_pass,
        predict_on_batch_fn=tf.function(predict),
        metrics_fns=metric_functions(metrics_constructor),
        input_spec=input_spec,
    )


def metric_functions(
    metrics_constructor: Callable[[], Any] | None,
) -> tuple[Callable, Callable, Callable]:
    """The three functions of a `FunctionalModel` for the Keras metrics that are made."""
    if metrics_constructor is None:
        return empty_metrics_state, noop_update_metrics, noop_finalize_metrics
    with apart():
        metrics = metrics_constructor()
    _check_metrics(metrics)
    initial = _map_metrics(
        lambda metric: tuple(v.numpy() for v in metric.variables),
        metrics,
    )

    @tf.function
    def initialize() -> Any:
        return tf.nest.map_structure(tf.constant, initial)

    @tf.function
    def update(state: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        extra = {} if sample_weight is None else {"sample_weight": sample_weight}

        def updated(metric: keras.metrics.Metric, values: Any) -> tuple:
            return tuple(
                metric.stateless_update_state(list(values), y_true, y_pred, **extra)
            )

        return _map_metrics(updated, metrics, state)

    @tf.function
    def finalize(state: Any) -> Any:
        return _map_metrics(
            lambda metric, values: metric.stateless_result(list(values)), metrics, state
        )

    return initialize, update, finalize


def _constructed(keras_model: Any) -> keras.Model:
    check_not_keras_2(_FUNCTION, "keras_model", keras_model)
    if not is_model(keras_model) and callable(keras_model):
        with apart():
            keras_model = keras_model()
        check_not_keras_2(_FUNCTION, "keras_model", keras_model)
    if not is_model(keras_model):
        raise ValueError(
            f"`{_FUNCTION}` needs a Keras model or a function without arguments that "
            f"makes one, found `{type(keras_model).__name__}`."
        )
    return keras_model


def _check_metrics(metrics: Any) -> None:
    if isinstance(metrics, collections.OrderedDict):
        members = list(metrics.values())
    else:
        members = metrics if isinstance(metrics, list) else [metrics]
    for member in members:
        check_not_keras_2(_FUNCTION, "metrics_constructor", member)
        if not is_metric(member):
            raise TypeError(
                "`metrics_constructor` needs to make a Keras metric, a list or an "
                f"`OrderedDict` of them, found `{type(member).__name__}`."
            )


def _map_metrics(fn: Callable, metrics: Any, *states: Any) -> Any:
    if isinstance(metrics, collections.OrderedDict):
        return collections.OrderedDict(
            (name, fn(metric, *(state[name] for state in states)))
            for name, metric in metrics.items()
        )
    if isinstance(metrics, list):
        return [
            fn(metric, *(state[i] for state in states))
            for i, metric in enumerate(metrics)
        ]
    return fn(metrics, *states)


def _drawn(variable: keras.Variable) -> tf.Tensor:
    """A value for a random generator's state, drawn anew on every run."""
    if variable.dtype not in ("int32", "int64", "uint32"):
        return tf.constant(variable.numpy())
    drawn = tf.random.uniform(variable.shape, maxval=2**31 - 1, dtype=tf.int32)
    return tf.cast(drawn, variable.dtype)
