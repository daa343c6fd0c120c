"""Decorating, packing arguments, tracing once per type."""

import collections
import functools
import threading

import attrs
import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore.computation import (
    Computation,
    ComputationReturnedNoneError,
    PolymorphicComputation,
    call_shape,
    pack_args,
)
from fedcore.types import StructType, TensorType, at_server, to_type


def add(a, b):
    return a + b


class Adder:
    def __init__(self, number):
        self._number = number

    def __call__(self, x):
        return x + self._number

    def add(self, x):
        return x + self._number


def traced_text(*args):
    return str(fedcore.tf_computation(*args).type_signature)


# --- Forms of the decorator ----------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "types", "text"),
    [
        (lambda: 1, (), "( -> int32)"),
        (lambda: 1, (None,), "( -> int32)"),
        (lambda x: x, (tf.int32,), "(int32 -> int32)"),
        (add, (tf.int32, tf.int32), "(<a=int32,b=int32> -> int32)"),
        (add, ((tf.int32, tf.int32),), "(<a=int32,b=int32> -> int32)"),
        (lambda x: x, (tf.int32, tf.bool), "(<int32,bool> -> <int32,bool>)"),
        (lambda x: x, ((tf.int32, tf.bool),), "(<int32,bool> -> <int32,bool>)"),
        (lambda x: x, ([tf.int32],), "(<int32> -> <int32>)"),
        (lambda *xs: xs[0], (tf.int32, tf.bool), "(<int32,bool> -> int32)"),
        (lambda a, b=2: a + b, (tf.int32,), "(int32 -> int32)"),
        (lambda *, a, b: a, (collections.OrderedDict(a=tf.int32, b=tf.bool),), None),
        (lambda **xs: xs["a"], (collections.OrderedDict(a=tf.int32, b=tf.bool),), None),
        (lambda b, a: a, (collections.OrderedDict(a=tf.int32, b=tf.bool),), None),
    ],
)
def test_function_first_then_types(fn, types, text):
    assert traced_text(fn, *types) == (text or "(<a=int32,b=bool> -> int32)")


@pytest.mark.parametrize(
    "fn",
    [
        functools.partial(add, 1),
        functools.partial(add, b=1),
        tf.function(lambda x: x + 1),
        Adder(1).add,
        abs,
    ],
    ids=["partial", "partial by name", "tf.function", "method", "builtin"],
)
def test_any_function_is_traced(fn):
    assert traced_text(fn, tf.int32) == "(int32 -> int32)"


def test_decorators_with_and_without_types():
    @fedcore.tf_computation(tf.int32, tf.bool)
    def typed(x, y):
        return y, x

    @fedcore.tf_computation
    def nothing():
        return 1.0

    @fedcore.tf_computation()
    def called():
        return "a"

    @fedcore.federated_computation(at_server(tf.int32))
    def federated(x):
        """What it does."""
        return x

    assert str(typed.type_signature) == "(<x=int32,y=bool> -> <bool,int32>)"
    assert str(nothing.type_signature) == "( -> float32)"
    assert str(called.type_signature) == "( -> string)"
    assert federated.__name__ == "federated"
    assert federated.__doc__ == "What it does."
    assert isinstance(federated, Computation)


def test_repr_says_name_type_and_place():
    computation = fedcore.tf_computation(add, tf.int32, tf.int32)
    text = repr(computation)
    assert text.startswith(
        "<computation add: (<a=int32,b=int32> -> int32), defined at "
    )
    assert "test_computation.py:" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((Adder(1), tf.int32), "needs a function to trace, found an object of `Adder`"),
        ((5,), "`to_type` needs what describes a type, found 5"),
        (
            (add, tf.int32),
            r"parameters `\(a, b\)` cannot take an argument of type `int32`",
        ),
        ((add, tf.int32, tf.int32, tf.int32), "cannot take an argument of type"),
        ((lambda: 1, tf.int32), r"parameters `\(\)` cannot take an argument"),
        ((lambda x: x, None), r"parameters `\(x\)` is called without an argument"),
        (
            (add, collections.OrderedDict(x=tf.int32, y=tf.int32)),
            "cannot take an argument of type `<x=int32,y=int32>`",
        ),
    ],
)
def test_what_cannot_be_traced_is_refused(args, message):
    with pytest.raises(TypeError, match=message):
        fedcore.tf_computation(*args)


def test_a_computation_is_not_traced_again():
    computation = fedcore.tf_computation(add, tf.int32, tf.int32)
    with pytest.raises(
        TypeError, match="needs a function to trace, found <computation add"
    ):
        fedcore.federated_computation(computation)


def test_a_type_is_not_decorated():
    with pytest.raises(TypeError, match="needs a function to trace, found `DType`"):
        fedcore.tf_computation(tf.int32)(tf.int32)


# --- Packing arguments ---------------------------------------------------------------

PAIR = collections.OrderedDict(a=tf.int32, b=tf.int32)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, 2), {}),
        ((1,), {"b": 2}),
        ((), {"b": 2, "a": 1}),
        (((1, 2),), {}),
        (([1, 2],), {}),
        (({"b": 2, "a": 1},), {}),
        ((collections.OrderedDict(a=1, b=2),), {}),
        ((fedcore.structure.Struct.named(a=1, b=2),), {}),
    ],
)
def test_arguments_by_position_name_or_structure(args, kwargs):
    subtract = fedcore.tf_computation(lambda a, b: a - b, PAIR)
    assert subtract(*args, **kwargs) == -1


