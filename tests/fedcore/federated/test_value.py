"""The tracer of values: what can be done with one, and what cannot."""

import collections

import attrs
import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore.context import ContextError
from fedcore.federated import to_value
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    at_clients,
    at_server,
)

OD = collections.OrderedDict
AB = OD(a=tf.int32, b=tf.bool)


@attrs.define
class Point:
    x: object
    y: object


def type_text(fn, *types):
    return str(fedcore.federated_computation(fn, *types).type_signature)


def result_text(fn, *types):
    return str(fedcore.federated_computation(fn, *types).type_signature.result)


# --- Types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "type_", "text"),
    [
        (lambda x: x.a, AB, "int32"),
        (lambda x: x["b"], AB, "bool"),
        (lambda x: x[0], AB, "int32"),
        (lambda x: x[-1], AB, "bool"),
        (lambda x: x[np.int64(1)], AB, "bool"),
        (lambda x: x[:2], OD(a=tf.int32, b=tf.bool, c=tf.int32), "<int32,bool>"),
        (lambda x: x[::-1], AB, "<bool,int32>"),
        (lambda x: list(x), AB, "<int32,bool>"),
        (lambda x: x[len(x) - 1], AB, "bool"),
        (lambda x: x.a, at_server(AB), "int32@SERVER"),
        (lambda x: x.a, at_clients(AB), "{int32}@CLIENTS"),
        (lambda x: x.a, at_clients(AB, all_equal=True), "int32@CLIENTS"),
        (lambda x: x[:1], at_server(AB), "<int32>@SERVER"),
        (lambda x: x[:1], at_clients(AB, all_equal=True), "<int32>@CLIENTS"),
        (lambda x: tuple(x), at_server(AB), "<int32@SERVER,bool@SERVER>"),
        (lambda x: x.a[0], at_server(OD(a=[tf.int32])), "int32@SERVER"),
        # Elements whose names are those of a value's own attributes.
        (
            lambda x: [x["comp"], x["type_signature"]],
            OD(comp=tf.int32, type_signature=tf.bool),
            "<int32,bool>",
        ),
        (lambda x: x.node, OD(node=tf.int32), "int32"),
    ],
)
def test_elements(fn, type_, text):
    assert result_text(fn, type_) == text


@pytest.mark.parametrize(
    ("fn", "types", "text"),
    [
        (lambda x: x + 1, (tf.int32,), "int32"),
        (lambda x: 1 + x, (tf.int32,), "int32"),
        (lambda x, y: x - y, (at_clients(tf.float32),) * 2, "{float32}@CLIENTS"),
        (lambda x: 1 - x, (at_server(tf.float32),), "float32@SERVER"),
        (lambda x: x * 2.0, (at_server(OD(a=tf.float32)),), "<a=float32>@SERVER"),
        (lambda x: np.float32(2) * x, (tf.float32,), "float32"),
        (lambda x: np.ones([2], np.float32) * x, (tf.float32,), "float32[2]"),
        (lambda x: x / 2, (tf.int32,), "float64"),
        (
            lambda x: -x,
            (at_clients([tf.int32, tf.float32]),),
            "{<int32,float32>}@CLIENTS",
        ),
        (lambda x: x.a + x.b, (at_server(OD(a=tf.int32, b=tf.int32)),), "int32@SERVER"),
    ],
)
def test_arithmetic(fn, types, text):
    assert result_text(fn, *types) == text


@pytest.mark.parametrize(
    ("constant", "text"),
    [
        (10, "int32"),
        (2**40, "int64"),
        (1.5, "float32"),
        (True, "bool"),
        ("Hello, World!", "string"),
        (b"bytes", "string"),
        (np.float64(1), "float64"),
        (np.zeros([2, 3]), "float64[2,3]"),
        ((), "<>"),
        ([], "<>"),
        (OD(), "<>"),
        ([1, (2.0, "x")], "<int32,<float32,string>>"),
        ({"b": 1, "a": 2.0}, "<a=float32,b=int32>"),
        (OD(b=1, a=2.0), "<b=int32,a=float32>"),
        (Point(1, OD(z=True)), "<x=int32,y=<z=bool>>"),
        (fedcore.structure.Struct([("a", 1), (None, 2)]), "<a=int32,int32>"),
        (SERVER, "placement"),
    ],
)
def test_constants(constant, text):
    assert type_text(lambda: constant) == f"( -> {text})"


def test_constants_take_the_dtype_that_is_wanted():
    same = {
        dtype: fedcore.tf_computation(lambda x: x, dtype)
        for dtype in (tf.int64, tf.float32, tf.float64)
    }
    for dtype, fn in same.items():
        assert result_text(lambda fn=fn: fn(1)) == dtype.name


