"""The types of values and computations, their text, and how they relate."""

import importlib
from typing import Any

from fedcore.types._convert import at_clients, at_server, to_type
from fedcore.types._infer import infer_unplaced_type, type_from_tensors
from fedcore.types._parse import parse
from fedcore.types._placements import (
    CLIENTS,
    SERVER,
    PlacementLiteral,
    uri_to_placement,
)
from fedcore.types._predicates import (
    contains,
    contains_only,
    count,
    is_structure_of_floats,
    is_structure_of_integers,
    is_structure_of_tensors,
    is_tensorflow_compatible_type,
)
from fedcore.types._relations import (
    TypeNotAssignableError,
    TypeRelation,
    TypesNotEquivalentError,
    TypesNotIdenticalError,
    type_mismatch_error_message,
)
from fedcore.types._types import (
    AbstractType,
    FederatedType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    TypedObject,
    UnexpectedTypeError,
)
from fedcore.types._values import (
    structure_from_tensor_type_tree,
    type_to_py_container,
    type_to_tf_tensor_specs,
)

type_at_clients = at_clients
type_at_server = at_server

_SERIALIZATION = ("deserialize_type", "serialize_type")


def __getattr__(name: str) -> Any:
    if name in _SERIALIZATION:
        # A seam that looks up: the bytes of a type are a message like that of a tree.
        return getattr(importlib.import_module("fedcore.framework"), name)
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")


__all__ = [
    "CLIENTS",
    "SERVER",
    "AbstractType",
    "FederatedType",
    "FunctionType",
    "PlacementLiteral",
    "PlacementType",
    "SequenceType",
    "StructType",
    "StructWithPythonType",
    "TensorType",
    "Type",
    "TypeNotAssignableError",
    "TypeRelation",
    "TypedObject",
    "TypesNotEquivalentError",
    "TypesNotIdenticalError",
    "UnexpectedTypeError",
    "at_clients",
    "at_server",
    "contains",
    "contains_only",
    "count",
    "infer_unplaced_type",
    "is_structure_of_floats",
    "is_structure_of_integers",
    "is_structure_of_tensors",
    "is_tensorflow_compatible_type",
    "parse",
    "structure_from_tensor_type_tree",
    "to_type",
    "type_at_clients",
    "type_at_server",
    "type_from_tensors",
    "type_mismatch_error_message",
    "type_to_py_container",
    "type_to_tf_tensor_specs",
    "uri_to_placement",
]
