"""The computation that makes the cohort's metrics of the clients'."""

from __future__ import annotations

from typing import Any

from fedcore.computation import Computation
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructType,
    StructWithPythonType,
    Type,
)
from fedlearn.metrics._sum_then_finalize import sum_then_finalize


def metrics_aggregation(
    metrics_aggregator: Any,
    metric_finalizers: Any,
    local_unfinalized_metrics_type: StructWithPythonType,
) -> Computation:
    """What `metrics_aggregator`, as users give it to an algorithm, makes for a model.

    Args:
        metrics_aggregator: `metric_finalizers, unfinalized_metrics_type -> computation
            ({unfinalized}@CLIENTS -> metrics@SERVER)`; `sum_then_finalize` if None.
        metric_finalizers: The finalizers of the model's metrics.
        local_unfinalized_metrics_type: The type of a client's unfinalized metrics.

    Raises:
        TypeError: If it is no function, or makes something else.
    """
    aggregator = sum_then_finalize if metrics_aggregator is None else metrics_aggregator
    if not callable(aggregator):
        raise TypeError(
            "`metrics_aggregator` needs to be a function of the metrics' finalizers and "
            f"the type of unfinalized metrics, found `{type(aggregator).__name__}`.\n"
            "Pass for example fedlearn.metrics.sum_then_finalize."
        )
    found = aggregator(metric_finalizers, local_unfinalized_metrics_type)
    if not (
        isinstance(found, Computation) and _fits(found, local_unfinalized_metrics_type)
    ):
        shown = found.type_signature if isinstance(found, Computation) else repr(found)
        raise TypeError(
            "`metrics_aggregator` needs to make a computation of type\n"
            f"    ({{{local_unfinalized_metrics_type}}}@CLIENTS -> metrics@SERVER)\n"
            f"found\n    {shown}"
        )
    return found


def _fits(computation: Computation, metrics_type: StructWithPythonType) -> bool:
    parameter = computation.type_signature.parameter
    return (
        isinstance(parameter, FederatedType)
        and parameter.placement is CLIENTS
        and parameter.member.is_assignable_from(metrics_type)
        and _at_server(computation.type_signature.result)
    )


def _at_server(type_: Type) -> bool:
    """Whether this is a value at the server, or a structure of such."""
    if isinstance(type_, FederatedType):
        return type_.placement is SERVER
    return isinstance(type_, StructType) and all(map(_at_server, type_))
