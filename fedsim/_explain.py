"""What a computation does and what it costs: its steps, their traffic and their roads."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import attrs

from fedcore import ir
from fedcore.compiler import (
    ClientStep,
    Graph,
    LeafType,
    Op,
    Plan,
    Reduce,
    ServerStep,
    steps,
)
from fedcore.computation import ConcreteComputation, pack_args
from fedcore.context import get_context_stack
from fedsim import _traffic as traffic
from fedsim.runtime import LocalContext, _fused, _plan
from fedsim.runtime._context import number_of_clients
from fedsim.runtime._roads import Road, road_of
from fedsim.runtime._values import from_python
from fedsim.runtime._workers import Clients, leaves, tasks

_WIDTH = 80
_UNKNOWN = "of unknown size"


@attrs.frozen
class Size:
    """A number of bytes: at least `bytes`, or exactly, if `exact`."""

    bytes: int
    exact: bool = True

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, self.exact and other.exact)

    def times(self, number: int) -> Size:
        """So many times as much."""
        return Size(self.bytes * number, self.exact)

    def __str__(self) -> str:
        if not self.exact and not self.bytes:
            return _UNKNOWN
        least = "" if self.exact else "at least "
        return least + _bytes(self.bytes)


@attrs.frozen
class StepExplanation:
    """One step.

    Attributes:
        place: `server` or `clients`.
        operators: The federated operators in it.
        functions: The names of the traced functions in it, where they are known.
        lines: How many operations of the compiled plan it is.
        down: What each client gets from the server.
        up: What each client sends.
        road: How clients run it, and why not faster; empty at the server.
        compiled: Whether XLA compiles it; None if that is not known before it runs.
        memory: What it is expected to take at one time, besides the data.
        programs: How many programs were made of it so far.
    """

    place: str
    operators: tuple[str, ...]
    functions: tuple[str, ...]
    lines: int
    down: Size | None = None
    up: Size | None = None
    road: str = ""
    compiled: bool | None = None
    memory: Size | None = None
    programs: int = 0


@attrs.frozen(repr=False)
class Explanation:
    """What `fedsim.explain` found; its text is a table of the steps.

    Attributes:
        name: The computation's name.
        type_signature: Its type.
        source: Where it is defined.
        clients: The number of clients of the call, if known.
        steps: The steps, in order.
        traced: How many TensorFlow functions it holds; each was traced once.
        planned_before: Whether its plan had been made before; it is made once.
    """

    name: str
    type_signature: str
    source: str
    clients: int | None
    steps: tuple[StepExplanation, ...]
    traced: int
    planned_before: bool

    @property
    def memory(self) -> Size:
        """What the greatest step is expected to take, besides the data."""
        sizes = [step.memory for step in self.steps if step.memory is not None]
        return max(sizes, key=lambda size: size.bytes, default=Size(0))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data: dicts, lists, numbers, text and None.

        Returns:
            A dict that `json` can write.
        """
        return {**attrs.asdict(self), "steps": [attrs.asdict(s) for s in self.steps]}

    def __repr__(self) -> str:
        programs = sum(step.programs for step in self.steps)
        counted = (
            f"{self.clients} clients" if self.clients is not None else "any clients"
        )
        lines = [
            f"{self.name}: {_counted(len(self.steps), 'step')}, {counted}",
            *_wrapped("type", self.type_signature),
        ]
        if self.source:
            lines += _wrapped("from", self.source)
        made = "made before" if self.planned_before else "made now, once"
        lines += _wrapped(
            "made",
            f"{_counted(self.traced, 'function')} traced, once each; plan {made}; "
            f"{_counted(programs, 'program')} compiled so far",
        )
        for number, step in enumerate(self.steps, 1):
            lines += ["", *self._step_lines(number, step)]
        return "\n".join(lines)

    def _step_lines(self, number: int, step: StepExplanation) -> list[str]:
        head = f"{number}. {step.place}: {', '.join(step.operators)}"
        lines = [textwrap.shorten(head, _WIDTH, placeholder=" ...")]
        if step.functions:
            lines += _wrapped("runs", ", ".join(step.functions))
        for label, size in (("down", step.down), ("up", step.up)):
            if size is None:
                continue
            text = f"{size} a client"
            if not size.bytes and size.exact:
                text = "nothing"
            elif self.clients is not None:
                text += f", {size.times(self.clients)} in all"
            lines += _wrapped(label, text)
        if step.road:
            lines += _wrapped("road", step.road)
        if step.memory is not None:
            lines += _wrapped("memory", f"{step.memory}, besides the clients' data")
        return lines


def explain(
    computation: ConcreteComputation,
    *args: Any,
    clients: int | None = None,
    **kwargs: Any,
) -> Explanation:
    """Says what a computation does and what it costs, without running it.

        print(fedsim.explain(process.next, state, data))

    Args:
        computation: A traced computation.
        *args: Arguments as for a call, if there are any: they say the number of clients,
            sizes that the types leave open, and the road.
        clients: The number of clients, if there are no arguments.
        **kwargs: More arguments, by name.

    Returns:
        An `Explanation`: print it, or take its `to_dict()`.

    Raises:
        TypeError: If `computation` is not a traced computation.
    """
    if not isinstance(computation, ConcreteComputation):
        raise TypeError(
            f"`explain` needs a traced computation, found "
            f"`{type(computation).__name__}`.\n"
            "Declare the types of its parameters in the decorator."
        )
    planned_before = computation in _plan._plans
    plan = _plan.plan_of(computation)
    type_, known = computation.type_signature, {}
    if args or kwargs:
        packed = pack_args(type_.parameter, args, kwargs, computation.__name__)
        argument = from_python(packed, type_.parameter)
        clients = number_of_clients(argument, type_.parameter, clients or 0)
        values = _plan._leaves_in(argument, type_.parameter)
        known = dict(zip(plan.program.parameters, values, strict=True))
    functions = _functions(computation.node)
    reader = _Reader(plan, known, clients, functions, _context())
    return Explanation(
        computation.__name__,
        str(type_),
        computation.source,
        clients,
        tuple(map(reader.step, plan.steps, steps(plan.program).steps)),
        len(functions),
        planned_before,
    )


