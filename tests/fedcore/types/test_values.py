import collections
import dataclasses
import typing

import attrs
import pytest
import strategies
import tensorflow as tf
from hypothesis import given

from fedcore import structure
from fedcore.structure import Struct
from fedcore.types import (
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    at_clients,
    at_server,
    infer_unplaced_type,
    structure_from_tensor_type_tree,
    to_type,
    type_from_tensors,
    type_to_py_container,
    type_to_tf_tensor_specs,
)

odict = collections.OrderedDict
RAGGED = tf.ragged.constant([[1], [2, 3]])
SPARSE = tf.sparse.from_dense([[1, 0], [0, 2]])


class Pair(typing.NamedTuple):
    x: object
    y: object


@attrs.define
class Attrs:
    x: object
    _y: object


@dataclasses.dataclass
class Data:
    x: object
    y: object


XY = Struct.named(x=1, y=Struct.unnamed(2))
CONTAINERS = [
    # value, type, and the value in its containers.
    (1, tf.int32, 1),
    (1, PlacementType(), 1),
    (1, FunctionType(None, tf.int32), 1),
    (Struct.named(a=1), odict(a=tf.int32), odict(a=1)),
    (Struct.unnamed(1), odict(a=tf.int32), odict(a=1)),
    (Struct.unnamed(1), [tf.int32], [1]),
    (Struct.unnamed(1), (tf.int32,), (1,)),
    (Struct([]), [], []),
    (XY, Pair(tf.int32, [tf.int32]), Pair(1, [2])),
    (XY, Data(tf.int32, [tf.int32]), Data(1, [2])),
    (Struct([("x", 1), ("_y", 2)]), Attrs(tf.int32, tf.int32), Attrs(1, 2)),
    (Struct.named(a=1), StructWithPythonType([("a", tf.int32)], dict), {"a": 1}),
    (
        Struct.named(a=1),
        StructWithPythonType([("a", tf.int32)], collections.defaultdict),
        collections.defaultdict(None, a=1),
    ),
    (Struct.named(a=1), StructType([("a", tf.int32)]), odict(a=1)),
    (Struct.unnamed(1), StructType([tf.int32]), (1,)),
    (Struct([]), StructType([]), ()),
    (Struct.named(a=Struct.unnamed(1)), StructType([("a", [tf.int32])]), odict(a=[1])),
    ([1], odict(a=tf.int32), [1]),
    (
        [Struct.named(a=1), Struct.named(a=2)],
        at_clients(odict(a=tf.int32)),
        [odict(a=1), odict(a=2)],
    ),
    (Struct.named(a=1), at_clients(odict(a=tf.int32), all_equal=True), odict(a=1)),
    (Struct.named(a=1), at_server(odict(a=tf.int32)), odict(a=1)),
    ([Struct.named(a=1)], SequenceType(odict(a=tf.int32)), [odict(a=1)]),
    ([], at_clients(tf.int32), []),
]


@pytest.mark.parametrize(("value", "spec", "expected"), CONTAINERS)
def test_values_get_the_containers_of_their_type(value, spec, expected):
    packed = type_to_py_container(value, to_type(spec))
    assert packed == expected
    assert type(packed) is type(expected)


def test_a_data_set_stays():
    data_set = tf.data.Dataset.range(3)
    assert type_to_py_container(data_set, SequenceType(tf.int64)) is data_set


@pytest.mark.parametrize("composite", [RAGGED, SPARSE], ids=["ragged", "sparse"])
def test_ragged_and_sparse_tensors_are_put_together(composite):
    type_spec = infer_unplaced_type(composite)
    parts = {
        tf.RaggedTensor: lambda: [RAGGED.flat_values, Struct(_unnamed_splits())],
        tf.SparseTensor: lambda: [SPARSE.indices, SPARSE.values, SPARSE.dense_shape],
    }[type_spec.python_container]()
    again = type_to_py_container(Struct.unnamed(*parts), type_spec)
    assert type(again) is type(composite)
    assert _dense(again) == _dense(composite)


def _dense(composite):
    if isinstance(composite, tf.SparseTensor):
        return tf.sparse.to_dense(composite).numpy().tolist()
    return composite.to_tensor().numpy().tolist()


def _unnamed_splits():
    return [(None, split) for split in RAGGED.nested_row_splits]


