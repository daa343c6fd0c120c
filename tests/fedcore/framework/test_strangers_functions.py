"""A computation from a stranger runs its own functions, whatever it calls them."""

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

import fedcore
from fedcore import ir


def looped(step):
    @fedcore.tf_computation(tf.int32)
    def loop(n):
        total = tf.constant(0)
        for _ in tf.range(n):
            total += step
        return total

    return loop


def with_names_of(impostor: bytes, model: bytes) -> bytes:
    """The impostor's graph, its functions called as the model's are."""
    header = int.from_bytes(impostor[:4], "big") + 4
    graph = graph_pb2.GraphDef.FromString(impostor[header:])
    other = graph_pb2.GraphDef.FromString(model[int.from_bytes(model[:4], "big") + 4 :])
    text = graph.SerializeToString()
    pairs = zip(graph.library.function, other.library.function, strict=True)
    for old, new in pairs:
        old, new = old.signature.name.encode(), new.signature.name.encode()
        if len(old) == len(new):
            text = text.replace(old, new)
    assert text != graph.SerializeToString()
    return impostor[:header] + text


def test_a_borrowed_name_does_not_borrow_the_function():
    ours, theirs = looped(1), looped(5)
    assert ours(3) == 3  # registers our functions
    forged = ir.Compiled(
        with_names_of(theirs.node.graph, ours.node.graph), theirs.node.type
    )
    data = ir.serialize_node(forged)
    assert fedcore.framework.deserialize_computation(data)(3) == 15


def test_bytes_of_our_own_come_back_as_they_were():
    ours = looped(2)
    again = fedcore.framework.deserialize_computation(
        fedcore.framework.serialize_computation(ours)
    )
    assert again.to_building_block() == ours.to_building_block()
    assert again(4) == 8