def test_results_keep_their_containers():
    def fn(x):
        return OD(point=Point(x, [x]), pair=(x, x))

    result = fedcore.federated_computation(fn, tf.int32).type_signature.result
    assert result.python_container is OD
    assert result.point.python_container is Point
    assert result.pair.python_container is tuple


def test_dir_holds_the_names_of_elements():
    seen = []
    fedcore.federated_computation(lambda x: seen.append(dir(x)) or x, at_server(AB))
    assert seen == [["a", "b", "comp", "type_signature"]]


# --- Values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x, y: x + y, 10.0),
        (lambda x, y: x - y, 4.0),
        (lambda x, y: x * y, 21.0),
        (lambda x, y: x / y, 7 / 3),
        (lambda x, y: 1 + x, 8.0),
        (lambda x, y: 1 - x, -6.0),
        (lambda x, y: 2 * x, 14.0),
        (lambda x, y: 14 / x, 2.0),
        (lambda x, y: x - 1, 6.0),
        (lambda x, y: x / 2, 3.5),
        (lambda x, y: -x, -7.0),
    ],
)
@pytest.mark.parametrize("place", [lambda t: t, at_server])
def test_arithmetic_is_that_of_numbers(fn, expected, place):
    type_ = place(tf.float32)
    result = fedcore.federated_computation(fn, type_, type_)(7.0, 3.0)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_arithmetic_goes_through_structures():
    type_ = at_clients(OD(a=tf.float32, b=[tf.TensorSpec([2])]))
    fn = fedcore.federated_computation(lambda x, y: 2 * x + y, type_, type_)
    value = OD(a=1.0, b=[[2.0, 3.0]])
    [result] = fn([value], [value])
    assert list(result) == ["a", "b"]
    assert result["a"] == 3.0
    assert result["b"][0].tolist() == [6.0, 9.0]


def test_arithmetic_of_all_equal_and_other_values():
    fn = fedcore.federated_computation(
        lambda x, y: fedcore.federated_broadcast(x) * y,
        at_server(tf.int32),
        at_clients(tf.int32),
    )
    assert fn(3, [1, 2]) == [3, 6]


def test_greeting():
    assert fedcore.federated_computation(lambda: "Hello, World!")() == b"Hello, World!"


def test_functions_are_called():
    double = fedcore.tf_computation(lambda x: 2 * x, tf.int32)
    apply = fedcore.federated_computation(
        lambda f, x: f(f(x)), FunctionType(tf.int32, tf.int32), tf.int32
    )
    assert str(apply.type_signature) == "(<f=(int32 -> int32),x=int32> -> int32)"
    assert fedcore.federated_computation(lambda x: apply(double, x), tf.int32)(3) == 12


def test_a_python_function_is_a_value():
    def fn():
        return to_value(lambda x: x + 1, FunctionType(tf.int32, tf.int32))(4)

    assert fedcore.federated_computation(fn)() == 5


