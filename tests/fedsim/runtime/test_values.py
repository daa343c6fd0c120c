"""Values in and out of a runtime: their containers, and what is refused."""

import collections
import dataclasses

import attrs
import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import context
from fedcore.structure import Struct
from fedcore.types import SequenceType, StructType, at_clients, at_server, to_type
from fedsim.runtime import local_context, reference_context

OD = collections.OrderedDict
Named = collections.namedtuple("Named", "x y")


@attrs.define
class Point:
    x: object
    y: object


@dataclasses.dataclass
class Record:
    x: object
    y: object


@pytest.fixture(autouse=True, params=[reference_context, local_context])
def runtime(request):
    with context.use(request.param(seed=1)) as ctx:
        yield ctx


def through(type_, *args, **kwargs):
    """What comes out when the value goes in."""
    return fedcore.federated_computation(lambda x: x, type_)(*args, **kwargs)


def elements(dataset):
    return list(dataset.as_numpy_iterator())


# --- Tensors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (tf.int32, 3, np.int32(3)),
        (tf.int32, np.int64(3), np.int32(3)),
        (tf.int32, True, np.int32(1)),
        (tf.int64, tf.constant(3, tf.int64), np.int64(3)),
        (tf.float32, 3, np.float32(3)),
        (tf.float32, np.float64(0.5), np.float32(0.5)),
        (tf.float64, tf.Variable(2.0, dtype=tf.float64), np.float64(2)),
        (tf.bool, True, np.bool_(True)),
        (tf.complex64, 1 + 2j, np.complex64(1 + 2j)),
        (tf.bfloat16, 1.5, 1.5),
        (tf.string, "abc", b"abc"),
        (tf.string, b"abc", b"abc"),
    ],
)
def test_scalars_come_out_as_numpy_scalars(type_, value, expected):
    result = through(type_, value)
    assert result == expected
    assert type(result) is type(expected) or type_ is tf.bfloat16


@pytest.mark.parametrize(
    ("type_", "value", "dtype"),
    [
        ((tf.float32, [2]), [1.0, 2.0], np.float32),
        ((tf.float32, [2]), np.array([1.0, 2.0]), np.float32),
        ((tf.int32, [None]), np.array([1, 2]), np.int32),
        ((tf.int32, [None, 2]), [[1, 2], [3, 4]], np.int32),
        ((tf.int32, tf.TensorShape(None)), [1, 2], np.int32),
        ((tf.float64, [None]), [], np.float64),
        ((tf.string, [2]), ["a", b"b"], object),
        ((tf.string, [None]), [], object),
    ],
)
def test_arrays_come_out_as_arrays(type_, value, dtype):
    result = through(type_, value)
    assert isinstance(result, np.ndarray)
    assert result.dtype == dtype
    expected = [v.encode() if isinstance(v, str) else v for v in value]
    assert result.tolist() == np.asarray(expected, dtype).tolist()


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (tf.int32, 1.5, "type `int32` is needed, found `float64`: 1.5"),
        (tf.int32, 1.0, "type `int32` is needed, found `float64`: 1.0"),
        (tf.int32, "a", "type `int32` is needed, found `string`: 'a'"),
        (tf.bool, 1, "type `bool` is needed, found `int64`: 1"),
        (tf.string, 1, "type `string` is needed, found `int64`: 1"),
        (tf.int32, None, "type `int32` is needed, found `NoneType`"),
        (tf.int32, {"a": 1}, "type `int32` is needed, found `dict`"),
        ((tf.int32, [2]), [[1], [1, 2]], r"type `int32\[2\]` is needed, found `list`"),
        (tf.int32, tf.constant(3.0), "needed, found `float32`"),
        (tf.int32, tf.constant(3, tf.int64), "needed, found `int64`"),
        (tf.float32, tf.constant(3, tf.float64), "needed, found `float64`"),
        ((tf.int32, [3]), [1, 2], r"`int32\[3\]` is needed, found `int32\[2\]`"),
        ((tf.int32, [3]), 1, r"`int32\[3\]` is needed, found `int32`"),
        (tf.int32, [1], r"`int32` is needed, found `int32\[1\]`"),
        (tf.uint8, 300, "`uint8` needs integers from 0 to 255, found 300"),
        (tf.int32, 2**40, "`int32` needs integers from -2147483648 to 2147483647"),
        (tf.uint8, -1, "`uint8` needs integers from 0 to 255, found -1"),
        (tf.int64, 2**70, "type `int64` is needed"),
    ],
)
def test_tensors_that_do_not_fit(type_, value, message):
    with pytest.raises(TypeError, match=message):
        through(type_, value)