def _context() -> LocalContext:
    current = get_context_stack().current
    return current if isinstance(current, LocalContext) else LocalContext()


def _functions(tree: ir.Node) -> dict[bytes, str]:
    """The traced functions in a tree: by the graph's bytes, their names."""
    found: dict[bytes, str] = {}

    def look(node: ir.Node) -> ir.Node:
        if isinstance(node, ir.Compiled):
            found[node.graph] = node.python.name if node.python else ""
        return node

    ir.rewrite(tree, look)
    return found


@attrs.frozen
class _Reader:
    """Reads steps of a plan, with what is known of a call."""

    plan: Plan
    known: dict[str, Any]
    clients: int | None
    functions: dict[bytes, str]
    context: LocalContext

    def step(
        self, step: ServerStep | ClientStep, written: ServerStep | ClientStep
    ) -> StepExplanation:
        """A step of the plan; `written` is the same before lines were composed."""
        constants = traffic.constants(self.plan.program)
        if isinstance(step, ServerStep):
            operators = _operators(written.ops)
            if constants.issuperset(n for op in written.ops for n in op.outputs):
                operators = ("constants",)
            names = self._names(written.ops)
            return StepExplanation("server", operators, names, len(step.ops))
        road = self._road(step)
        kernels = _fused._of_steps.get(step)
        lines = (*written.work, *written.accumulate.ops)
        return StepExplanation(
            "clients",
            _operators(lines),
            self._names(lines),
            len(step.work),
            self._size(traffic.down(step, constants), step.types),
            self._size(traffic.up(step), step.types),
            str(road),
            road.compiled if isinstance(road, Road) else None,
            self._memory(step),
            0 if kernels is None else len(kernels.made),
        )

    def _names(self, ops: Iterable[Op]) -> tuple[str, ...]:
        found = (self.functions.get(graph, "") for op in ops for graph in _graphs(op))
        return tuple(dict.fromkeys(name for name in found if name))

    def _size(self, names: Iterable[str], types: dict[str, LeafType]) -> Size:
        total = Size(0)
        for name in names:
            size = traffic.type_bytes(types[name])
            if size is None and name in self.known:
                value = self.known[name]
                first = value[0] if isinstance(value, list) and value else value
                size = traffic.value_bytes(first)
            total += Size(size or 0, size is not None)
        return total

    def _road(self, step: ClientStep) -> Road | str:
        workers = self.context._workers
        taken = getattr(workers, "roads", {}).get(step)
        if taken is not None:
            return taken
        if self.clients is not None and all(n in self.known for n in step.inputs):
            if not self.clients:
                return "none: there are no clients"
            values = {n: self.known[n] for n in step.inputs}
            found = Clients(self.clients, values, 0, "")
            return road_of(step, found, getattr(workers, "xla", None))
        if step.inputs:
            return "depends on the clients' values: pass arguments, or call it first"
        return road_of(step, Clients(1, {}, 0, ""), None)

    def _memory(self, step: ClientStep) -> Size | None:
        if self.clients is None:
            return None
        workers = getattr(self.context._workers, "workers", 1)
        types = step.types
        made = [n for op in step.work for n in op.outputs]
        # A task's accumulators wait until it is their turn to be merged.
        runs = list(tasks(self.clients, workers))
        waiting = runs[: (_fused._TASKS_AHEAD + 1) * workers]
        accumulators = sum(len(list(leaves(run, self.clients))) for run in waiting)
        return (
            self._size(step.shared, types)
            + self._size(step.totals, types).times(accumulators + 1)
            + self._size(made, types).times(min(workers, len(runs)))
            + self._size(step.keep, types).times(self.clients)
        )


def _operators(ops: Iterable[Op]) -> tuple[str, ...]:
    found = [
        part.operator for op in ops for part in (getattr(op, "parts", ()) or (op,))
    ]
    return tuple(dict.fromkeys(found))


def _graphs(op: Op) -> Iterable[bytes]:
    if isinstance(op, Graph):
        yield op.graph
    elif isinstance(op, Reduce):
        for inner in op.step.ops:
            yield from _graphs(inner)
    else:
        for inner in getattr(getattr(op, "fn", None), "ops", ()):
            yield from _graphs(inner)


# --- Text ---------------------------------------------------------------------------


def _bytes(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    size, units = float(number), iter(("kB", "MB", "GB", "TB"))
    unit = ""
    while size >= 1000 and (unit := next(units)):
        size /= 1000
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * 10
    lines = textwrap.wrap(
        text, _WIDTH - len(indent), break_long_words=True, break_on_hyphens=False
    )
    if len(lines) > 4:
        lines = [*lines[:4], "..."]
    first, *rest = lines or [""]
    return [f"   {label:<7}{first}", *(indent + line for line in rest)]
