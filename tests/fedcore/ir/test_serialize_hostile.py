"""Bytes from strangers: a named error, in bounded time and memory, and nothing run."""

import random
import resource
import time
import tracemalloc

import pytest
import strategies_ir
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from fedcore import ir, structure
from fedcore.ir import _serialize, _serialize_wire
from fedcore.ir._serialize import SerializationError
from fedcore.types import (
    CLIENTS,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
)

INT = TensorType(tf.int32)
HEAD = 14
INT_TYPE = [1, 1, 3, 1]  # a table of one type, int32


def load_type(body):
    return _serialize.deserialize_type(_serialize_wire.seal(b"T", bytes(body)))


def load_node(body, **kwargs):
    data = _serialize_wire.seal(b"N", bytes(body))
    return _serialize.deserialize_node(data, **kwargs)


def load_value(body):
    return _serialize.deserialize_value(_serialize_wire.seal(b"V", bytes(body)))[0]


def uint(value):
    writer = _serialize_wire.Writer()
    writer.uint(value)
    return list(writer.data)


def samples():
    """A message of each kind, with a part of each sort in it."""
    x = ir.Reference("x", INT)
    add = strategies_ir.add_one()
    tree = ir.Lambda(
        "x",
        INT,
        ir.Block(
            (("y", ir.Call(add, x)), ("z", ir.literal("text", TensorType(tf.string)))),
            ir.Struct(
                (
                    ("a", ir.Selection(ir.Struct(((None, x),), tuple), 0)),
                    ("b", ir.Call(ir.Intrinsic("f", FunctionType(None, INT)))),
                    ("c", ir.Data("d", FederatedType(INT, CLIENTS))),
                    ("d", ir.Placement(CLIENTS)),
                )
            ),
        ),
    )
    dataset = tf.data.Dataset.range(5).batch(2)
    value_type = StructType(
        [
            ("s", FederatedType(SequenceType(TensorType(tf.int64, [None])), CLIENTS)),
            ("t", TensorType(tf.string, [None])),
            ("f", add.type),
            ("n", TensorType(tf.float32, tf.TensorShape(None))),
        ]
    )
    value = [[dataset, [[1]], []], ["a", "bc"], add, [[1.0, 2.0]]]
    rest_type = StructType(structure.to_elements(value_type)[1:])
    return [
        (
            _serialize.deserialize_value,
            _serialize.serialize_value(value[1:], rest_type)[0],
        ),
        (_serialize.deserialize_type, _serialize.serialize_type(tree.type)),
        (_serialize.deserialize_node, _serialize.serialize_node(tree)),
        (
            _serialize.deserialize_value,
            _serialize.serialize_value(value, value_type)[0],
        ),
    ]


# The frame


def test_every_truncation_is_refused():
    for load, data in samples():
        for size in range(len(data)):
            with pytest.raises(SerializationError):
                load(data[:size])


def test_every_truncation_with_a_right_digest_is_refused():
    for load, data in samples()[:-1]:
        for size in range(HEAD, len(data)):
            with pytest.raises(SerializationError):
                load(_serialize_wire.seal(data[5:6], data[HEAD:size]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "needs to start with b'FEDC'"),
        (b"PK\3\4" + bytes(20), "needs to start with b'FEDC'"),
        ("text", "needs bytes, found str"),
        (None, "needs bytes, found NoneType"),
        (b"FEDC\x02T" + bytes(8), "needs version 1, found 2"),
        (b"FEDC\x01V" + bytes(8), "needs kind b'T', found b'V'"),
        (b"FEDC\x01T" + bytes(8), "needs the digest of its body"),
    ],
)
def test_frames_must_be_whole(data, message):
    with pytest.raises(SerializationError, match=message):
        _serialize.deserialize_type(data)


def test_nothing_may_follow():
    assert load_type(INT_TYPE) is INT
    with pytest.raises(SerializationError, match="needs to end, found 1 more bytes"):
        load_type([*INT_TYPE, 0])