# --- Containers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (OD(b=tf.int32, a=tf.bool), OD(b=1, a=True), OD(b=1, a=True)),
        (OD(b=tf.int32, a=tf.bool), {"a": True, "b": 1}, OD(b=1, a=True)),
        (OD(b=tf.int32, a=tf.bool), OD(a=True, b=1), OD(b=1, a=True)),
        (OD(b=tf.int32, a=tf.bool), (1, True), OD(b=1, a=True)),
        ([tf.int32, tf.bool], [1, True], [1, True]),
        ([tf.int32, tf.bool], (1, True), [1, True]),
        ((tf.int32, tf.bool), [1, True], (1, True)),
        (Named(tf.int32, tf.bool), Named(1, True), Named(1, True)),
        (Named(tf.int32, tf.bool), (1, True), Named(1, True)),
        (Point(tf.int32, tf.bool), Point(1, True), Point(1, True)),
        (Point(tf.int32, tf.bool), {"x": 1, "y": True}, Point(1, True)),
        (Record(tf.int32, tf.bool), Record(1, True), Record(1, True)),
        (StructType([tf.int32, tf.bool]), (1, True), (1, True)),
        (StructType([("a", tf.int32)]), OD(a=1), OD(a=1)),
        (StructType([("a", tf.int32)]), Struct.named(a=1), OD(a=1)),
        (OD(a=[Point(tf.int32, ())]), OD(a=[Point(1, ())]), OD(a=[Point(1, ())])),
        ((), (), ()),
        ((), [], ()),
        ([], [], []),
        (OD(), OD(), OD()),
    ],
)
@pytest.mark.parametrize("place", ["unplaced", "server", "clients"])
def test_containers_survive(type_, value, expected, place):
    if place == "clients":
        assert through(at_clients(type_), [value, value]) == [expected, expected]
        return
    result = through(at_server(type_) if place == "server" else type_, value)
    assert result == expected
    assert type(result) is type(expected)


def test_a_plain_dict_is_sorted_where_it_has_no_type():
    result = fedcore.tf_computation(lambda x: x)({"b": 1, "a": 2})
    assert list(result.items()) == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        ((tf.int32, tf.int32), (1,), r"A structure of 2 elements is needed, found 1"),
        ((tf.int32,), (1, 2), r"A structure of 1 element is needed, found 2"),
        ((OD(a=(tf.int32, [3])),) * 9, (1,), r"type is `<<a=int32\[3\]>,(?s:.*)>`"),
        (OD(a=tf.int32), OD(b=1), "The element named `a` is needed, found `b`"),
        ((tf.int32,), OD(b=1), "The element named `0` is needed, found `b`"),
        ((tf.int32,), 1, "An argument of type `<int32>` is needed, found `int`"),
        (OD(a=[tf.int32]), OD(a=[1.5]), r"type `int32` is needed at `a\[0\]`, found"),
    ],
)
def test_structures_that_do_not_fit(type_, value, message):
    with pytest.raises(TypeError, match=message):
        through(type_, value)


def test_a_structure_without_a_container_cannot_come_out():
    mixed = StructType([("a", tf.int32), tf.bool])
    with pytest.raises(ValueError, match="all named or all unnamed"):
        through(mixed, Struct([("a", 1), (None, True)]))


def test_ragged_and_sparse_tensors():
    ragged = tf.ragged.constant([[1, 2], [3]])
    result = through(tf.RaggedTensorSpec([None, None], tf.int32), ragged)
    assert isinstance(result, tf.RaggedTensor)
    assert result.to_list() == [[1, 2], [3]]
    dense = [[1, 0], [0, 3]]
    sparse = through(tf.SparseTensorSpec([2, 2], tf.int32), tf.sparse.from_dense(dense))
    assert tf.sparse.to_dense(sparse).numpy().tolist() == dense


def test_functions_do_not_come_out():
    fn = fedcore.federated_computation(lambda: fedcore.tf_computation(lambda: 1))
    with pytest.raises(TypeError, match=r"function|`\( -> int32\)` cannot be returned"):
        fn()


# --- Sequences -----------------------------------------------------------------------


def test_sequences_in_and_out():
    ints = SequenceType(tf.int64)
    for value in (
        tf.data.Dataset.range(3),
        [0, 1, 2],
        (0, 1, 2),
        np.arange(3).tolist(),
    ):
        result = through(ints, value)
        assert isinstance(result, tf.data.Dataset)
        assert elements(result) == [0, 1, 2]
    assert elements(through(ints, [])) == []


