"""Serialised types, nodes and values: a format of plain data, safe to load.

Nothing is imported or run on load, no file is touched, and no memory is taken on the
word of the message. What loads keeps every invariant (`fedcore.ir.check`). Whatever
does not is a `SerializationError`. `docs/serialization.md` says how to use it.

Format, version 1. A message is

    "FEDC"  version: 1 byte  kind: "T", "N" or "V"  digest: 8 bytes  body

The digest is BLAKE2b of the body, keyed with the six bytes before it: it finds
accidents, it does not say who wrote the message. In the body:

    uint      seven bits a byte, low bits first, the high bit says that more follow;
              in its shortest form; at most 63 bits
    optional  uint: 0 for none, else the number plus one
    blob      uint: length, then so many bytes
    text      a blob of UTF-8
    name      optional: length, then so many bytes of UTF-8
    types     uint: how many, then the types; each names earlier ones by their number
    nodes     uint: how many, then the nodes; each names earlier ones by their number;
              the last is the root, and all others are used

    type  = 0 text: label                                             abstract
          | 1 uint: dtype  optional: rank  (optional: size)*          tensor
          | 2 uint: element                                           sequence
          | 3 uint: container  uint: how many  (name  uint: element)* struct
          | 4 optional: parameter  uint: result                       function
          | 5 uint: member  uint: placement  uint: 1 if all-equal     federated
          | 6                                                         placement
    node  = 0 uint: k  uint: type                                     reference to v<k>
          | 1 uint: source  uint: index                               selection
          | 2 uint: container  uint: how many  (name  uint: node)*    struct
          | 3 uint: function  optional: argument                      call
          | 4 uint: result  (0 | 1 uint: k  uint: type)               lambda
          | 5 uint: how many  (uint: k  uint: node)*  uint: result    block
          | 6 text: uri  uint: type                                   intrinsic
          | 7 uint: placement                                         placement
          | 8 uint: type  blob: graph                                 compiled
          | 9 text: uri  uint: type                                   data
          | 10 uint: type  blob: TensorProto                          literal

    "T" = types, the last is the one meant
    "N" = types  nodes
    "V" = types, the last is that of the value, then the value:
          tensor    (uint: rank, if the type has none)  (uint: size that the type leaves
                    open)*  its elements: little-endian numbers, or blobs of strings
          struct    its elements
          sequence  uint: how many; then for each tensor of an element one column:
                    0, sizes as above, the elements of all, if the shapes agree; else
                    1  uint: rank  (int64: size)*, row by row, the elements of all
          federated the member if all-equal; else uint: how many, then the members
          function  types  nodes

A dtype has the number of `tf.DType.as_datatype_enum`; a container is 0 none,
1 `OrderedDict`, 2 `list`, 3 `tuple`, 4 `dict`, 5 `tf.RaggedTensor`, 6
`tf.SparseTensor`; a placement is 0 CLIENTS, 1 SERVER. Any other container (a
namedtuple, an attrs class, a dataclass) is code that a reader may not have: it is
written as 0 and loads as a structure with the same names and no container.

Bound names are written in their canonical order (`canonical_names`), and nothing is
written twice, so that two traces of one function have the same bytes.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fedcore.ir._blocks import Node
from fedcore.ir._serialize_nodes import read_node, write_node
from fedcore.ir._serialize_types import TypeWriter, read_types
from fedcore.ir._serialize_values import read_value, write_value
from fedcore.ir._serialize_wire import (
    NODE,
    TYPE,
    VALUE,
    Reader,
    SerializationError,
    Writer,
    seal,
    unseal,
)
from fedcore.types import (
    Type,
    TypedObject,
    infer_unplaced_type,
    to_type,
    type_to_py_container,
)


def serialize_type(type_spec: Any) -> bytes:
    """The bytes of a type; equal types give equal bytes.

    Args:
        type_spec: A type, or what `to_type` takes.

    Returns:
        A message for `deserialize_type`.

    Raises:
        SerializationError: If the type is nested too deep.
    """
    writer = Writer()
    _write_type(writer, to_type(type_spec))
    return seal(TYPE, bytes(writer.data))


def deserialize_type(data: bytes) -> Type:
    """The type in a message of `serialize_type`.

    Args:
        data: The message; it may come from a stranger.

    Returns:
        The type. Python containers other than the well-known ones are dropped.

    Raises:
        SerializationError: If the message is not a type, or beyond the bounds.
    """
    reader = unseal(TYPE, data)
    type_ = _read_type(reader)
    reader.finish()
    return type_


def serialize_node(node: Node) -> bytes:
    """The bytes of a closed tree; trees that differ in bound names give equal bytes.

    Args:
        node: The root of the tree.

    Returns:
        A message for `deserialize_node`.

    Raises:
        SerializationError: If the tree breaks an invariant or is nested too deep.
    """
    writer = Writer()
    write_node(writer, node)
    return seal(NODE, bytes(writer.data))


def deserialize_node(data: bytes, *, allow_side_effects: bool = False) -> Node:
    """The tree in a message of `serialize_node`.

    Args:
        data: The message; it may come from a stranger.
        allow_side_effects: Whether graphs may hold operations that touch files, the
            network or Python. They touch nothing before they are run.

    Returns:
        The tree, with canonical names.

    Raises:
        SerializationError: If the message is not a sound tree, is beyond the bounds,
            or holds a graph with side effects that are not allowed.
    """
    reader = unseal(NODE, data)
    node = read_node(reader, allow_side_effects=allow_side_effects)
    reader.finish()
    return node


def serialize_value(value: Any, type_spec: Any = None) -> tuple[bytes, Type]:
    """The bytes of a value, and its type.

    Args:
        value: Tensors, structures of them, datasets or lists of elements for `T*`,
            lists of members for `{T}@CLIENTS`, computations.
        type_spec: The type of the value; found from the value if None.

    Returns:
        A message for `deserialize_value`, and the type that is written in it.

    Raises:
        TypeError: If the value is not of the type.
        ValueError: If a dataset is infinite.
    """
    if type_spec is not None:
        type_ = to_type(type_spec)
    elif isinstance(value, TypedObject):
        type_ = value.type_signature
    else:
        type_ = infer_unplaced_type(value)
    writer = Writer()
    _write_type(writer, type_)
    write_value(writer, value, type_)
    return seal(VALUE, bytes(writer.data)), type_


def deserialize_value(
    data: bytes, type_hint: Any = None, *, allow_side_effects: bool = False
) -> tuple[Any, Type]:
    """The value in a message of `serialize_value`, and its type.

    Args:
        data: The message; it may come from a stranger.
        type_hint: A type that gives the Python containers to use; one to which the
            type in the message can be assigned.
        allow_side_effects: As for `deserialize_node`.

    Returns:
        The value and its type, or `type_hint` if there is one. A scalar is a NumPy
        scalar, a tensor an array, a sequence a `tf.data.Dataset`, a value at CLIENTS
        a list, a computation the node it consists of, a structure that says no
        container what `type_to_py_container` makes of it.

    Raises:
        SerializationError: If the message is not a value, or beyond the bounds.
        TypeError: If the value is not of the type `type_hint`.
    """
    reader = unseal(VALUE, data)
    type_ = _read_type(reader)
    wanted = type_ if type_hint is None else to_type(type_hint)
    if wanted is not type_ and not wanted.is_assignable_from(type_):
        raise TypeError(
            f"`deserialize_value` needs a value of type `{wanted}`, found `{type_}`."
        )
    value = read_value(reader, type_, wanted, allow_side_effects=allow_side_effects)
    reader.finish()
    try:
        return type_to_py_container(value, wanted), wanted
    except (TypeError, ValueError, tf.errors.OpError) as e:
        raise SerializationError(
            f"The value cannot be held in the containers of `{wanted}`: {e}"
        ) from e


def _write_type(writer: Writer, type_: Type) -> None:
    types = TypeWriter()
    types.index(type_)
    types.write(writer)


def _read_type(reader: Reader) -> Type:
    types = read_types(reader)
    if not types:
        raise SerializationError("A message needs a type, found none.")
    return types[-1]
