"""What a computation does and what it costs: its steps, their traffic and their roads."""

from __future__ import annotations

import os
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
    Select,
    ServerStep,
    steps,
)
from fedcore.computation import ConcreteComputation, PolymorphicComputation
from fedcore.context import get_context_stack
from fedcore.framework import ExecutionContext
from fedcore.types import FederatedType, SequenceType, TensorType
from fedsim import _traffic as traffic
from fedsim._explanation import Explanation, Size, StepExplanation
from fedsim._known_call import Call, call_of, data_of, leaf_types, of_types
from fedsim._traced import traced
from fedsim.runtime import LocalContext, ReferenceContext, _fused, _plan
from fedsim.runtime._kernel import DYNAMIC, EVEN, EXACT, MASKED
from fedsim.runtime._roads import Road, road_of
from fedsim.runtime._workers import Clients, leaves, tasks

# Why XLA compiles a step, by how smaller batches are treated.
_WHY = {
    EVEN: "every operation is fit for XLA, and no batch is smaller than the others",
    MASKED: "every operation is fit for XLA, and a smaller batch is filled up with rows "
    "that the model's mask leaves out",
    DYNAMIC: "every operation is fit for XLA, also on batches of a length that is known "
    "at run time only",
}


def explain(
    computation: ConcreteComputation,
    *args: Any,
    clients: int | None = None,
    examples: int | None = None,
    **kwargs: Any,
) -> Explanation:
    """Says what a computation does and what it costs, without running it.

        print(fedsim.explain(process.next, state, data))
        print(fedsim.explain(process.next, clients=1000, examples=200))

    Args:
        computation: A traced computation.
        *args: Arguments as for a call, if there are any: they say the number of clients,
            sizes that the types leave open, and the road. Or types in their place (or
            `tf.TensorSpec`s) in which such sizes are filled in.
        clients: The number of clients, if there are no arguments.
        examples: How many examples each client has, if there are no arguments: it tells
            the size of their data. An element of a dataset is an example, or, where the
            first dimension of all its tensors is open, a batch of examples.
        **kwargs: More arguments, by name.

    Returns:
        An `Explanation`: print it, or take its `to_dict()`.

    Raises:
        TypeError: If `computation` is not a traced computation, or an argument is not of
            its type.
        ValueError: If a number is negative, or not that of the arguments.
    """
    _check_count("clients", clients)
    _check_count("examples", examples)
    if isinstance(computation, PolymorphicComputation) and (args or kwargs):
        computation = of_types(computation, args, kwargs)
    comp = traced("explain", computation)
    _check_not_a_count(comp, args)
    planned_before = comp in _plan._plans
    plan = _plan.plan_of(comp)
    call = call_of(comp, plan, args, kwargs, clients)
    functions = _functions(comp.node)
    context = _context()
    reader = _Reader(plan, call, functions, context)
    found = [
        reader.step(step, written)
        for step, written in zip(plan.steps, steps(plan.program).steps)
    ]
    # What depends on nothing is part of the programs; it is no step of its own.
    told = [step for step in found if step.operators != ("constants",)]
    return Explanation(
        comp.__name__,
        str(comp.type_signature),
        comp.source,
        call.clients,
        data_of(plan, call, examples),
        tuple(told or found),
        len(functions),
        planned_before,
    )


def _check_count(name: str, number: Any) -> None:
    if number is None:
        return
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"`explain` needs an int at `{name}`, found {number!r}.")
    if number < 0:
        raise ValueError(f"`explain` needs `{name}` to be 0 or more, found {number}.")


def _check_not_a_count(comp: ConcreteComputation, args: tuple[Any, ...]) -> None:
    parameter = comp.type_signature.parameter
    if isinstance(parameter, FederatedType):
        parameter = parameter.member
    number = args[0] if len(args) == 1 else None
    if type(number) is int and not isinstance(parameter, TensorType):
        raise TypeError(
            f"`explain` takes arguments as a call of `{comp.__name__}` does, found "
            f"{number}.\nGive a number of clients by name: `clients={number}`."
        )


def _context() -> LocalContext | ReferenceContext:
    """The context that a call made now would run in; the default's kind if unknown."""
    current = get_context_stack().current_or_none()
    if isinstance(current, ExecutionContext):
        current = current.executor_factory.context()
    known = isinstance(current, LocalContext | ReferenceContext)
    return current if known else LocalContext()


def _functions(tree: ir.Node) -> dict[bytes, str]:
    """The traced functions in a tree: by the graph's bytes, their names."""
    found: dict[bytes, str] = {}

    def look(node: ir.Node) -> ir.Node:
        if isinstance(node, ir.Compiled):
            found[node.graph] = _name(node)
        return node

    ir.rewrite(tree, look)
    return found


def _name(node: ir.Compiled) -> str:
    if node.python is None:
        return ""
    if node.python.name != "<lambda>":
        return node.python.name
    return f"<lambda> ({os.path.basename(node.python.source)})"


