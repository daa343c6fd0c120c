"""Nodes in the serialised form: a table in which each node names earlier ones."""

from __future__ import annotations

import re

from fedcore.ir._blocks import (
    Block,
    Call,
    Compiled,
    Data,
    Intrinsic,
    Lambda,
    Literal,
    Node,
    Placement,
    Reference,
    Selection,
    Struct,
)
from fedcore.ir._check import TreeError, check, check_node
from fedcore.ir._rewrite import canonical_names
from fedcore.ir._serialize_graphs import check_graph
from fedcore.ir._serialize_tensors import check_literal
from fedcore.ir._serialize_types import (
    PLACEMENTS,
    Extent,
    TypeWriter,
    check_container,
    container_code,
    read_container,
    read_name,
    read_types,
    write_name,
)
from fedcore.ir._serialize_wire import Reader, SerializationError, Writer
from fedcore.types import FunctionType, TensorType, Type

MAX_NODE_DEPTH = 200
MAX_TREE_SIZE = 1 << 24

(
    _REFERENCE,
    _SELECTION,
    _STRUCT,
    _CALL,
    _LAMBDA,
    _BLOCK,
    _INTRINSIC,
    _PLACEMENT,
    _COMPILED,
    _DATA,
    _LITERAL,
) = range(11)

_CANONICAL = re.compile(r"v(0|[1-9][0-9]*)")


def write_node(writer: Writer, node: Node) -> None:
    """Writes a closed tree: its types, then its nodes, the root last."""
    try:
        tree = canonical_names(check(node))
    except TreeError as e:
        raise SerializationError(f"Serialisation needs a sound tree. {e}") from e
    types = TypeWriter()
    entries: dict[bytes, int] = {}
    indices: dict[int, int] = {}
    depths: list[int] = []
    stack = [(tree, False)]
    while stack:
        current, ready = stack.pop()
        if id(current) in indices:
            continue
        children = current.children()
        if not ready:
            stack.append((current, True))
            stack.extend((child, False) for child in reversed(children))
            continue
        below = [indices[id(child)] for child in children]
        entry = _entry(current, below, types)
        index = indices[id(current)] = entries.setdefault(entry, len(entries))
        if index == len(depths):
            depths.append(_deeper([depths[i] for i in below]))
    types.write(writer)
    writer.uint(len(entries))
    for entry in entries:
        writer.data += entry


def _deeper(depths: list[int]) -> int:
    depth = 1 + max(depths, default=0)
    if depth > MAX_NODE_DEPTH:
        raise SerializationError(
            f"A tree needs at most {MAX_NODE_DEPTH} levels, found more. "
            "Bind inner results to names."
        )
    return depth


def _entry(node: Node, below: list[int], types: TypeWriter) -> bytes:
    out = Writer()
    match node:
        case Reference(name, type_):
            out.uint(_REFERENCE)
            _write_bound(out, name)
            out.uint(types.index(type_))
        case Selection(_, index):
            out.uint(_SELECTION)
            out.uint(below[0])
            out.uint(index)
        case Struct(elements, container):
            out.uint(_STRUCT)
            out.uint(container_code(container, [name for name, _ in elements]))
            out.uint(len(elements))
            for (name, _), index in zip(elements, below):
                write_name(out, name)
                out.uint(index)
        case Call():
            out.uint(_CALL)
            out.uint(below[0])
            out.optional(below[1] if len(below) == 2 else None)
        case Lambda(parameter, parameter_type, _):
            out.uint(_LAMBDA)
            out.uint(below[0])
            out.uint(parameter is not None)
            if parameter is not None:
                _write_bound(out, parameter)
                out.uint(types.index(parameter_type))
        case Block(local, _):
            out.uint(_BLOCK)
            out.uint(len(local))
            for (name, _), index in zip(local, below):
                _write_bound(out, name)
                out.uint(index)
            out.uint(below[-1])
        case Intrinsic(uri, type_) | Data(uri, type_):
            out.uint(_INTRINSIC if isinstance(node, Intrinsic) else _DATA)
            out.text(uri)
            out.uint(types.index(type_))
        case Placement(literal):
            out.uint(_PLACEMENT)
            out.uint(PLACEMENTS.index(literal))
        case Compiled(content, type_) | Literal(content, type_):
            out.uint(_COMPILED if isinstance(node, Compiled) else _LITERAL)
            out.uint(types.index(type_))
            out.blob(content)
        case _:
            raise TypeError(f"Serialisation needs a node of the IR, found `{node!r}`.")
    return bytes(out.data)


def _write_bound(out: Writer, name: str) -> None:
    found = _CANONICAL.fullmatch(name)
    if found is None:
        raise SerializationError(f"The reference `{name}` is not bound.")
    out.uint(int(found[1]))


