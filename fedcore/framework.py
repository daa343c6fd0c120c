"""For those who build on the core: contexts, trees, and serialisation."""

from __future__ import annotations

from fedcore.computation import Computation, ConcreteComputation
from fedcore.context import (
    AsyncContext,
    ContextError,
    ContextStack,
    SyncContext,
    get_context_stack,
    set_default_context,
)
from fedcore.ir import Node as ComputationBuildingBlock
from fedcore.ir import (
    SerializationError,
    deserialize_node,
    deserialize_type,
    deserialize_value,
    serialize_node,
    serialize_type,
    serialize_value,
)
from fedcore.types import (
    PlacementLiteral,
    type_from_tensors,
    type_to_tf_tensor_specs,
)


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
    return serialize_node(computation.node)


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
    node = deserialize_node(computation_proto, allow_side_effects=allow_side_effects)
    return ConcreteComputation(node, "deserialized")


__all__ = [
    "AsyncContext",
    "ComputationBuildingBlock",
    "ContextError",
    "ContextStack",
    "PlacementLiteral",
    "SerializationError",
    "SyncContext",
    "deserialize_computation",
    "deserialize_type",
    "deserialize_value",
    "get_context_stack",
    "serialize_computation",
    "serialize_type",
    "serialize_value",
    "set_default_context",
    "type_from_tensors",
    "type_to_tf_tensor_specs",
]
