"""Clients' unfinalized metrics are summed securely, each number within a range."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from fedcore import aggregators, structure
from fedcore.aggregators import UnweightedAggregationFactory
from fedcore.computation import Computation
from fedcore.federated import (
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
from fedcore.types import (
    SERVER,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    at_clients,
    structure_from_tensor_type_tree,
    to_type,
)
from fedlearn.metrics._finalizers import MetricFinalizersType
from fedlearn.metrics._quantization_ranges import (
    RangeStructure,
    checked_range,
    create_default_secure_sum_quantization_ranges,
    default_estimation_process,
    is_range,
)
from fedlearn.metrics._sum_then_finalize import (
    check_metric_finalizers,
    check_metrics_type,
    finalize_computation,
)

_MEASUREMENTS = "secure_sum_measurements"


class SecureSumFactory(UnweightedAggregationFactory):
    """Sums unfinalized metrics securely, tensors of one range and dtype together.

    Each number is clipped to its range [a, b] and, if a float, sent as one of 2³² levels
    in between, as `fedcore.aggregators.SecureSumFactory` does.
    """

    def __init__(self, metric_value_ranges: RangeStructure = None):
        """Makes the factory.

        Args:
            metric_value_ranges: By metric name the range (a, b) of each of its tensors, in
                a structure as that of the metric, None where the default will do:
                integers for integers, floats (or `EstimationProcess`es) for floats. An
                upper process with a = None gives −b as the lower bound. By default
                integers are in [0, 2²⁰ − 1], and bounds ±b of floats follow the clients:
                b is twice the 0.95 quantile of their greatest absolute values, 100 at
                first.

        Raises:
            TypeError: If the ranges are no mapping by metric name.
        """
        _check_mapping("SecureSumFactory", metric_value_ranges)
        self._ranges = metric_value_ranges

    def create(
        self, local_unfinalized_metrics_type: StructWithPythonType
    ) -> AggregationProcess:
        """The process for clients' unfinalized metrics of a type.

        Args:
            local_unfinalized_metrics_type: U, the type of a client's unfinalized metrics:
                integers and floats by metric name.

        Returns:
            A process with next `(<state=S@SERVER,client_local_unfinalized_metrics={U}
            @CLIENTS> -> <state=S@SERVER,result=U@SERVER,measurements=M@SERVER>)`. S and M
            have an element for each range and dtype, by a name like `0/1048575/9` (the
            last is the number of the dtype): the state and the measurements of
            `fedcore.aggregators.SecureSumFactory`.

        Raises:
            TypeError: If the type is of the wrong kind or holds something else than
                numbers, or a range is not of the kind of its tensor.
            ValueError: If the ranges name other metrics or have another structure, or a
                lower bound is not below the upper.
        """
        metrics_type = local_unfinalized_metrics_type
        _check_named_metrics("SecureSumFactory.create", metrics_type)
        return _grouped_sum(metrics_type, self._ranges, auto_tuned=True)


def secure_sum_then_finalize(
    metric_finalizers: MetricFinalizersType | Callable[[Any], Any],
    local_unfinalized_metrics_type: StructWithPythonType,
    metric_value_ranges: RangeStructure = None,
) -> Computation:
    """Makes the computation that sums unfinalized metrics securely and finalizes the sum.

    It keeps no state: a number counts within a fixed range. `SecureSumFactory`, as the
    inner factory of a `SumThenFinalizeFactory`, has ranges that follow the clients.

    Args:
        metric_finalizers: The finalizers by metric name (`Model.metric_finalizers()`), or
            one function of all unfinalized metrics (of a `FunctionalModel`).
        local_unfinalized_metrics_type: U, the type of a client's unfinalized metrics.
        metric_value_ranges: As for `SecureSumFactory`, without processes; [0, 2²⁰ − 1] by
            default.

    Returns:
        A computation `({U}@CLIENTS -> <secure_sum_measurements=...,...>@SERVER)`: the
        measurements of the secure sums, then the finalized metrics.

    Raises:
        TypeError: If an argument is of the wrong kind, or a range is not of the kind of
            its tensor.
        ValueError: If the finalizers and the type have different metric names, or the
            ranges name other metrics or have another structure.
    """
    function = "secure_sum_then_finalize"
    metrics_type = local_unfinalized_metrics_type
    _check_mapping(function, metric_value_ranges)
    check_metric_finalizers(function, metric_finalizers, metrics_type)
    _check_named_metrics(function, metrics_type)
    sums = _grouped_sum(metrics_type, metric_value_ranges, auto_tuned=False)
    if any(map(len, sums.state_type.member)):
        raise TypeError(
            f"`{function}` needs numbers at `metric_value_ranges`, found an "
            "`EstimationProcess`, which has a state to be kept.\n"
            "Use SumThenFinalizeFactory(finalizers, inner_summation_factory="
            "SecureSumFactory(ranges))."
        )
    finalize = finalize_computation(metric_finalizers, metrics_type)
    names = _finalized_names(function, finalize.type_signature.result)

    @federated_computation(at_clients(metrics_type))
    def aggregate(client_local_unfinalized_metrics):
        output = sums.next(sums.initialize(), client_local_unfinalized_metrics)
        finalized = federated_map(finalize, output.result)
        return federated_zip(
            collections.OrderedDict(
                [(_MEASUREMENTS, output.measurements)]
                + [(name, finalized[i]) for i, name in enumerate(names)]
            )
        )

    return aggregate


@attrs.frozen
class _Leaf:
    """A tensor of the metrics: where it stands, what it is, and the range it counts in."""

    path: tuple[str | int, ...]
    type: TensorType
    range: tuple[Any, Any]


def _grouped_sum(
    metrics_type: StructWithPythonType, ranges: Any, *, auto_tuned: bool
) -> AggregationProcess:
    """A secure sum for the tensors of each range and dtype."""
    default = create_default_secure_sum_quantization_ranges(
        metrics_type, use_auto_tuned_bounds_for_float_values=auto_tuned
    )
    leaves = list(_leaves(metrics_type, ranges, default, ()))
    groups = _groups(leaves)
    sums = collections.OrderedDict(
        (key, _sum_of([leaves[i] for i in members])) for key, members in groups.items()
    )

    @tf_computation(metrics_type)
    def by_group(metrics):
        tensors = structure.flatten(structure.from_container(metrics, recursive=True))
        return tuple([tensors[i] for i in members] for members in groups.values())

    @tf_computation(by_group.type_signature.result)
    def by_metric(grouped):
        tensors = {
            i: tensor
            for members, group in zip(groups.values(), grouped)
            for i, tensor in zip(members, group)
        }
        in_order = iter([tensors[i] for i in range(len(leaves))])
        return structure_from_tensor_type_tree(lambda _: next(in_order), metrics_type)

    @federated_computation
    def initialize():
        return _zipped(
            collections.OrderedDict(
                (key, process.initialize()) for key, process in sums.items()
            )
        )

    @federated_computation(initialize.type_signature.result, at_clients(metrics_type))
    def next_fn(state, client_local_unfinalized_metrics):
        grouped = federated_map(by_group, client_local_unfinalized_metrics)
        outputs = collections.OrderedDict(
            (key, process.next(state[i], grouped[i]))
            for i, (key, process) in enumerate(sums.items())
        )
        totals = _zipped(tuple(output.result for output in outputs.values()))
        return MeasuredProcessOutput(
            state=_zipped(_part("state", outputs)),
            result=federated_map(by_metric, totals),
            measurements=_zipped(_part("measurements", outputs)),
        )

    return AggregationProcess(initialize, next_fn)


def _part(name: str, outputs: Mapping[str, Any]) -> collections.OrderedDict:
    return collections.OrderedDict(
        (key, getattr(output, name)) for key, output in outputs.items()
    )


def _zipped(parts: Any) -> Any:
    """One value at the server; a model may have no metrics at all."""
    return federated_zip(parts) if parts else federated_value(parts, SERVER)


def _sum_of(leaves: list[_Leaf]) -> AggregationProcess:
    lower, upper = leaves[0].range
    factory = aggregators.SecureSumFactory(upper, lower)
    return factory.create(to_type([leaf.type for leaf in leaves]))


def _groups(leaves: list[_Leaf]) -> dict[str, list[int]]:
    """The numbers of the tensors by range and dtype, in the order of names, as in TFF."""
    groups, known = {}, {}
    for i in sorted(range(len(leaves)), key=lambda i: leaves[i].path):
        bounds = "/".join(_bound_name(bound, known) for bound in leaves[i].range)
        key = f"{bounds}/{leaves[i].type.dtype.as_datatype_enum}"
        groups.setdefault(key, []).append(i)
    return groups


def _bound_name(bound: Any, known: dict[int, str]) -> str:
    """A number as it is; processes are numbered in the order in which they appear."""
    if not isinstance(bound, EstimationProcess):
        return str(bound)
    if bound is default_estimation_process():
        return "default_estimation_process"
    return known.setdefault(id(bound), f"estimation_process_{len(known)}")


def _leaves(type_: Type, ranges: Any, default: Any, path: tuple) -> Iterator[_Leaf]:
    """The tensors of a type, in its order, each with the range given or the default."""
    if isinstance(type_, TensorType):
        leaf = _Leaf(path, type_, default)
        if ranges is not None:
            bounds = checked_range(ranges, type_.dtype, _where(path))
            leaf = attrs.evolve(leaf, range=bounds)
        yield leaf
        return
    named = isinstance(default, Mapping)
    keys = list(default) if named else list(range(len(default)))
    parts = _parts(ranges, keys, named, path)
    for key, element in zip(keys, type_):
        yield from _leaves(element, parts.get(key), default[key], (*path, key))


def _parts(ranges: Any, keys: list, named: bool, path: tuple) -> Mapping:
    """The ranges of a structure's elements by key; those not given are left out."""
    if ranges is None:
        return {}
    if named:
        if not isinstance(ranges, Mapping) or set(ranges) - set(keys):
            found = list(ranges) if isinstance(ranges, Mapping) else ranges
            raise ValueError(
                f"`{_where(path)}` needs ranges by name for some of {keys}, found {found!r}."
            )
        return ranges
    is_list = isinstance(ranges, list | tuple) and not is_range(ranges)
    if not is_list or len(ranges) != len(keys):
        raise ValueError(
            f"`{_where(path)}` needs a list with the range, or None, of each of {len(keys)} "
            f"tensors, found `{ranges!r}`."
        )
    return dict(enumerate(ranges))