def read_node(reader: Reader, *, allow_side_effects: bool) -> Node:
    """A tree that keeps every invariant; inverse of `write_node`."""
    types = read_types(reader)
    nodes: list[Node] = []
    bounds = _Bounds()
    for _ in range(reader.count()):
        start = reader.position
        node, below = _read_node(reader, types, nodes, allow_side_effects)
        size = reader.position - start
        if isinstance(node, Compiled):
            size -= len(node.graph)
        bounds.add(node, below, size)
        # Here, not only at the end: `type` of what stands above relies on it.
        try:
            check_node(node)
            bounds.add_type(node.type)
        except SerializationError:
            raise
        except (TreeError, TypeError, ValueError) as e:
            raise SerializationError(f"Entry {len(nodes)} is not a node: {e}") from e
        nodes.append(node)
    if not nodes:
        raise SerializationError("A tree needs a node, found none.")
    if len(bounds.used) != len(nodes) - 1:
        raise SerializationError(
            f"A tree needs every entry, found {len(nodes) - 1 - len(bounds.used)} "
            "beside it."
        )
    try:
        return check(nodes[-1])
    except TreeError as e:
        raise SerializationError(f"The tree is not sound. {e}") from e


class _Bounds:
    """Keeps shared entries from standing for more than could be walked."""

    def __init__(self):
        self.used: set[int] = set()
        self._depths: list[int] = []
        self._sizes: list[int] = []
        self._extent = Extent()

    def add(self, node: Node, below: list[int], own_size: int) -> None:
        self.used.update(below)
        self._depths.append(_deeper([self._depths[i] for i in below]))
        self._sizes.append(own_size + sum(self._sizes[i] for i in below))
        if self._sizes[-1] > MAX_TREE_SIZE:
            raise SerializationError(
                f"A tree needs at most {MAX_TREE_SIZE} bytes with each part in its "
                f"place, found {self._sizes[-1]}."
            )
        match node:
            case Call(function, Node() as argument):
                self._compare(function.type, argument.type)

    def _compare(self, function: Type, argument: Type) -> None:
        """Counts what comparing two types costs, unless they are one."""
        if isinstance(function, FunctionType) and function.parameter is not argument:
            self._extent.walk(function)
            self._extent.walk(argument)

    def add_type(self, type_: Type) -> None:
        """Bounds the type that a node derives from those below it."""
        self._extent.measure(type_)


def _read_node(
    reader: Reader, types: list[Type], nodes: list[Node], allow_side_effects: bool
) -> tuple[Node, list[int]]:
    def child() -> Node:
        below.append(reader.index(len(nodes), "node"))
        return nodes[below[-1]]

    def type_() -> Type:
        return types[reader.index(len(types), "type")]

    def bound() -> str:
        return f"v{reader.uint()}"

    below: list[int] = []
    tag = reader.uint()
    if tag == _REFERENCE:
        return Reference(bound(), type_()), below
    if tag == _SELECTION:
        return Selection(child(), reader.uint()), below
    if tag == _STRUCT:
        container = read_container(reader)
        elements = [(read_name(reader), child()) for _ in range(reader.count())]
        check_container(container, [name for name, _ in elements])
        return Struct(tuple(elements), container), below
    if tag == _CALL:
        function = child()
        argument = reader.optional()
        if argument is None:
            return Call(function), below
        if argument >= len(nodes):
            raise SerializationError(
                f"An argument needs a number below {len(nodes)}, found {argument}."
            )
        below.append(argument)
        return Call(function, nodes[argument]), below
    if tag == _LAMBDA:
        result = child()
        if reader.index(2, "flag"):
            return Lambda(bound(), type_(), result), below
        return Lambda(None, None, result), below
    if tag == _BLOCK:
        local = tuple((bound(), child()) for _ in range(reader.count()))
        return Block(local, child()), below
    if tag == _PLACEMENT:
        return Placement(PLACEMENTS[reader.index(len(PLACEMENTS), "placement")]), below
    if tag in (_INTRINSIC, _DATA):
        node_class = Intrinsic if tag == _INTRINSIC else Data
        return node_class(reader.text(), type_()), below
    if tag == _COMPILED:
        function_type = type_()
        if not isinstance(function_type, FunctionType):
            raise SerializationError(
                f"A graph needs a function type, found `{function_type}`."
            )
        graph = reader.blob()
        check_graph(graph, function_type, allow_side_effects=allow_side_effects)
        return Compiled(graph, function_type), below
    if tag == _LITERAL:
        tensor_type = type_()
        if not isinstance(tensor_type, TensorType):
            raise SerializationError(
                f"A constant needs a tensor type, found `{tensor_type}`."
            )
        proto = reader.blob()
        check_literal(proto, tensor_type)
        return Literal(proto, tensor_type), below
    raise SerializationError(f"A node needs a tag from 0 to 10, found {tag}.")
