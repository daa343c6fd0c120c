"""A `Model` with variables of a `FunctionalModel`."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from fedlearn.metrics import MetricFinalizersType, create_keras_metric_finalizer
from fedlearn.metrics._keras_versions import check_not_keras_2, is_metric
from fedlearn.models._batch import labels_of
from fedlearn.models._functional import FunctionalModel
from fedlearn.models._model import BatchOutput, Model


def model_from_functional(
    functional_model: FunctionalModel,
    metric_constructors: Sequence[Callable[[], keras.metrics.Metric]] = (),
) -> Model:
    """Makes a `Model` with variables of a `FunctionalModel`.

    Its metrics are the mean `loss` over the examples, then those given; the functional
    model's own metrics are not used.

    Args:
        functional_model: The model; its initial weights are the variables' first values.
        metric_constructors: Functions without arguments that make Keras metrics.

    Returns:
        A `Model`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If two metrics have the same name.
    """
    if not isinstance(functional_model, FunctionalModel):
        raise TypeError(
            "`model_from_functional` needs a `FunctionalModel`, found "
            f"`{type(functional_model).__name__}`."
        )
    metrics = []
    for constructor in metric_constructors:
        metric = None if is_metric(constructor) else constructor()
        check_not_keras_2("model_from_functional", "metric_constructors", metric)
        if not is_metric(metric):
            raise TypeError(
                "`model_from_functional` needs functions that make Keras metrics at "
                f"`metric_constructors`, found `{constructor!r}`."
            )
        metrics.append(metric)
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                "`model_from_functional` needs metrics of different names, found "
                f"`{name}` {names.count(name)} times."
            )
    return ModelFromFunctional(functional_model, metrics, list(metric_constructors))


class ModelFromFunctional(Model):
    """A functional model, variables for its weights, and metrics."""

    def __init__(
        self,
        functional_model: FunctionalModel,
        metrics: list[keras.metrics.Metric],
        constructors: list[Callable[[], keras.metrics.Metric]],
    ):
        self.functional_model = functional_model
        trainable, non_trainable = functional_model.initial_weights
        self._weights = (
            tf.nest.map_structure(tf.Variable, trainable),
            tf.nest.map_structure(
                lambda value: tf.Variable(value, trainable=False), non_trainable
            ),
        )
        self._loss_sum = tf.Variable(0.0, trainable=False)
        self._num_examples = tf.Variable(0.0, trainable=False)
        self.metrics, self._constructors = metrics, constructors

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        return tuple(tf.nest.flatten(self._weights[0]))

    @property
    def non_trainable_variables(self) -> tuple[tf.Variable, ...]:
        return tuple(tf.nest.flatten(self._weights[1]))

    @property
    def local_variables(self) -> tuple[Any, ...]:
        of_metrics = (v for metric in self.metrics for v in metric.variables)
        return (self._loss_sum, self._num_examples, *of_metrics)

    @property
    def input_spec(self) -> Any:
        return self.functional_model.input_spec

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        return self.functional_model.predict_on_batch(self._values(), x, training)

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        output = self.functional_model.forward_pass(
            self._values(), batch_input, training
        )
        loss_sum, num_examples = loss_and_examples(output)
        self._loss_sum.assign_add(loss_sum)
        self._num_examples.assign_add(num_examples)
        for metric in self.metrics:
            metric.update_state(labels_of(batch_input), output.predictions)
        return output

    def report_local_unfinalized_metrics(
        self,
    ) -> collections.OrderedDict[str, list[tf.Tensor]]:
        unfinalized = collections.OrderedDict(
            loss=[self._loss_sum.read_value(), self._num_examples.read_value()]
        )
        for metric in self.metrics:
            unfinalized[metric.name] = [
                tf.convert_to_tensor(v) for v in metric.variables
            ]
        return unfinalized

    def metric_finalizers(self) -> MetricFinalizersType:
        finalizers: MetricFinalizersType = collections.OrderedDict(loss=_mean)
        for metric, constructor in zip(self.metrics, self._constructors):
            finalizers[metric.name] = create_keras_metric_finalizer(constructor)
        return finalizers

    def reset_metrics(self) -> None:
        self._loss_sum.assign(0.0)
        self._num_examples.assign(0.0)
        for metric in self.metrics:
            metric.reset_state()

    def _values(self) -> tuple[Any, Any]:
        return tf.nest.map_structure(lambda v: v.read_value(), self._weights)


def loss_and_examples(output: BatchOutput) -> list[tf.Tensor]:
    """What a batch adds to the unfinalized `loss`."""
    examples = tf.cast(output.num_examples, tf.float32)
    loss = tf.cast(output.loss, tf.float32)
    return [tf.math.multiply_no_nan(loss, examples), examples]


@tf.function
def _mean(values: list[tf.Tensor]) -> tf.Tensor:
    return values[0] / values[1]
