"""A process whose steps give a result and measurements beside the next state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import attrs


from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_zip,
)
from fedcore.templates._errors import (
    TemplateNotMeasuredProcessOutputError,
    TemplateStateNotAssignableError,
)
from fedcore.templates.iterative_process import IterativeProcess
from fedcore.types import FederatedType, StructType, StructWithPythonType


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
        parameter = next_fn.type_signature.parameter
        taken = parameter[0] if self._next_is_multi_arg else parameter
        if not taken.is_assignable_from(result.state):
            raise TemplateStateNotAssignableError(
                f"`next_fn` takes a state of type\n    {taken}\nand needs to return one "
                f"that fits, found\n    {result.state}"
            )


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
        TypeError: If a process does not take what the one before returns.
    """
    processes = OrderedDict(measured_processes)
    _check_fits(processes)
    first = next(iter(processes.values()))
    placed, state_type = _states(processes)
    value_type = first.next.type_signature.parameter[1]

    @federated_computation
    def initialize_fn():
        return _gathered(placed, {n: p.initialize() for n, p in processes.items()})

    @federated_computation(state_type, value_type)
    def next_fn(state, value):
        states, measurements, result = OrderedDict(), OrderedDict(), value
        for name, process in processes.items():
            output = process.next(state[name], result)
            states[name], measurements[name] = output.state, output.measurements
            result = output.result
        return MeasuredProcessOutput(
            _gathered(placed, states), result, _gathered(placed, measurements)
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
    """
    processes = OrderedDict(measured_processes)
    placed, state_type = _states(processes)
    values = OrderedDict(
        (n, p.next.type_signature.parameter[1]) for n, p in processes.items()
    )
    value_type = StructWithPythonType(values, OrderedDict)

    @federated_computation
    def initialize_fn():
        return _gathered(placed, {n: p.initialize() for n, p in processes.items()})

    @federated_computation(state_type, value_type)
    def next_fn(state, values):
        outputs = OrderedDict(
            (name, process.next(state[name], values[name]))
            for name, process in processes.items()
        )

        def part(name: str) -> Any:
            parts = OrderedDict((n, getattr(o, name)) for n, o in outputs.items())
            return _gathered(placed, parts) if name != "result" else parts

        return MeasuredProcessOutput(part("state"), part("result"), part("measurements"))

    return MeasuredProcess(initialize_fn, next_fn, next_is_multi_arg=True)


def _states(processes: Mapping[str, MeasuredProcess]) -> tuple[bool, Any]:
    """Whether the processes' states are placed, and the type of them together."""
    types = OrderedDict((name, p.state_type) for name, p in processes.items())
    placed = all(isinstance(t, FederatedType) for t in types.values())
    if not placed:
        return False, StructWithPythonType(types, OrderedDict)
    members = OrderedDict((name, t.member) for name, t in types.items())
    placement = next(iter(types.values())).placement
    return True, FederatedType(StructWithPythonType(members, OrderedDict), placement)


def _gathered(placed: bool, parts: Mapping[str, Any]) -> Any:
    parts = OrderedDict(parts)
    return federated_zip(parts) if placed else parts


def _check_fits(processes: Mapping[str, MeasuredProcess]) -> None:
    names = list(processes)
    for before, after in zip(names, names[1:]):
        given = processes[before].next.type_signature.result.result
        taken = processes[after].next.type_signature.parameter[1]
        if not taken.is_assignable_from(given):
            raise TypeError(
                f"`chain_measured_processes` needs `{after}` to take what `{before}` "
                f"returns,\n    {given}\nfound that it takes\n    {taken}"
            )
