"""Runs the lines of a program one by one, on eager tensors: the general road."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import tensorflow as tf

from fedcore import structure
from fedcore.compiler import (
    Constant,
    Graph,
    LeafType,
    Local,
    Op,
    Reduce,
    Select,
    SequenceMap,
    constant,
)
from fedcore.tensorflow._graph import executable
from fedcore.types import SequenceType, StructType, Type, type_to_tf_tensor_specs
from fedsim.runtime._seeds import as_int32_pair, fold
from fedsim.runtime._values import Elements, iterate, to_dataset

SERVER = -1

Env = dict[str, Any]
Types = dict[str, LeafType]


@attrs.frozen
class Draws:
    """What unseeded draws are folded from: a call's seed, a place, an iteration there."""

    seed: int
    place: int = SERVER
    iteration: int = 0

    def pair(self) -> tuple[int, int]:
        """The hidden seed of a graph that runs here and now."""
        return as_int32_pair(fold(self.seed, self.place, self.iteration))

    def at(self, element: int) -> Draws:
        """The draws of one element of a sequence."""
        return attrs.evolve(self, iteration=fold(self.iteration, 1 + element))


class LineError(Exception):
    """A line failed; the cause is what it raised."""

    def __init__(self, operator: str):
        super().__init__(operator)
        self.operator = operator


def run_lines(ops: Sequence[Op], env: Env, types: Types, draws: Draws) -> None:
    """Runs lines in order; `env` holds the values they use and gets those they make.

    Raises:
        LineError: Names the operator of the line that failed.
    """
    for op in ops:
        try:
            _run(op, env, types, draws)
        except LineError:
            raise
        except Exception as error:
            if isinstance(op, Graph) and op.parts:
                # A graph of several lines: find the one at fault.
                run_lines(op.parts, dict(env), types, draws)
            raise LineError(op.operator) from error


def call(fn: Local, arguments: Sequence[Any], env: Env, types: Types, draws: Draws):
    """The results of a local function; its free names are looked up in `env`."""
    inner = {**env, **dict(zip(fn.inputs, arguments, strict=True))}
    run_lines(fn.ops, inner, types, draws)
    return [inner[name] for name in fn.outputs]


def _run(op: Op, env: Env, types: Types, draws: Draws) -> None:
    match op:
        case Graph():
            run = executable(op.graph)
            inputs = [as_tensor(env[name], types[name]) for name in op.inputs]
            outputs = run(inputs, draws.pair() if run.has_seed else None)
            for name, tensor in zip(op.outputs, outputs, strict=True):
                env[name] = from_tensor(tensor, types[name])
        case Constant():
            env[op.outputs[0]] = _constant(op)
        case Reduce():
            sequence_type = types[op.sequence[0]]
            state = [env[name] for name in op.zero]
            elements = iterate(env[op.sequence[0]], sequence_type)
            for i, element in enumerate(elements):
                leaves = [*state, *to_leaves(element, sequence_type.element)]
                state = call(op.step, leaves, env, types, draws.at(i))
            env.update(zip(op.outputs, state, strict=True))
        case SequenceMap():
            sequence_type, result = types[op.sequence[0]], types[op.outputs[0]]
            items = []
            for i, element in enumerate(iterate(env[op.sequence[0]], sequence_type)):
                leaves = to_leaves(element, sequence_type.element)
                mapped = call(op.fn, leaves, env, types, draws.at(i))
                items.append(from_leaves(iter(mapped), result.element))
            env[op.outputs[0]] = Elements(tuple(items))
        case Select():
            keys = env[op.keys[0]]
            check_keys(keys, int(env[op.max_key[0]]))
            value = [env[name] for name in op.value]
            element = types[op.outputs[0]].element
            slices = (call(op.fn, [*value, key], env, types, draws) for key in keys)
            items = (from_leaves(iter(leaves), element) for leaves in slices)
            env[op.outputs[0]] = Elements(tuple(items))
        case _:
            raise TypeError(f"There is no road for the line `{type(op).__name__}`.")


@functools.lru_cache(maxsize=4096)
def _constant(op: Constant) -> tf.Tensor:
    return constant(op)


def check_keys(keys: Any, limit: int) -> None:
    """Refuses keys that `federated_select` has no slice for."""
    outside = [int(k) for k in keys if not 0 <= int(k) < limit]
    if outside:
        raise ValueError(
            f"`federated_select` needs keys in [0, {limit}), found {outside[0]}."
        )


# --- Leaves -------------------------------------------------------------------------


def as_tensor(value: Any, type_: LeafType) -> tf.Tensor:
    """A leaf as a graph takes it: a sequence is a variant."""
    if isinstance(type_, SequenceType):
        return tf.data.experimental.to_variant(to_dataset(value, type_))
    return value


def from_tensor(tensor: tf.Tensor, type_: LeafType) -> Any:
    """A leaf as a graph gives it."""
    if isinstance(type_, SequenceType):
        spec = type_to_tf_tensor_specs(type_.element)
        return tf.data.experimental.from_variant(tensor, spec)
    return tensor


def to_leaves(value: Any, type_: Type) -> list[Any]:
    """The leaves of an unplaced value in flat order; sequences are leaves."""
    if not isinstance(type_, StructType):
        return [value]
    return [leaf for item, t in zip(value, type_) for leaf in to_leaves(item, t)]


def from_leaves(leaves: Iterator[Any], type_: Type) -> Any:
    """The unplaced value of `type_` that leaves make; the inverse of `to_leaves`."""
    if not isinstance(type_, StructType):
        return next(leaves)
    items = [(n, from_leaves(leaves, t)) for n, t in structure.iter_elements(type_)]
    return structure.Struct(items)
