"""Measurements beside those that an aggregator makes itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fedcore import structure
from fedcore.aggregators._checks import inner_factory
from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.federated import federated_computation, federated_zip
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.types import StructType, Type, at_clients


def add_measurements(
    inner_agg_factory: AggregationFactory,
    *,
    client_measurement_fn: Callable[..., Any] | None = None,
    server_measurement_fn: Callable[[Any], Any] | None = None,
) -> AggregationFactory:
    """Adds measurements of what goes into an aggregator, of what comes out, or of both.

    The functions run while the process is traced, in a federated computation.

    Args:
        inner_agg_factory: Aggregates; its state and result are unchanged.
        client_measurement_fn: From `{T}@CLIENTS`, and `{W}@CLIENTS` if the inner factory
            takes weights, to an OrderedDict of values at SERVER.
        server_measurement_fn: From the result at SERVER to an OrderedDict of values at
            SERVER.

    Returns:
        A factory of the inner factory's kind. What is measured stands beside the inner
        measurements, and in the place of one with the same name.

    Raises:
        ValueError: If neither function is given.
        TypeError: If the inner factory is none, or its measurements have no names.
    """
    inner_factory("inner_agg_factory", inner_agg_factory, weighted=None)
    if client_measurement_fn is None and server_measurement_fn is None:
        raise ValueError(
            "`add_measurements` needs `client_measurement_fn` or "
            "`server_measurement_fn`, found neither."
        )

    def measured(output: Any, arguments: list[Any]) -> MeasuredProcessOutput:
        parts = _named(output.measurements)
        if client_measurement_fn is not None:
            parts.update(_named(client_measurement_fn(*arguments)))
        if server_measurement_fn is not None:
            parts.update(_named(server_measurement_fn(output.result)))
        return MeasuredProcessOutput(output.state, output.result, federated_zip(parts))

    class Unweighted(UnweightedAggregationFactory):
        def create(self, value_type: Type) -> AggregationProcess:
            inner = inner_agg_factory.create(value_type)

            @federated_computation(inner.state_type, at_clients(value_type))
            def next_fn(state, value):
                return measured(inner.next(state, value), [value])

            return AggregationProcess(inner.initialize, next_fn)

    class Weighted(WeightedAggregationFactory):
        def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
            inner = inner_agg_factory.create(value_type, weight_type)

            @federated_computation(
                inner.state_type, at_clients(value_type), at_clients(weight_type)
            )
            def next_fn(state, value, weight):
                return measured(inner.next(state, value, weight), [value, weight])

            return AggregationProcess(inner.initialize, next_fn)

    weighted = isinstance(inner_agg_factory, WeightedAggregationFactory)
    return Weighted() if weighted else Unweighted()


def _named(measurements: Any) -> OrderedDict[str, Any]:
    """Measurements by name: of a dict, or of a value at the server that is a structure."""
    if isinstance(measurements, dict):
        return OrderedDict(measurements)
    member = getattr(getattr(measurements, "type_signature", None), "member", None)
    if not isinstance(member, StructType) or None in structure.name_list_with_nones(
        member
    ):
        found = member if member is not None else type(measurements).__name__
        raise TypeError(
            "`add_measurements` needs measurements with names, found "
            f"`{found}`.\nReturn an OrderedDict of values at SERVER."
        )
    return OrderedDict(
        (name, measurements[name]) for name in structure.name_list(member)
    )
