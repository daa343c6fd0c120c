"""The seam of fast runtimes: where the clients of a step run.

How clients are grouped is part of the result, since the order of a sum shows in its last
bits: a *leaf* is a run of clients with one accumulator, and the accumulators are merged
in the order of the leaves. Leaves depend on the number of clients alone; how many leaves
a worker takes at a time does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import attrs

from fedcore.compiler import ClientStep

_LEAST_LEAVES = 16
_MOST_CLIENTS_IN_A_LEAF = 16
_MOST_CLIENTS_IN_A_TASK = 64


@attrs.frozen(eq=False)
class Clients:
    """The clients of a call.

    Attributes:
        count: How many there are.
        values: By name, what each client has: a sequence of `count` leaves.
        seed: What the call's unseeded draws are folded from.
        computation: The computation's name, for messages.
    """

    count: int
    values: dict[str, Sequence[Any]]
    seed: int
    computation: str


@attrs.frozen(eq=False)
class StepResult:
    """What a client step gives.

    Attributes:
        totals: By name, the leaves of the merged accumulator.
        kept: By name, what each client keeps: a sequence of `count` leaves.
    """

    totals: dict[str, Any]
    kept: dict[str, Sequence[Any]]


class Workers(Protocol):
    """Runs client steps: the only thing that a fast backend implements."""

    def run(
        self, step: ClientStep, shared: dict[str, Any], clients: Clients
    ) -> StepResult:
        """Runs a step's work at every client and aggregates.

        Args:
            step: The step.
            shared: The server's values that it names in `shared` and `zero`.
            clients: The clients.

        Returns:
            The accumulators' totals, and what the clients keep.

        Raises:
            ClientError: If the work at a client fails.
        """
        ...


def clients_in_a_leaf(count: int) -> int:
    """How many clients share an accumulator, of `count` in all."""
    return max(1, min(_MOST_CLIENTS_IN_A_LEAF, -(-count // _LEAST_LEAVES)))


def tasks(count: int, workers: int) -> Iterator[range]:
    """The clients in runs of whole leaves, enough of them to keep the workers busy."""
    leaf = clients_in_a_leaf(count)
    leaves = -(-count // leaf)
    at_once = max(1, min(_MOST_CLIENTS_IN_A_TASK // leaf, -(-leaves // workers)))
    size = leaf * at_once
    return (range(i, min(i + size, count)) for i in range(0, count, size))


def leaves(clients: range, count: int) -> Iterator[range]:
    """The leaves of a task."""
    leaf = clients_in_a_leaf(count)
    return (
        range(i, min(i + leaf, clients.stop))
        for i in range(clients.start, clients.stop, leaf)
    )