def mutations(count, seed):
    """Random changes of the samples, with the digest made right again."""
    draw = random.Random(seed)
    pool = samples()
    for _ in range(count):
        # Few of the last, with sequences: `tf.data` takes its time.
        load, data = draw.choices(pool, (20, 20, 20, 1))[0]
        body = bytearray(data[HEAD:])
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            at = draw.randrange(len(body) or 1)
            match draw.randrange(5):
                case 0:
                    body[at : at + 1] = bytes([draw.randrange(256)])
                case 1:
                    body[at : at + 1] = bytes([body[at] ^ 1 << draw.randrange(8)])
                case 2:
                    del body[at : at + draw.randrange(1, 9)]
                case 3:
                    body[at:at] = bytes(draw.choices((0, 1, 127, 128, 255), k=3))
                case 4:
                    other = draw.choice(pool)[1]
                    start = draw.randrange(HEAD, len(other))
                    body[at:at] = other[start : start + draw.randrange(1, 33)]
            if not body:
                break
        yield load, data[5:6], bytes(body)


def check_mutations(count, seed):
    refused = 0
    for load, kind, body in mutations(count, seed):
        before = time.process_time()
        try:
            loaded = load(_serialize_wire.seal(kind, body))
        except SerializationError:
            refused += 1
        else:
            if isinstance(loaded, ir.Node):
                ir.check(loaded)
                assert _serialize.serialize_node(loaded)
        assert time.process_time() - before < 5
    return refused


def test_mutations_are_refused_or_sound():
    refused = check_mutations(3000, seed=1)
    assert 2000 < refused < 3000  # some still say something


def test_mutations_without_a_right_digest_are_refused():
    draw = random.Random(2)
    for load, data in samples():
        for _ in range(300):
            changed = bytearray(data)
            changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            with pytest.raises(SerializationError):
                load(bytes(changed))


@pytest.mark.slow
def test_a_hundred_thousand_mutations_are_refused_or_sound():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert check_mutations(100_000, seed=3) > 60_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # kilobytes


# Types


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([0], "needs a type, found none"),
        ([1, 7], "tag from 0 to 6, found 7"),
        ([1, 1, 200, 1, 1], "is not a type"),
        ([1, 1, 101, 1], "needs a plain dtype"),
        ([1, 1, 3, *uint(2**40)], "needs a rank of at most 254"),
        ([1, 1, 3, 3, *uint(2**40), *uint(2**40)], "fewer than 2.62 elements"),
        ([1, 2, 0], "A type needs a number below 0, found 0"),
        ([*uint(2**50), 6], "claims 1125899906842624 items"),
        ([1, 3, 0, *uint(2**50)], "claims 1125899906842624 items"),
        ([1, 3, 9, 0], "A container needs a number below 7, found 9"),
        ([2, 6, 3, 0, 2, 2, 97, 0, 2, 97, 0], "names that differ"),
        ([2, 6, 3, 2, 1, 2, 97, 0], "A `list` needs other names"),
        ([2, 6, 3, 1, 1, 0, 0], "A `OrderedDict` needs other names"),
        ([2, 6, 3, 5, 1, 0, 0], "A `RaggedTensor` needs other names"),
        ([2, 6, 3, 0, 1, 2, 255, 0], "A name needs UTF-8"),
        ([1, 0, 1, 255], "A text needs UTF-8"),
        ([2, 6, 5, 0, 2, 0], "A placement needs a number below 2, found 2"),
        ([2, 6, 5, 0, 0, 2], "A flag needs a number below 2, found 2"),
        ([3, 6, 4, 0, 0, 2, 1], "is not a type"),
        ([1, 128, 0], "in its shortest form"),
        ([1, *[255] * 10], "in its shortest form"),
    ],
)
def test_types_must_be_sound(body, message):
    with pytest.raises(SerializationError, match=message):
        load_type(body)


def nested_types(levels):
    """Each type a structure of the one before, twice."""
    body = [*uint(levels + 1), 1, 3, 1]
    for i in range(levels):
        body += [3, 0, 2, 0, *uint(i), 0, *uint(i)]
    return body


