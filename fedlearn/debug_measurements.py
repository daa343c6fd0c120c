"""Measurements that show what clients send and what the server makes of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore import structure
from fedcore.aggregators import (
    AggregationFactory,
    WeightedAggregationFactory,
    add_measurements,
)
from fedcore.federated import (
    Value,
    federated_map,
    federated_sum,
    federated_value,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import CLIENTS, StructType, Type


def add_debug_measurements(
    aggregation_factory: AggregationFactory,
) -> AggregationFactory:
    """Measures the norms of clients' updates, and the aggregate's norm and extremes.

    - `average_client_norm`: Σ pᵢ ‖Δᵢ‖₂ / Σ pᵢ, each pᵢ = 1 without weights;
    - `std_dev_client_norm`: the square root of the variance of the norms by those
      weights, not biased: Σ pᵢ (‖Δᵢ‖ − mean)² / (Σ pᵢ − Σ pᵢ² / Σ pᵢ); 0 for one client;
    - `server_update_max`, `server_update_norm`, `server_update_min`: of the aggregate.

    All are float32 at the server, beside the measurements of the factory.

    Args:
        aggregation_factory: Aggregates updates, a structure of floats of one dtype.

    Returns:
        A factory of the same kind.

    Raises:
        TypeError: If the argument is not a factory, or, when a process is made, if
            updates are not floats of one dtype.
    """
    return _with_measurements(aggregation_factory, mixed=False)


def add_debug_measurements_with_mixed_dtype(
    aggregation_factory: AggregationFactory,
) -> AggregationFactory:
    """As `add_debug_measurements`, for floats of any dtypes side by side.

    Args:
        aggregation_factory: Aggregates updates, a structure of floats.

    Returns:
        A factory of the same kind.

    Raises:
        TypeError: If the argument is not a factory, or, when a process is made, if
            updates are not floats.
    """
    return _with_measurements(aggregation_factory, mixed=True)


def _with_measurements(
    factory: AggregationFactory, *, mixed: bool
) -> AggregationFactory:
    def of_clients(value: Value, weight: Value | None = None) -> Any:
        _check_floats(value.type_signature.member, mixed)
        if weight is None:
            weight = federated_value(1.0, CLIENTS)
        totals = federated_sum(federated_map(_moments, [value, weight]))
        return _by_name(("average_client_norm", "std_dev_client_norm"), _spread, totals)

    def of_weighted_clients(value: Value, weight: Value) -> Any:
        return of_clients(value, weight)

    def of_unweighted_clients(value: Value) -> Any:
        return of_clients(value)

    def of_server(result: Value) -> Any:
        names = ("server_update_max", "server_update_norm", "server_update_min")
        return _by_name(names, _extremes, result)

    weighted = isinstance(factory, WeightedAggregationFactory)
    return add_measurements(
        factory,
        client_measurement_fn=of_weighted_clients
        if weighted
        else of_unweighted_clients,
        server_measurement_fn=of_server,
    )


def _by_name(names: tuple[str, ...], fn: Any, value: Value) -> OrderedDict[str, Value]:
    measured = federated_map(fn, value)
    return OrderedDict((name, measured[i]) for i, name in enumerate(names))


@tf_computation
def _moments(value, weight):
    """Sums over clients of these say the norms' mean and variance."""
    norm, p = tf.cast(_norm(value), tf.float64), tf.cast(weight, tf.float64)
    return p, p * p, p * norm, p * norm * norm


@tf_computation
def _spread(total, squares, norms, squared_norms):
    """The weighted mean and the standard deviation of the norms."""
    mean = tf.math.divide_no_nan(norms, total)
    biased = tf.math.divide_no_nan(squared_norms, total) - mean * mean
    freedom = 1 - tf.math.divide_no_nan(squares, total * total)
    variance = tf.math.divide_no_nan(tf.maximum(biased, 0), tf.maximum(freedom, 0))
    return tf.cast(mean, tf.float32), tf.cast(tf.sqrt(variance), tf.float32)


@tf_computation
def _extremes(value):
    tensors = [tf.cast(t, tf.float32) for t in _flat(value)]
    greatest = tf.reduce_max([tf.reduce_max(t) for t in tensors])
    least = tf.reduce_min([tf.reduce_min(t) for t in tensors])
    return greatest, tf.cast(_norm(value), tf.float32), least


def _norm(value: Any) -> tf.Tensor:
    squares = [tf.reduce_sum(tf.square(t)) for t in _flat(value)]
    return tf.sqrt(tf.add_n([tf.cast(s, tf.float32) for s in squares]))


def _flat(value: Any) -> list[tf.Tensor]:
    return structure.flatten(structure.from_container([value], recursive=True))


def _check_floats(type_: Type, mixed: bool) -> None:
    dtypes = {leaf.dtype for leaf in _leaves(type_)}
    if not dtypes or not all(dtype.is_floating for dtype in dtypes):
        raise TypeError(
            f"`add_debug_measurements` needs a structure of floats, found `{type_}`."
        )
    if len(dtypes) > 1 and not mixed:
        raise TypeError(
            f"`add_debug_measurements` needs floats of one dtype, found `{type_}`.\n"
            "Use `add_debug_measurements_with_mixed_dtype`."
        )


def _leaves(type_: Type) -> list[Type]:
    if isinstance(type_, StructType):
        return [leaf for element in type_ for leaf in _leaves(element)]
    return [type_]
