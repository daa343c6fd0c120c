import collections
import dataclasses
import typing

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.structure import Struct
from fedcore.types import (
    FunctionType,
    TensorType,
    TypedObject,
    infer_unplaced_type,
    to_type,
    type_from_tensors,
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


odict = collections.OrderedDict
RAGGED = tf.ragged.constant([[1], [2, 3]])
SPARSE = tf.sparse.from_dense([[1, 0], [0, 2]])
LEAVES = [
    (3, "int32"),
    (2**40, "int64"),
    (-(2**31), "int32"),
    (1.5, "float32"),
    (True, "bool"),
    ("a", "string"),
    (b"a", "string"),
    (1j, "complex128"),
    (np.float32(1), "float32"),
    (np.float64(1), "float64"),
    (np.int64(3), "int64"),
    (np.bool_(True), "bool"),
    (np.zeros([2, 3]), "float64[2,3]"),
    (np.array(["a", "b"]), "string[2]"),
    (np.array([b"a"]), "string[1]"),
    (np.str_("a"), "string"),
    (np.array(["a", b"b"], dtype=object), "string[2]"),
    (tf.constant([1]), "int32[1]"),
    (tf.Variable([1.0]), "float32[1]"),
    (keras.Variable(np.zeros([2, 1], np.float32)), "float32[2,1]"),
]


@pytest.mark.parametrize(("value", "text"), LEAVES, ids=str)
def test_tensors_and_python_scalars(value, text):
    assert str(infer_unplaced_type(value)) == text


CONTAINERS = [
    ([1, 2.0], "<int32,float32>", list),
    ([], "<>", list),
    ((1, "a"), "<int32,string>", tuple),
    ([[1, 2], [3]], "<<int32,int32>,<int32>>", list),
    (odict(b=1, a=2.0), "<b=int32,a=float32>", odict),
    ({"b": 1, "a": 2.0}, "<a=float32,b=int32>", dict),
    (Pair(1, 2), "<x=int32,y=int32>", Pair),
    (Attrs(1, [2]), "<x=int32,y=<int32>>", Attrs),
    (Data(1, 2), "<x=int32,y=int32>", Data),
    (Struct([("a", 1), (None, 2)]), "<a=int32,int32>", None),
    (
        RAGGED,
        "<flat_values=int32[3],nested_row_splits=<int64[3]>>",
        tf.RaggedTensor,
    ),
    (
        SPARSE,
        "<indices=int64[2,2],values=int32[2],dense_shape=int64[2]>",
        tf.SparseTensor,
    ),
]


@pytest.mark.parametrize(("value", "text", "container"), CONTAINERS)
def test_containers_are_remembered(value, text, container):
    type_spec = infer_unplaced_type(value)
    assert str(type_spec) == text
    assert type_spec.python_container is container


class ClientData:
    """The protocol of a client's data."""

    element_spec = odict(x=tf.TensorSpec([None], tf.int32))

    def to_tf(self):
        return tf.data.Dataset.from_tensors(odict(x=[1]))


def test_data_sets_are_sequences():
    numbers = tf.data.Dataset.range(3)
    table = [
        (numbers, "int64*"),
        (numbers.map(lambda x: odict(b=x, a=x)), "<b=int64,a=int64>*"),
        (numbers.map(lambda x: {"b": x, "a": x}), "<a=int64,b=int64>*"),
        (numbers.batch(2), "int64[?]*"),
        (ClientData(), "<x=int32[?]>*"),
    ]
    for data_set, text in table:
        assert str(infer_unplaced_type(data_set)) == text


def test_symbolic_tensors_may_have_unknown_rank():
    seen = []

    @tf.function(input_signature=[tf.TensorSpec(None, tf.int32)])
    def function(x):
        seen.append(str(infer_unplaced_type(x)))
        return x

    function.get_concrete_function()
    assert seen[0] == "'int32'(shape=None)"


def test_typed_objects_have_their_own_type():
    class Typed(TypedObject):
        type_signature = FunctionType(None, tf.int32)

    assert infer_unplaced_type(Typed()) is Typed.type_signature
    assert str(infer_unplaced_type([Typed(), 1])) == "<( -> int32),int32>"


def test_none_has_no_type():
    assert infer_unplaced_type(None) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (object(), "a type that can be inferred, found <object"),
        ({1}, "of type `set`"),
        (tf.int32, "of type `DType`"),
        (TensorType(tf.int32), "of type `TensorType`"),
        (np.array([None], dtype=object), "of type `ndarray`"),
        ([1, object()], "of type `object`"),
        (2**70, "ints of 64 bits or fewer"),
        ({1: 2}, "keys that are strings, found 1"),
    ],
)
def test_what_has_no_type_is_refused(value, sentence):
    with pytest.raises(TypeError, match=sentence):
        infer_unplaced_type(value)


def test_type_from_tensors():
    one = tf.constant(1)
    table = [
        (one, tf.int32),
        (tf.Variable(1), tf.int32),
        (1, tf.int32),
        (np.zeros(2), (tf.float64, [2])),
        (odict(a=one), odict(a=tf.int32)),
        ([one], [tf.int32]),
        (Struct.named(a=one), [("a", tf.int32)]),
        (Pair(one, one), Pair(tf.int32, tf.int32)),
    ]
    for tensors, spec in table:
        assert type_from_tensors(tensors) is to_type(spec)
