"""Weighted aggregators of unweighted ones."""

from __future__ import annotations

from fedcore.aggregators._checks import inner_factory
from fedcore.aggregators.factory import (
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.federated import federated_computation
from fedcore.templates import AggregationProcess
from fedcore.types import Type, at_clients


def as_weighted_aggregator(
    unweighted_aggregator: UnweightedAggregationFactory,
) -> WeightedAggregationFactory:
    """Makes a factory that takes weights, and leaves them unused, of one that does not.

    Args:
        unweighted_aggregator: Aggregates the values.

    Returns:
        A `WeightedAggregationFactory`.

    Raises:
        TypeError: If the factory takes weights already.
    """
    inner_factory("unweighted_aggregator", unweighted_aggregator)

    class Weighted(WeightedAggregationFactory):
        def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
            inner = unweighted_aggregator.create(value_type)

            @federated_computation(
                inner.state_type, at_clients(value_type), at_clients(weight_type)
            )
            def next_fn(state, value, weight):
                del weight
                return inner.next(state, value)

            return AggregationProcess(inner.initialize, next_fn)

    return Weighted()
