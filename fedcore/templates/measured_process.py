"""A process whose steps give a result and measurements beside the next state."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_zip,
)
from fedcore.templates._errors import TemplateNotMeasuredProcessOutputError
from fedcore.templates.iterative_process import (
    IterativeProcess,
    check_fits,
    check_state_fits,
)
from fedcore.types import FederatedType, StructType, StructWithPythonType, Type


@attrs.frozen(eq=False)
class MeasuredProcessOutput:
    """What a step of a `MeasuredProcess` returns.

    Attributes:
        state: The next state.
        result: What the step was for.
        measurements: What was measured on the way.
    """

    state: Any
    result: Any
    measurements: Any


class MeasuredProcess(IterativeProcess):
    """An `IterativeProcess` whose `next` returns a `MeasuredProcessOutput`.

    Args:
        initialize_fn: `( -> S)`.
        next_fn: `(<S,...> -> <state=S,result=R,measurements=M>)`.
        next_is_multi_arg: As for `IterativeProcess`.

    Raises:
        TemplateNotMeasuredProcessOutputError: If `next_fn` returns something else.
        TypeError: As `IterativeProcess`.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        next_is_multi_arg: bool | None = None,
    ):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        result = next_fn.type_signature.result
        if not (
            isinstance(result, StructWithPythonType)
            and result.python_container is MeasuredProcessOutput
        ):
            raise TemplateNotMeasuredProcessOutputError(
                "`next_fn` needs to return a `MeasuredProcessOutput`, found "
                f"`{result}`.\n"
                "Return MeasuredProcessOutput(state, result, measurements)."
            )
        check_state_fits(self.state_type, result.state, "next_fn")


def chain_measured_processes(
    measured_processes: Mapping[str, MeasuredProcess],
) -> MeasuredProcess:
    """Runs processes one after another: each takes the result of the one before.

    Args:
        measured_processes: The processes by name, in order (an `OrderedDict`). Each
            `next` takes a state and one value.

    Returns:
        A process whose state and measurements are structures by the same names, and
        whose result is that of the last process.

    Raises:
        TypeError: If one is not a `MeasuredProcess` with one value, states are at
            different placements, or a process does not take what the one before returns.
        ValueError: If there is no process.
    """
    processes = _checked(measured_processes, "chain_measured_processes")
    _check_chain(processes)
    first = next(iter(processes.values()))
    state_type, gather = _together(processes, "chain_measured_processes")

    @federated_computation
    def initialize_fn():
        return gather((name, p.initialize()) for name, p in processes.items())

    @federated_computation(state_type, first.next.type_signature.parameter[1])
    def next_fn(state, values):
        outputs = OrderedDict()
        for name, process in processes.items():
            outputs[name] = process.next(state[name], values)
            values = outputs[name].result
        return MeasuredProcessOutput(
            gather((name, output.state) for name, output in outputs.items()),
            values,
            gather((name, output.measurements) for name, output in outputs.items()),
        )

    return MeasuredProcess(initialize_fn, next_fn, next_is_multi_arg=True)


def concatenate_measured_processes(
    measured_processes: Mapping[str, MeasuredProcess],
) -> MeasuredProcess:
    """Runs processes side by side: each takes the element of the value with its name.

    Args:
        measured_processes: The processes by name (an `OrderedDict`). Each `next` takes a
            state and one value.

    Returns:
        A process whose state, value, result and measurements are structures by the same
        names.

    Raises:
        TypeError: If one is not a `MeasuredProcess` with one value, or states are at
            different placements.
        ValueError: If there is no process.
    """
    processes = _checked(measured_processes, "concatenate_measured_processes")
    state_type, gather = _together(processes, "concatenate_measured_processes")
    value_types = OrderedDict(
        (name, p.next.type_signature.parameter[1]) for name, p in processes.items()
    )

    @federated_computation
    def initialize_fn():
        return gather((name, p.initialize()) for name, p in processes.items())

    @federated_computation(state_type, StructWithPythonType(value_types, OrderedDict))
    def next_fn(state, values):
        outputs = OrderedDict(
            (name, process.next(state[name], values[name]))
            for name, process in processes.items()
        )
        return MeasuredProcessOutput(
            gather((name, output.state) for name, output in outputs.items()),
            OrderedDict((name, output.result) for name, output in outputs.items()),
            gather((name, output.measurements) for name, output in outputs.items()),
        )

    return MeasuredProcess(initialize_fn, next_fn, next_is_multi_arg=True)


def _checked(processes: Any, function: str) -> OrderedDict[str, MeasuredProcess]:
    if not isinstance(processes, Mapping):
        raise TypeError(
            f"`{function}` needs an OrderedDict of processes by name, found "
            f"`{type(processes).__name__}`."
        )
    if not processes:
        raise ValueError(f"`{function}` needs at least one process, found none.")
    for name, process in processes.items():
        if not isinstance(process, MeasuredProcess):
            raise TypeError(
                f"`{function}` needs each value to be a `MeasuredProcess`, found "
                f"`{type(process).__name__}` for `{name}`."
            )
        parameter = process.next.type_signature.parameter
        if not (isinstance(parameter, StructType) and len(parameter) == 2):
            raise TypeError(
                f"`{function}` needs each `next` to take a state and one value, found "
                f"that of `{name}` takes `{parameter}`."
            )
    return OrderedDict(processes)


def _check_chain(processes: OrderedDict[str, MeasuredProcess]) -> None:
    """Refuses a process that does not take what the one before it returns."""
    names = list(processes)
    for before, after in itertools.pairwise(names):
        check_fits(
            processes[after].next.type_signature.parameter[1],
            processes[before].next.type_signature.result.result,
            f"`chain_measured_processes` needs `{after}` to take what `{before}` "
            "returns, found another type.",
            TypeError,
        )


def _together(
    processes: OrderedDict[str, MeasuredProcess], function: str
) -> tuple[Type, Callable[..., Any]]:
    """The type of all states together, and what makes one value of parts by name.

    Placed parts are zipped, as the states then are; unplaced ones stay a structure.
    """
    types = OrderedDict((name, p.state_type) for name, p in processes.items())
    placements = {
        t.placement if isinstance(t, FederatedType) else None for t in types.values()
    }
    if len(placements) > 1:
        listed = ", ".join(f"`{name}`: `{type_}`" for name, type_ in types.items())
        raise TypeError(
            f"`{function}` needs all states at one placement, found {listed}."
        )
    placement = placements.pop()
    if placement is None:
        return StructWithPythonType(types, OrderedDict), OrderedDict
    members = OrderedDict((name, type_.member) for name, type_ in types.items())
    state_type = FederatedType(StructWithPythonType(members, OrderedDict), placement)
    return state_type, lambda parts: federated_zip(OrderedDict(parts))
