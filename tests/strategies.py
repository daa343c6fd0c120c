"""Hypothesis strategies: types, structs and Python containers."""

import collections
import keyword

import tensorflow as tf
from hypothesis import strategies as st

from fedcore.structure import Struct
from fedcore.types import (
    CLIENTS,
    SERVER,
    AbstractType,
    FederatedType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
)

DTYPES = (
    tf.bool,
    tf.int32,
    tf.int64,
    tf.uint8,
    tf.float16,
    tf.bfloat16,
    tf.float32,
    tf.float64,
    tf.complex64,
    tf.string,
)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and not name.startswith("_")
)
dtypes = st.sampled_from(DTYPES)
shapes = st.lists(st.none() | st.integers(0, 5), max_size=3)


def tensor_types(dtypes=dtypes, unknown_rank=True):
    """Tensor types; of unknown rank as well unless that is turned off."""
    all_shapes = shapes.map(tf.TensorShape)
    if unknown_rank:
        all_shapes |= st.just(tf.TensorShape(None))
    return st.builds(TensorType, dtypes, all_shapes)


def _elements(members):
    """Lists of `(name | None, member)` pairs whose names differ."""
    named = st.lists(st.tuples(names, members), max_size=3, unique_by=lambda e: e[0])
    unnamed = st.lists(st.tuples(st.none(), members), max_size=3)
    return st.builds(lambda a, b: a + b, named, unnamed) | named | unnamed


def struct_types(members, containers=True):
    """Struct types of `members`, some of them with a Python container."""
    plain = st.builds(StructType, _elements(members))
    if not containers:
        return plain
    named = st.lists(st.tuples(names, members), max_size=3, unique_by=lambda e: e[0])
    return (
        plain
        | st.builds(
            StructWithPythonType,
            st.lists(members, max_size=3),
            st.sampled_from((list, tuple)),
        )
        | st.builds(StructWithPythonType, named, st.just(collections.OrderedDict))
    )


def nested_types(leaves, containers=True, max_leaves=6):
    """Leaves, and structs of them at any depth."""
    return st.recursive(
        leaves,
        lambda members: struct_types(members, containers),
        max_leaves=max_leaves,
    )


def unplaced_types(containers=True):
    """Types of values that TensorFlow can hold: tensors, sequences and structs."""
    tensors = tensor_types()
    sequences = st.builds(SequenceType, nested_types(tensors, containers, max_leaves=3))
    return nested_types(tensors | sequences, containers)


def federated_types(containers=True):
    """Federated types at either placement, all-equal or not."""
    return st.builds(
        FederatedType,
        unplaced_types(containers),
        st.sampled_from((CLIENTS, SERVER)),
        st.none() | st.booleans(),
    )


def types(containers=True, abstract=False):
    """Any type; abstract types only if asked for, since they cannot be compared."""
    leaves = unplaced_types(containers) | federated_types(containers)
    leaves |= st.just(PlacementType())
    if abstract:
        leaves |= st.builds(AbstractType, st.sampled_from(("T", "U", "V")))
    return st.recursive(
        leaves,
        lambda members: (
            struct_types(members, containers)
            | st.builds(FunctionType, st.none() | members, members)
        ),
        max_leaves=4,
    )


def structs(leaves=None):
    """Nested `Struct`s; the leaves are small integers unless given."""
    return st.recursive(
        st.integers(0, 9) if leaves is None else leaves,
        lambda members: st.builds(Struct, _elements(members)),
        max_leaves=8,
    ).filter(lambda value: isinstance(value, Struct))
