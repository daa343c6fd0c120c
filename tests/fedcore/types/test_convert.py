import collections
import dataclasses
import typing

import attrs
import numpy as np
import pytest
import strategies
import tensorflow as tf
from hypothesis import given

from fedcore.structure import Struct
from fedcore.types import (
    CLIENTS,
    FederatedType,
    SequenceType,
    StructType,
    TensorType,
    at_clients,
    at_server,
    to_type,
    type_at_clients,
    type_at_server,
)


class Pair(typing.NamedTuple):
    x: object
    y: object


@attrs.define
class Attrs:
    x: object
    y: object


@dataclasses.dataclass
class Data:
    x: object
    y: object


@attrs.define
class AttrsSpec:
    x: tf.int32
    y: (tf.float32, [2])


@dataclasses.dataclass
class DataSpec:
    x: tf.int32


UNKNOWN = tf.TensorShape(None)
odict = collections.OrderedDict

TENSORS = [
    (tf.int32, "int32"),
    (np.float32, "float32"),
    (np.dtype("int64"), "int64"),
    (np.str_, "string"),
    (np.dtype("S3"), "string"),
    (np.bool_, "bool"),
    ((tf.int32, [2]), "int32[2]"),
    ((tf.int32, [None, 3]), "int32[?,3]"),
    ((tf.int32, ()), "int32"),
    ((tf.int32, tf.TensorShape([None])), "int32[?]"),
    ((tf.int32, UNKNOWN), "'int32'(shape=None)"),
    ((np.float32, (2,)), "float32[2]"),
    (tf.TensorSpec([None, 2], tf.int32), "int32[?,2]"),
    (tf.TensorSpec(None, tf.int32), "'int32'(shape=None)"),
]


@pytest.mark.parametrize(("spec", "text"), TENSORS, ids=[str(s) for s, _ in TENSORS])
def test_dtypes_and_specs_are_tensor_types(spec, text):
    type_spec = to_type(spec)
    assert type_spec.is_tensor()
    assert str(type_spec) == text


STRUCTS = [
    ([tf.int32, tf.bool], "<int32,bool>", list),
    ((tf.int32, tf.bool), "<int32,bool>", tuple),
    ([], "<>", list),
    ((), "<>", tuple),
    ((tf.int32, [tf.bool]), "<int32,<bool>>", tuple),
    ([tf.bool, (tf.int32, [2])], "<bool,int32[2]>", list),
    ([(None, tf.int32)], "<int32>", list),
    (("a", tf.int32), "<a=int32>", tuple),
    ([("a", tf.int32), ("b", tf.bool)], "<a=int32,b=bool>", None),
    ((("a", tf.int32), ("b", tf.bool)), "<a=int32,b=bool>", None),
    ([("a", tf.int32), tf.bool], "<a=int32,bool>", None),
    (Struct([("a", tf.int32), (None, (tf.bool, [2]))]), "<a=int32,bool[2]>", None),
    (odict(b=tf.int32, a=tf.bool), "<b=int32,a=bool>", odict),
    (odict(), "<>", odict),
    (Pair(tf.int32, tf.bool), "<x=int32,y=bool>", Pair),
    (Attrs(tf.int32, [tf.bool]), "<x=int32,y=<bool>>", Attrs),
    (Data(tf.int32, tf.bool), "<x=int32,y=bool>", Data),
    (AttrsSpec, "<x=int32,y=float32[2]>", AttrsSpec),
    (DataSpec, "<x=int32>", DataSpec),
]


@pytest.mark.parametrize(("spec", "text", "container"), STRUCTS)
def test_containers_are_struct_types_that_remember_them(spec, text, container):
    type_spec = to_type(spec)
    assert str(type_spec) == text
    assert type_spec.python_container is container
    assert type_spec.is_struct_with_python() is (container is not None)