def _where(path: tuple) -> str:
    return "metric_value_ranges" + "".join(f"[{part!r}]" for part in path)


def _check_mapping(function: str, ranges: Any) -> None:
    if ranges is not None and not isinstance(ranges, Mapping):
        raise TypeError(
            f"`{function}` needs a mapping by metric name at `metric_value_ranges`, found "
            f"`{type(ranges).__name__}`."
        )


def _check_named_metrics(function: str, metrics_type: Any) -> None:
    """Checks that this is the type of a Python mapping of metrics by name."""
    check_metrics_type(function, metrics_type)
    if not issubclass(metrics_type.python_container, Mapping):
        raise TypeError(
            f"`{function}` needs an `OrderedDict` of metrics by name at "
            "`local_unfinalized_metrics_type`, found a "
            f"`{metrics_type.python_container.__name__}`: `{metrics_type}`."
        )


def _finalized_names(function: str, finalized: Type) -> list[str]:
    names = structure.name_list(finalized) if isinstance(finalized, StructType) else []
    if not isinstance(finalized, StructType) or len(names) != len(finalized):
        raise TypeError(
            f"`{function}` needs `metric_finalizers` that give metrics by name, found "
            f"`{finalized}`."
        )
    if _MEASUREMENTS in names:
        raise ValueError(
            f"`{function}` needs another name for the metric `{_MEASUREMENTS}`: by it it "
            "reports what was clipped."
        )
    return names
