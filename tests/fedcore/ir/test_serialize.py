"""Serialised types, nodes and values come back as they were."""

import collections
import typing

import attrs
import numpy as np
import pytest
import strategies_ir
import tensorflow as tf

from fedcore import ir, structure
from fedcore.ir import _serialize
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
    to_type,
)

INT = TensorType(tf.int32)


class Point(typing.NamedTuple):
    x: int
    y: int


@attrs.define
class Pair:
    x: int
    y: int


class WithToTf:
    element_spec = tf.TensorSpec([], tf.int64)

    def to_tf(self):
        return tf.data.Dataset.range(3)


def round_trip(value, type_spec=None, hint=None):
    data, type_ = _serialize.serialize_value(value, type_spec)
    loaded, loaded_type = _serialize.deserialize_value(data, hint)
    assert loaded_type.is_equivalent_to(type_)
    return loaded


# Types


@pytest.mark.parametrize(
    "type_",
    [
        INT,
        TensorType(tf.string, [None, 3]),
        TensorType(tf.bfloat16, tf.TensorShape(None)),
        TensorType(tf.int8, [0, 2**40]),
        SequenceType(TensorType(tf.float32, [None])),
        StructType([]),
        StructType([("a", INT), ("é", INT), INT]),
        StructWithPythonType([INT, INT], list),
        StructWithPythonType([INT, INT], tuple),
        StructWithPythonType([("a", INT)], collections.OrderedDict),
        to_type(tf.RaggedTensorSpec([None, None], tf.int32)),
        to_type(tf.SparseTensorSpec([4], tf.int32)),
        FunctionType(None, INT),
        FunctionType(StructType([]), INT),
        AbstractType("T"),
        PlacementType(),
        FederatedType(INT, CLIENTS),
        FederatedType(INT, CLIENTS, True),
        FederatedType(INT, SERVER),
    ],
)
def test_types_come_back_as_the_same_object(type_):
    data = _serialize.serialize_type(type_)
    assert _serialize.deserialize_type(data) is type_


@pytest.mark.parametrize("container", [Point, Pair])
def test_containers_that_would_need_an_import_are_dropped(container):
    type_ = StructWithPythonType([("x", INT), ("y", INT)], container)
    loaded = _serialize.deserialize_type(_serialize.serialize_type(type_))
    assert loaded is StructType([("x", INT), ("y", INT)])


def test_types_are_written_once():
    inner = StructType([(f"a_name_of_some_length_{i}", INT) for i in range(20)])
    once = len(_serialize.serialize_type(inner))
    twice = len(_serialize.serialize_type(FunctionType(inner, [inner, inner])))
    assert twice < once + 20


def test_what_to_type_takes_can_be_written():
    data = _serialize.serialize_type(tf.TensorSpec([2], tf.int32))
    assert str(_serialize.deserialize_type(data)) == "int32[2]"


def test_types_nested_too_deep_are_not_written():
    type_ = INT
    for _ in range(100):
        type_ = StructType([type_])
    with pytest.raises(_serialize.SerializationError, match="at most 100 deep"):
        _serialize.serialize_type(type_)


# Nodes


def test_version_1_stays_as_it_is():
    tree = ir.Lambda(
        "x", INT, ir.Selection(ir.Struct((("a", ir.Reference("x", INT)),)), 0)
    )
    types = [1, 1, 3, 1]  # one type: int32 of rank 0
    nodes = [4, 0, 0, 0, 2, 0, 1, 2, ord("a"), 0, 1, 1, 0, 4, 2, 1, 0, 0]
    body = bytes(types + nodes)
    assert _serialize.serialize_node(tree)[14:] == body
    assert _serialize.serialize_node(tree)[:6] == b"FEDC\x01N"


def test_equal_parts_are_written_once():
    one = ir.Struct(((None, strategies_ir.add_one()),))
    two = ir.Struct(((None, strategies_ir.add_one()),) * 9)
    assert (
        len(_serialize.serialize_node(two)) < len(_serialize.serialize_node(one)) + 20
    )


