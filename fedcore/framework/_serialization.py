"""Computations, types and values as bytes, under the names of TFF."""

from __future__ import annotations

from typing import Any

from fedcore import ir
from fedcore.computation import Computation, ConcreteComputation
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
    return ConcreteComputation(node, "deserialized")


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
