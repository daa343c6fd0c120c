"""Aggregators: factories of processes that bring clients' values together."""

from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.aggregators.mean import MeanFactory, UnweightedMeanFactory
from fedcore.aggregators.sum import SumFactory

__all__ = [
    "AggregationFactory",
    "MeanFactory",
    "SumFactory",
    "UnweightedAggregationFactory",
    "UnweightedMeanFactory",
    "WeightedAggregationFactory",
]
