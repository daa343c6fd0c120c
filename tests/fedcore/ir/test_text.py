"""Text of trees: compact and formatted."""

import re

import pytest
import strategies_ir
import tensorflow as tf

import fedcore
from fedcore import ir
from fedcore.types import CLIENTS, FunctionType, StructType, TensorType

INT = TensorType(tf.int32)
PAIR = StructType([("a", INT), INT])
ONE = ir.literal(1, INT)
X = ir.Reference("x", INT)
F = ir.Intrinsic("f", FunctionType(INT, INT))


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (X, "x"),
        (ir.Selection(ir.Reference("p", PAIR), 0), "p.a"),
        (ir.Selection(ir.Reference("p", PAIR), 1), "p[1]"),
        (ir.Struct((("a", X), (None, ONE))), "<a=x,1>"),
        (ir.Struct(()), "<>"),
        (ir.Call(F, X), "f(x)"),
        (ir.Call(F, ir.Struct(((None, X),))), "f(<x>)"),
        (ir.Call(ir.Intrinsic("g", FunctionType(None, INT))), "g()"),
        (ir.Lambda("x", INT, X), "(x -> x)"),
        (ir.Lambda(None, None, ONE), "( -> 1)"),
        (ir.Block((("x", ONE), ("y", X)), X), "(let x=1,y=x in x)"),
        (ir.Placement(CLIENTS), "clients"),
        (ir.Data("uri", INT), "data(uri)"),
        (ir.literal("it", TensorType(tf.string)), "b'it'"),
        (ir.literal([1.5, 2], TensorType(tf.float32, [2])), "[1.5, 2.0]"),
        (ir.literal([0] * 5, TensorType(tf.int32, [5])), "constant:int32[5]"),
    ],
)
def test_compact(node, text):
    assert ir.compact(node) == text
    if "let" not in text:
        assert ir.formatted(node) == text


def test_graphs_print_by_content():
    text = ir.compact(strategies_ir.add_one())
    assert text.startswith("graph#")
    assert len(text) == len("graph#") + 8


def test_graphs_of_functions_print_their_names():
    def double(x):
        return 2 * x

    first, second = (fedcore.tf_computation(double, tf.int32) for _ in range(2))
    text = ir.compact(first.to_building_block())
    assert text == ir.compact(second.to_building_block())
    assert re.fullmatch("double#[0-9a-f]{8}", text)
    nameless = fedcore.tf_computation(lambda x: 2 * x, tf.int32)
    assert ir.compact(nameless.to_building_block()).startswith("graph#")


def test_formatted_gives_each_local_a_line():
    tree = ir.Lambda(
        "x", INT, ir.Block((("y", ir.Call(F, X)),), ir.Reference("y", INT))
    )
    assert ir.formatted(tree) == "(x -> (let\n  y=f(x)\nin y))"
    assert ir.formatted(tree, "    ") == "(x -> (let\n      y=f(x)\n    in y))"


def test_formatted_breaks_long_structures():
    names = ["first_element", "second_element", "third_element", "fourth_element"]
    struct = ir.Struct(tuple((name, ir.Data(name, INT)) for name in names))
    lines = [f"  {name}=data({name})" for name in names]
    assert ir.formatted(struct) == "<\n" + ",\n".join(lines) + "\n>"
    call = ir.Call(ir.Intrinsic("f", FunctionType(struct.type, INT)), struct)
    assert ir.formatted(call) == "f(<\n" + ",\n".join(lines) + "\n>)"


def test_text_needs_a_node():
    with pytest.raises(TypeError, match="`compact` needs a node of the IR"):
        ir.compact("x")


def test_the_text_of_a_shared_node_is_made_once():
    tree = ONE
    for _ in range(12):
        tree = ir.Struct(((None, tree), (None, tree)))
    assert len(ir.formatted(tree).split("1")) == 2**12 + 1
