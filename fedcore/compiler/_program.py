"""Straight-line programs: what a computation is once calls and structures are gone.

Every value is a *leaf*, a tensor or a sequence, with a name. A leaf is at the server or
at the clients; a value that all clients share is the server's leaf itself. Structure
lives only in the types of the parameters and the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from fedcore.types import SequenceType, TensorType

LeafType = TensorType | SequenceType


@attrs.frozen(eq=False)
class Local:
    """A local function as a straight-line program; free names are values around it."""

    inputs: tuple[str, ...]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]

    def free(self) -> tuple[str, ...]:
        """The names it uses and neither takes nor makes, in order of use."""
        known, found = set(self.inputs), {}
        for op in self.ops:
            found.update(dict.fromkeys(n for n in op.uses() if n not in known))
            known.update(op.outputs)
        found.update(dict.fromkeys(n for n in self.outputs if n not in known))
        return tuple(found)


@attrs.frozen(eq=False)
class Op:
    """One line of a program: `outputs = op(uses)`.

    Attributes:
        outputs: The names of the values it makes.
        at_clients: Whether each client runs it.
        operator: The federated operator it stands under, for messages.
    """

    outputs: tuple[str, ...]
    at_clients: bool
    operator: str

    def uses(self) -> Iterator[str]:
        """The names of the values it takes, also inside its local functions."""
        for field in attrs.fields(type(self)):
            if field.name not in _NOT_USES:
                yield from _names(getattr(self, field.name))


_NOT_USES = ("outputs", "at_clients", "operator", "parts", "masked")


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Local):
        yield from value.free()
    elif isinstance(value, tuple):
        yield from value


@attrs.frozen(eq=False)
class Constant(Op):
    """A constant tensor: a serialised `TensorProto`."""

    proto: bytes = attrs.field(repr=False)


@attrs.frozen(eq=False)
class Graph(Op):
    """A TensorFlow graph on leaves.

    Attributes:
        graph: Graph bytes, see `fedcore.tensorflow`.
        inputs: The names of its arguments.
        parts: The lines it was composed of, to find the one that failed; or none.
        masked: The same with a mask for the rows of a batch, if there is such a graph.
    """

    graph: bytes = attrs.field(repr=False)
    inputs: tuple[str, ...]
    parts: tuple[Op, ...] = ()
    masked: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False)
class SequenceMap(Op):
    """`outputs[0]` is the sequence `sequence[0]` with `fn` applied to each element."""

    sequence: tuple[str]
    fn: Local


@attrs.frozen(eq=False)
class Reduce(Op):
    """Folds `sequence[0]` from `zero` with `step`, whose inputs are state and element."""

    sequence: tuple[str]
    zero: tuple[str, ...]
    step: Local


@attrs.frozen(eq=False)
class Select(Op):
    """`outputs[0]` is the sequence of `fn(value, key)` for each of the client's keys."""

    keys: tuple[str]
    max_key: tuple[str]
    value: tuple[str, ...]
    fn: Local


@attrs.frozen(eq=False)
class Aggregate(Op):
    """Clients' values brought to the server: the outputs are the last accumulator.

    Attributes:
        zero: The accumulator to start from, values of the server.
        accumulate: Takes an accumulator; the client's values are free names in it.
        merge: Takes two accumulators, one after the other.
    """

    zero: tuple[str, ...]
    accumulate: Local
    merge: Local


@attrs.frozen(eq=False)
class Program:
    """A whole computation as a straight line.

    Attributes:
        parameters: The leaves of the parameter, in flat order.
        ops: The lines, each after those it uses.
        results: The leaves of the result, in flat order.
        types: The type of every leaf, unplaced.
        at_clients: The names of the leaves at the clients.
    """

    parameters: tuple[str, ...]
    ops: tuple[Op, ...]
    results: tuple[str, ...]
    types: dict[str, LeafType]
    at_clients: frozenset[str]
