"""The plain sum of clients' values."""

from __future__ import annotations

from fedcore.aggregators._checks import value_type_of
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.federated import federated_computation, federated_sum, federated_value
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.types import SERVER, Type, at_clients, at_server


class SumFactory(UnweightedAggregationFactory):
    """Sums clients' values.

    Σᵢ xᵢ; stateless, without measurements.
    """

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that sums values of `value_type`.

        Args:
            value_type: T, a structure of numeric tensors.

        Returns:
            A process with next `(<state=<>@SERVER,value={T}@CLIENTS> ->
            <state=<>@SERVER,result=T@SERVER,measurements=<>@SERVER>)`.

        Raises:
            TypeError: If T is not a structure of tensors, or not numeric.
        """
        value_type = value_type_of(self, value_type)

        @federated_computation
        def initialize_fn():
            return federated_value((), SERVER)

        @federated_computation(at_server(()), at_clients(value_type))
        def next_fn(state, value):
            return MeasuredProcessOutput(
                state, federated_sum(value), federated_value((), SERVER)
            )

        return AggregationProcess(initialize_fn, next_fn)
