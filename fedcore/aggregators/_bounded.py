"""What clipping and zeroing share: values changed by their norm and a bound on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore.aggregators._checks import float_type_of, inner_factory
from fedcore.aggregators._tensors import flat, packed
from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.aggregators.sum import SumFactory
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import (
    AggregationProcess,
    EstimationProcess,
    MeasuredProcessOutput,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, TensorType, Type, at_clients, at_server, to_type

Bound = float | EstimationProcess
# From a client's tensors and the bound, `<norm, changed tensors, whether changed>`.
Change = Callable[[list[tf.Tensor], tf.Tensor], tuple[tf.Tensor, list[tf.Tensor], Any]]


def bounded_factory(
    name: str,
    bound: Bound,
    inner: AggregationFactory,
    change: Change,
    count_factory: UnweightedAggregationFactory | None,
) -> AggregationFactory:
    """A factory that changes clients' values, counts the changed ones, and aggregates.

    Args:
        name: What is done, `clip` or `zero`: the root of the names in the state and in
            the measurements.
        bound: The bound on the norm, or a process that estimates it of the norms.
        inner: Aggregates the changed values.
        change: Changes a client's tensors where the norm is over the bound.
        count_factory: Sums the count of changed clients.
    """
    done, doing = (
        (name + "ped", name + "ping") if name == "clip" else ("zeroed", "zeroing")
    )
    weighted = isinstance(
        inner_factory("inner_agg_factory", inner, weighted=None),
        WeightedAggregationFactory,
    )
    process = _bound_process(f"{doing}_norm", bound)
    counts = inner_factory(
        f"{done}_count_sum_factory", count_factory or SumFactory()
    ).create(TensorType(tf.int32))

    def create(value_type: Type, *weight_type: Type) -> AggregationProcess:
        value_type = float_type_of(f"{doing}_factory", value_type)
        aggregator = inner.create(value_type, *weight_type)

        @tf_computation(value_type, tf.float32)
        def changed(value, norm_bound):
            norm, tensors, is_changed = change(flat(value), norm_bound)
            return norm, packed(tensors, value_type), tf.cast(is_changed, tf.int32)

        def named(norm: Any, aggregate: Any, count: Any) -> Any:
            parts = (norm, aggregate, count)
            names = (f"{doing}_norm", "inner_agg", f"{done}_count_agg")
            return federated_zip(OrderedDict(zip(names, parts)))

        @federated_computation
        def initialize_fn():
            return named(
                process.initialize(), aggregator.initialize(), counts.initialize()
            )

        state_type = initialize_fn.type_signature.result
        rest = [at_clients(to_type(t)) for t in (value_type, *weight_type)]

        def step(state, value, *weight):
            norm_state, inner_state, count_state = state
            norm_bound = process.report(norm_state)
            parts = federated_map(changed, (value, federated_broadcast(norm_bound)))
            norms, values, are_changed = parts
            output = aggregator.next(inner_state, values, *weight)
            count = counts.next(count_state, are_changed)
            measurements = OrderedDict(
                [
                    (doing, output.measurements),
                    (f"{doing}_norm", norm_bound),
                    (f"{done}_count", count.result),
                ]
            )
            return MeasuredProcessOutput(
                named(process.next(norm_state, norms), output.state, count.state),
                output.result,
                federated_zip(measurements),
            )

        if weighted:

            @federated_computation(state_type, *rest)
            def next_fn(state, value, weight):
                return step(state, value, weight)

        else:

            @federated_computation(state_type, *rest)
            def next_fn(state, value):
                return step(state, value)

        return AggregationProcess(initialize_fn, next_fn)

    class Unweighted(UnweightedAggregationFactory):
        def create(self, value_type: Type) -> AggregationProcess:
            return create(value_type)

    class Weighted(WeightedAggregationFactory):
        def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
            return create(value_type, weight_type)

    return Weighted() if weighted else Unweighted()


def _bound_process(name: str, bound: Any) -> EstimationProcess:
    """The process that reports the bound: the given one, or one of a constant."""
    if isinstance(bound, EstimationProcess):
        estimate = bound.report.type_signature.result
        if estimate is not at_server(tf.float32):
            raise TypeError(
                f"`{name}` needs an `EstimationProcess` that reports `float32@SERVER`, "
                f"found one that reports `{estimate}`."
            )
        return bound
    if not isinstance(bound, float):
        raise TypeError(
            f"`{name}` needs to be a float or an `EstimationProcess`, found "
            f"`{type(bound).__name__}`."
        )
    return _constant_process(bound)


def _constant_process(value: float) -> EstimationProcess:
    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(at_server(()), at_clients(tf.float32))
    def next_fn(state, norm):
        del norm
        return state

    @federated_computation(at_server(()))
    def report_fn(state):
        del state
        return federated_value(value, SERVER)

    return EstimationProcess(initialize_fn, next_fn, report_fn, next_is_multi_arg=True)


def l2_norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """√Σ x² over all tensors together, a float32."""
    return tf.sqrt(_total([tf.reduce_sum(tf.square(t)) for t in tensors]))


def l1_norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Σ |x| over all tensors together, a float32."""
    return _total([tf.reduce_sum(tf.abs(t)) for t in tensors])


def max_norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """max |x| over all tensors together, a float32; NaN if one is."""
    greatest = [tf.cast(tf.reduce_max(tf.abs(t)), tf.float32) for t in tensors]
    return tf.reduce_max(tf.stack([tf.constant(0.0), *greatest]))


def _total(parts: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.constant(0.0), *(tf.cast(part, tf.float32) for part in parts)])