def test_nodes_of_dropped_containers_keep_agreeing_types():
    value = ir.Struct((("x", ir.literal(1, INT)), ("y", ir.literal(2, INT))), Point)
    tree = ir.Block((("p", value),), ir.Selection(ir.Reference("p", value.type), 1))
    loaded = _serialize.deserialize_node(_serialize.serialize_node(tree))
    assert str(loaded) == "(let v0=<x=1,y=2> in v0.y)"
    assert loaded.locals[0][1].container is None


def test_open_trees_are_not_written():
    with pytest.raises(_serialize.SerializationError, match="`x` is not bound"):
        _serialize.serialize_node(ir.Reference("x", INT))


def test_trees_nested_too_deep_are_not_written():
    tree = ir.literal(1, INT)
    for i in range(100):
        tree = ir.Call(ir.Lambda(f"x{i}", INT, ir.Reference(f"x{i}", INT)), tree)
    loaded = _serialize.deserialize_node(_serialize.serialize_node(tree))
    assert loaded == ir.canonical_names(tree)
    for i in range(100, 200):
        tree = ir.Call(ir.Lambda(f"x{i}", INT, ir.Reference(f"x{i}", INT)), tree)
    with pytest.raises(_serialize.SerializationError, match="at most 200 levels"):
        _serialize.serialize_node(tree)


def test_a_tree_of_the_greatest_depth_can_be_compared_and_hashed():
    tree = ir.literal(1, INT)
    for _ in range(99):
        tree = ir.Call(ir.Intrinsic("f", FunctionType(INT, INT)), tree)
    again = _serialize.deserialize_node(_serialize.serialize_node(tree))
    assert again == tree
    assert hash(again) == hash(tree)


def test_long_blocks_are_written():
    previous, local = ir.literal(1, INT), []
    for i in range(5000):
        local.append((f"x{i}", previous))
        previous = ir.Reference(f"x{i}", INT)
    tree = ir.Block(tuple(local), previous)
    loaded = _serialize.deserialize_node(_serialize.serialize_node(tree))
    assert len(loaded.locals) == 5000
    assert loaded == ir.canonical_names(tree)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (np.arange(6).reshape(2, 3), TensorType(tf.int64, [2, 3])),
        ([], TensorType(tf.float32, [0])),
        ([b"", b"abc"], TensorType(tf.string, [2])),
        (1 + 2j, TensorType(tf.complex64)),
        (True, TensorType(tf.bool)),
        (1.5, TensorType(tf.bfloat16)),
        (1.5, TensorType(tf.float16)),
        (2**63, TensorType(tf.uint64)),
        (200, TensorType(tf.uint8)),
        ([2**32 - 1], TensorType(tf.uint32, [None])),
    ],
)
def test_literals_come_back(value, type_):
    node = ir.literal(value, type_)
    assert _serialize.deserialize_node(_serialize.serialize_node(node)) == node


# Values


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (np.int32(7), None),
        (2.5, TensorType(tf.float64)),
        (
            np.arange(6, dtype=np.float32).reshape(2, 3),
            TensorType(tf.float32, [None, 3]),
        ),
        (np.arange(6).reshape(2, 3), TensorType(tf.int64, tf.TensorShape(None))),
        (np.zeros((0, 5), np.float32), TensorType(tf.float32, [None, 5])),
        (np.array([True, False]), TensorType(tf.bool, [2])),
        (np.array([1 + 2j]), TensorType(tf.complex128, [1])),
    ],
)
def test_tensors_come_back(value, type_):
    loaded = round_trip(value, type_)
    np.testing.assert_array_equal(loaded, value)
    assert np.shape(loaded) == np.shape(value)
    assert isinstance(loaded, np.generic if np.ndim(value) == 0 else np.ndarray)


def test_strings_come_back_as_bytes():
    assert round_trip("é") == "é".encode()
    loaded = round_trip(
        [["a", ""], [b"\0\xff", "abc"]], TensorType(tf.string, [2, None])
    )
    assert loaded.tolist() == [[b"a", b""], [b"\0\xff", b"abc"]]


