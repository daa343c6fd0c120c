"""Graph bytes as parts of bigger graphs: emit, compose, prune."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, types_pb2

from fedcore.tensorflow import _graph as graphs
from fedcore.tensorflow import _private
from fedcore.tensorflow._trace import NewInput, build

_CACHED_PARTS = 1024

# What only changes state that belongs to the run: with the state dead, so is this.
_LOCAL_EFFECTS = frozenset(
    {
        "AnonymousHashTable",
        "AnonymousIterator",
        "AnonymousIteratorV2",
        "AnonymousIteratorV3",
        "AnonymousMutableDenseHashTable",
        "AnonymousMutableHashTable",
        "AnonymousMutableHashTableOfTensors",
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "AssignVariableOp",
        "DeleteIterator",
        "IteratorGetNext",
        "IteratorGetNextAsOptional",
        "LookupTableFindV2",
        "LookupTableImportV2",
        "LookupTableInsertV2",
        "LookupTableSizeV2",
        "MakeIterator",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "ReadVariableOp",
        "ResourceGather",
        "ResourceScatterAdd",
        "ResourceScatterSub",
        "ResourceScatterUpdate",
        "TruncatedNormal",
        "VarHandleOp",
        "VarIsInitializedOp",
    }
)


@functools.lru_cache(maxsize=_CACHED_PARTS)
def _parts(graph: bytes) -> graphs.Unpacked:
    return graphs.unpack(graph)


def emit(graph: bytes, args: Sequence[Any], seed: Any = None) -> list[tf.Tensor]:
    """Adds the nodes of `graph` to the graph being built, ready for XLA too.

    A GradientTape does not see through them; `Executable.inline` is for that.

    Args:
        graph: Graph bytes.
        args: One tensor for each input, in flat order.
        seed: The hidden seed, `int32[2]`, if the graph has one. If None, a draw from the
            seed of the computation being traced.

    Returns:
        The outputs in flat order.
    """
    parts = _parts(graph)
    inputs = [tf.convert_to_tensor(value) for value in args]
    if parts.seed is not None:
        root = _private.active_root()
        if seed is None and root is None:
            raise ValueError(
                "`emit` needs the hidden seed of the graph outside of a trace, found None."
            )
        inputs.append(root.seed_for_call() if seed is None else seed)
    return graphs.emit(parts, inputs)


def compose(first: bytes, second: bytes) -> bytes:
    """One graph for `second(first(...))`, without running Python code again.

    The outputs of `first` are the inputs of `second`. Each keeps state of its own, and
    each draws from the hidden seed of the whole, if it has a seed.
    """
    inputs = input_specs(first)
    given, wanted = len(_parts(first).outputs), len(_parts(second).inputs)
    if given != wanted:
        raise ValueError(
            f"`compose` needs {wanted} outputs of the first graph, found {given}."
        )

    def body(new_input: NewInput) -> list[tf.Tensor]:
        args = [new_input(spec.dtype, spec.shape) for spec in inputs]
        return emit(second, emit(first, args))

    return build("compose", body)


def input_specs(graph: bytes) -> list[tf.TensorSpec]:
    """The inputs of a graph in flat order, without the hidden seed."""
    parts = _parts(graph)
    nodes = {node.name: node for node in parts.graph_def.node}
    inputs = [nodes[name.split(":")[0]] for name in parts.inputs]
    return [
        tf.TensorSpec(tf.TensorShape(node.attr["shape"].shape), node.attr["dtype"].type)
        for node in inputs
    ]


def prune(graph: bytes) -> bytes:
    """Drops state that no output depends on, which control edges alone keep alive.

    A model that is built in a trace for the sake of its `stateless_call` leaves variables
    and initialisers behind; XLA cannot compile a graph with a `VarHandleOp`.
    """
    parts = _parts(graph)
    live = _Liveness.of(parts)
    result = graph_pb2.GraphDef(
        library=parts.graph_def.library, versions=parts.graph_def.versions
    )
    for node in parts.graph_def.node:
        if node.name in live.names:
            kept = result.node.add()
            kept.CopyFrom(node)
            kept.input[:] = [
                *(name for name in node.input if not name.startswith("^")),
                *(f"^{name}" for name in sorted(live.controls(node.name) & live.names)),
            ]
    return graphs.pack(attrs.evolve(parts, graph_def=result, seed=live.seed(parts)))


class _Liveness:
    """Which nodes have an effect that can be seen from outside."""

    def __init__(self, graph_def: graph_pb2.GraphDef):
        self.names: set[str] = set()
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {f.signature.name: f for f in graph_def.library.function}
        self._local: dict[str, bool] = {}
        self._controls: dict[str, set[str]] = {}

    @classmethod
    def of(cls, parts: graphs.Unpacked) -> _Liveness:
        live = cls(parts.graph_def)
        live._mark(_base(name) for name in (*parts.inputs, *parts.outputs))
        while True:
            effects = {
                control
                for name in live.names
                for control in live.controls(name)
                if control not in live.names and live._is_seen(control)
            }
            if not effects:
                return live
            live._mark(effects)

    def seed(self, parts: graphs.Unpacked) -> str | None:
        used = parts.seed is not None and _base(parts.seed) in self.names
        return parts.seed if used else None

    def controls(self, name: str) -> set[str]:
        """What runs before `name` by control edges, through nodes that may be dead.

        Found anew while nodes die or live: an edge through a dead node stays an edge.
        """
        if name not in self._controls:
            found: set[str] = set()
            todo = [name]
            while todo:
                for source in self._nodes[todo.pop()].input:
                    before = source[1:]
                    if source.startswith("^") and before not in found:
                        found.add(before)
                        todo.append(before)
            self._controls[name] = found
        return self._controls[name]

    def _mark(self, names: Any) -> None:
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in self.names:
                self.names.add(name)
                todo.extend(
                    _base(source)
                    for source in self._nodes[name].input
                    if not source.startswith("^")
                )

    def _is_seen(self, name: str) -> bool:
        node = self._nodes[name]
        sources = [_base(source) for source in node.input if not source.startswith("^")]
        if any(s in self.names and _gives_resource(self._nodes[s]) for s in sources):
            return True  # it may change state that something reads
        return not self._is_local(node)

    def _is_local(self, node: Any) -> bool:
        """Whether dropping the node changes nothing but state of the run."""
        if node.op in _LOCAL_EFFECTS:
            return True
        called = list(_called(node))
        if called and node.op not in self._functions:
            return all(self._is_local_function(name) for name in called)
        definition = _private.op_def(node.op)
        return definition is not None and not definition.is_stateful

    def _is_local_function(self, name: str) -> bool:
        if name not in self._local:
            self._local[name] = True
            function = self._functions[name]
            self._local[name] = all(self._is_local(node) for node in function.node_def)
        return self._local[name]


def _base(tensor_name: str) -> str:
    return tensor_name.split(":")[0]


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name


def _gives_resource(node: Any) -> bool:
    definition = _private.op_def(node.op)
    if definition is None:
        return True
    for output in definition.output_arg:
        dtype = output.type or node.attr[output.type_attr].type
        if dtype in (types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT):
            return True
        if output.type_list_attr:
            return True
    return False
