import collections
import copy
import pickle
import threading
import typing

import attrs
import numpy as np
import pytest
import strategies
import tensorflow as tf
from hypothesis import given

from fedcore import structure
from fedcore.types import (
    CLIENTS,
    SERVER,
    AbstractType,
    FederatedType,
    FunctionType,
    PlacementLiteral,
    PlacementType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    TypedObject,
    UnexpectedTypeError,
    at_clients,
    at_server,
    to_type,
    uri_to_placement,
)

INT, FUNCTION = TensorType(tf.int32), FunctionType(tf.int32, tf.bool)


class Pair(typing.NamedTuple):
    x: object
    y: object


KINDS = {
    "abstract": (AbstractType, AbstractType("T")),
    "federated": (FederatedType, at_clients(tf.int32)),
    "function": (FunctionType, FUNCTION),
    "placement": (PlacementType, PlacementType()),
    "sequence": (SequenceType, SequenceType(tf.int32)),
    "struct": (StructType, StructType([tf.int32])),
    "struct_with_python": (StructWithPythonType, to_type([tf.int32])),
    "tensor": (TensorType, INT),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_knows_itself_and_no_other(kind):
    cls, instance = KINDS[kind]
    assert getattr(instance, f"is_{kind}")()
    assert getattr(instance, f"check_{kind}")() is None
    for other, (other_cls, other_instance) in KINDS.items():
        is_this = isinstance(other_instance, cls)
        assert getattr(other_instance, f"is_{kind}")() is is_this
        if not is_this:
            with pytest.raises(
                UnexpectedTypeError,
                match=f"A {cls.__name__} is needed here, found type",
            ) as raised:
                getattr(other_instance, f"check_{kind}")()
            assert (raised.value.expected, raised.value.actual) == (cls, other_instance)
            assert pickle.loads(pickle.dumps(raised.value)).actual is other_instance
        assert issubclass(other_cls, Type), other


@given(strategies.types(abstract=True))
def test_copying_and_pickling_give_the_same_object(type_spec):
    assert copy.copy(type_spec) is type_spec
    assert copy.deepcopy(type_spec) is type_spec
    assert pickle.loads(pickle.dumps(type_spec)) is type_spec


@given(strategies.types(abstract=True))
def test_equal_means_the_same_object(type_spec):
    namespace = {cls.__name__: cls for cls, _ in KINDS.values()}
    again = {
        "TensorType": lambda t: TensorType(t.dtype, t.shape),
        "SequenceType": lambda t: SequenceType(t.element),
        "StructType": lambda t: StructType(structure.to_elements(t)),
        "StructWithPythonType": lambda t: StructWithPythonType(
            structure.to_elements(t), t.python_container
        ),
        "FunctionType": lambda t: FunctionType(t.parameter, t.result),
        "FederatedType": lambda t: FederatedType(t.member, t.placement, t.all_equal),
        "AbstractType": lambda t: AbstractType(t.label),
        "PlacementType": lambda t: PlacementType(),
    }
    assert again.keys() == namespace.keys()
    assert again[type(type_spec).__name__](type_spec) is type_spec
    assert type_spec == type_spec
    assert hash(type_spec) == hash(type_spec)


def test_types_of_other_fields_are_other_objects():
    table = [
        TensorType(tf.int32),
        TensorType(tf.int64),
        TensorType(tf.int32, [1]),
        TensorType(tf.int32, [None]),
        TensorType(tf.int32, tf.TensorShape(None)),
        StructType([tf.int32]),
        StructType([("a", tf.int32)]),
        to_type([tf.int32]),
        to_type((tf.int32,)),
        at_clients(tf.int32),
        at_clients(tf.int32, all_equal=True),
        at_server(tf.int32),
        FunctionType(None, tf.int32),
        FunctionType(tf.int32, tf.int32),
        AbstractType("int32"),
    ]
    assert len(set(table)) == len(table)
    assert tf.int32 != INT
    assert StructType([("a", tf.int32)]) != structure.Struct([("a", INT)])


def test_threads_that_make_one_type_get_one_object():
    made, barrier = [], threading.Barrier(8)

    def make():
        barrier.wait()
        made.extend(to_type([(tf.int32, [n])]) for n in range(50))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 400
    assert len(set(made)) == 50


def test_types_are_frozen():
    for _, instance in KINDS.values():
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            instance.label = "other"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: TensorType(3),
            "`TensorType` needs a TensorFlow or NumPy dtype, found 3",
        ),
        (lambda: TensorType(float), "dtype, found <class 'float'>"),
        (lambda: TensorType(tf.int32, "x"), "`TensorType` needs a shape, found 'x'"),
        (lambda: TensorType(tf.int32, [-1]), "`TensorType` needs a shape"),
        (lambda: SequenceType(None), "`SequenceType` needs a type for `element`"),
        (lambda: SequenceType(FUNCTION), "member without functions, found `.int32 -> "),
        (lambda: SequenceType([SequenceType(tf.int32)]), "without sequences, found"),
        (lambda: SequenceType(at_server(tf.int32)), "without federated types, found"),
        (lambda: at_clients(at_server(tf.int32)), "without federated types, found"),
        (
            lambda: at_clients([FUNCTION]),
            "`FederatedType` needs a member without funct",
        ),
        (lambda: at_clients(None), "`FederatedType` needs a type for `member`"),
        (
            lambda: FederatedType(tf.int32, "clients"),
            "needs a placement, found 'clients'",
        ),
        (
            lambda: FederatedType(tf.int32, CLIENTS, 3),
            "`all_equal` True, False or None",
        ),
        (lambda: FunctionType(None, None), "`FunctionType` needs a type for `result`"),
        (lambda: AbstractType(3), "a label that is a str, found 3"),
        (lambda: StructType({"a": tf.int32}), "needs an ordered list .* found `dict`"),
        (lambda: StructType(3), "needs a list of types .* found 3"),
        (lambda: StructType([None]), "needs a type for `element 0`, found None"),
        (lambda: StructWithPythonType([tf.int32], "list"), "needs a container class"),
    ],
)
def test_constructors_say_what_they_need(make, sentence):
    with pytest.raises(TypeError, match=sentence):
        make()