def test_eager_tensors_can_be_written():
    assert round_trip(tf.constant([1, 2])).tolist() == [1, 2]
    assert round_trip(tf.constant(1.5, tf.bfloat16)) == 1.5


def test_structures_come_back_in_their_containers():
    value = collections.OrderedDict(b=1, a=[2.0, (True, "x")])
    loaded = round_trip(value)
    assert loaded == collections.OrderedDict(b=1, a=[2.0, (True, b"x")])
    assert isinstance(loaded["a"], list)
    assert isinstance(loaded["a"][1], tuple)


def test_structures_come_back_by_the_order_of_their_type():
    type_ = StructType([("x", INT), ("y", INT)])
    wanted = collections.OrderedDict(x=1, y=2)
    for value in (
        structure.Struct([("x", 1), ("y", 2)]),
        {"y": 2, "x": 1},
        [1, 2],
        Point(1, 2),
        Pair(1, 2),
        structure.Struct([(None, 1), (None, 2)]),
    ):
        assert round_trip(value, type_) == wanted


def test_a_type_hint_gives_the_container_back():
    type_ = to_type(Point(INT, INT))
    assert round_trip(Point(1, 2)) == collections.OrderedDict(x=1, y=2)
    loaded = round_trip(Point(1, 2), type_, hint=type_)
    assert type(loaded) is Point
    assert loaded == (1, 2)
    data, _ = _serialize.serialize_value([Point(1, 2)], FederatedType(type_, CLIENTS))
    hint = FederatedType(type_, CLIENTS)
    assert _serialize.deserialize_value(data, hint) == ([Point(1, 2)], hint)


def test_a_type_hint_must_fit():
    data, _ = _serialize.serialize_value(1, INT)
    with pytest.raises(TypeError, match="needs a value of type `bool`, found `int32`"):
        _serialize.deserialize_value(data, TensorType(tf.bool))


def test_placed_values_come_back():
    assert round_trip([1, 2, 3], FederatedType(INT, CLIENTS)) == [1, 2, 3]
    assert round_trip([], FederatedType(INT, CLIENTS)) == []
    assert round_trip(5, FederatedType(INT, CLIENTS, True)) == 5
    assert round_trip(5, FederatedType(INT, SERVER)) == 5


def test_computations_are_values():
    node = strategies_ir.add_one()
    loaded, type_ = _serialize.deserialize_value(_serialize.serialize_value(node)[0])
    assert loaded == node
    assert type_ is node.type


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        tf.data.Dataset.from_tensor_slices(np.array([1, 2, 3])),
        WithToTf().to_tf().map(lambda x: x + 1),
    ],
)
def test_sequences_come_back_as_datasets(value):
    loaded = round_trip(value, SequenceType(TensorType(tf.int64)))
    assert isinstance(loaded, tf.data.Dataset)
    assert list(loaded.as_numpy_iterator()) == [1, 2, 3]
    assert loaded.element_spec == tf.TensorSpec([], tf.int64)


def test_objects_that_give_a_dataset_are_sequences():
    loaded = round_trip(WithToTf(), SequenceType(TensorType(tf.int64)))
    assert list(loaded.as_numpy_iterator()) == [0, 1, 2]


def test_batches_of_different_sizes_come_back():
    batches = tf.data.Dataset.range(7).batch(3)
    dataset = batches.map(lambda x: collections.OrderedDict(y=x, x=tf.as_string(x)))
    type_ = SequenceType(to_type(dataset.element_spec))
    loaded = round_trip(dataset, type_)
    assert loaded.element_spec == dataset.element_spec
    for got, wanted in zip(loaded, dataset):
        assert list(got) == ["y", "x"]
        np.testing.assert_array_equal(got["y"], wanted["y"])
        np.testing.assert_array_equal(got["x"], wanted["x"])
    assert len(list(loaded)) == 3


