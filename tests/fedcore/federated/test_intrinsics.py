"""The table of intrinsics: the type of each operator, and what it refuses."""

import collections

import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import ir
from fedcore.context import ContextError
from fedcore.federated import INTRINSICS, SumIncompatibleError, body_of
from fedcore.types import (
    CLIENTS,
    SERVER,
    SequenceType,
    TensorType,
    at_clients,
    at_server,
)

OD = collections.OrderedDict
INTS = at_clients(tf.int32)
FLOATS = at_clients(tf.float32)
PAIRS = at_clients(OD(a=tf.int32, b=(tf.float32, [2])))
SHARED = at_clients(tf.int32, all_equal=True)
BATCHES = SequenceType(OD(x=(tf.float32, [None, 2]), y=tf.int64))
VECTOR = (tf.float32, [5])


@fedcore.tf_computation(tf.int32, tf.int32)
def add(a, b):
    return a + b


@fedcore.tf_computation(tf.int32)
def to_float(x):
    return tf.cast(x, tf.float32)


@fedcore.tf_computation
def same(x):
    return x


@fedcore.tf_computation
def gather(value, key):
    return tf.gather(tf.nest.flatten(value)[0], key)


@fedcore.tf_computation
def one():
    return 1


def type_text(fn, *types):
    return str(fedcore.federated_computation(fn, *types).type_signature)


def result_text(fn, *types):
    return str(fedcore.federated_computation(fn, *types).type_signature.result)


# --- Types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "placement", "text"),
    [
        (1, CLIENTS, "int32@CLIENTS"),
        (1, SERVER, "int32@SERVER"),
        ((), SERVER, "<>@SERVER"),
        ([], CLIENTS, "<>@CLIENTS"),
        (OD(), SERVER, "<>@SERVER"),
        (OD(a=1, b=["x", True]), SERVER, "<a=int32,b=<string,bool>>@SERVER"),
        (np.zeros([2]), CLIENTS, "float64[2]@CLIENTS"),
    ],
)
def test_federated_value_type(value, placement, text):
    assert result_text(lambda: fedcore.federated_value(value, placement)) == text


def test_federated_value_of_an_argument():
    text = type_text(lambda x: fedcore.federated_value(x, SERVER), BATCHES)
    assert text == "(<x=float32[?,2],y=int64>* -> <x=float32[?,2],y=int64>*@SERVER)"


def test_federated_eval_type():
    assert (
        result_text(lambda: fedcore.federated_eval(one, CLIENTS)) == "{int32}@CLIENTS"
    )
    assert result_text(lambda: fedcore.federated_eval(one, SERVER)) == "int32@SERVER"
    assert result_text(lambda: fedcore.federated_eval(lambda: "a", SERVER)) == (
        "string@SERVER"
    )


@pytest.mark.parametrize(
    ("fn", "arg", "text"),
    [
        (to_float, INTS, "{float32}@CLIENTS"),
        (to_float, at_server(tf.int32), "float32@SERVER"),
        (to_float, SHARED, "{float32}@CLIENTS"),
        (same, PAIRS, "{<a=int32,b=float32[2]>}@CLIENTS"),
        (lambda x: [x.b, x.a], PAIRS, "{<float32[2],int32>}@CLIENTS"),
        (lambda a, b: b, PAIRS, "{float32[2]}@CLIENTS"),
        (add, [INTS, INTS], "{int32}@CLIENTS"),
        (add, OD(a=INTS, b=SHARED), "{int32}@CLIENTS"),
        (same, at_server(()), "<>@SERVER"),
        (same, at_clients(BATCHES), "{<x=float32[?,2],y=int64>*}@CLIENTS"),
    ],
)
def test_federated_map_type(fn, arg, text):
    assert result_text(lambda x: fedcore.federated_map(fn, x), arg) == text


def test_federated_broadcast_type():
    broadcast = fedcore.federated_broadcast
    assert type_text(broadcast, at_server(OD(a=tf.int32))) == (
        "(<a=int32>@SERVER -> <a=int32>@CLIENTS)"
    )
    assert result_text(lambda x: broadcast((x, x)), at_server(tf.bool)) == (
        "<bool,bool>@CLIENTS"
    )


@pytest.mark.parametrize(
    ("arg", "text"),
    [
        ([INTS, FLOATS], "{<int32,float32>}@CLIENTS"),
        ([SHARED, SHARED], "{<int32,int32>}@CLIENTS"),
        ([SHARED, INTS], "{<int32,int32>}@CLIENTS"),
        ([INTS], "{<int32>}@CLIENTS"),
        (OD(a=INTS, b=[INTS, (FLOATS,)]), "{<a=int32,b=<int32,<float32>>>}@CLIENTS"),
        (OD(a=at_server(tf.int32), b=at_server(())), "<a=int32,b=<>>@SERVER"),
        (INTS, "{int32}@CLIENTS"),
    ],
)
def test_federated_zip_type(arg, text):
    assert result_text(fedcore.federated_zip, arg) == text


