"""The nodes: types, equality, children, literals."""

import collections

import numpy as np
import pytest
import strategies_ir
import tensorflow as tf

from fedcore import ir
from fedcore.types import CLIENTS, FunctionType, PlacementType, StructType, TensorType

INT = TensorType(tf.int32)
BOOL = TensorType(tf.bool)
PAIR = StructType([("a", INT), ("b", BOOL)])


def reference(name="x", type_=INT):
    return ir.Reference(name, type_)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (reference(), "int32"),
        (ir.Selection(reference("p", PAIR), 1), "bool"),
        (ir.Struct((("a", reference()), (None, reference()))), "<a=int32,int32>"),
        (ir.Struct(()), "<>"),
        (ir.Lambda("x", INT, ir.Struct(((None, reference()),))), "(int32 -> <int32>)"),
        (ir.Lambda(None, None, ir.Struct(())), "( -> <>)"),
        (ir.Call(ir.Intrinsic("f", FunctionType(INT, BOOL)), reference()), "bool"),
        (ir.Call(ir.Intrinsic("f", FunctionType(None, BOOL))), "bool"),
        (ir.Block((("x", ir.Data("d", PAIR)),), reference("x", PAIR)), str(PAIR)),
        (ir.Placement(CLIENTS), "placement"),
        (ir.Data("d", BOOL), "bool"),
        (ir.literal(3, INT), "int32"),
        (strategies_ir.add_one(), "(int32 -> int32)"),
    ],
)
def test_nodes_have_the_type_of_their_parts(node, text):
    assert str(node.type) == text
    assert node.type_signature is node.type


def test_placement_nodes_have_the_placement_type():
    assert ir.Placement(CLIENTS).type is PlacementType()


def test_struct_type_keeps_the_python_container():
    node = ir.Struct((("a", reference()),), collections.OrderedDict)
    assert node.type.python_container is collections.OrderedDict
    assert ir.Struct((("a", reference()),)).type.python_container is None


def test_derived_types_are_found_once():
    node = ir.Struct(((None, reference()),))
    for _ in range(60):
        node = ir.Struct(((None, node),))
    assert node.type is node.type
    assert "type" in vars(node)


def test_equal_fields_make_equal_nodes():
    assert reference() == reference()
    assert hash(ir.literal(1, INT)) == hash(ir.literal(1, INT))
    assert reference() != reference("y")
    assert reference() != ir.Data("x", INT)
    assert ir.Struct(()) != ir.Struct((), list)


def test_nodes_are_frozen():
    with pytest.raises(AttributeError):
        reference().name = "y"


def test_children_stand_in_order_of_evaluation():
    a, b, c = reference("a"), reference("b"), reference("c")
    assert ir.Block((("x", a), ("y", b)), c).children() == (a, b, c)
    assert ir.Struct((("x", a), (None, b))).children() == (a, b)
    assert ir.Call(a, b).children() == (a, b)
    assert ir.Call(a).children() == (a,)
    assert ir.Lambda("x", INT, a).children() == (a,)
    assert a.children() == ()


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (7, TensorType(tf.int64)),
        (True, TensorType(tf.bool)),
        ("text", TensorType(tf.string)),
        ([[1.5, 2.0]], TensorType(tf.float32, [1, 2])),
        ([b"a", b"bc"], TensorType(tf.string, [2])),
    ],
)
def test_literals_keep_their_value(value, type_):
    node = ir.literal(value, type_)
    wanted = np.array(value.encode() if isinstance(value, str) else value)
    np.testing.assert_array_equal(node.value, wanted)
    assert ir.literal(node.value, type_) == node


def test_literal_repr_shows_the_value():
    assert repr(ir.literal(3, INT)) == "Literal(array(3, dtype=int32), int32)"


def test_compiled_repr_is_short():
    node = strategies_ir.add_one()
    assert repr(node) == f"Compiled(<{len(node.graph)} bytes>, (int32 -> int32))"


def test_select_looks_into_structures_at_once():
    a, b = reference("a"), reference("b", BOOL)
    struct = ir.Struct((("a", a), ("b", b)))
    assert ir.select(struct, "b") is b
    assert ir.select(struct, 0) is a
    assert ir.select(reference("p", PAIR), "b") == ir.Selection(reference("p", PAIR), 1)


def test_pack_takes_the_container_of_a_type():
    like = ir.Struct(((None, reference()),), list).type
    assert ir.pack([(None, reference())], like).container is list
    assert ir.pack([(None, reference())]).container is None


def test_str_is_the_compact_text():
    assert str(ir.Call(reference("f", FunctionType(None, INT)))) == "f()"