def test_types_nested_too_deep_are_refused():
    body = [*uint(101), 1, 3, 1]
    for i in range(100):
        body += [3, 0, 1, 0, *uint(i)]
    with pytest.raises(SerializationError, match="at most 100 levels"):
        load_type(body)


def test_types_that_unfold_beyond_measure_are_refused():
    with pytest.raises(SerializationError, match="with each part in its place"):
        load_type(nested_types(60))


def test_many_types_that_are_walked_are_refused():
    body = [*uint(15 + 20_000), *nested_types(14)[1:]]
    body += [5, 14, 0, 0] * 20_000
    with pytest.raises(SerializationError, match="with each part in its place"):
        load_type(body)


# Nodes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([0, 0], "needs a node, found none"),
        ([0, 1, 11], "tag from 0 to 10, found 11"),
        ([*INT_TYPE, 1, 0, 0, 0], "The reference `v0` is not bound"),
        ([*INT_TYPE, 1, 0, 0, 1], "A type needs a number below 1, found 1"),
        ([*INT_TYPE, 2, 7, 0, 1, 0, 0], "needs a structure, found `placement`"),
        ([*INT_TYPE, 2, 2, 0, 0, 1, 0, 5], "needs an index below 0, found 5"),
        ([*INT_TYPE, 2, 7, 0, 3, 0, 0], "A call needs a function, found `placement`"),
        ([*INT_TYPE, 2, 7, 0, 3, 0, 2], "An argument needs a number below 1, found 1"),
        ([*INT_TYPE, 2, 7, 0, 4, 0, 2], "A flag needs a number below 2, found 2"),
        ([*INT_TYPE, 3, 7, 0, 4, 0, 1, 0, 0, 4, 1, 1, 0, 0], "`v0` is bound twice"),
        ([*INT_TYPE, 2, 7, 0, 7, 1], "needs every entry, found 1 beside it"),
        ([*INT_TYPE, 1, 6, 0, 0], "needs a name"),
        ([*INT_TYPE, 1, 8, 0, 0], "needs a function type, found `int32`"),
        ([1, 6, 1, 10, 0, 0], "A constant needs a tensor type, found `placement`"),
        ([*INT_TYPE, 2, 7, 0, 5, *uint(2**40)], "claims 1099511627776 items"),
        ([*INT_TYPE, 2, 7, 0, 2, 0, 2, 2, 97, 0, 2, 97, 0], "names that differ"),
        ([*INT_TYPE, 1, 9, *uint(2**40)], "needs 1099511627776 more bytes"),
        ([2, 6, 4, 0, 0, 1, 10, 1, 0], "A constant needs a tensor type"),
    ],
)
def test_nodes_must_be_sound(body, message):
    with pytest.raises(SerializationError, match=message):
        load_node(body)


def test_trees_nested_too_deep_are_refused():
    types = [2, 1, 3, 1, 4, 1, 0]  # int32, (int32 -> int32)
    body = [*types, *uint(202), 6, 1, 102, 1, 9, 1, 100, 0]  # f, data(d)
    for i in range(1, 201):
        body += [3, 0, *uint(i + 1)]
    with pytest.raises(SerializationError, match="at most 200 levels"):
        load_node(body)


def test_trees_that_unfold_beyond_measure_are_refused():
    body = [0, 61, 7, 0]
    for i in range(60):
        body += [2, 0, 2, 0, i, 0, i]
    with pytest.raises(SerializationError, match="with each part in its place"):
        load_node(body)


def literal_of(**fields):
    proto = tensor_pb2.TensorProto(**fields).SerializeToString()
    return [*INT_TYPE, 1, 10, 0, *uint(len(proto)), *proto]