COMPOSITES = [
    (
        tf.RaggedTensorSpec([None, None], tf.int32),
        "<flat_values='int32'(shape=None),nested_row_splits=<int64[?]>>",
        tf.RaggedTensor,
    ),
    (
        tf.RaggedTensorSpec(
            [3, None, None, 5], tf.float32, ragged_rank=2, row_splits_dtype=tf.int32
        ),
        "<flat_values='float32'(shape=None),nested_row_splits=<int32[?],int32[?]>>",
        tf.RaggedTensor,
    ),
    (
        tf.SparseTensorSpec([None, 5], tf.float32),
        "<indices=int64[?,2],values=float32[?],dense_shape=int64[2]>",
        tf.SparseTensor,
    ),
    (
        tf.SparseTensorSpec(None, tf.float32),
        "<indices=int64[?,?],values=float32[?],dense_shape=int64[?]>",
        tf.SparseTensor,
    ),
]


@pytest.mark.parametrize(("spec", "text", "container"), COMPOSITES)
def test_composite_specs_are_structs_of_their_parts(spec, text, container):
    type_spec = to_type(spec)
    assert str(type_spec) == text
    assert type_spec.python_container is container


def test_dataset_specs_are_sequence_types():
    scalar = tf.TensorSpec([], tf.int32)
    assert to_type(tf.data.DatasetSpec(scalar)) is SequenceType(tf.int32)
    for element in (odict(b=scalar, a=scalar), (scalar, scalar), Pair(scalar, scalar)):
        type_spec = to_type(tf.data.DatasetSpec(element))
        assert type_spec.element.python_container is type(element)
    assert (
        str(to_type(tf.data.DatasetSpec({"b": scalar, "a": scalar})))
        == "<a=int32,b=int32>*"
    )


def test_types_and_none_stay():
    for spec in (None, TensorType(tf.int32), at_clients(tf.int32)):
        assert to_type(spec) is spec


@given(strategies.types(abstract=True))
def test_to_type_is_idempotent(type_spec):
    assert to_type(to_type(type_spec)) is type_spec


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"a": tf.int32},
            "an ordered mapping, found a `dict`, whose order .* ambiguous",
        ),
        (collections.defaultdict(int), "an ordered mapping, found a `defaultdict`"),
        ([{"a": tf.int32}], "an ordered mapping, found a `dict`"),
        (int, "found `int` .*\nUse tf.int32 or tf.int64"),
        (float, "found `float` .*\nUse tf.float32"),
        (str, "found `str` .*\nUse tf.string"),
        ("float32", "`to_type` needs what describes a type, found 'float32'"),
        (3, "needs what describes a type, found 3 of type `int`"),
        ((tf.int32, 3), "needs what describes a type, found 3"),
        ((tf.int32, None), "needs a type for `element 1`, found None"),
        ({tf.int32}, "of type `set`"),
        (np.zeros(3), "of type `ndarray`"),
        (tf.constant(1), "needs what describes a type"),
        (CLIENTS, "needs what describes a type"),
        (tf.OptionalSpec(tf.TensorSpec([], tf.int32)), "of type `OptionalSpec`"),
        (np.object_, "needs what describes a type"),
        (np.floating, "needs what describes a type"),
    ],
    ids=str,
)
def test_to_type_says_what_it_needs(spec, sentence):
    with pytest.raises(TypeError, match=sentence):
        to_type(spec)


def test_a_class_needs_a_type_for_each_field():
    @attrs.define
    class Untyped:
        x = attrs.field()

    @dataclasses.dataclass
    class Quoted:
        x: "tf.int32"

    for cls, found in ((Untyped, "None"), (Quoted, "'tf.int32'")):
        with pytest.raises(
            TypeError, match=f"each field of `{cls.__name__}`, found {found}"
        ):
            to_type(cls)


def test_types_at_placements():
    assert at_clients(tf.int32) is FederatedType(tf.int32, CLIENTS, False)
    assert str(at_clients([tf.int32], all_equal=True)) == "<int32>@CLIENTS"
    assert str(at_server((tf.int32, [2]))) == "int32[2]@SERVER"
    assert type_at_clients is at_clients
    assert type_at_server is at_server


def test_tf_nest_takes_a_type_as_one_leaf():
    pair = [TensorType(tf.int32), StructType([tf.int32])]
    assert tf.nest.flatten(pair) == pair
