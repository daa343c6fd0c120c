"""Steps that can do without some rows of a batch: a second graph beside a first.

A compiled client loop wants batches of one shape. Where a model knows how to leave rows
of a batch out of a step, it attaches a second computation, with one more argument: a
`float32[?]` mask, 1 for the rows that count and 0 for the others. For a mask of ones it
gives what the first gives, and for fewer what the first gives on those rows alone.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from fedcore import ir
from fedcore.computation import ConcreteComputation
from fedcore.types import TensorType

MASK_TYPE = TensorType(np.float32, [None])

_masked: dict[bytes, bytes] = {}
_lock = threading.Lock()


def attach_masked(step: ConcreteComputation, masked: ConcreteComputation) -> None:
    """Says that `masked` is `step` with a mask as its last argument.

    Args:
        step: A `tf_computation`, `(<..., batch> -> state)`.
        masked: A `tf_computation`, `(<..., batch, mask=float32[?]> -> state)`.

    Raises:
        TypeError: If `masked` does not take and give what `step` does.
    """
    wanted, found = step.type_signature, masked.type_signature
    taken: Any = found.parameter
    *arguments, mask = taken
    if (
        arguments != list(wanted.parameter)
        or mask != MASK_TYPE
        or not wanted.result.is_equivalent_to(found.result)
    ):
        raise TypeError(
            f"`attach_masked` needs the arguments of `{wanted}` and a mask, found "
            f"`{found}`."
        )
    assert isinstance(step.node, ir.Compiled)
    assert isinstance(masked.node, ir.Compiled)
    with _lock:
        _masked[step.node.graph] = masked.node.graph


def masked_of(graph: bytes) -> bytes | None:
    """The graph with a mask that was attached to a graph, or None."""
    with _lock:
        return _masked.get(graph)
