"""Keras metrics whose variables are summed over the clients."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from fedcore import structure
from fedcore.federated import (
    Value,
    federated_map,
    federated_sum,
    federated_zip,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import StructType
from fedlearn.metrics._finalizers import (
    create_keras_metric_finalizer,
    metric_constructor,
)
from fedlearn.metrics._fresh import apart


def federated_aggregate_keras_metric(metrics: Any, federated_values: Any) -> Value:
    """Sums the values of metrics' variables over the clients and gives the metrics.

    To be called inside a `federated_computation`.

    Args:
        metrics: A Keras metric or a function without arguments that makes one, or a
            sequence of such.
        federated_values: The values of the variables, `{<V,...>}@CLIENTS` for one metric.
            For a sequence of metrics a structure of these, placed as a whole or each on
            its own: by the names of the metrics, or in their order.

    Returns:
        The metric at the server; for a sequence `<name=...,...>@SERVER`, by the names of
        the values if they have any, else of the metrics.

    Raises:
        TypeError: If there is no metric.
        ValueError: If there are more or fewer values than metrics.
    """
    if not isinstance(metrics, Sequence):
        finalizer = create_keras_metric_finalizer(metrics)
        values = federated_sum(federated_values)

        @tf_computation(values.type_signature.member)
        def finalize_one(values):
            return finalizer(list(values))

        return federated_map(finalize_one, values)

    finalizers = _finalizers_by_name(metrics)
    if isinstance(federated_values, (list, tuple)):
        federated_values = federated_zip(tuple(federated_values))
    values = federated_sum(federated_values)
    member = values.type_signature.member
    if not isinstance(member, StructType) or len(member) != len(finalizers):
        raise ValueError(
            f"`federated_aggregate_keras_metric` needs the values of {len(finalizers)} "
            f"metrics at `federated_values`, found `{member}`."
        )

    ordered = _in_order_of_the_values(finalizers, member)

    @tf_computation(member)
    def finalize(values):
        return collections.OrderedDict(
            (name, finalizer(list(part)))
            for (name, finalizer), part in zip(
                ordered.items(), structure.from_container(values)
            )
        )

    return federated_map(finalize, values)


def _in_order_of_the_values(
    finalizers: dict[str, Any], member: StructType
) -> dict[str, Any]:
    """The finalizer of each part of the values, by the name that its result gets."""
    names = structure.name_list(member)
    if not names:
        return finalizers
    if set(names) == set(finalizers):
        return {name: finalizers[name] for name in names}
    return dict(zip(names, finalizers.values()))


def _finalizers_by_name(metrics: Sequence[Any]) -> dict[str, Any]:
    finalizers = {}
    with apart():
        for metric in metrics:
            name = metric_constructor(metric)().name
            if name in finalizers:
                raise ValueError(
                    "`federated_aggregate_keras_metric` needs metrics of different "
                    f"names, found `{name}` twice."
                )
            finalizers[name] = create_keras_metric_finalizer(metric)
    return finalizers
