"""Computations, types and values as bytes, under the names of TFF."""

from __future__ import annotations

from typing import Any

import attrs

from fedcore import ir
from fedcore.computation import Computation, ConcreteComputation
from fedcore.tensorflow._graph import pack, unpack
from fedcore.types import Type


def serialize_computation(computation: Computation) -> bytes:
    """The computation as bytes: self-contained, without Python code.

    Args:
        computation: A traced computation.

    Returns:
        Bytes that `deserialize_computation` reads; two traces of one function give the
        same bytes.

    Raises:
        TypeError: If `computation` is not a traced computation.
    """
    if not isinstance(computation, ConcreteComputation):
        raise TypeError(
            "`serialize_computation` needs a traced computation, found "
            f"`{type(computation).__name__}`.\n"
            "Declare the types of its parameters in the decorator."
        )
    return ir.serialize_node(computation.node)


def deserialize_computation(
    computation_proto: bytes, *, allow_side_effects: bool = False
) -> Computation:
    """Reads a computation; nothing is imported or run by it.

    Args:
        computation_proto: What `serialize_computation` returned.
        allow_side_effects: Whether graphs may hold operations that call Python or touch
            files. Leave it False for bytes that strangers may have written.

    Returns:
        The computation, to be called as any other.

    Raises:
        SerializationError: If the bytes are damaged, or refused.
    """
    node = ir.deserialize_node(computation_proto, allow_side_effects=allow_side_effects)
    return ConcreteComputation(ir.rewrite(node, _name_functions_anew), "deserialized")


def _name_functions_anew(node: ir.Node) -> ir.Node:
    """Functions inside a graph are named by their content, whoever wrote the bytes.

    A process knows one function of a name: a stranger's must not pass for, nor hide
    behind, one of ours.
    """
    if isinstance(node, ir.Compiled):
        return attrs.evolve(node, graph=pack(unpack(node.graph)))
    return node


def deserialize_type(type_proto: bytes) -> Type:
    """Reads a type; nothing is imported by it.

    Args:
        type_proto: What `serialize_type` returned.

    Returns:
        The type. Python containers other than the well-known ones are dropped.

    Raises:
        SerializationError: If the bytes are damaged, or beyond the bounds.
    """
    return ir.deserialize_type(type_proto)


def deserialize_value(
    value_proto: bytes, type_hint: Any = None, *, allow_side_effects: bool = False
) -> tuple[Any, Type]:
    """Reads a value; nothing is imported or run by it.

    Args:
        value_proto: The first of the two that `serialize_value` returned.
        type_hint: A type that gives the Python containers to use.
        allow_side_effects: As for `deserialize_computation`.

    Returns:
        The value and its type, or `type_hint` if there is one.

    Raises:
        SerializationError: If the bytes are damaged, or refused.
        TypeError: If the value is not of the type `type_hint`.
    """
    return ir.deserialize_value(
        value_proto, type_hint, allow_side_effects=allow_side_effects
    )
