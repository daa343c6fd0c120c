"""What an aggregator is: a factory that makes an `AggregationProcess` for a type."""

from __future__ import annotations

import abc

from fedcore.templates import AggregationProcess
from fedcore.types import Type


class UnweightedAggregationFactory(abc.ABC):
    """Makes processes that aggregate clients' values without weights."""

    @abc.abstractmethod
    def create(self, value_type: Type) -> AggregationProcess:
        """The process for values of one type.

        Args:
            value_type: The type V of a client's value, unplaced.

        Returns:
            A process whose `next` is `(<S@SERVER,{V}@CLIENTS> -> <state=S@SERVER,
            result=R@SERVER,measurements=M@SERVER>)`.
        """


class WeightedAggregationFactory(abc.ABC):
    """Makes processes that aggregate clients' values with a weight for each client."""

    @abc.abstractmethod
    def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
        """The process for values and weights of given types.

        Args:
            value_type: The type V of a client's value, unplaced.
            weight_type: The type W of its weight, a scalar.

        Returns:
            A process whose `next` is `(<S@SERVER,{V}@CLIENTS,{W}@CLIENTS> ->
            <state=S@SERVER,result=R@SERVER,measurements=M@SERVER>)`.
        """


AggregationFactory = UnweightedAggregationFactory | WeightedAggregationFactory
