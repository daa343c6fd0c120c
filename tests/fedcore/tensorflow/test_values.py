"""Python containers of arguments and results, and constants of Python and NumPy."""

import collections
import dataclasses
import typing

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore import structure
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    to_type,
)

pytestmark = pytest.mark.usefixtures("graph_context")

INT = TensorType(tf.int32)


class Pair(typing.NamedTuple):
    x: typing.Any
    y: typing.Any


@attrs.define
class Record:
    x: typing.Any
    y: typing.Any


@dataclasses.dataclass
class Plain:
    x: typing.Any
    y: typing.Any


RESULTS = [
    ([1, 2.0], "<int32,float32>", list),
    ((1, 2.0), "<int32,float32>", tuple),
    ({"b": 1, "a": 2.0}, "<a=float32,b=int32>", dict),
    (
        collections.OrderedDict(b=1, a=2.0),
        "<b=int32,a=float32>",
        collections.OrderedDict,
    ),
    (Pair(1, True), "<x=int32,y=bool>", Pair),
    (Record("s", 1), "<x=string,y=int32>", Record),
    (Plain(1, [2]), "<x=int32,y=<int32>>", Plain),
    ([], "<>", list),
    (np.ones([2], np.float64), "float64[2]", None),
    (np.int64(3), "int64", None),
    (b"bytes", "string", None),
    (structure.Struct([("a", 1), (None, 2)]), "<a=int32,int32>", None),
]


@pytest.mark.parametrize(("value", "text", "container"), RESULTS, ids=str)
def test_a_result_keeps_its_container(value, text, container):
    computation = tf_computation(lambda: value)
    result_type = computation.type_signature.result
    assert str(result_type) == text
    if container is not None:
        assert isinstance(result_type, StructWithPythonType)
        assert result_type.python_container is container
        assert type(computation()) is container


def test_variables_are_read():
    def fn():
        plain, of_keras = tf.Variable(1.0), keras.Variable(2.0)
        result = [plain, of_keras]
        plain.assign(3.0)
        of_keras.assign(4.0)
        return result

    assert [float(value) for value in tf_computation(fn)()] == [3.0, 4.0]


def test_lists_tracked_by_tensorflow_are_lists():
    class Module(tf.Module):
        def __init__(self):
            self.values = [tf.constant(1.0), tf.constant(2.0)]
            self.named = {"a": tf.constant(3.0)}

    def fn():
        module = Module()
        return [module.values, module.named]

    result = tf_computation(fn).type_signature.result
    assert str(result) == "<<float32,float32>,<a=float32>>"
    assert result[0].python_container is list
    assert result[1].python_container is dict


def test_a_ragged_tensor_is_a_result():
    computation = tf_computation(lambda: tf.ragged.constant([[1, 2], [3]]))
    result = computation.type_signature.result
    assert result.python_container is tf.RaggedTensor
    assert computation().to_list() == [[1, 2], [3]]


def test_a_sparse_tensor_is_a_result():
    computation = tf_computation(lambda: tf.sparse.from_dense([[0, 2], [3, 0]]))
    assert computation.type_signature.result.python_container is tf.SparseTensor
    assert tf.sparse.to_dense(computation()).numpy().tolist() == [[0, 2], [3, 0]]


def test_ragged_and_sparse_tensors_are_arguments():
    ragged = to_type(tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1))
    sparse = to_type(tf.SparseTensorSpec([None, None], tf.int32))

    @tf_computation(ragged, sparse)
    def total(r, s):
        return tf.reduce_sum(r) + tf.sparse.reduce_sum(s)

    assert (
        int(total(tf.ragged.constant([[1, 2], [3]]), tf.sparse.eye(2, 2, tf.int32)))
        == 8
    )


ARGUMENTS = [
    (StructWithPythonType([("a", INT), ("b", INT)], dict), dict),
    (
        StructWithPythonType([("b", INT), ("a", INT)], collections.OrderedDict),
        collections.OrderedDict,
    ),
    (StructWithPythonType([INT, INT], list), list),
    (StructWithPythonType([INT, INT], tuple), tuple),
    (StructWithPythonType([("x", INT), ("y", INT)], Pair), Pair),
    (StructWithPythonType([("x", INT), ("y", INT)], Record), Record),
    (StructType([INT, INT]), structure.Struct),
    (StructType([("a", INT), ("b", INT)]), structure.Struct),
]


@pytest.mark.parametrize(("type_", "container"), ARGUMENTS, ids=str)
def test_an_argument_has_the_container_of_its_type(type_, container):
    seen = []

    def fn(value):
        seen.append(type(value))
        return value

    computation = tf_computation(fn, type_)
    assert seen == [container]
    assert computation.type_signature.result is type_


def test_several_types_become_several_arguments():
    @tf_computation(tf.int32, [tf.float32, tf.float32])
    def fn(n, values):
        assert isinstance(values, list)
        return tf.cast(n, tf.float32) * values[0] + values[1]

    assert str(fn.type_signature) == ("(<n=int32,values=<float32,float32>> -> float32)")
    assert float(fn(2, [3.0, 4.0])) == 10.0
    assert float(fn(n=2, values=[3.0, 4.0])) == 10.0


def test_a_partially_known_shape():
    computation = tf_computation(tf.reduce_sum, TensorType(tf.float32, [None, 2]))
    assert float(computation(np.ones([3, 2], np.float32))) == 6.0


def test_a_dataset_of_structures_is_a_result():
    def fn():
        ds = tf.data.Dataset.from_tensor_slices({"b": [1, 2], "a": [1.0, 2.0]})
        return ds.map(lambda e: (e, Pair(1, 2)))

    result = tf_computation(fn).type_signature.result
    assert isinstance(result, SequenceType)
    assert str(result) == "<<a=float32,b=int32>,<x=int32,y=int32>>*"
    assert result.element[1].python_container is Pair


def test_the_type_of_a_constant():
    types = [
        str(tf_computation(lambda v=v: v).type_signature.result)
        for v in (1, 1.5, True, "s", [1, 2], np.float32(1))
    ]
    assert types == [
        "int32",
        "float32",
        "bool",
        "string",
        "<int32,int32>",
        "float32",
    ]