def test_federated_zip_keeps_containers():
    fn = fedcore.federated_computation(fedcore.federated_zip, OD(a=INTS, b=[INTS]))
    member = fn.type_signature.result.member
    assert member.python_container is OD
    assert member.b.python_container is list


@pytest.mark.parametrize(
    ("operator", "arg", "text"),
    [
        (fedcore.federated_sum, INTS, "int32@SERVER"),
        (fedcore.federated_sum, SHARED, "int32@SERVER"),
        (fedcore.federated_sum, PAIRS, "<a=int32,b=float32[2]>@SERVER"),
        (fedcore.federated_sum, at_clients(()), "<>@SERVER"),
        (fedcore.federated_sum, [INTS, FLOATS], "<int32,float32>@SERVER"),
        (fedcore.federated_sum, at_clients(tf.complex64), "complex64@SERVER"),
        (fedcore.federated_mean, FLOATS, "float32@SERVER"),
        (
            fedcore.federated_mean,
            at_clients([tf.float64, tf.complex64]),
            "<float64,complex64>@SERVER",
        ),
        (fedcore.federated_mean, at_clients(()), "<>@SERVER"),
        (fedcore.federated_max, PAIRS, "<a=int32,b=float32[2]>@SERVER"),
        (fedcore.federated_min, PAIRS, "<a=int32,b=float32[2]>@SERVER"),
    ],
)
def test_aggregation_type(operator, arg, text):
    assert result_text(operator, arg) == text


@pytest.mark.parametrize("weight", [tf.int32, tf.int64, tf.float32, tf.float64])
def test_federated_mean_type_is_that_of_the_value(weight):
    assert type_text(
        lambda x, w: fedcore.federated_mean(x, w), PAIR_OF_FLOATS, at_clients(weight)
    ) == (
        "(<x={<float32,float64[3]>}@CLIENTS,w={" + weight.name + "}@CLIENTS> -> "
        "<float32,float64[3]>@SERVER)"
    )


PAIR_OF_FLOATS = at_clients([tf.float32, (tf.float64, [3])])


@pytest.mark.parametrize(
    "operator",
    [
        fedcore.federated_secure_sum,
        fedcore.federated_secure_sum_bitwidth,
        fedcore.federated_secure_modular_sum,
    ],
)
def test_secure_sum_types(operator):
    pair = at_clients(OD(a=tf.int32, b=(tf.int64, [2])))
    for bound in (8, OD(a=8, b=9), np.int64(8)):
        assert result_text(lambda x, bound=bound: operator(x, bound), pair) == (
            "<a=int32,b=int64[2]>@SERVER"
        )


def test_federated_aggregate_type():
    def fn(x):
        return fedcore.federated_aggregate(x, 0, add, add, to_float)

    assert type_text(fn, INTS) == "({int32}@CLIENTS -> float32@SERVER)"


def test_federated_aggregate_takes_a_zero_of_the_server():
    def fn(x, zero):
        return fedcore.federated_aggregate(x, zero, add, add, to_float)

    assert type_text(fn, INTS, at_server(tf.int32)) == (
        "(<x={int32}@CLIENTS,zero=int32@SERVER> -> float32@SERVER)"
    )


def test_federated_aggregate_with_polymorphic_operators():
    @fedcore.tf_computation
    def count(total, value):
        return OD(n=total["n"] + 1, last=tf.cast(value, tf.float64))

    @fedcore.tf_computation
    def merge(a, b):
        return OD(n=a["n"] + b["n"], last=a["last"])

    def fn(x):
        zero = OD(n=0, last=np.float64(0))
        return fedcore.federated_aggregate(x, zero, count, merge, same)

    assert result_text(fn, FLOATS) == "<n=int32,last=float64>@SERVER"


