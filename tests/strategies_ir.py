"""Random sound trees of the IR, and graphs in the layout of `Compiled.graph`."""

import collections
import functools
import json

import tensorflow as tf
from hypothesis import strategies as st

from fedcore import ir
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
)

_NAMES = st.sampled_from([None, "a", "b", "a_long_name_for_an_element"])
_CONTAINERS = (None, list, tuple, collections.OrderedDict)
_URIS = ("federated_sum", "federated_broadcast", "generic_zero")


def tensor_types():
    return st.builds(
        TensorType,
        st.sampled_from([tf.int32, tf.float32, tf.bool, tf.string]),
        st.lists(st.sampled_from([None, 0, 2, 784]), max_size=3),
    )


@st.composite
def struct_types(draw, elements):
    drawn = draw(st.lists(st.tuples(_NAMES, elements), max_size=3))
    pairs = [item if item[0] else item[1] for item in unique_names(drawn)]
    container = draw(st.sampled_from(_containers(unique_names(drawn))))
    if container is None:
        return StructType(pairs)
    return StructWithPythonType(pairs, container)


def data_types():
    """Types without functions and placements."""
    return st.recursive(
        tensor_types() | tensor_types().map(SequenceType), struct_types, max_leaves=4
    )


def types():
    """Types that the nodes of a tree may have."""
    placed = st.builds(
        FederatedType,
        data_types(),
        st.sampled_from([CLIENTS, SERVER]),
        st.booleans(),
    )
    return st.recursive(
        data_types() | placed,
        lambda inner: struct_types(inner) | st.builds(FunctionType, inner, inner),
        max_leaves=5,
    )


def unique_names(pairs):
    """The pairs, each name only at its first place."""
    seen = set()
    return [
        (None if name in seen or seen.add(name) else name, item) for name, item in pairs
    ]


def _containers(pairs):
    """The Python containers that can hold elements of these names."""
    named = [name is not None for name, _ in pairs]
    if pairs and all(named):
        return (None, collections.OrderedDict)
    return (None,) if any(named) else (None, list, tuple)


def literals():
    """Constants: numbers, strings, and one array that prints by its type."""
    return st.one_of(
        st.integers(-5, 5).map(lambda n: ir.literal(n, TensorType(tf.int32))),
        st.text(max_size=3).map(lambda s: ir.literal(s, TensorType(tf.string))),
        st.just(ir.literal([1.0] * 6, TensorType(tf.float32, [6]))),
    )


@st.composite
def trees(draw, depth=3):
    """Closed trees that keep every invariant, each name bound once."""
    return _node(draw, {}, depth, ir.fresh_names(draw(st.sampled_from("vxy"))))


def _node(draw, scope, depth, fresh):
    kinds = [_leaf] if depth == 0 else [_leaf, *_INNER]
    return draw(st.sampled_from(kinds))(draw, scope, depth - 1, fresh)


def _leaf(draw, scope, depth, fresh):
    if scope and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(scope)))
        return ir.Reference(name, scope[name])
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return ir.Intrinsic(draw(st.sampled_from(_URIS)), draw(types()))
    if kind == 1:
        return ir.Placement(draw(st.sampled_from([CLIENTS, SERVER])))
    if kind == 2:
        return ir.Data(draw(st.sampled_from(["a", "b/c"])), draw(types()))
    if kind == 3:
        return add_one()
    return draw(literals())


def _struct(draw, scope, depth, fresh):
    names = draw(st.lists(_NAMES, max_size=3))
    pairs = unique_names([(name, _node(draw, scope, depth, fresh)) for name in names])
    return ir.Struct(tuple(pairs), draw(st.sampled_from(_containers(pairs))))


def _selection(draw, scope, depth, fresh):
    source = _node(draw, scope, depth, fresh)
    if isinstance(source.type, StructType) and len(source.type):
        return ir.Selection(source, draw(st.integers(0, len(source.type) - 1)))
    return source


def _lambda(draw, scope, depth, fresh):
    if draw(st.booleans()):
        return ir.Lambda(None, None, _node(draw, scope, depth, fresh))
    name, type_ = fresh(), draw(types())
    return ir.Lambda(name, type_, _node(draw, {**scope, name: type_}, depth, fresh))


def _block(draw, scope, depth, fresh):
    inner, local = dict(scope), []
    for _ in range(draw(st.integers(1, 3))):
        value = _node(draw, inner, depth, fresh)
        local.append((fresh(), value))
        inner[local[-1][0]] = value.type
    return ir.Block(tuple(local), _node(draw, inner, depth, fresh))


def _call(draw, scope, depth, fresh):
    argument = _node(draw, scope, depth, fresh)
    if draw(st.booleans()):
        type_ = FunctionType(argument.type, draw(types()))
        return ir.Call(ir.Intrinsic(draw(st.sampled_from(_URIS)), type_), argument)
    name = fresh()
    inner = {**scope, name: argument.type}
    function = ir.Lambda(name, argument.type, _node(draw, inner, depth, fresh))
    return ir.Call(function, argument)


_INNER = (_struct, _selection, _lambda, _block, _call)


def graph_bytes(definition, inputs, outputs, seed=None, **changes):
    """The bytes of a graph: length of the head, JSON head, `GraphDef`."""
    fields = {"version": 1, "in": inputs, "out": outputs, "seed": seed, **changes}
    head = json.dumps(fields).encode()
    content = definition.SerializeToString(deterministic=True)
    return len(head).to_bytes(4, "big") + head + content


def traced(fn, *specs):
    """The `GraphDef` of `fn` and the names of its inputs and outputs."""
    graph = tf.Graph()
    with graph.as_default():
        inputs = [tf.compat.v1.placeholder(s.dtype, s.shape) for s in specs]
        outputs = tf.nest.flatten(fn(*inputs))
    return graph.as_graph_def(), [t.name for t in inputs], [t.name for t in outputs]


@functools.cache
def add_one():
    """A `Compiled` node of type `(int32 -> int32)`."""
    graph = graph_bytes(*traced(lambda x: x + 1, tf.TensorSpec([], tf.int32)))
    int32 = TensorType(tf.int32)
    return ir.Compiled(graph, FunctionType(int32, int32))
