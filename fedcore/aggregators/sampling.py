"""Uniform samples of clients' values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fedcore.aggregators._checks import value_type_of
from fedcore.aggregators._tensors import draw_seed, flat, leaves, map_types, packed
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.federated import (
    Value,
    federated_aggregate,
    federated_computation,
    federated_map,
    federated_sum,
    federated_value,
    federated_zip,
    to_value,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructType,
    TensorType,
    Type,
    at_clients,
    at_server,
)


def federated_sample(value: Any, max_num_samples: int = 100) -> Value:
    """Brings a uniform sample of clients' values to the server.

    Each client draws a number and the clients with the greatest ones are taken, so that
    the sample does not depend on the order in which clients are aggregated.

    Args:
        value: `{T}@CLIENTS`, T a structure of tensors.
        max_num_samples: The size of the sample, > 0; all clients if there are fewer.

    Returns:
        `T'@SERVER`: each tensor `D[...]` of T as `D[?,...]`, a row for each client.

    Raises:
        TypeError: If the value is not at CLIENTS, or T holds something else than tensors.
        ValueError: If `max_num_samples` is not positive.
    """
    _check_size("max_num_samples", max_num_samples)
    value = to_value(value)
    if isinstance(value.type_signature, StructType):
        value = federated_zip(value)
    type_ = value.type_signature
    if not isinstance(type_, FederatedType) or type_.placement is not CLIENTS:
        raise TypeError(
            f"`federated_sample` needs `value` to be at CLIENTS, found `{type_}`."
        )
    return _sample(
        value, value_type_of("federated_sample", type_.member), max_num_samples
    )


class UnweightedReservoirSamplingFactory(UnweightedAggregationFactory):
    """Brings a uniform sample of clients' values to the server, see `federated_sample`.

    For each tensor, the clients whose values have a NaN or an infinity in it are counted.

    Args:
        sample_size: The size of the sample, > 0.

    Raises:
        ValueError: If the size is not positive.
    """

    def __init__(self, sample_size: int):
        self._size = _check_size("sample_size", sample_size)

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that samples values of `value_type`.

        Args:
            value_type: T, a structure of tensors of any dtype.

        Returns:
            A process with next `(<unused_state=<>@SERVER,value={T}@CLIENTS> ->
            <state=<>@SERVER,result=T'@SERVER,measurements=N@SERVER>)`: T' has an unknown
            first dimension more in each tensor, N is T with int64 for each tensor.

        Raises:
            TypeError: If T is not a structure of tensors.
        """
        value_type = value_type_of(self, value_type)
        size = self._size

        @tf_computation(value_type)
        def non_finite(value):
            counts = map_types(lambda t: TensorType(tf.int64), value_type)
            return packed([_is_non_finite(t) for t in flat(value)], counts)

        @federated_computation
        def initialize_fn():
            return federated_value((), SERVER)

        @federated_computation(at_server(()), at_clients(value_type))
        def next_fn(unused_state, value):
            return MeasuredProcessOutput(
                unused_state,
                _sample(value, value_type, size),
                federated_sum(federated_map(non_finite, value)),
            )

        return AggregationProcess(initialize_fn, next_fn)


def _sample(value: Value, value_type: Type, size: int) -> Value:
    rows = map_types(lambda t: TensorType(t.dtype, [None, *t.shape]), value_type)
    reservoir = StructType([("keys", TensorType(tf.int64, [None])), ("rows", rows)])

    def taken(keys: tf.Tensor, tensors: list[tf.Tensor]) -> Any:
        number = tf.minimum(size, tf.size(keys))
        best, places = tf.math.top_k(keys, number)
        picked = [tf.gather(t, places) for t in tensors]
        return packed([best, *picked], reservoir)

    @tf_computation(value_type)
    def keyed(x):
        key = tf.random.stateless_uniform(
            [], draw_seed(), minval=None, maxval=None, dtype=tf.int64
        )
        return key, x

    @tf_computation
    def zero():
        tensors = [tf.zeros([0], tf.int64)]
        tensors += [tf.zeros([0, *t.shape], t.dtype) for t in leaves(value_type)]
        types = leaves(reservoir)
        unknown = [_of_shape(t, type_.shape) for t, type_ in zip(tensors, types)]
        return packed(unknown, reservoir)

    @tf_computation(reservoir, keyed.type_signature.result)
    def accumulate(total, client):
        keys, *tensors = flat(total)
        key, *values = flat(client)
        joined = [
            tf.concat([t, v[tf.newaxis]], axis=0) for t, v in zip(tensors, values)
        ]
        return taken(tf.concat([keys, key[tf.newaxis]], axis=0), joined)

    @tf_computation(reservoir, reservoir)
    def merge(left, right):
        keys, *tensors = [
            tf.concat([a, b], axis=0) for a, b in zip(flat(left), flat(right))
        ]
        return taken(keys, tensors)

    @tf_computation(reservoir)
    def report(total):
        return total["rows"]

    return federated_aggregate(
        federated_map(keyed, value), zero(), accumulate, merge, report
    )


def _of_shape(tensor: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """The tensor, less of whose shape is known: an accumulator grows."""
    return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=shape)


def _is_non_finite(tensor: tf.Tensor) -> tf.Tensor:
    if not tensor.dtype.is_floating:
        return tf.constant(0, tf.int64)
    return tf.cast(tf.reduce_any(tf.logical_not(tf.math.is_finite(tensor))), tf.int64)


def _check_size(name: str, size: int) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"`{name}` needs to be an integer > 0, found {size!r}.")
    return size