@pytest.mark.parametrize(
    "select", [fedcore.federated_select, fedcore.federated_secure_select]
)
@pytest.mark.parametrize("server_value", [VECTOR, OD(a=VECTOR)])
def test_federated_select_type(select, server_value):
    def fn(keys, limit, value):
        return select(keys, limit, value, gather)

    types = at_clients((tf.int32, [2])), at_server(tf.int32), at_server(server_value)
    assert result_text(fn, *types) == "{float32*}@CLIENTS"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (lambda t: t, "{}"),
        (at_clients, "{{{}}}@CLIENTS"),
        (at_server, "{}@SERVER"),
        (lambda t: at_clients(t, all_equal=True), "{{{}}}@CLIENTS"),
    ],
)
def test_sequence_operator_types(place, text):
    ints = place(SequenceType(tf.int32))
    assert result_text(lambda x: fedcore.sequence_map(to_float, x), ints) == (
        text.format("float32*")
    )
    assert result_text(fedcore.sequence_sum, ints) == text.format("int32")
    assert result_text(lambda x: fedcore.sequence_reduce(x, 0, add), ints) == (
        text.format("int32")
    )


def test_sequence_reduce_takes_a_placed_zero():
    def fn(x, zero):
        return fedcore.sequence_reduce(x, fedcore.federated_broadcast(zero), add)

    types = at_clients(SequenceType(tf.int32)), at_server(tf.int32)
    assert result_text(fn, *types) == "{int32}@CLIENTS"


# --- Errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: fedcore.federated_value(1, SERVER),
        lambda: fedcore.federated_eval(one, SERVER),
        lambda: fedcore.federated_map(to_float, [1]),
        lambda: fedcore.federated_broadcast(1),
        lambda: fedcore.federated_zip([1]),
        lambda: fedcore.federated_sum([1]),
        lambda: fedcore.federated_mean([1]),
        lambda: fedcore.federated_max([1]),
        lambda: fedcore.federated_min([1]),
        lambda: fedcore.federated_aggregate([1], 0, add, add, same),
        lambda: fedcore.federated_secure_sum([1], 1),
        lambda: fedcore.federated_secure_sum_bitwidth([1], 1),
        lambda: fedcore.federated_secure_modular_sum([1], 1),
        lambda: fedcore.federated_select([1], 1, 1, gather),
        lambda: fedcore.federated_secure_select([1], 1, 1, gather),
        lambda: fedcore.sequence_map(to_float, [1]),
        lambda: fedcore.sequence_reduce([1], 0, add),
        lambda: fedcore.sequence_sum([1]),
        lambda: fedcore.data("here", tf.int32),
    ],
)
def test_outside_of_a_federated_computation(call):
    with pytest.raises(
        ContextError, match="has a meaning only inside a federated comp"
    ):
        call()


def test_inside_of_a_tf_computation():
    with pytest.raises(
        ContextError, match="`federated_value` has a meaning only inside"
    ):
        fedcore.tf_computation(lambda: fedcore.federated_value(1, SERVER))


UNPLACED = "to be a federated value at"


@pytest.mark.parametrize(
    ("fn", "types", "message"),
    [
        (
            fedcore.federated_broadcast,
            (INTS,),
            "`value` to be a federated value at SERVER",
        ),
        (fedcore.federated_broadcast, (tf.int32,), "Place it with `federated_value"),
        (
            fedcore.federated_sum,
            (at_server(tf.int32),),
            "send it with `federated_broadcast",
        ),
        (fedcore.federated_sum, (tf.int32,), UNPLACED),
        (fedcore.federated_mean, (at_server(tf.float32),), "federated_broadcast"),
        (lambda x: fedcore.federated_mean(x, 2.0), (FLOATS,), "`weight` " + UNPLACED),
        (
            lambda x: fedcore.federated_map(to_float, x),
            (tf.int32,),
            "at CLIENTS or SERVER",
        ),
        (
            lambda x: fedcore.federated_map(x, to_float),
            (INTS,),
            "`arg` to be a federated",
        ),
        (
            fedcore.federated_zip,
            ([INTS, at_server(tf.int32)],),
            "all parts of .* at one placement",
        ),
        (fedcore.federated_zip, ([INTS, tf.int32],), "a structure of federated values"),
        (fedcore.federated_zip, ((),), "a structure of federated values, found `<>`"),
        (
            lambda x, y: fedcore.federated_map(add, (x, y)),
            (INTS, at_server(tf.int32)),
            "all parts of .* at one placement",
        ),
        (
            lambda x: fedcore.federated_value(x, SERVER),
            (INTS,),
            "needs a value that is not placed, found `{int32}@CLIENTS`",
        ),
        (
            lambda x: fedcore.federated_value(one, SERVER),
            (INTS,),
            "not placed, found `",
        ),
        (lambda x: fedcore.federated_value(1, "server"), (INTS,), "needs a placement"),
        (lambda x: fedcore.federated_eval(one, None), (INTS,), "needs a placement"),
    ],
)
def test_placements_are_checked(fn, types, message):
    with pytest.raises(TypeError, match=message):
        fedcore.federated_computation(fn, *types)


