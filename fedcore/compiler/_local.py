"""Composes neighbouring graphs and constants at one place into one graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from fedcore.compiler._program import (
    Constant,
    Graph,
    LeafType,
    Local,
    Op,
    Reduce,
    Select,
    SequenceMap,
)
from fedcore.compiler._steps import ClientStep, Plan, ServerStep
from fedcore.tensorflow import _compose, _graph, _private
from fedcore.tensorflow._masked import masked_of
from fedcore.types import TensorType


def local(plan: Plan) -> Plan:
    """The plan with few lines: a call of each costs as much as many operations in it."""
    types = plan.program.types
    needed = set(plan.program.results)
    composed: list[ServerStep | ClientStep] = []
    for step in reversed(plan.steps):
        if isinstance(step, ServerStep):
            new = ServerStep(_composed(step.ops, needed, types))
        else:
            accumulate = _local(step.accumulate, types)
            used = {*step.keep, *accumulate.free()}
            new = attrs.evolve(
                step,
                work=_composed(step.work, used, types),
                accumulate=accumulate,
                merge=_local(step.merge, types),
            )
        composed.append(new)
        needed |= new.uses()
    return attrs.evolve(plan, steps=tuple(reversed(composed)))


def _local(fn: Local, types: dict[str, LeafType]) -> Local:
    return attrs.evolve(fn, ops=_composed(fn.ops, set(fn.outputs), types))


def _composed(
    ops: Sequence[Op], needed: set[str], types: dict[str, LeafType]
) -> tuple[Op, ...]:
    """The lines in groups: all that need no loop before them, those loops, and so on."""
    rank: dict[str, int] = {}
    simple: dict[int, list[Op]] = {}
    loops: dict[int, list[Op]] = {}
    for op in ops:
        height = max((rank.get(name, 0) for name in op.uses()), default=0)
        is_simple = isinstance(op, Graph | Constant)
        (simple if is_simple else loops).setdefault(height, []).append(op)
        rank.update(dict.fromkeys(op.outputs, height if is_simple else height + 1))
    out: list[Op] = []
    for height in range(max(rank.values(), default=0) + 1):
        group = simple.get(height, [])
        if group:
            others = (op for op in ops if op not in group)
            used = needed.union(name for op in others for name in op.uses())
            out.append(_one_graph(group, used, types))
        out += [_inside(op, types) for op in loops.get(height, [])]
    return tuple(out)


def _inside(op: Op, types: dict[str, LeafType]) -> Op:
    match op:
        case SequenceMap() | Select():
            return attrs.evolve(op, fn=_local(op.fn, types))
        case Reduce():
            return attrs.evolve(op, step=_local(op.step, types))
    return op


def _one_graph(
    group: Sequence[Op], used: set[str], types: dict[str, LeafType]
) -> Graph:
    made = [name for op in group for name in op.outputs]
    inputs = tuple(
        dict.fromkeys(n for op in group for n in op.uses() if n not in set(made))
    )
    outputs = tuple(name for name in made if name in used)
    graph = compose_ops(group, inputs, outputs, types)
    first = group[0]
    parts = tuple(group) if len(group) > 1 else ()
    masked = None
    if isinstance(first, Graph) and not parts and outputs == first.outputs:
        # Its inputs in another order would not fit the mask's graph.
        masked = masked_of(first.graph) if inputs == first.inputs else None
    return Graph(
        outputs,
        first.at_clients,
        first.operator,
        graph,
        inputs,
        parts,
        None if masked is None else _compose.prune(masked),
    )


def compose_ops(
    group: Iterable[Op],
    inputs: Sequence[str],
    outputs: Sequence[str],
    types: dict[str, LeafType],
) -> bytes:
    """The bytes of one graph for several; all share its hidden seed, if one needs it."""
    with _private.outside_graphs():
        root = _private.FuncGraph("local")
        with root.as_default():
            seed = tf.compat.v1.placeholder(tf.int32, [2], name="seed")
            env = {name: _placeholder(types[name], i) for i, name in enumerate(inputs)}
            given = [env[name].name for name in inputs]
            for op in group:
                env.update(zip(op.outputs, _emitted(op, env, seed), strict=True))
    graph_def = root.as_graph_def(add_shapes=False)
    named = tuple(env[name].name for name in outputs)
    return _compose.prune(
        _graph.pack(_graph.Unpacked(graph_def, tuple(given), named, seed.name))
    )


def _placeholder(type_: LeafType, i: int) -> tf.Tensor:
    name = f"arg_{i}"
    if isinstance(type_, TensorType):
        return tf.compat.v1.placeholder(type_.dtype, type_.shape, name=name)
    return tf.compat.v1.placeholder(tf.variant, [], name=name)


def _emitted(op: Op, env: dict[str, tf.Tensor], seed: tf.Tensor) -> list[tf.Tensor]:
    if isinstance(op, Constant):
        return [constant(op)]
    assert isinstance(op, Graph)
    return _compose.emit(op.graph, [env[name] for name in op.inputs], seed)


def constant(op: Constant) -> tf.Tensor:
    """The tensor of a constant, eager or in the graph being built."""
    proto = tensor_pb2.TensorProto.FromString(op.proto)
    return tf.constant(
        tf.make_ndarray(proto), proto.dtype, tf.TensorShape(proto.tensor_shape)
    )
