"""Clients' unfinalized metrics are summed, then finalized at the server."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore.aggregators import SumFactory, UnweightedAggregationFactory
from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
    federated_sum,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    SERVER,
    StructType,
    StructWithPythonType,
    at_clients,
    structure_from_tensor_type_tree,
)
from fedlearn.metrics._finalizers import MetricFinalizersType


def sum_then_finalize(
    metric_finalizers: MetricFinalizersType | Callable[[Any], Any],
    local_unfinalized_metrics_type: StructWithPythonType,
) -> Computation:
    """Makes the computation that sums clients' unfinalized metrics and finalizes the sum.

    Args:
        metric_finalizers: The finalizers by metric name (`Model.metric_finalizers()`), or
            one function of all unfinalized metrics (of a `FunctionalModel`).
        local_unfinalized_metrics_type: U, the type of a client's unfinalized metrics.

    Returns:
        A computation of type `({U}@CLIENTS -> M@SERVER)`, M the finalized metrics.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the finalizers and the type have different metric names.
    """
    check_metric_finalizers(
        "sum_then_finalize", metric_finalizers, local_unfinalized_metrics_type
    )
    finalize = finalize_computation(metric_finalizers, local_unfinalized_metrics_type)

    @federated_computation(at_clients(local_unfinalized_metrics_type))
    def aggregate(client_local_unfinalized_metrics):
        return federated_map(finalize, federated_sum(client_local_unfinalized_metrics))

    return aggregate


class SumThenFinalizeFactory(UnweightedAggregationFactory):
    """Sums unfinalized metrics over clients and over rounds, and finalizes both sums."""

    def __init__(
        self,
        metric_finalizers: MetricFinalizersType | Callable[[Any], Any],
        initial_unfinalized_metrics: collections.OrderedDict[str, Any] | None = None,
        inner_summation_factory: UnweightedAggregationFactory | None = None,
    ):
        """Makes the factory.

        Args:
            metric_finalizers: The finalizers by metric name, or one function of all
                unfinalized metrics.
            initial_unfinalized_metrics: What the sum over rounds begins with; zeros if
                None.
            inner_summation_factory: Sums over the clients of a round; `SumFactory()` if
                None.

        Raises:
            TypeError: If an argument is of the wrong kind.
        """
        _check_finalizers("SumThenFinalizeFactory", metric_finalizers)
        inner = inner_summation_factory
        if inner is not None and not isinstance(inner, UnweightedAggregationFactory):
            raise TypeError(
                "`SumThenFinalizeFactory` needs an `UnweightedAggregationFactory` at "
                f"`inner_summation_factory`, found `{type(inner).__name__}`."
            )
        self._metric_finalizers = metric_finalizers
        self._initial = initial_unfinalized_metrics
        self._inner = SumFactory() if inner is None else inner

    def create(
        self, local_unfinalized_metrics_type: StructWithPythonType
    ) -> AggregationProcess:
        """The process for clients' unfinalized metrics of a type.

        Args:
            local_unfinalized_metrics_type: U, the type of a client's unfinalized metrics.

        Returns:
            A process whose state is `<inner,U>`, the inner process's state and the sum
            over rounds, with next `(<state=<inner,U>@SERVER,unfinalized_metrics={U}
            @CLIENTS> -> <state=<inner,U>@SERVER,result=<M,M>@SERVER,...>)`: the metrics
            of this round and those of all rounds.

        Raises:
            TypeError: If the type is of the wrong kind, or the initial values are not of
                that type.
            ValueError: If the finalizers and the type have different metric names.
        """
        metrics_type = local_unfinalized_metrics_type
        check_metric_finalizers(
            "SumThenFinalizeFactory.create", self._metric_finalizers, metrics_type
        )
        finalize = finalize_computation(self._metric_finalizers, metrics_type)
        initial = _initial_computation(self._initial, metrics_type)
        inner = self._inner.create(metrics_type)

        @tf_computation(metrics_type, metrics_type)
        def add(total, current):
            return tf.nest.map_structure(tf.add, total, current)

        @federated_computation
        def initialize():
            return federated_zip((inner.initialize(), federated_eval(initial, SERVER)))

        @federated_computation(
            initialize.type_signature.result, at_clients(metrics_type)
        )
        def next_fn(state, unfinalized_metrics):
            inner_state, total = state
            output = inner.next(inner_state, unfinalized_metrics)
            total = federated_map(add, (total, output.result))
            return MeasuredProcessOutput(
                state=federated_zip((output.state, total)),
                result=federated_zip(
                    (
                        federated_map(finalize, output.result),
                        federated_map(finalize, total),
                    )
                ),
                measurements=output.measurements,
            )

        return AggregationProcess(initialize, next_fn)


def finalize_computation(
    metric_finalizers: MetricFinalizersType | Callable[[Any], Any],
    unfinalized_type: StructWithPythonType,
) -> Computation:
    """The `tf_computation` `(U -> M)` that applies the finalizers."""

    @tf_computation(unfinalized_type)
    def finalize(unfinalized_metrics):
        if callable(metric_finalizers):
            return metric_finalizers(unfinalized_metrics)
        return collections.OrderedDict(
            (name, finalizer(unfinalized_metrics[name]))
            for name, finalizer in metric_finalizers.items()
        )

    return finalize


def check_metric_finalizers(
    function: str, metric_finalizers: Any, metrics_type: Any
) -> None:
    """Checks the finalizers, the type, and that they name the same metrics."""
    _check_finalizers(function, metric_finalizers)
    check_metrics_type(function, metrics_type)
    if callable(metric_finalizers):
        return
    names = set(structure.name_list(metrics_type))
    if names != set(metric_finalizers):
        raise ValueError(
            f"`{function}` needs a finalizer for each unfinalized metric, found metrics "
            f"{sorted(names)} and finalizers for {sorted(metric_finalizers)}.\n"
            f"Only among the metrics: {sorted(names - set(metric_finalizers))}; only "
            f"among the finalizers: {sorted(set(metric_finalizers) - names)}."
        )


def check_metrics_type(function: str, metrics_type: Any) -> None:
    """Checks that this is the type of a Python structure of tensors."""
    if not isinstance(metrics_type, StructWithPythonType):
        found = (
            f"`{metrics_type}`"
            if isinstance(metrics_type, StructType)
            else f"`{type(metrics_type).__name__}`"
        )
        raise TypeError(
            f"`{function}` needs a `StructWithPythonType` at "
            f"`local_unfinalized_metrics_type`, found {found}.\n"
            "Pass the type of one client's metrics, without a placement, e.g. "
            "types.type_from_tensors(model.report_local_unfinalized_metrics())."
        )


def _check_finalizers(function: str, metric_finalizers: Any) -> None:
    if callable(metric_finalizers):
        return
    if not isinstance(metric_finalizers, collections.OrderedDict):
        raise TypeError(
            f"`{function}` needs an `OrderedDict` (or a function) at "
            f"`metric_finalizers`, found `{type(metric_finalizers).__name__}`."
        )
    for name, finalizer in metric_finalizers.items():
        if not isinstance(name, str) or not callable(finalizer):
            raise TypeError(
                f"`{function}` needs functions by metric name at `metric_finalizers`, "
                f"found `{type(finalizer).__name__}` at {name!r}."
            )


def _initial_computation(
    initial: Any, metrics_type: StructWithPythonType
) -> Computation:
    """The `tf_computation` of the first sum over rounds: the given values, or zeros."""
    if initial is None:
        return tf_computation(
            lambda: structure_from_tensor_type_tree(
                lambda tensor: tf.zeros(tensor.shape, tensor.dtype), metrics_type
            )
        )
    arrays = tf.nest.map_structure(np.asarray, initial)
    computation = tf_computation(lambda: tf.nest.map_structure(tf.constant, arrays))
    found = computation.type_signature.result
    if not metrics_type.is_assignable_from(found):
        raise TypeError(
            "`SumThenFinalizeFactory` needs `initial_unfinalized_metrics` of the type of "
            f"the unfinalized metrics, `{metrics_type}`, found `{found}`."
        )
    return computation