def test_names_of_a_struct_type_must_differ_unless_unchecked():
    pairs = [("a", tf.int32), ("a", tf.bool)]
    with pytest.raises(ValueError, match=r"names that differ, found \['a', 'a'\]"):
        StructType(pairs)
    unchecked = StructType(pairs, enable_wf_check=False)
    assert str(unchecked) == "<a=int32,a=bool>"
    assert pickle.loads(pickle.dumps(unchecked)) is unchecked


def test_tensor_type_holds_a_tf_dtype_and_shape():
    type_spec = TensorType(np.float32, [None, 3])
    assert type_spec.dtype is tf.float32
    assert type_spec.shape.as_list() == [None, 3]
    assert TensorType(tf.int32).shape == tf.TensorShape([])
    assert TensorType(tf.int32, 3) is TensorType(tf.int32, [3])
    assert TensorType(np.dtype("int64")).dtype is tf.int64


def test_struct_type_is_a_struct_of_types():
    type_spec = StructType([("a", tf.int32), tf.bool, ("_c", [tf.int32])])
    assert isinstance(type_spec, structure.Struct)
    assert type_spec.a is type_spec[0] is type_spec["a"] is INT
    assert type_spec._c[0] is INT
    assert len(type_spec) == 3
    assert structure.name_list_with_nones(type_spec) == ["a", None, "_c"]
    assert structure.flatten(type_spec) == [INT, TensorType(tf.bool), INT]
    dtypes = structure.map_structure(lambda t: t.dtype, StructType([("a", tf.int32)]))
    assert dtypes == structure.Struct.named(a=tf.int32)
    with pytest.raises(AttributeError, match="no element named `b`"):
        type_spec.b


@pytest.mark.parametrize(
    "elements",
    [
        [("a", tf.int32), ("b", tf.bool)],
        collections.OrderedDict(a=tf.int32, b=tf.bool),
        structure.Struct.named(a=tf.int32, b=tf.bool),
        iter([("a", tf.int32), ("b", tf.bool)]),
        StructType([("a", tf.int32), ("b", tf.bool)]),
    ],
)
def test_struct_type_takes_any_ordered_elements(elements):
    type_spec = StructType(elements)
    assert str(type_spec) == "<a=int32,b=bool>"
    assert type_spec.python_container is None


