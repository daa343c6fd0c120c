"""Structures of tensors aggregated as one vector."""

from __future__ import annotations

import tensorflow as tf

from fedcore.aggregators._checks import (
    inner_factory,
    known_shapes,
    number_type_of,
    result_of,
)
from fedcore.aggregators._tensors import count, flat, leaves, packed
from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.computation import Computation
from fedcore.federated import federated_computation, federated_map
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import TensorType, Type, at_clients


def concat_factory(inner_agg_factory: AggregationFactory) -> AggregationFactory:
    """Aggregates a structure of tensors as one vector of all their numbers.

    So that an inner aggregator acts on all of them together, and not tensor by tensor.

    Args:
        inner_agg_factory: Aggregates the vector `D[n]`.

    Returns:
        A factory of the inner factory's kind. Its `create(T)`, T a structure of tensors
        of one dtype D and known shapes with n numbers, gives a process with the state and
        measurements of the inner one and result `T@SERVER`.

    Raises:
        TypeError: If the argument is not a factory.
    """
    inner_factory("inner_agg_factory", inner_agg_factory, weighted=None)

    class Unweighted(UnweightedAggregationFactory):
        def create(self, value_type: Type) -> AggregationProcess:
            value_type, vector = _vector_type(value_type)
            inner = inner_agg_factory.create(vector)
            concat, split = _concat(value_type), _split(result_of(inner), value_type)

            @federated_computation(inner.state_type, at_clients(value_type))
            def next_fn(state, value):
                output = inner.next(state, federated_map(concat, value))
                result = federated_map(split, output.result)
                return MeasuredProcessOutput(output.state, result, output.measurements)

            return AggregationProcess(inner.initialize, next_fn)

    class Weighted(WeightedAggregationFactory):
        def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
            value_type, vector = _vector_type(value_type)
            inner = inner_agg_factory.create(vector, weight_type)
            concat, split = _concat(value_type), _split(result_of(inner), value_type)

            @federated_computation(
                inner.state_type, at_clients(value_type), at_clients(weight_type)
            )
            def next_fn(state, value, weight):
                output = inner.next(state, federated_map(concat, value), weight)
                result = federated_map(split, output.result)
                return MeasuredProcessOutput(output.state, result, output.measurements)

            return AggregationProcess(inner.initialize, next_fn)

    weighted = isinstance(inner_agg_factory, WeightedAggregationFactory)
    return Weighted() if weighted else Unweighted()


def _vector_type(value_type: Type) -> tuple[Type, TensorType]:
    value_type = known_shapes(
        "concat_factory", number_type_of("concat_factory", value_type)
    )
    dtypes = {leaf.dtype for leaf in leaves(value_type)}
    if len(dtypes) != 1:
        raise TypeError(
            "`concat_factory` needs tensors of one dtype as `value_type`, found "
            f"`{value_type}`."
        )
    return value_type, TensorType(dtypes.pop(), [count(value_type)])


def _concat(value_type: Type) -> Computation:
    @tf_computation(value_type)
    def concat(value):
        return tf.concat([tf.reshape(t, [-1]) for t in flat(value)], axis=0)

    return concat


def _split(vector_type: TensorType, value_type: Type) -> Computation:
    @tf_computation(vector_type)
    def split(vector):
        types = leaves(value_type)
        parts = tf.split(vector, [t.shape.num_elements() for t in types])
        return packed(
            [tf.reshape(p, t.shape) for p, t in zip(parts, types)], value_type
        )

    return split