@pytest.mark.parametrize(
    ("fn", "types", "message"),
    [
        (
            lambda x: fedcore.federated_map(to_float, x),
            (FLOATS,),
            "`federated_map` needs `fn` to take what it is called with",
        ),
        (
            lambda x: fedcore.federated_map(one, x),
            (FLOATS,),
            "`federated_map` needs `fn` to take an argument of type `float32`",
        ),
        (
            lambda x: fedcore.federated_map(x, x),
            (FLOATS,),
            "`fn` to be a function, found",
        ),
        (
            lambda x: fedcore.federated_eval(to_float, SERVER),
            (FLOATS,),
            "`federated_eval` needs `fn` to take no argument, found that it takes `int32`",
        ),
        (
            lambda x, y: fedcore.federated_map(lambda z: y, x),
            (INTS, at_server(tf.int32)),
            "`federated_map` needs `fn` to compute at one place",
        ),
        (
            lambda x: fedcore.federated_map(
                lambda z: fedcore.federated_value(z, SERVER), x
            ),
            (INTS,),
            "`fn` to compute at one place, found in it a value of federated type",
        ),
        (
            lambda x: fedcore.federated_map(lambda z: tf.square(z), x),
            (INTS,),
            "TensorFlow needs tensors, found a value of a federated computation",
        ),
        (
            lambda x: fedcore.sequence_map(to_float, x),
            (SequenceType(tf.float32),),
            "`sequence_map` needs `fn` to take what it is called with",
        ),
    ],
)
def test_functions_are_checked(fn, types, message):
    with pytest.raises(TypeError, match=message):
        fedcore.federated_computation(fn, *types)


@pytest.mark.parametrize(
    ("member", "found"),
    [
        (tf.bool, "it is `bool`"),
        (tf.string, "it is `string`"),
        (OD(a=tf.int32, b=[tf.int32, tf.bool]), r"`b\[1\]` is `bool`"),
        (SequenceType(tf.int32), r"it is `int32\*`"),
        ((tf.int32, [None]), r"one known shape.* it is `int32\[\?\]`"),
    ],
)
def test_what_cannot_be_summed(member, found):
    with pytest.raises(SumIncompatibleError, match=f"`federated_sum` needs .*{found}"):
        fedcore.federated_computation(fedcore.federated_sum, at_clients(member))
    if not isinstance(member, SequenceType):
        with pytest.raises(
            SumIncompatibleError, match=f"`sequence_sum` needs .*{found}"
        ):
            fedcore.federated_computation(fedcore.sequence_sum, SequenceType(member))


@pytest.mark.parametrize(
    ("fn", "types", "message"),
    [
        (fedcore.federated_mean, (INTS,), "`federated_mean` needs floats at CLIENTS"),
        (
            fedcore.federated_mean,
            (at_clients(OD(a=tf.float32, b=tf.int32)),),
            "`b` is `int32`",
        ),
        (
            fedcore.federated_mean,
            (at_clients((tf.float32, [None])),),
            "one known shape",
        ),
        (fedcore.federated_max, (at_clients(tf.bool),), "`federated_max` needs real"),
        (
            fedcore.federated_min,
            (at_clients(tf.complex64),),
            "`federated_min` needs real",
        ),
        (fedcore.federated_min, (at_clients((tf.int32, [None])),), "one known shape"),
        (
            lambda x, w: fedcore.federated_mean(x, w),
            (FLOATS, at_clients((tf.float32, [2]))),
            "`weight` to be a scalar number for each client",
        ),
        (
            lambda x, w: fedcore.federated_mean(x, w),
            (FLOATS, at_clients(tf.string)),
            "`weight` to be a scalar number for each client",
        ),
        (lambda x: fedcore.federated_secure_sum(x, 5), (FLOATS,), "needs integers"),
        (
            lambda x: fedcore.federated_secure_sum(x, 5.0),
            (INTS,),
            "`max_input` to be an int",
        ),
        (
            lambda x: fedcore.federated_secure_sum(x, (5, 5)),
            (INTS,),
            "`max_input` to be",
        ),
        (
            lambda x: fedcore.federated_secure_sum_bitwidth(x, "8"),
            (INTS,),
            "`bitwidth` to",
        ),
        (
            lambda x: fedcore.federated_secure_modular_sum(x, 5.0),
            (INTS,),
            "`modulus` to",
        ),
        (fedcore.sequence_sum, (INTS,), "`sequence_sum` needs a sequence, found"),
        (lambda x: fedcore.sequence_map(to_float, x), (tf.int32,), "needs a sequence"),
        (
            lambda x: fedcore.sequence_reduce(x, 0.0, lambda a, b: b),
            (SequenceType(tf.int32),),
            "`sequence_reduce` needs `op` to return what `zero` is, `float32`, found",
        ),
        (
            lambda x: fedcore.federated_aggregate(x, 0, lambda a, b: "s", add, same),
            (INTS,),
            "`federated_aggregate` needs `merge` to take what it is called with",
        ),
        (
            lambda x: fedcore.federated_aggregate(
                x, 0, lambda a, b: "s", lambda a, b: a, same
            ),
            (INTS,),
            "needs `accumulate` to return an accumulator of type `int32`, found `string`",
        ),
        (
            lambda x: fedcore.federated_aggregate(x, 0, add, lambda a, b: True, same),
            (INTS,),
            "needs `merge` to return an accumulator of type `int32`, found `bool`",
        ),
    ],
)
def test_types_are_checked(fn, types, message):
    with pytest.raises(TypeError, match=message):
        fedcore.federated_computation(fn, *types)


