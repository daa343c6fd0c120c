"""What is done with a structure tensor by tensor, types and values alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from fedcore import structure
from fedcore.federated._arithmetic import flat, packed
from fedcore.tensorflow import _values
from fedcore.types import StructType, StructWithPythonType, TensorType, Type

__all__ = ["count", "draw_seed", "flat", "leaves", "map_types", "packed", "unit_like"]


def leaves(type_: Type) -> list[Any]:
    """The types of the tensors of a structure, in flat order."""
    return list(_values.leaves(type_))


def map_types(fn: Callable[[TensorType], Type], type_: Type) -> Type:
    """The structure, in its containers, with `fn` of each tensor's type."""
    if not isinstance(type_, StructType):
        return fn(type_)
    elements = [(n, map_types(fn, t)) for n, t in structure.iter_elements(type_)]
    if isinstance(type_, StructWithPythonType):
        return StructWithPythonType(elements, type_.python_container)
    return StructType(elements)


def unit_like(type_: Type) -> Any:
    """The structure with `()` in the place of each tensor."""
    if not isinstance(type_, StructType):
        return ()
    return structure.Struct(
        [(n, unit_like(t)) for n, t in structure.iter_elements(type_)]
    )


def count(type_: Type) -> int:
    """How many numbers a structure of tensors of known shape holds."""
    return sum(leaf.shape.num_elements() for leaf in leaves(type_))


def draw_seed() -> tf.Tensor:
    """Two int32 drawn anew in each run, from the seed of the context that runs it.

    For the stateless random operations of TensorFlow. Only inside a computation.
    """
    return tf.cast(keras.random.SeedGenerator().next(), tf.int32)
