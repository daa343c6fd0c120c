"""The checker: sound trees pass, each breach has its message."""

import pytest
import tensorflow as tf

from fedcore import ir
from fedcore.types import AbstractType, FunctionType, StructType, TensorType

INT = TensorType(tf.int32)
BOOL = TensorType(tf.bool)
ONE = ir.literal(1, INT)


def intrinsic(parameter, result=INT, uri="f"):
    return ir.Intrinsic(uri, FunctionType(parameter, result))


def x(type_=INT):
    return ir.Reference("x", type_)


@pytest.mark.parametrize(
    "tree",
    [
        ir.Lambda("x", INT, x()),
        ir.Lambda(None, None, ONE),
        ir.Block((("x", ONE), ("y", x())), ir.Reference("y", INT)),
        ir.Call(ir.Lambda("x", INT, x()), ONE),
        ir.Struct(
            (
                (None, ir.Lambda("x", INT, x())),
                (None, ir.Lambda("y", INT, ir.Reference("y", INT))),
            )
        ),
        ir.Call(
            intrinsic(StructType([("a", INT)])),
            ir.Struct(((None, ONE),)),  # names take elements without names
        ),
    ],
)
def test_sound_trees_are_returned(tree):
    assert ir.check(tree) is tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (x(), "The reference `x` is not bound."),
        (
            ir.Struct(((None, ir.Lambda("x", INT, x())), (None, x()))),
            "The reference `x` is not bound.",
        ),
        (ir.Block((("y", x()), ("x", ONE)), x()), "The reference `x` is not bound."),
        (ir.Block((("x", x()),), x()), "The reference `x` is not bound."),
        (
            ir.Struct(((None, ir.Block((("x", ONE),), x())), (None, x()))),
            "The reference `x` is not bound.",
        ),
        (
            ir.Lambda("x", INT, x(BOOL)),
            "The reference `x` needs type `int32`, found `bool`.",
        ),
        (
            ir.Lambda("x", INT, ir.Lambda("x", INT, x())),
            "The name `x` is bound twice, here in `(x -> x)`.",
        ),
        (
            ir.Struct(
                ((None, ir.Lambda("x", INT, x())), (None, ir.Lambda("x", INT, x())))
            ),
            "The name `x` is bound twice, here in `(x -> x)`.",
        ),
        (
            ir.Block((("x", ONE), ("x", ONE)), x()),
            "The name `x` is bound twice, here in `(let x=1,x=1 in x)`.",
        ),
        (
            ir.Lambda("x", None, ONE),
            "A lambda needs a parameter name exactly where it has a parameter type, "
            "found `x` and `None`.",
        ),
        (
            ir.Lambda(None, INT, ONE),
            "A lambda needs a parameter name exactly where it has a parameter type, "
            "found `None` and `int32`.",
        ),
        (
            ir.Selection(ONE, 0),
            "A selection needs a structure, found `int32` in `1`.",
        ),
        (
            ir.Selection(ir.Struct(((None, ONE),)), 1),
            "A selection needs an index below 1, found 1 in `<1>`.",
        ),
        (
            ir.Selection(ir.Struct(((None, ONE),)), -1),
            "A selection needs an index below 1, found -1 in `<1>`.",
        ),
        (ir.Call(ONE), "A call needs a function, found `int32`: `1`."),
        (
            ir.Call(intrinsic(INT)),
            "A call needs an argument of type `int32`, found `None` in `f()`.",
        ),
        (
            ir.Call(intrinsic(None), ONE),
            "A call needs an argument of type `None`, found `int32` in `f(1)`.",
        ),
        (
            ir.Call(intrinsic(BOOL), ONE),
            "A call needs an argument of type `bool`, found `int32` in `f(1)`.",
        ),
        (
            ir.Call(intrinsic(AbstractType("T")), ONE),
            "A call needs concrete types.",
        ),
        (ir.Compiled(b"", INT), "A graph needs a function type, found `int32`."),
        (
            ir.Intrinsic("", FunctionType(INT, INT)),
            "An intrinsic of type `(int32 -> int32)` needs a name.",
        ),
        (
            ir.Lambda("x", INT, ir.Lambda("x", INT, ir.Selection(ONE, 3))),
            "The name `x` is bound twice, here in `(x -> 1[3])`.",
        ),
    ],
)
def test_breaches_are_named(tree, message):
    with pytest.raises(ir.TreeError) as e:
        ir.check(tree)
    assert str(e.value).startswith(message)


def test_a_name_is_out_of_scope_after_its_block():
    block = ir.Block((("x", ONE),), x())
    with pytest.raises(ir.TreeError, match="`x` is not bound"):
        ir.check(ir.Block((("y", block),), x()))


def test_long_blocks_are_checked_in_linear_time_and_without_recursion():
    previous, local = ONE, []
    for i in range(20_000):
        local.append((f"x{i}", previous))
        previous = ir.Reference(f"x{i}", INT)
    tree = ir.Block(tuple(local), previous)
    assert ir.check(tree) is tree


def test_deep_trees_are_checked_without_recursion():
    tree = ONE
    for i in range(5000):
        tree = ir.Call(ir.Lambda(f"x{i}", INT, ir.Reference(f"x{i}", INT)), tree)
    assert ir.check(tree) is tree