@pytest.mark.parametrize(
    ("keys", "limit", "message"),
    [
        (
            (tf.int32, [None]),
            at_server(tf.int32),
            "`client_keys` to be int32 vectors of",
        ),
        ((tf.int64, [2]), at_server(tf.int32), "`client_keys` to be int32 vectors of"),
        (tf.int32, at_server(tf.int32), "`client_keys` to be int32 vectors of"),
        ((tf.int32, [2]), at_server(tf.int64), "`max_key` to be `int32@SERVER`"),
        ((tf.int32, [2]), tf.int32, "`max_key` to be a federated value at SERVER"),
        ((tf.int32, [2]), INTS, "`max_key` to be a federated value at SERVER"),
    ],
)
def test_federated_select_checks_its_keys(keys, limit, message):
    def fn(keys, limit, value):
        return fedcore.federated_select(keys, limit, value, gather)

    with pytest.raises(TypeError, match=message):
        fedcore.federated_computation(fn, at_clients(keys), limit, at_server(VECTOR))


# --- The table -----------------------------------------------------------------------


def _intrinsics(node):
    return [n for n in ir.walk(node) if isinstance(n, ir.Intrinsic)]


def test_every_operator_is_public_and_documented():
    for uri, operator in INTRINSICS.items():
        assert getattr(fedcore, uri) is operator.function
        doc = operator.function.__doc__
        assert "Args:" in doc
        assert "Returns:" in doc
        assert "Raises:" in doc


@pytest.mark.parametrize(
    ("fn", "type_"),
    [
        (fedcore.federated_sum, PAIRS),
        (fedcore.federated_mean, FLOATS),
        (lambda x: fedcore.federated_mean(x, x), FLOATS),
        (fedcore.federated_max, PAIRS),
        (fedcore.federated_min, PAIRS),
        (lambda x: fedcore.federated_secure_sum(x, 5), INTS),
        (lambda x: fedcore.federated_secure_sum_bitwidth(x, 5), INTS),
        (lambda x: fedcore.federated_secure_modular_sum(x, 5), INTS),
        (fedcore.sequence_sum, SequenceType(tf.int32)),
        (lambda x: fedcore.federated_value(x, CLIENTS), tf.int32),
        (lambda x: fedcore.federated_value(x, CLIENTS), [tf.int32, tf.bool]),
    ],
)
def test_a_body_has_the_type_of_its_operator(fn, type_):
    computation = fedcore.federated_computation(fn, type_)
    [node] = _intrinsics(computation.node)
    body = body_of(node)
    assert ir.check(body) is body
    assert body.type.result is node.type.result
    assert body.type.parameter is node.type.parameter
    assert node.uri not in {n.uri for n in _intrinsics(body) if n.type is node.type}


def test_what_is_primitive_has_no_body():
    computation = fedcore.federated_computation(
        lambda x: fedcore.federated_map(to_float, x), INTS
    )
    [node] = _intrinsics(computation.node)
    assert body_of(node) is None
    server = fedcore.federated_computation(lambda: fedcore.federated_value(1, SERVER))
    assert body_of(_intrinsics(server.node)[0]) is None


def test_a_trace_is_a_checked_tree():
    def fn(x, y):
        total = fedcore.federated_sum(x)
        return OD(mean=fedcore.federated_mean(y, x), pair=[total, total])

    node = fedcore.federated_computation(fn, INTS, FLOATS).node
    assert ir.check(node) is node
    assert len(_intrinsics(node)) == 2


def test_types_of_literals_are_exact():
    node = fedcore.federated_computation(lambda: 2**40).node
    assert node.result == ir.literal(2**40, TensorType(tf.int64))