def test_a_list_of_batches_may_end_in_a_smaller_one():
    batches = SequenceType(OD(x=(tf.float32, [None, 2]), y=(tf.int32, [None])))
    value = [
        OD(x=np.ones([3, 2]), y=[1, 2, 3]),
        OD(x=np.zeros([3, 2]), y=[4, 5, 6]),
        OD(x=np.ones([1, 2]), y=[7]),
    ]
    result = through(batches, value)
    assert result.element_spec["x"].shape.as_list() == [None, 2]
    assert [e["y"].tolist() for e in result.as_numpy_iterator()] == [
        [1, 2, 3],
        [4, 5, 6],
        [7],
    ]

    @fedcore.tf_computation(batches)
    def count(dataset):
        return dataset.reduce(0, lambda n, batch: n + tf.shape(batch["y"])[0])

    assert count(value) == 7
    assert count([]) == 0


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_datasets_of_dicts_are_taken_by_name(order):
    type_ = SequenceType(OD((n, {"a": tf.int32, "b": tf.int64}[n]) for n in order))
    data = tf.data.Dataset.range(2).map(
        lambda x: {"a": tf.cast(x, tf.int32), "b": x + 5}
    )

    @fedcore.tf_computation(type_)
    def last(dataset):
        zero = OD((n, {"a": 0, "b": np.int64(0)}[n]) for n in order)
        return dataset.reduce(
            zero, lambda _, element: OD((n, element[n]) for n in order)
        )

    assert dict(last(data)) == {"a": 1, "b": 6}
    result = through(type_, data)
    assert isinstance(result.element_spec, OD)
    assert list(result.element_spec) == list(order)


def test_elements_get_the_containers_of_their_type():
    type_ = SequenceType(OD(x=tf.int64, y=tf.int64))
    pairs = tf.data.Dataset.range(2).map(lambda x: {"x": x, "y": -x})
    assert isinstance(through(type_, pairs).element_spec, OD)


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (
            tf.int32,
            tf.data.Dataset.range(3),
            "does not have the elements declared for it",
        ),
        (tf.int32, 5, r"A sequence of type `int32\*` is needed, found `int`: 5"),
        (tf.int32, [1, "a"], r"`int32` is needed at `\[1\]`, found `string`"),
        (
            OD(a=tf.int64),
            tf.data.Dataset.range(3),
            "does not have the elements declared",
        ),
        (
            (tf.int64, [3]),
            tf.data.Dataset.range(5).batch(3),
            "does not have the elements",
        ),
    ],
)
def test_sequences_that_do_not_fit(type_, value, message):
    with pytest.raises(TypeError, match=message):
        through(SequenceType(type_), value)


# --- Placed values -------------------------------------------------------------------


@pytest.mark.parametrize("container", [list, tuple])
def test_client_values_are_a_list(container):
    assert through(at_clients(tf.int32), container([1, 2, 3])) == [1, 2, 3]
    assert through(at_clients(tf.int32), container([])) == []
    assert through(at_clients(tf.int32), container([7])) == [7]


def test_an_all_equal_value_is_one_value():
    assert through(at_clients(tf.int32, all_equal=True), 5) == 5


def test_client_sequences():
    ints = at_clients(SequenceType(tf.int64))
    result = through(ints, [tf.data.Dataset.range(2), [5], []])
    assert [elements(dataset) for dataset in result] == [[0, 1], [5], []]


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        (
            tf.int32,
            1,
            "A list with one value for each client is needed, found `int`: 1",
        ),
        (tf.int32, np.array([1, 2]), "for each client is needed, found `ndarray`"),
        (
            tf.int32,
            tf.constant([1, 2]),
            "for each client is needed, found `EagerTensor`",
        ),
        (tf.int32, {"a": 1}, "for each client is needed, found `dict`"),
        (tf.int32, iter([1]), "for each client is needed, found `list_iterator`"),
        (
            SequenceType(tf.int64),
            tf.data.Dataset.range(3),
            "A list with one value for each client is needed, found `_RangeDataset`",
        ),
        (tf.int32, [1, 2.5], "`int32` is needed at `client 1`, found `float64`: 2.5"),
        (
            OD(a=tf.int32),
            [OD(a=1), OD(a="b")],
            "needed at `client 1.a`, found `string`",
        ),
    ],
)
def test_client_values_that_do_not_fit(member, value, message):
    with pytest.raises(TypeError, match=message):
        through(at_clients(member), value)


def test_the_place_in_a_structure_is_named():
    type_ = to_type(OD(data=at_clients(tf.int32), rate=at_server(tf.float32)))
    fn = fedcore.federated_computation(lambda x: x.rate, type_)
    with pytest.raises(TypeError, match="needed at `data of client 2`, found `string`"):
        fn(OD(data=[1, 2, "x"], rate=0.5))
