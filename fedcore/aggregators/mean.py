"""Means of clients' values, weighted or not, of sums by inner aggregators."""

from __future__ import annotations

from collections import OrderedDict

import tensorflow as tf

from fedcore.aggregators._checks import (
    float_type_of,
    inner_factory,
    result_of,
    weight_type_of,
)
from fedcore.aggregators.factory import (
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.aggregators.sum import SumFactory
from fedcore.federated import _arithmetic as arithmetic
from fedcore.federated import (
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    CLIENTS,
    TensorType,
    Type,
    at_clients,
)


class MeanFactory(WeightedAggregationFactory):
    """Averages clients' values by weight: Σᵢ wᵢ xᵢ / Σᵢ wᵢ.

    Args:
        value_sum_factory: Sums the weighted values wᵢ xᵢ; `SumFactory()` if None.
        weight_sum_factory: Sums the weights; `SumFactory()` if None.
        no_nan_division: Whether the mean is 0, and not NaN, where the weights sum to 0.
    """

    def __init__(
        self,
        value_sum_factory: UnweightedAggregationFactory | None = None,
        weight_sum_factory: UnweightedAggregationFactory | None = None,
        no_nan_division: bool = False,
    ):
        self._value_sum = inner_factory(
            "value_sum_factory", value_sum_factory or SumFactory()
        )
        self._weight_sum = inner_factory(
            "weight_sum_factory", weight_sum_factory or SumFactory()
        )
        self._no_nan_division = no_nan_division

    def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
        """The process that averages values of `value_type`.

        Args:
            value_type: T, a structure of floats.
            weight_type: W, a scalar number.

        Returns:
            A process with next `(<state=<value_sum_process=S,weight_sum_process=U>@SERVER,
            value={T}@CLIENTS,weight={W}@CLIENTS> -> <state=...,result=T@SERVER,
            measurements=<mean_value=M,mean_weight=N>@SERVER>)`.

        Raises:
            TypeError: If T is not a structure of floats, or W not a scalar number.
        """
        value_type = float_type_of(self, value_type)
        weight_type = weight_type_of(self, weight_type)
        multiply = arithmetic.multiply(value_type, weight_type)
        value_sum = self._value_sum.create(multiply.type_signature.result)
        weight_sum = self._weight_sum.create(weight_type)
        divide = _division(value_sum, weight_sum, self._no_nan_division)

        @federated_computation
        def initialize_fn():
            return federated_zip(
                OrderedDict(
                    value_sum_process=value_sum.initialize(),
                    weight_sum_process=weight_sum.initialize(),
                )
            )

        @federated_computation(
            initialize_fn.type_signature.result,
            at_clients(value_type),
            at_clients(weight_type),
        )
        def next_fn(state, value, weight):
            weighted = federated_map(multiply, (value, weight))
            values = value_sum.next(state["value_sum_process"], weighted)
            weights = weight_sum.next(state["weight_sum_process"], weight)
            return MeasuredProcessOutput(
                federated_zip(
                    OrderedDict(
                        value_sum_process=values.state,
                        weight_sum_process=weights.state,
                    )
                ),
                federated_map(divide, (values.result, weights.result)),
                federated_zip(
                    OrderedDict(
                        mean_value=values.measurements,
                        mean_weight=weights.measurements,
                    )
                ),
            )

        return AggregationProcess(initialize_fn, next_fn)


class UnweightedMeanFactory(UnweightedAggregationFactory):
    """Averages clients' values: Σᵢ xᵢ / n.

    Args:
        value_sum_factory: Sums the values; `SumFactory()` if None.
        count_sum_factory: Counts the clients, by summing 1 for each; `SumFactory()` if
            None.
    """

    def __init__(
        self,
        value_sum_factory: UnweightedAggregationFactory | None = None,
        count_sum_factory: UnweightedAggregationFactory | None = None,
    ):
        self._value_sum = inner_factory(
            "value_sum_factory", value_sum_factory or SumFactory()
        )
        self._count_sum = inner_factory(
            "count_sum_factory", count_sum_factory or SumFactory()
        )

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that averages values of `value_type`.

        Args:
            value_type: T, a structure of floats.

        Returns:
            A process with next `(<state=<S,U>@SERVER,value={T}@CLIENTS> ->
            <state=...,result=T@SERVER,measurements=<mean_value=M,mean_count=N>@SERVER>)`,
            S and U the states of the two sums.

        Raises:
            TypeError: If T is not a structure of floats.
        """
        value_type = float_type_of(self, value_type)
        value_sum = self._value_sum.create(value_type)
        count_sum = self._count_sum.create(TensorType(tf.int32))
        divide = _division(value_sum, count_sum, no_nan=False)

        @federated_computation
        def initialize_fn():
            return federated_zip((value_sum.initialize(), count_sum.initialize()))

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(value_type)
        )
        def next_fn(state, value):
            value_state, count_state = state
            values = value_sum.next(value_state, value)
            counts = count_sum.next(count_state, federated_value(1, CLIENTS))
            return MeasuredProcessOutput(
                federated_zip((values.state, counts.state)),
                federated_map(divide, (values.result, counts.result)),
                federated_zip(
                    OrderedDict(
                        mean_value=values.measurements, mean_count=counts.measurements
                    )
                ),
            )

        return AggregationProcess(initialize_fn, next_fn)


def _division(value_sum: AggregationProcess, divisor: AggregationProcess, no_nan: bool):
    total = result_of(value_sum)
    weight = result_of(divisor)
    if not no_nan:
        return arithmetic.divide(total, weight)

    @tf_computation(total, weight)
    def divide_no_nan(values, total_weight):
        quotients = [
            tf.math.divide_no_nan(t, tf.cast(total_weight, t.dtype))
            for t in arithmetic.flat(values)
        ]
        return arithmetic.packed(quotients, total)

    return divide_no_nan