def test_struct_with_python_type_remembers_its_container():
    type_spec = StructWithPythonType([("x", tf.int32), ("y", tf.bool)], Pair)
    assert type_spec.python_container is Pair
    assert StructWithPythonType.get_container_type(type_spec) is Pair
    assert type_spec is to_type(Pair(tf.int32, tf.bool))


def test_lists_in_a_sequence_element_become_tuples():
    spec = collections.OrderedDict(a=[tf.int32, [tf.bool]])
    element = SequenceType(spec).element
    assert element is to_type(collections.OrderedDict(a=(tf.int32, (tf.bool,))))
    assert SequenceType(element).element is element


def test_federated_type_is_all_equal_by_the_default_of_its_placement():
    assert not FederatedType(tf.int32, CLIENTS).all_equal
    assert FederatedType(tf.int32, SERVER).all_equal
    assert FederatedType(tf.int32, CLIENTS, True) is at_clients(
        tf.int32, all_equal=True
    )
    assert at_server(tf.int32).member is INT
    assert at_clients(tf.int32).placement is CLIENTS


@pytest.mark.parametrize(
    ("type_spec", "children"),
    [
        (INT, []),
        (AbstractType("T"), []),
        (PlacementType(), []),
        (SequenceType(tf.int32), [INT]),
        (at_server(tf.int32), [INT]),
        (StructType([("a", tf.int32), FUNCTION]), [INT, FUNCTION]),
        (FunctionType(None, tf.int32), [INT]),
        (FUNCTION, [INT, TensorType(tf.bool)]),
    ],
)
def test_children(type_spec, children):
    assert list(type_spec.children()) == children


@pytest.mark.parametrize(
    ("type_spec", "text"),
    [
        (TensorType(tf.int32), "TensorType(tf.int32)"),
        (TensorType(tf.int32, [None, 3]), "TensorType(tf.int32, [None, 3])"),
        (
            TensorType(tf.int32, tf.TensorShape(None)),
            "TensorType(tf.int32, shape=None)",
        ),
        (
            to_type(collections.OrderedDict(a=tf.int32, b=[tf.bool])),
            "StructType([('a', TensorType(tf.int32)), "
            "('b', StructType([TensorType(tf.bool)]) as list)]) as OrderedDict",
        ),
        (
            StructType([("a", tf.int32), tf.bool]),
            "StructType([('a', TensorType(tf.int32)), TensorType(tf.bool)])",
        ),
        (FunctionType(None, tf.bool), "FunctionType(None, TensorType(tf.bool))"),
        (
            at_clients(tf.int32),
            "FederatedType(TensorType(tf.int32), PlacementLiteral('clients'), False)",
        ),
        (SequenceType(tf.int32), "SequenceType(TensorType(tf.int32))"),
        (AbstractType("T"), "AbstractType('T')"),
        (PlacementType(), "PlacementType()"),
    ],
)
def test_repr_is_that_of_tff(type_spec, text):
    assert repr(type_spec) == text


def test_placements():
    assert (str(CLIENTS), CLIENTS.uri, CLIENTS.default_all_equal) == (
        "CLIENTS",
        "clients",
        False,
    )
    assert (SERVER.name, SERVER.uri, SERVER.default_all_equal) == (
        "SERVER",
        "server",
        True,
    )
    assert CLIENTS.is_clients()
    assert not CLIENTS.is_server()
    assert SERVER.is_server()
    assert not SERVER.is_clients()
    assert SERVER.__doc__ == SERVER.description
    assert repr(SERVER) == "PlacementLiteral('server')"
    for placement in (CLIENTS, SERVER):
        assert uri_to_placement(placement.uri) is placement
        assert pickle.loads(pickle.dumps(placement)) is placement
        assert copy.deepcopy(placement) is placement
    with pytest.raises(
        ValueError, match=r"one of \['clients', 'server'\], found 'moon'"
    ):
        uri_to_placement("moon")


def test_placements_of_one_uri_are_equal():
    edge = PlacementLiteral("EDGE", "edge", False, "In between.")
    assert edge == PlacementLiteral("OTHER", "edge", True, "Elsewhere.")
    assert edge != CLIENTS
    assert edge != "edge"
    assert pickle.loads(pickle.dumps(edge)) == edge
    assert str(FederatedType(tf.int32, edge)) == "{int32}@EDGE"


def test_typed_object_needs_a_type_signature():
    with pytest.raises(TypeError, match="abstract"):
        TypedObject()