def test_sequences_of_unknown_rank_come_back():
    type_ = SequenceType(TensorType(tf.int32, tf.TensorShape(None)))
    assert [x.tolist() for x in round_trip([[1], []], type_).as_numpy_iterator()] == [
        [1],
        [],
    ]


@pytest.mark.parametrize("shape", [[], [None, 2], [3], None])
def test_empty_sequences_come_back(shape):
    type_ = SequenceType(TensorType(tf.float32, tf.TensorShape(shape)))
    loaded = round_trip([], type_)
    assert list(loaded) == []
    assert loaded.element_spec == tf.TensorSpec(shape, tf.float32)


def test_sequence_elements_take_the_container_of_the_hint():
    type_ = SequenceType(to_type(Point(INT, INT)))
    loaded = round_trip([Point(1, 2), Point(3, 4)], type_, hint=type_)
    assert [type(element) for element in loaded] == [Point, Point]
    plain = round_trip([Point(1, 2)], type_)
    assert [type(element) for element in plain] == [collections.OrderedDict]


def test_sequences_of_clients_come_back():
    type_ = FederatedType(SequenceType(INT), CLIENTS)
    loaded = round_trip([[1, 2], [], [3]], type_)
    assert [list(d.as_numpy_iterator()) for d in loaded] == [[1, 2], [], [3]]


def test_ragged_and_sparse_tensors_can_be_written():
    ragged = tf.ragged.constant([[1, 2], [], [3]])
    loaded = round_trip(ragged, to_type(tf.type_spec_from_value(ragged)))
    assert loaded.to_list() == [[1, 2], [], [3]]
    sparse = tf.sparse.from_dense([0, 5, 0])
    loaded = round_trip(sparse, to_type(tf.type_spec_from_value(sparse)))
    np.testing.assert_array_equal(tf.sparse.to_dense(loaded), [0, 5, 0])


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (1.5, INT, "needs a value of type `int32`, found float at `value`"),
        ([1, 2], TensorType(tf.int32, [3]), r"found shape \[2\] at `value`"),
        ([1], StructType([INT, INT]), "needs a structure of type `<int32,int32>`"),
        ({"z": 1}, StructType([("a", INT)]), "needs a structure of type `<a=int32>`"),
        (
            Point(1, 2),
            StructType([("y", INT), ("x", INT)]),
            "needs a structure of type",
        ),
        (1, FederatedType(INT, CLIENTS), "needs a list of values"),
        (1, SequenceType(INT), r"needs a dataset or a list of elements for `int32\*`"),
        (1, PlacementType(), "found type `placement`"),
        (1, AbstractType("T"), "found type `T`"),
        (1, FunctionType(INT, INT), "needs a computation of type"),
        (strategies_ir.add_one(), FunctionType(INT, tf.bool), "needs a computation"),
        (1, TensorType(tf.variant), "needs numbers, bools or strings"),
        ([()], SequenceType(StructType([])), "needs elements with a tensor"),
        (
            collections.OrderedDict(a=[1, "x"]),
            StructType([("a", StructType([INT, INT]))]),
            r"found str at `value.a\[1\]`",
        ),
        (
            [[1], [[1]]],
            SequenceType(TensorType(tf.int32, tf.TensorShape(None))),
            r"needs elements of one rank, found ranks \[1, 2\]",
        ),
    ],
)
def test_values_must_be_of_their_type(value, type_, message):
    with pytest.raises(TypeError, match=message):
        _serialize.serialize_value(value, type_)


def test_infinite_datasets_are_not_written():
    dataset = tf.data.Dataset.range(3).repeat()
    with pytest.raises(ValueError, match="needs a finite dataset"):
        _serialize.serialize_value(dataset, SequenceType(TensorType(tf.int64)))


def test_equal_values_have_equal_bytes():
    value = collections.OrderedDict(a=[1, 2], b=np.ones(3))
    first, second = (_serialize.serialize_value(value)[0] for _ in range(2))
    assert first == second
