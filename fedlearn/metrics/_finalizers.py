"""Finalizers: from the values of a metric's variables to the metric."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from fedlearn.metrics._fresh import apart, build_lazy_metric
from fedlearn.metrics._keras_versions import is_keras_2, is_metric

MetricFinalizersType = collections.OrderedDict[str, Callable[[Any], Any]]
KerasMetricFinalizer = Callable[[list[tf.Tensor]], Any]


def create_keras_metric_finalizer(
    metric: keras.metrics.Metric | Callable[[], keras.metrics.Metric],
) -> KerasMetricFinalizer:
    """Makes the function that turns the values of a Keras metric's variables into its result.

    Args:
        metric: A metric, or a callable without arguments that makes one. Only its kind
            matters: the finalizer works on a fresh metric, never on this one.

    Returns:
        A function of the list of values of the metric's variables, in the order of
        `metric.variables`, that returns what the metric's `result()` gives for them.

    Raises:
        TypeError: If `metric` is neither, or is a metric that cannot be made anew from
            its own config.
    """
    construct = metric_constructor(metric)

    def finalizer(unfinalized_metric_values: list[tf.Tensor]) -> Any:
        with apart():  # its variables are never read, only replaced
            fresh = construct()
            _build_for(fresh, unfinalized_metric_values)
        if is_keras_2(fresh):
            return _result_of_keras_2(fresh, construct, unfinalized_metric_values)
        values = _checked(fresh, unfinalized_metric_values)
        with keras.StatelessScope(zip(fresh.variables, values)):
            return tf.nest.map_structure(tf.convert_to_tensor, fresh.result())

    return finalizer


def metric_constructor(metric: Any) -> Callable[[], keras.metrics.Metric]:
    """A function that makes fresh metrics of the kind of `metric`."""
    if is_metric(metric):
        return _constructor_from_config(metric)
    if not callable(metric):
        raise TypeError(
            "A metric needs to be a `keras.metrics.Metric` or a callable without "
            f"arguments that makes one, found `{type(metric).__name__}`.\n"
            "Pass for example keras.metrics.SparseCategoricalAccuracy()."
        )

    def construct() -> keras.metrics.Metric:
        made: Any = metric()
        if not is_metric(made):
            raise TypeError(
                f"A metric constructor needs to make a `keras.metrics.Metric`, found "
                f"`{type(made).__name__}` made by `{metric!r}`."
            )
        return made

    return construct


def _constructor_from_config(metric: keras.metrics.Metric):
    kind, config = type(metric), metric.get_config()

    def construct() -> keras.metrics.Metric:
        return kind.from_config(config)

    try:
        with apart():
            construct()
    except Exception as e:
        raise TypeError(
            f"A metric needs to be made anew from its config, found `{kind.__name__}` "
            f"whose config is {config} ({e}).\n"
            "Override `get_config` to hold all arguments of `__init__`, or pass a "
            "constructor, e.g. metrics=[lambda: MyMetric(...)]."
        ) from e
    return construct


def _result_of_keras_2(metric: Any, construct: Callable[[], Any], given: Any) -> Any:
    """The result of a metric of Keras 2, which knows no stateless scope.

    The values stand in place of the variables of `metric`, a fresh one. One that holds
    them elsewhere than in its attributes is made anew, and its variables are set.
    """
    values = _checked(metric, given)
    by_variable = {id(v): x for v, x in zip(metric.variables, values)}
    held = {
        k: by_variable[id(v)] for k, v in vars(metric).items() if id(v) in by_variable
    }
    if len(held) == len(values):
        vars(metric).update(held)
    else:
        metric = construct()
        _build_for(metric, given)
        for variable, value in zip(metric.variables, values):
            variable.assign(value)
    return tf.nest.map_structure(tf.convert_to_tensor, metric.result())


def _build_for(metric: keras.metrics.Metric, values: Any) -> None:
    """Builds a metric whose variables depend on the number of labels in `values`."""
    if not isinstance(values, (list, tuple)) or len(values) == len(metric.variables):
        return
    sizes = [value.shape[-1] for value in values if len(value.shape)]
    labels = tf.TensorSpec([1, sizes[0] if sizes else 1], metric.dtype)
    build_lazy_metric(metric, labels, labels)


def _checked(metric: keras.metrics.Metric, values: Any) -> list[tf.Tensor]:
    where = f"The finalizer of metric `{metric.name}`"
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"{where} needs a list with the values of its variables, found "
            f"`{type(values).__name__}`."
        )
    if len(values) != len(metric.variables):
        raise ValueError(
            f"{where} needs {len(metric.variables)} values, one for each of its "
            f"variables, found {len(values)}."
        )
    tensors = [tf.convert_to_tensor(value) for value in values]
    for variable, tensor in zip(metric.variables, tensors):
        wanted = tf.TensorSpec(variable.shape, variable.dtype)
        if tensor.dtype != wanted.dtype or not wanted.shape.is_compatible_with(
            tensor.shape
        ):
            raise ValueError(
                f"{where} needs {wanted.dtype.name}{wanted.shape} for variable "
                f"`{variable.name}`, found {tensor.dtype.name}{tensor.shape}."
            )
    return tensors
