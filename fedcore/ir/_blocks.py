"""The nodes of the intermediate representation: a small typed lambda calculus."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from fedcore import structure
from fedcore.ir._kinds import Kinds
from fedcore.types import (
    FunctionType,
    PlacementLiteral,
    PlacementType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    TypedObject,
)


class Node(Kinds, TypedObject):
    """A typed node of the tree. Equality, hash and children follow from the fields.

    Nodes have no slots, so that a derived type and the hash are found only once.
    """

    type: Type

    def __init__(self, type_spec: Type):
        self.type = type_spec

    @property
    def type_signature(self) -> Type:
        return self.type

    def children(self) -> tuple[Node, ...]:
        """The nodes directly below this one, in order of evaluation."""
        found: list[Node] = []
        for field in attrs.fields(type(self)):
            _collect_nodes(getattr(self, field.name), found)
        return tuple(found)

    def __str__(self) -> str:
        return self.compact_representation()

    def compact_representation(self) -> str:
        """The tree on one line."""
        from fedcore.ir._text import compact  # _text prints every node class

        return compact(self)

    def formatted_representation(self) -> str:
        """The tree indented: a line for each local, each element, each argument."""
        from fedcore.ir._text import formatted

        return formatted(self)

    def structural_representation(self) -> str:
        """The tree drawn as a tree: the kind of each node, its children below it."""
        from fedcore.ir._text import structural

        return structural(self)

    @property
    def proto(self) -> bytes:
        """The tree as bytes, see `fedcore.framework.serialize_computation`."""
        from fedcore.ir._serialize import serialize_node

        return serialize_node(self)

    @classmethod
    def from_proto(cls, computation_proto: bytes) -> Node:
        """The tree that the bytes of `proto` hold.

        Args:
            computation_proto: Bytes; they may come from a stranger.

        Returns:
            The tree, with canonical names.

        Raises:
            SerializationError: If the bytes are damaged, or refused.
        """
        from fedcore.ir._serialize import deserialize_node

        return deserialize_node(computation_proto)


def _collect_nodes(value: Any, found: list[Node]) -> None:
    if isinstance(value, Node):
        found.append(value)
    elif isinstance(value, tuple):
        for item in value:
            _collect_nodes(item, found)


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Reference(Node):
    """A name bound by an enclosing `Lambda` or `Block`."""

    name: str
    type: Type


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Selection(Node):
    """Element `index` of a structure."""

    source: Node
    index: int

    @functools.cached_property
    def type(self) -> Type:
        return self.source.type[self.index]


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Struct(Node):
    """A structure of nodes; `container` is the Python class it came in, if any."""

    elements: tuple[tuple[str | None, Node], ...]
    container: type | None = None

    @functools.cached_property
    def type(self) -> Type:
        # A name of None stands for an element without a name, as in StructType.
        elements = [
            (name, node.type) if name is not None else node.type
            for name, node in self.elements
        ]
        if self.container is None:
            return StructType(elements)
        return StructWithPythonType(elements, self.container)


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Call(Node):
    """`function` applied to `argument` (None for a function without parameter)."""

    function: Node
    argument: Node | None = None

    @functools.cached_property
    def type(self) -> Type:
        return self.function.type.result


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Lambda(Node):
    """A function: `(parameter -> result)`."""

    parameter: str | None
    parameter_type: Type | None
    result: Node

    @functools.cached_property
    def type(self) -> FunctionType:
        return FunctionType(self.parameter_type, self.result.type)


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Block(Node):
    """`let name = node, ... in result`; later locals see the earlier ones."""

    locals: tuple[tuple[str, Node], ...]
    result: Node

    @functools.cached_property
    def type(self) -> Type:
        return self.result.type


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Intrinsic(Node):
    """An operator of the language, at one type; `uri` names its table entry.

    `origin` is the operator that the compiler said in terms of this one, if there is
    one: it is for people, and is neither compared nor written.
    """

    uri: str
    type: Type
    origin: str = attrs.field(default="", eq=False, kw_only=True)


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Placement(Node):
    """A placement as a value."""

    literal: PlacementLiteral

    @functools.cached_property
    def type(self) -> Type:
        return PlacementType()


@attrs.frozen(str=False, repr=False, slots=False, cache_hash=True)
class Compiled(Node):
    """A TensorFlow graph: self-contained bytes (see `fedcore.tensorflow`).

    `python` is what it was traced from, where that is known: it is for people and for
    debugging, and is neither compared nor written.
    """

    graph: bytes
    type: FunctionType
    python: Any = attrs.field(default=None, eq=False)

    def __repr__(self) -> str:
        return f"Compiled(<{len(self.graph)} bytes>, {self.type})"


@attrs.frozen(str=False, slots=False, cache_hash=True)
class Data(Node):
    """Data that lives elsewhere, named by a URI."""

    uri: str
    type: Type


@attrs.frozen(str=False, repr=False, slots=False, cache_hash=True)
class Literal(Node):
    """A constant tensor: a serialised `TensorProto`, so that equal values are equal."""

    tensor: bytes
    type: TensorType

    @property
    def value(self) -> np.ndarray:
        return tf.make_ndarray(tensor_pb2.TensorProto.FromString(self.tensor))

    def __repr__(self) -> str:
        return f"Literal({self.value!r}, {self.type})"


def literal(value: Any, type_spec: TensorType) -> Literal:
    """A constant of a tensor type."""
    proto = tf.make_tensor_proto(value, type_spec.dtype)
    return Literal(proto.SerializeToString(deterministic=True), type_spec)


def select(source: Node, key: int | str) -> Node:
    """Element `key` of `source`, looked up at once where `source` is a `Struct`."""
    index = key
    if isinstance(key, str):
        index = structure.name_to_index_map(source.type)[key]
    if isinstance(source, Struct):
        return source.elements[index][1]
    return Selection(source, index)


def pack(elements: list[tuple[str | None, Node]], like: Type | None = None) -> Struct:
    """A structure of nodes in the Python container of the type `like`, if it has one."""
    container = like.python_container if like is not None else None
    return Struct(tuple(elements), container)
