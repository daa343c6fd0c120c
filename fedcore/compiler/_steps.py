"""Cuts a straight line into steps: server work, client work with its aggregations."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from fedcore.compiler._program import Aggregate, LeafType, Local, Op, Program


@attrs.frozen(eq=False)
class ServerStep:
    """Lines that run at the server, in order."""

    ops: tuple[Op, ...]

    def uses(self) -> set[str]:
        """The names of the values it takes from outside."""
        return _uses(self.ops) - {name for op in self.ops for name in op.outputs}


@attrs.frozen(eq=False)
class ClientStep:
    """What every client does between two words with the server.

    Attributes:
        shared: The server's values that every client gets.
        inputs: The client's own values: arguments, or kept by an earlier step.
        work: The client's lines, in order.
        keep: The values kept at the client: a later step or the result needs them.
        totals: The names of the accumulator's leaves, all aggregations side by side.
        zero: The accumulator to start from, values of the server.
        accumulate: Takes an accumulator; the client's values are free names in it.
        merge: Takes two accumulators, one after the other.
        types: The type of every leaf.
    """

    shared: tuple[str, ...]
    inputs: tuple[str, ...]
    work: tuple[Op, ...]
    keep: tuple[str, ...]
    totals: tuple[str, ...]
    zero: tuple[str, ...]
    accumulate: Local
    merge: Local
    types: dict[str, LeafType]

    def uses(self) -> set[str]:
        """The names of the values it takes from outside."""
        return {*self.shared, *self.inputs, *self.zero}


@attrs.frozen(eq=False)
class Plan:
    """A computation cut into steps.

    Attributes:
        program: The straight line it was cut from.
        steps: Server and client steps, in order.
        needs_clients: Whether it holds a mean, which needs at least one client.
    """

    program: Program
    steps: tuple[ServerStep | ClientStep, ...]
    needs_clients: bool = False


def steps(program: Program) -> Plan:
    """The steps of a program: one `ClientStep` for each trip to the clients and back.

    An aggregate adds one to the level; every other line is at the greatest level of what
    it uses. The client lines of one level are one step.
    """
    level = dict.fromkeys(program.parameters, 0)
    for op in program.ops:
        height = max((level.get(name, 0) for name in op.uses()), default=0)
        height += isinstance(op, Aggregate)
        level.update(dict.fromkeys(op.outputs, height))
    out: list[ServerStep | ClientStep] = []
    for height in range(max(level.values(), default=0) + 1):
        server = tuple(
            op
            for op in program.ops
            if level[op.outputs[0]] == height
            and not op.at_clients
            and not isinstance(op, Aggregate)
        )
        if server:
            out.append(ServerStep(server))
        step = _client_step(program, level, height)
        if step is not None:
            out.append(step)
    return Plan(program, tuple(out))


def _client_step(
    program: Program, level: dict[str, int], height: int
) -> ClientStep | None:
    work = tuple(
        op for op in program.ops if op.at_clients and level[op.outputs[0]] == height
    )
    aggregates = [
        op
        for op in program.ops
        if isinstance(op, Aggregate) and level[op.outputs[0]] == height + 1
    ]
    if not work and not aggregates:
        return None
    accumulate, merge = _side_by_side(aggregates)
    made = {name for op in work for name in op.outputs}
    used = dict.fromkeys(name for op in work for name in op.uses())
    used.update(dict.fromkeys((*accumulate.free(), *merge.free())))
    later = set(program.results)
    for op in program.ops:
        # An aggregate's values are used by the client step one level below it.
        if level[op.outputs[0]] - isinstance(op, Aggregate) > height:
            later.update(op.uses())
    at_clients = program.at_clients
    return ClientStep(
        shared=tuple(n for n in used if n not in at_clients),
        inputs=tuple(n for n in used if n in at_clients and n not in made),
        work=work,
        keep=tuple(n for op in work for n in op.outputs if n in later),
        totals=tuple(n for a in aggregates for n in a.outputs),
        zero=tuple(n for a in aggregates for n in a.zero),
        accumulate=accumulate,
        merge=merge,
        types=program.types,
    )


def _side_by_side(aggregates: list[Aggregate]) -> tuple[Local, Local]:
    """All aggregations as one: accumulators one after the other."""
    left, right = [], []
    for aggregate in aggregates:
        half = len(aggregate.zero)
        left += aggregate.merge.inputs[:half]
        right += aggregate.merge.inputs[half:]
    accumulates = [aggregate.accumulate for aggregate in aggregates]
    merges = [aggregate.merge for aggregate in aggregates]
    accumulate = Local(
        tuple(n for local in accumulates for n in local.inputs),
        tuple(op for local in accumulates for op in local.ops),
        tuple(n for local in accumulates for n in local.outputs),
    )
    merge = Local(
        (*left, *right),
        tuple(op for local in merges for op in local.ops),
        tuple(n for local in merges for n in local.outputs),
    )
    return accumulate, merge


def _uses(ops: Iterable[Op]) -> set[str]:
    return {name for op in ops for name in op.uses()}