@attrs.frozen
class _Reader:
    """Reads steps of a plan, with what is known of a call."""

    plan: Plan
    call: Call
    functions: dict[bytes, str]
    context: LocalContext | ReferenceContext

    def step(
        self, step: ServerStep | ClientStep, written: ServerStep | ClientStep
    ) -> StepExplanation:
        """A step of the plan; `written` is the same before lines were composed."""
        constants = traffic.constants(self.plan.program)
        if isinstance(step, ServerStep):
            own = [op for op in written.ops if not constants.issuperset(op.outputs)]
            operators = _operators(own) or ("constants",)
            return StepExplanation("server", operators, self._names(own), len(step.ops))
        road = self._road(step)
        kernels = _fused._of_steps.get(step)
        made = [] if kernels is None else list(kernels.made)
        lines = (*written.work, *written.accumulate.ops)
        tail = road.tail if isinstance(road, Road) else None
        return StepExplanation(
            "clients",
            _operators(lines),
            self._names(lines),
            len(step.work),
            self._down(step, constants),
            self._size(self._up(step), step.types),
            str(road),
            _WHY.get(tail, ""),
            road.compiled if isinstance(road, Road) else None,
            self._memory(step),
            len(made),
            sum(key[-1] != EXACT for key in made),
        )

    def _names(self, ops: Iterable[Op]) -> tuple[str, ...]:
        found = (self.functions.get(graph, "") for op in ops for graph in _graphs(op))
        return tuple(dict.fromkeys(name for name in found if name))

    def _down(self, step: ClientStep, constants: frozenset[str]) -> Size:
        """What a client gets; of what it selects from, the slices that it asks for."""
        selects = [op for op in step.work if isinstance(op, Select)]
        others = attrs.evolve(
            step, work=tuple(op for op in step.work if op not in selects)
        )
        total = self._size(traffic.down(others, constants), step.types)
        for select in selects:
            keys = self._elements(select.keys[0], step.types)
            slices = list(leaf_types(step.types[select.outputs[0]].element))
            sizes = [traffic.type_bytes(t) for t in slices]
            known = sum(size for size in sizes if size is not None)
            exact = keys is not None and None not in sizes
            total += Size(known * (keys or 0), exact)
        return total

    def _up(self, step: ClientStep) -> list[str]:
        keys = [op.keys[0] for op in step.work if isinstance(op, Select)]
        return list(dict.fromkeys([*traffic.up(step), *keys]))

    def _elements(self, name: str, types: dict[str, LeafType]) -> int | None:
        """How many elements a client's tensor has."""
        value = self._first(name)
        if value is not None:
            return traffic.elements_of(value)
        return self._type(name, types).shape.num_elements()

    def _first(self, name: str) -> Any:
        value = self.call.values.get(name)
        return (value[0] if value else None) if isinstance(value, list) else value

    def _type(self, name: str, types: dict[str, LeafType]) -> Any:
        return self.call.types.get(name, types[name])

    def _size(self, names: Iterable[str], types: dict[str, LeafType]) -> Size:
        total = Size(0)
        for name in names:
            size = traffic.type_bytes(self._type(name, types))
            if size is None and self._first(name) is not None:
                size = traffic.value_bytes(self._first(name))
            total += Size(size or 0, size is not None)
        return total

    def _road(self, step: ClientStep) -> Road | str:
        if isinstance(self.context, ReferenceContext):
            kind = type(self.context).__name__
            return f"none: a `{kind}` interprets, one client at a time"
        if self.call.clients == 0:
            return "none: there are no clients"
        workers = self.context._workers
        taken = getattr(workers, "roads", {}).get(step)
        if taken is not None:
            return taken
        xla = getattr(workers, "xla", None)
        count, values = self.call.clients, self.call.values
        if count is not None and all(name in values for name in step.inputs):
            given = {name: values[name] for name in step.inputs}
            return road_of(step, Clients(count, given, 0, ""), xla)
        if any(isinstance(step.types[n], SequenceType) for n in step.inputs):
            return "depends on the clients' datasets: pass arguments, or call it first"
        return road_of(step, Clients(1, {}, 0, ""), xla)

    def _memory(self, step: ClientStep) -> Size | None:
        if self.call.clients is None or isinstance(self.context, ReferenceContext):
            return None
        workers = getattr(self.context._workers, "workers", 1)
        types = step.types
        made = [n for op in step.work for n in op.outputs]
        # A task's accumulators wait until it is their turn to be merged.
        runs = list(tasks(self.call.clients, workers))
        waiting = runs[: (_fused._TASKS_AHEAD + 1) * workers]
        accumulators = sum(len(list(leaves(run, self.call.clients))) for run in waiting)
        return (
            self._size(step.shared, types)
            + self._size(step.totals, types).times(accumulators + 1)
            + self._size(made, types).times(min(workers, len(runs)))
            + self._size(step.keep, types).times(self.call.clients)
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
