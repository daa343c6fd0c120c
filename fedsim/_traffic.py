"""What goes over the wire in a client step: which leaves, and how many bytes they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore.compiler import Aggregate, ClientStep, LeafType, Program
from fedcore.types import TensorType
from fedsim.runtime._values import Elements


def constants(program: Program) -> frozenset[str]:
    """The server's leaves that depend on nothing: they are part of the program."""
    known: set[str] = set()
    for op in program.ops:
        if not op.at_clients and not isinstance(op, Aggregate):
            if known.issuperset(op.uses()):
                known.update(op.outputs)
    return frozenset(known)


def down(step: ClientStep, known: frozenset[str]) -> list[str]:
    """The server's leaves that a client needs for its work, less what it knows."""
    used = dict.fromkeys(name for op in step.work for name in op.uses())
    shared = set(step.shared) - known
    return [name for name in used if name in shared]


def up(step: ClientStep) -> list[str]:
    """The client's leaves that are aggregated."""
    own = {*step.inputs, *(name for op in step.work for name in op.outputs)}
    return [name for name in step.accumulate.free() if name in own]


def type_bytes(type_: LeafType) -> int | None:
    """The size of a leaf as its type says it; None if the type does not."""
    if not isinstance(type_, TensorType) or type_.dtype == tf.string:
        return None
    count = type_.shape.num_elements()
    return None if count is None else count * type_.dtype.size


def elements_of(value: Any) -> int:
    """How many numbers or strings a tensor holds."""
    return int(np.prod(value.shape, dtype=np.int64))


def value_bytes(value: Any) -> int | None:
    """The size of a leaf; None if it cannot be told without reading a dataset."""
    if isinstance(value, Elements):
        leaves = [t for item in value.items for t in _leaves(item)]
        return sum(value_bytes(leaf) or 0 for leaf in leaves)
    if not isinstance(value, tf.Tensor):
        return None
    if value.dtype == tf.string:
        return int(tf.reduce_sum(tf.strings.length(value)))
    return elements_of(value) * value.dtype.size


def _leaves(item: Any) -> list[Any]:
    return structure.flatten(structure.Struct([(None, item)]))
