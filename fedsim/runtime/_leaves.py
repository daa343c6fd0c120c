"""Leaves: the tensors and sequences that structured values are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from fedcore import structure
from fedcore.compiler import LeafType
from fedcore.types import SequenceType, StructType, Type, type_to_tf_tensor_specs
from fedsim.runtime._values import to_dataset


def as_tensor(value: Any, type_: LeafType) -> tf.Tensor:
    """A leaf as a graph takes it: a sequence is a variant."""
    if isinstance(type_, SequenceType):
        return tf.data.experimental.to_variant(to_dataset(value, type_))
    return value


def from_tensor(tensor: tf.Tensor, type_: LeafType) -> Any:
    """A leaf as a graph gives it."""
    if isinstance(type_, SequenceType):
        spec = type_to_tf_tensor_specs(type_.element)
        return tf.data.experimental.from_variant(tensor, spec)
    return tensor


def to_leaves(value: Any, type_: Type) -> list[Any]:
    """The leaves of an unplaced value in flat order; sequences are leaves."""
    if not isinstance(type_, StructType):
        return [value]
    return [leaf for item, t in zip(value, type_) for leaf in to_leaves(item, t)]


def from_leaves(leaves: Iterator[Any], type_: Type) -> Any:
    """The unplaced value of `type_` that leaves make; the inverse of `to_leaves`."""
    if not isinstance(type_, StructType):
        return next(leaves)
    items = [(n, from_leaves(leaves, t)) for n, t in structure.iter_elements(type_)]
    return structure.Struct(items)