@pytest.mark.parametrize(
    ("value", "spec", "error", "sentence"),
    [
        (
            Struct([("a", 1), (None, 2)]),
            StructType([("a", tf.int32), tf.int32]),
            ValueError,
            "elements that are all named or all unnamed, found `<a=int32,int32>`",
        ),
        (
            Struct.named(a=1),
            StructWithPythonType([("a", tf.int32)], list),
            ValueError,
            "A `list` needs elements without names, found `<a=int32>`",
        ),
        (
            Struct.unnamed(1, 2),
            odict(a=tf.int32),
            ValueError,
            "`<a=int32>` needs 1 elements, found 2",
        ),
        (
            Struct.named(b=1),
            odict(a=tf.int32),
            ValueError,
            "needs a field `a`, found the name `b`",
        ),
        (
            Struct.named(b=1),
            [tf.int32],
            ValueError,
            "unnamed elements, found the name `b`",
        ),
        (
            Struct([]),
            at_clients(tf.int32),
            TypeError,
            "a list with one entry per participant, found `Struct`",
        ),
        ((1,), at_clients(tf.int32), TypeError, "found `tuple`"),
    ],
)
def test_values_that_do_not_fit_their_type_are_refused(value, spec, error, sentence):
    with pytest.raises(error, match=sentence):
        type_to_py_container(value, to_type(spec))


def test_structure_from_tensor_type_tree():
    def dtype(type_spec):
        return type_spec.dtype

    table = [
        (tf.int32, tf.int32),
        (odict(a=tf.int32, b=[tf.bool]), odict(a=tf.int32, b=[tf.bool])),
        (StructType([("a", tf.int32)]), odict(a=tf.int32)),
        (StructType([tf.bool]), (tf.bool,)),
    ]
    for spec, expected in table:
        assert structure_from_tensor_type_tree(dtype, spec) == expected
    for spec in (
        at_clients(tf.int32),
        SequenceType(tf.int32),
        [SequenceType(tf.int32)],
    ):
        with pytest.raises(ValueError, match="needs a tensor or struct type, found"):
            structure_from_tensor_type_tree(dtype, spec)
    with pytest.raises(ValueError, match="all named or all unnamed"):
        structure_from_tensor_type_tree(dtype, StructType([("a", tf.int32), tf.bool]))


def test_type_to_tf_tensor_specs():
    number, flag = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.bool)
    integers = (tf.int32, [None])
    table = [
        (integers, number),
        (odict(a=integers, b=[tf.bool]), odict(a=number, b=[flag])),
        (StructType([("a", integers), ("b", tf.bool)]), odict(a=number, b=flag)),
        (StructType([integers]), (number,)),
        (Pair(integers, tf.bool), Pair(number, flag)),
        (Attrs(integers, tf.bool), Attrs(number, flag)),
        ([], []),
    ]
    for spec, expected in table:
        assert type_to_tf_tensor_specs(to_type(spec)) == expected
    for spec in (
        at_clients(tf.int32),
        SequenceType(tf.int32),
        FunctionType(None, tf.int32),
    ):
        with pytest.raises(ValueError, match="needs a type of tensors, found"):
            type_to_tf_tensor_specs(spec)
    with pytest.raises(ValueError, match="all named or all unnamed"):
        type_to_tf_tensor_specs(StructType([("a", tf.int32), tf.bool]))


@pytest.mark.parametrize("composite", [RAGGED, SPARSE], ids=["ragged", "sparse"])
def test_specs_of_ragged_and_sparse_tensors_take_them(composite):
    for type_spec in (
        infer_unplaced_type(composite),
        to_type(tf.type_spec_from_value(composite)),
    ):
        assert type_to_tf_tensor_specs(type_spec).is_compatible_with(composite)


@given(strategies.nested_types(strategies.tensor_types()))
def test_specs_give_the_type_back(type_spec):
    if _mixed(type_spec):
        with pytest.raises(ValueError, match="all named or all unnamed"):
            type_to_tf_tensor_specs(type_spec)
        return
    assert str(to_type(type_to_tf_tensor_specs(type_spec))) == str(type_spec)


@given(
    strategies.nested_types(
        strategies.tensor_types(unknown_rank=False).filter(
            lambda t: t.shape.is_fully_defined()
        )
    )
)
def test_values_made_from_a_type_have_that_type(type_spec):
    if _mixed(type_spec):
        return
    value = structure_from_tensor_type_tree(_zeros, type_spec)
    assert str(infer_unplaced_type(value)) == str(type_spec)
    assert str(type_from_tensors(value)) == str(type_spec)


def _zeros(type_spec: TensorType):
    return tf.zeros(type_spec.shape, type_spec.dtype)


def _mixed(type_spec):
    """Whether a struct in the type has named and unnamed elements."""
    if not type_spec.is_struct():
        return False
    names = structure.name_list(type_spec)
    return 0 < len(names) < len(type_spec) or any(map(_mixed, type_spec))