# --- Errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (
            lambda x: x.c,
            AttributeError,
            "The structure has no element `c`, it has a, b",
        ),
        (lambda x: x["c"], AttributeError, "The structure has no element `c`"),
        (lambda x: x[2], IndexError, "An index needs to be below 2, found 2"),
        (lambda x: x[-3], IndexError, "An index needs to be below 2, found -3"),
        (lambda x: x[5:], IndexError, "A slice needs at least one element"),
        (
            lambda x: x[1.0],
            TypeError,
            "needs an integer, a name or a slice, found `float`",
        ),
        (lambda x: x.a.b, AttributeError, r"A value of type `int32` has no elements"),
        (
            lambda x: x.a[0],
            TypeError,
            "An index needs a structure, found a value of type",
        ),
        (lambda x: x.a["b"], TypeError, "An index needs a structure"),
        (lambda x: list(x.a), TypeError, "Iteration needs a structure"),
        (lambda x: len(x.a), TypeError, "`len` needs a structure"),
        (lambda x: 1 if x.b else 2, TypeError, "has no truth value while it is traced"),
        (
            lambda x: x.a == 1,
            TypeError,
            "cannot be compared while it is traced, found `==`",
        ),
        (lambda x: x.a != 1, TypeError, "found `!=` with one of type `int32`"),
        (lambda x: x.a < 1, TypeError, "found `<` with"),
        (lambda x: x.a <= 1, TypeError, "found `<=` with"),
        (lambda x: x.a > 1, TypeError, "found `>` with"),
        (lambda x: x.a >= 1, TypeError, "found `>=` with"),
        (
            lambda x: x.a(1),
            TypeError,
            "A call needs a function, found a value of type `int32`",
        ),
        (
            lambda x: tf.add(x.a, 1),
            TypeError,
            "TensorFlow needs tensors, found a value of a",
        ),
        (lambda x: np.asarray(x.a), TypeError, "NumPy needs arrays, found a value"),
        (
            lambda x: setattr(x, "a", 1),
            TypeError,
            "cannot be changed, found `.a = ...`",
        ),
        (lambda x: (x.a, None), TypeError, "A value is needed, found None"),
        (
            lambda x: tf.data.Dataset.range(3),
            TypeError,
            "A dataset cannot be a constant",
        ),
        (lambda x: object(), TypeError, "cannot be made of `object`"),
        (
            lambda x: fedcore.tf_computation(lambda y: y),
            TypeError,
            "without declared types needs",
        ),
        (
            lambda x: fedcore.tf_computation(lambda y: y + x.a, tf.int32),
            ContextError,
            "is used outside of the federated computation",
        ),
    ],
)
def test_misuse_says_what_to_do(fn, error, message):
    with pytest.raises(error, match=message):
        fedcore.federated_computation(fn, AB)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (at_server(tf.int32), at_clients(tf.int32)),
        (at_server(tf.int32), tf.int32),
    ],
)
def test_arithmetic_needs_one_place(left, right):
    with pytest.raises(TypeError, match="Arithmetic needs both values at one place"):
        fedcore.federated_computation(lambda x, y: x + y, left, right)


def test_arithmetic_needs_like_structures():
    with pytest.raises(TypeError, match="same number of tensors, found 2 and 1"):
        fedcore.federated_computation(
            lambda x, y: x + y, (tf.int32, tf.int32), [tf.int32]
        )


def test_a_captured_value_is_no_tensor():
    with pytest.raises(TypeError, match="TensorFlow needs tensors"):
        fedcore.federated_computation(
            lambda x: fedcore.tf_computation(lambda y: tf.add(y, x), tf.int32), tf.int32
        )


def test_identity_is_no_comparison():
    def fn(x):
        assert x == x
        assert (x != x) is False
        assert x != None  # noqa: E711
        assert x in [x]
        return {x: x}[x]

    assert type_text(fn, tf.int32) == "(int32 -> int32)"


def test_outside_of_a_trace():
    with pytest.raises(
        ContextError, match="has a meaning only inside a federated comp"
    ):
        to_value(1)


def test_a_value_does_not_outlive_its_trace():
    kept = []
    fedcore.federated_computation(lambda x: kept.append(x) or x, tf.int32)
    with pytest.raises(ContextError, match="A value of type `int32` is used outside"):
        fedcore.federated_computation(lambda: kept[0])
    with pytest.raises(ContextError, match="A value of type `int32` is used outside"):
        kept[0] + 1


# --- to_value ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "wanted", "text"),
    [
        (
            [at_clients(tf.int32)] * 2,
            at_clients([tf.int32] * 2),
            "{<int32,int32>}@CLIENTS",
        ),
        (
            OD(a=OD(b=at_server(tf.int32)), c=at_server(tf.bool)),
            at_server(OD(a=OD(b=tf.int32), c=tf.bool)),
            "<a=<b=int32>,c=bool>@SERVER",
        ),
        (
            OD(a=[at_server(tf.int32)], c=tf.bool),
            OD(a=at_server([tf.int32]), c=tf.bool),
            "<a=<int32>@SERVER,c=bool>",
        ),
    ],
)
def test_to_value_zips_where_it_is_asked(type_, wanted, text):
    def fn(x):
        return to_value(x, wanted, zip_if_needed=True)

    assert result_text(fn, type_) == text
    with pytest.raises(TypeError, match="is not assignable to expected type"):
        fedcore.federated_computation(lambda x: to_value(x, wanted), type_)


@pytest.mark.parametrize(
    ("type_", "wanted"),
    [
        (tf.int32, tf.float32),
        (OD(x=tf.int32), OD(y=tf.int32)),
        ([at_clients(tf.int32)], at_server([tf.int32])),
        ([at_clients(tf.int32), tf.int32], at_clients([tf.int32] * 2)),
        (OD(x=[at_server(tf.int32)]), OD(y=at_server([tf.int32]))),
    ],
)
def test_to_value_refuses_another_type(type_, wanted):
    with pytest.raises(TypeError, match="is not assignable to expected type"):
        fedcore.federated_computation(
            lambda x: to_value(x, wanted, zip_if_needed=True), type_
        )