@pytest.mark.parametrize(
    ("type_", "args", "kwargs", "message"),
    [
        (None, (1,), {}, "`add` takes no argument, found 1"),
        (tf.int32, (), {}, "`add` needs an argument of type `int32`, found none"),
        (tf.int32, (1, 2), {}, "`add` needs one argument of type `int32`, found 2"),
        (tf.int32, (), {"x": 1}, "`add` needs one argument of type `int32`, found 1"),
        (
            PAIR,
            (1, 2, 3),
            {},
            "`add` needs 2 arguments for `<a=int32,b=int32>`, found 3",
        ),
        (PAIR, (), {"a": 1, "c": 2}, "`add` has no free parameter `c`"),
        (PAIR, (1,), {"a": 2}, "`add` has no free parameter `a` .* after 1 positional"),
    ],
)
def test_arguments_that_do_not_fit(type_, args, kwargs, message):
    type_ = None if type_ is None else to_type(type_)
    with pytest.raises(TypeError, match=message):
        pack_args(type_, args, kwargs, "add")


def test_call_shape_is_whole_where_one_argument_is_enough():
    pair = StructType([("a", tf.int32), ("b", tf.int32)])
    assert call_shape(lambda x: x, pair) is None
    shape = call_shape(add, pair)
    assert shape.keyword == (("a", 0), ("b", 1))
    assert shape.call(lambda a, b: (a, b), [1, 2]) == (1, 2)


# --- Polymorphic computations --------------------------------------------------------


def test_polymorphic_computation_is_traced_once_per_type():
    traced = []

    @fedcore.tf_computation
    def double(x):
        traced.append(x.dtype)
        return x + x

    assert isinstance(double, PolymorphicComputation)
    assert double.__name__ == "double"
    assert [double(1), double(2), double(1.5)] == [2, 4, 3.0]
    assert double(np.array([1, 2], np.int32)).tolist() == [2, 4]
    assert traced == [tf.int32, tf.float32, tf.int32]
    text = repr(double)
    assert text.startswith("<polymorphic computation double: traced for 3 types, ")
    assert "defined at " in text
    assert "test_computation.py:" in text


def test_polymorphic_computation_for_a_type():
    @fedcore.federated_computation
    def same(x):
        return x

    concrete = same.fn_for_argument_type(at_server(tf.int32))
    assert str(concrete.type_signature) == "(int32@SERVER -> int32@SERVER)"
    assert same.fn_for_argument_type(at_server(tf.int32)) is concrete


def test_polymorphic_computation_takes_names_and_structures():
    @fedcore.tf_computation
    def subtract(a, b):
        return a - b

    assert subtract(5, b=3) == 2
    assert subtract(b=3, a=5) == 2

    @fedcore.tf_computation
    def same(x):
        return x

    assert same([1, (True, "a")]) == [1, (True, b"a")]


def test_polymorphic_computation_is_traced_once_in_many_threads():
    traced = []

    @fedcore.tf_computation
    def double(x):
        traced.append(x)
        return x + x

    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(double(i))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2 * i for i in range(8)]
    assert len(traced) == 1


def test_polymorphic_computation_needs_values():
    same = fedcore.tf_computation(lambda x: x)
    with pytest.raises(TypeError, match="A value needs a type that can be inferred"):
        same(object())


# --- Results -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "decorator", [fedcore.tf_computation, fedcore.federated_computation]
)
def test_none_as_result_names_function_file_and_line(decorator):
    def forgets(x):
        x[0]

    line = forgets.__code__.co_firstlineno
    with pytest.raises(ComputationReturnedNoneError) as caught:
        decorator(forgets, [tf.int32])
    assert "found None returned by `forgets`" in str(caught.value)
    assert f"test_computation.py:{line}" in str(caught.value)


# --- check_returns_type --------------------------------------------------------------


@attrs.define
class Point:
    x: int


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (tf.int32, 5),
        ((tf.int32, tf.bool), (5, True)),
        (collections.OrderedDict(a=tf.int32), collections.OrderedDict(a=5)),
        (Point(tf.int32), Point(5)),
    ],
)
def test_check_returns_type_lets_the_type_pass(type_, value):
    checked = fedcore.check_returns_type(type_)(lambda: value)
    assert checked() == value
    assert fedcore.check_returns_type(lambda: value, type_)() == value


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (tf.float32, 5),
        ((tf.int32,), [5]),
        (collections.OrderedDict(a=tf.int32), (5,)),
        (Point(tf.int32), collections.OrderedDict(x=5)),
    ],
)
def test_check_returns_type_refuses_another_type(type_, value):
    def fn():
        return value

    with pytest.raises(
        TypeError, match="`fn` needs to return a value of the type decl"
    ):
        fedcore.check_returns_type(type_)(fn)()


def test_check_returns_type_under_a_tracer():
    @fedcore.federated_computation(at_server(tf.int32))
    @fedcore.check_returns_type(at_server(tf.int32))
    def same(x):
        return x

    assert str(same.type_signature) == "(int32@SERVER -> int32@SERVER)"
    with pytest.raises(TypeError, match="not identical to expected type `float32`"):
        fedcore.tf_computation(fedcore.check_returns_type(tf.float32)(lambda: 1))


def test_check_returns_type_needs_one_type_and_a_result():
    with pytest.raises(ValueError, match="needs one type, that of the result, found 2"):
        fedcore.check_returns_type(tf.int32, tf.int32)
    with pytest.raises(ComputationReturnedNoneError):
        fedcore.check_returns_type(tf.int32)(lambda: None)()


def test_concrete_computation_needs_a_function():
    from fedcore import ir
    from fedcore.computation import ConcreteComputation

    with pytest.raises(
        TypeError, match="needs a tree of functional type, found `int32`"
    ):
        ConcreteComputation(ir.literal(1, TensorType(tf.int32)))