def test_constants_must_hold_each_value():
    sizes = {"dim": [{"size": 2**34}]}
    with pytest.raises(SerializationError, match="needs its shape"):
        load_node(literal_of(dtype=3, int_val=[1], tensor_shape=sizes))
    with pytest.raises(SerializationError, match="needs its dtype"):
        load_node(literal_of(dtype=1, float_val=[1]))
    with pytest.raises(SerializationError, match="needs 1 values, found 0"):
        load_node(literal_of(dtype=3))
    with pytest.raises(SerializationError, match="needs 1 values, found 2"):
        load_node(literal_of(dtype=3, int_val=[1, 2]))
    with pytest.raises(SerializationError, match="needs 4 values, found 3"):
        load_node(literal_of(dtype=3, tensor_content=b"abc"))
    with pytest.raises(SerializationError, match="needs a shape"):
        load_node(literal_of(dtype=3, tensor_shape={"unknown_rank": True}))
    with pytest.raises(SerializationError, match="needs a sound shape"):
        load_node(literal_of(dtype=3, tensor_shape={"dim": [{"size": -1}]}))
    with pytest.raises(SerializationError, match="needs a TensorProto"):
        load_node([*INT_TYPE, 1, 10, 0, 3, 255, 255, 255])
    big = [1, 1, 3, 2, *uint(2**34 + 1)]
    proto = tensor_pb2.TensorProto(dtype=3, int_val=[1], tensor_shape=sizes)
    proto = proto.SerializeToString()
    with pytest.raises(SerializationError, match="needs 17179869184 values, found 1"):
        load_node([*big, 1, 10, 0, *uint(len(proto)), *proto])


# Values


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([*INT_TYPE, 1, 2, 3], "needs 4 more bytes, found 3"),
        ([1, 1, 3, 2, 0, *uint(2**62)], "needs a sound shape"),
        ([1, 1, 3, 2, 0, *uint(2**35)], "more bytes, found 0"),
        ([1, 1, 7, 2, 0, *uint(2**35)], "claims 34359738368 strings"),
        ([1, 1, 7, 1, *uint(2**35)], "needs 34359738368 more bytes"),
        ([1, 1, 10, 1, 2], "A bool needs a byte of 0 or 1"),
        ([1, 1, 21, 1], "no values of dtype variant"),
        ([1, 6], "no values of type `placement`"),
        ([2, 1, 3, 1, 2, 0, *uint(2**40)], "claims 1099511627776 items"),
        ([2, 1, 3, 1, 2, 0, 1, 2], "A flag needs a number below 2"),
        ([2, 1, 3, 1, 2, 0, 1, 1, 1, *[0] * 8], "do not have the shape"),
        ([2, 1, 3, 2, 0, 2, 0, 1, 1, 1, *[255] * 8], "needs? sound shapes"),
        ([2, 1, 3, 2, 0, 2, 0, 1, 0, *uint(2**62)], "needs a sound shape"),
        ([2, 3, 0, 0, 2, 0, 0], "needs elements with a tensor"),
        ([2, 1, 3, 1, 5, 0, 0, 0, *uint(2**40)], "claims 1099511627776 items"),
        ([2, 1, 3, 1, 4, 0, 0, 0, 1, 7, 0], "needs that type, found `placement`"),
    ],
)
def test_values_must_be_sound(body, message):
    with pytest.raises(SerializationError, match=message):
        load_value(body)


def test_values_with_more_parts_than_bytes_are_refused():
    types = [2, 3, 0, 0, 5, 0, 0, 0]  # {<>}@CLIENTS
    assert len(load_value([*types, *uint(60_000)])) == 60_000
    wide = [3, 3, 0, 0, 3, 0, 100, *[0, 0] * 100, 5, 1, 0, 0]
    with pytest.raises(SerializationError, match="far more parts than it has bytes"):
        load_value([*wide, *uint(60_000)])


def test_memory_is_not_taken_on_the_word_of_a_message():
    tracemalloc.start()
    try:
        for body in (
            [1, 1, 3, 2, 0, *uint(2**35)],
            [1, 1, 7, 2, 0, *uint(2**35)],
            [2, 1, 3, 1, 2, 0, *uint(2**40)],
            [*uint(2**50), 6],
        ):
            with pytest.raises(SerializationError):
                load_value(body)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