# --- Calls inside a trace, captured values --------------------------------------------


@pytest.mark.parametrize(
    ("call", "type_"),
    [
        (lambda f, x: f(x.a, x.b), AB),
        (lambda f, x: f(b=x.b, a=x.a), AB),
        (lambda f, x: f(x.a, b=x.b), AB),
        (lambda f, x: f(x), AB),
        (lambda f, x: f((x.a, True)), AB),
        (lambda f, x: f(x), [tf.int32, tf.bool]),
    ],
)
def test_calls_pack_their_arguments(call, type_):
    both = fedcore.tf_computation(lambda a, b: [b, a], tf.int32, tf.bool)
    assert result_text(lambda x: call(both, x), type_) == "<bool,int32>"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: f(x, x), "`both` needs an argument of type `<a=int32,b=bool>`"),
        (lambda f, x: f(OD(x=1, y=True)), "`both` needs an argument of type"),
        (lambda f, x: f(x), "`both` needs an argument of type"),
        (lambda f, x: f(), "`both` needs an argument of type .* found none"),
        (lambda f, x: f(x, True, x), "`both` needs 2 arguments"),
    ],
)
def test_calls_refuse_other_arguments(call, message):
    @fedcore.tf_computation(tf.int32, tf.bool)
    def both(a, b):
        return a, b

    with pytest.raises(TypeError, match=message):
        fedcore.federated_computation(lambda x: call(both, x), tf.int32)


def test_a_placed_value_needs_federated_map():
    double = fedcore.tf_computation(lambda x: 2 * x, tf.int32)
    with pytest.raises(
        TypeError, match=r"`int32@SERVER` is not assignable to .* `int32`"
    ):
        fedcore.federated_computation(lambda x: double(x), at_server(tf.int32))


def test_a_call_zips_its_argument():
    total = fedcore.federated_computation(
        fedcore.federated_sum, at_clients((tf.int32, tf.int32))
    )
    fn = fedcore.federated_computation(
        lambda x, y: total((x, y)), at_clients(tf.int32), at_clients(tf.int32)
    )
    assert fn([1, 2], [10, 20]) == (3, 30)


def test_inner_computations_see_the_values_around_them():
    @fedcore.federated_computation(tf.int32)
    def outer(x):
        @fedcore.federated_computation(tf.int32)
        def inner(y):
            return x + y

        return inner(inner(1))

    assert outer(10) == 21


def test_a_mapped_function_sees_unplaced_values():
    add = fedcore.tf_computation(lambda a, b: a + b, tf.int32, tf.int32)
    fn = fedcore.federated_computation(
        lambda x, y: fedcore.federated_map(lambda z: add(x, z), y),
        tf.int32,
        at_clients(tf.int32),
    )
    assert fn(10, [1, 2]) == [11, 12]


def test_a_closure_does_not_outlive_its_trace():
    kept = []

    @fedcore.federated_computation(tf.int32)
    def outer(x):
        kept.append(fedcore.federated_computation(lambda: x))
        return kept[0]()

    assert outer(5) == 5
    with pytest.raises(ContextError, match="is used outside of the federated"):
        kept[0]()
    with pytest.raises(
        ContextError, match="is used outside of the federated computation"
    ):
        fedcore.federated_computation(lambda: kept[0]())


def test_an_inner_computation_without_captured_values_is_free():
    kept = []

    @fedcore.federated_computation(tf.int32)
    def outer(x):
        kept.append(fedcore.federated_computation(lambda y: y + 1, tf.int32))
        return kept[0](x)

    assert outer(5) == 6
    assert kept[0](1) == 2
    assert (
        fedcore.federated_computation(lambda x: kept[0](kept[0](x)), tf.int32)(1) == 3
    )


def test_two_traces_give_the_same_bytes():
    def build():
        def fn(x, y):
            return fedcore.federated_mean(x), fedcore.federated_zip([y, y])

        return fedcore.federated_computation(fn, at_clients(tf.float32), at_server(AB))

    serialize = fedcore.framework.serialize_computation
    assert serialize(build()) == serialize(build())


def test_data_is_a_value_of_its_type():
    type_ = FederatedType(SequenceType(tf.int32), CLIENTS)
    assert type_text(lambda: fedcore.data("here", type_)) == "( -> {int32*}@CLIENTS)"


def test_functions_of_a_struct_type_take_its_elements():
    pair = StructType([("a", tf.int32), ("b", tf.bool)])
    assert type_text(lambda b, a: a, pair) == "(<a=int32,b=bool> -> int32)"
