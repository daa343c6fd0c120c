"""A GraphDef in one canonical form: what two traces of one function have in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2

from fedcore.tensorflow import _private
from fedcore.tensorflow._ops import all_nodes
from fedcore.tensorflow._root import TracingError

# A table by name is shared within the process; an anonymous one belongs to the run.
_ANONYMOUS_TABLES = {
    "HashTable": "AnonymousHashTable",
    "HashTableV2": "AnonymousHashTable",
    "MutableHashTableV2": "AnonymousMutableHashTable",
    "MutableHashTableOfTensorsV2": "AnonymousMutableHashTableOfTensors",
    "MutableDenseHashTableV2": "AnonymousMutableDenseHashTable",
}
_NAMES_OF_A_TABLE = ("container", "shared_name", "use_node_name_sharing")

# Attributes that hold numbers of the process that traced: which gradient function its
# registry holds, where to colocate.
_PROCESS_ATTRIBUTES = ("_class", "_gradient_op_type")
_PROCESS_FUNCTION_ATTRIBUTES = ("forward_function_name", "backward_function_name")

# A name that this module gave: naming it anew keeps its base, so `canonical` is
# idempotent.
_CANONICAL_NAME = re.compile(r"fn_(.*)_[0-9a-f]{20}")
_WRAPPING = re.compile(r"(__)?(inference|forward|backward)_|_\d+(?=_|$)|[^A-Za-z0-9_]")


def canonical(graph_def: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """The same graph with anonymous resources and functions named by their content.

    The library holds exactly the functions in use, in order of their names, so equal
    functions are one and functions of two graphs never clash.
    """
    result = graph_pb2.GraphDef()
    result.CopyFrom(graph_def)
    del result.library.gradient[:]
    del result.library.registered_gradients[:]
    functions = _complete_library(result)
    for node in all_nodes(result):
        _strip(node)
    for function in functions.values():
        for node in function.node_def:
            _strip(node)
    namer = _Namer(functions)
    for node in result.node:
        namer.rename_in(node)
    del result.library.function[:]
    result.library.function.extend(namer.done[name] for name in sorted(namer.done))
    return result


def _complete_library(
    graph_def: graph_pb2.GraphDef,
) -> dict[str, function_pb2.FunctionDef]:
    """The library by name, with what only the runtime knows so far added."""
    functions = {f.signature.name: f for f in graph_def.library.function}
    open_nodes = list(all_nodes(graph_def))
    while open_nodes:
        node = open_nodes.pop()
        for reference in _references(node.attr):
            if reference.name in functions:
                continue
            function = _private.function_def_of(reference.name)
            if function is not None:
                functions[reference.name] = function
                open_nodes.extend(function.node_def)
    return functions


def _references(attributes: Any) -> Iterator[Any]:
    """The references to functions among a node's attributes."""
    for value in attributes.values():
        if value.HasField("func"):
            yield value.func
            yield from _references(value.func.attr)
        for function in value.list.func:
            yield function
            yield from _references(function.attr)


def _strip(node: Any) -> None:
    if node.op == "VarHandleOp":
        node.attr["shared_name"].s = _private.ANONYMOUS
        node.attr["container"].s = b""
    elif node.op in _ANONYMOUS_TABLES:
        node.op = _ANONYMOUS_TABLES[node.op]
        for name in _NAMES_OF_A_TABLE:
            node.attr.pop(name, None)
    for name in _PROCESS_ATTRIBUTES:
        node.attr.pop(name, None)
    if "config_proto" in node.attr:
        node.attr["config_proto"].s = _CALL_CONFIG
    node.ClearField("experimental_debug_info")


def _call_config() -> bytes:
    """How an inner function runs: the graph around it has been optimised already.

    TensorFlow writes the process's session options here, its number of threads included.
    """
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config.SerializeToString(deterministic=True)


_CALL_CONFIG = _call_config()


class _Namer:
    """Renames functions to a hash of their content, the innermost first."""

    def __init__(self, functions: dict[str, function_pb2.FunctionDef]):
        self.done: dict[str, function_pb2.FunctionDef] = {}  # by new name
        self._functions = functions
        self._new_names: dict[str, str] = {}
        self._open: list[str] = []

    def rename_in(self, node: Any) -> None:
        """Gives the functions that a node refers to their new names."""
        if node.op in self._functions:
            node.op = self._new_name(node.op)
        for reference in _references(node.attr):
            if reference.name in self._functions:
                reference.name = self._new_name(reference.name)

    def _new_name(self, name: str) -> str:
        if name in self._new_names:
            return self._new_names[name]
        if name in self._open:
            raise TracingError(
                f"A computation cannot hold a recursive tf.function, found `{name}`.\n"
                "Write the recursion as a loop."
            )
        self._open.append(name)
        function = self._functions[name]
        for node in function.node_def:
            self.rename_in(node)
        self._open.pop()
        for attribute in _PROCESS_FUNCTION_ATTRIBUTES:
            function.attr.pop(attribute, None)
        _number_placeholders(function)
        function.signature.name = "f"
        content = function.SerializeToString(deterministic=True)
        ours = _CANONICAL_NAME.fullmatch(name)
        base = ours[1] if ours else _WRAPPING.sub("", name)[:40]
        new_name = f"fn_{base}_{hashlib.sha256(content).hexdigest()[:20]}"
        function.signature.name = new_name
        self._new_names[name] = new_name
        self.done[new_name] = function
        return new_name


def _number_placeholders(function: function_pb2.FunctionDef) -> None:
    """Replaces the process-wide numbers that `tf.while_loop` puts into argument names."""
    renamed = {}
    for i, argument in enumerate(function.signature.input_arg):
        if "___redundant_placeholder" in argument.name:
            renamed[argument.name] = argument.name = f"redundant_{i}"
    if not renamed:
        return
    for node in function.node_def:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for name, source in list(function.ret.items()):
        function.ret[name] = renamed.get(source, source)
