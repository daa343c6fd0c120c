"""Cuts a straight line into steps: server work, client work with its aggregations."""

from __future__ import annotations

import attrs

from fedcore.compiler._program import Aggregate, LeafType, Op, Program


@attrs.frozen(eq=False)
class ServerStep:
    """Lines that run at the server, in order; `reports` are aggregates that end here."""

    reports: tuple[Aggregate, ...]
    ops: tuple[Op, ...]


@attrs.frozen(eq=False)
class ClientStep:
    """What every client does between two words with the server.

    Attributes:
        shared: The server's values that every client gets.
        inputs: The client's own values: arguments, or kept by an earlier step.
        work: The client's lines, in order.
        keep: The values kept at the client: a later step or the result needs them.
        aggregates: How its values are brought to the server; an aggregate's `zero` is a
            value of the server.
        types: The type of every leaf.
    """

    shared: tuple[str, ...]
    inputs: tuple[str, ...]
    work: tuple[Op, ...]
    keep: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    types: dict[str, LeafType]


@attrs.frozen(eq=False)
class Plan:
    """A program cut into steps; `needs_clients` if it holds a mean."""

    program: Program
    steps: tuple[ServerStep | ClientStep, ...]


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
        here = [op for op in program.ops if op.outputs and level[op.outputs[0]] == height]
        reports = tuple(op for op in here if isinstance(op, Aggregate))
        server = tuple(
            op for op in here if not op.at_clients and not isinstance(op, Aggregate)
        )
        if reports or server:
            out.append(ServerStep(reports, server))
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
    aggregates = tuple(
        op
        for op in program.ops
        if isinstance(op, Aggregate) and level[op.outputs[0]] == height + 1
    )
    if not work and not aggregates:
        return None
    made = {name for op in work for name in op.outputs}
    used = dict.fromkeys(name for op in work for name in op.uses())
    for aggregate in aggregates:
        used.update(dict.fromkeys((*aggregate.value, *aggregate.zero)))
        used.update(dict.fromkeys(aggregate.accumulate.free()))
    later = set(program.results)
    for op in program.ops:
        # An aggregate's values are used by the client step one level below it.
        if level[op.outputs[0]] - isinstance(op, Aggregate) > height:
            later.update(op.uses())
    at_clients = program.at_clients
    inner = {
        name
        for op in work
        for local in _locals(op)
        for name in (*local.inputs, *(n for o in local.ops for n in o.outputs))
    }
    return ClientStep(
        shared=tuple(n for n in used if n not in at_clients),
        inputs=tuple(
            n for n in used if n in at_clients and n not in made and n not in inner
        ),
        work=work,
        keep=tuple(n for op in work for n in op.outputs if n in later),
        aggregates=aggregates,
        types=program.types,
    )


def _locals(op: Op):
    return [value for value in attrs.astuple(op, recurse=False) if hasattr(value, "free")]


