"""Runs the lines of a program one by one, on eager tensors: the general road."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import attrs
import tensorflow as tf

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
from fedsim.runtime._drained import drained_loop
from fedsim.runtime._leaves import as_tensor, from_leaves, from_tensor, to_leaves
from fedsim.runtime._seeds import as_int32_pair, fold
from fedsim.runtime._values import Elements, iterate

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
            loop = drained_loop(op, types) if _is_dataset(env[op.sequence[0]]) else None
            if loop is not None:
                variant = as_tensor(env[op.sequence[0]], sequence_type)
                state = loop(variant, state, [env[name] for name in loop.free])
                env.update(zip(op.outputs, state, strict=True))
                return
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


def _is_dataset(value: Any) -> bool:
    return not isinstance(value, Elements)


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
