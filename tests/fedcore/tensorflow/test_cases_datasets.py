"""Datasets as arguments, in loops, and as results."""

import collections

import numpy as np
import tensorflow as tf

from fedcore.tensorflow import _graph, _ops
from fedcore.types import SequenceType, StructWithPythonType, TensorType

F32 = tf.TensorSpec([], tf.float32)


def _sum_in_a_loop(ds):
    total = tf.Variable(0.0)
    for batch in ds:
        total.assign_add(tf.reduce_sum(batch["x"]))
    return total


def test_a_loop_over_a_dataset(agrees, batches_spec, batches):
    agrees(_sum_in_a_loop, [batches_spec()], [batches()])


def test_a_loop_over_a_dataset_does_not_become_a_reduce(traced, batches_spec):
    graph = traced(_sum_in_a_loop, batches_spec()).graph
    names = _ops.op_names(_graph.unpack(graph).graph_def)
    assert "ReduceDataset" not in names
    assert "IteratorGetNextAsOptional" in names


def test_autograph_outside_a_trace_still_reduces(batches):
    concrete = tf.function(_loss_free_sum).get_concrete_function(batches())
    assert any(op.type == "ReduceDataset" for op in concrete.graph.get_operations())


def _loss_free_sum(ds):
    total = 0.0
    for batch in ds:
        total += tf.reduce_sum(batch["x"])
    return total


def test_break_and_several_values_in_a_dataset_loop(agrees, batches_spec, batches):
    def fn(ds):
        total, seen = 0.0, 0
        for batch in ds:
            if seen >= 2:
                break
            total += tf.reduce_sum(batch["x"])
            seen += 1
        return total, seen

    agrees(fn, [batches_spec()], [batches()])


def test_an_empty_dataset(agrees, batches_spec, batches):
    agrees(_sum_in_a_loop, [batches_spec()], [batches().take(0)])


def test_reduce(agrees, batches_spec, batches):
    def fn(ds):
        return ds.reduce(0.0, lambda s, b: s + tf.reduce_sum(b["x"]))

    agrees(fn, [batches_spec()], [batches()])


def test_a_loop_over_an_iterator_in_an_inner_function(agrees, batches_spec, batches):
    def fn(ds):
        @tf.function
        def go(ds):
            total = 0.0
            for batch in iter(ds):
                total += tf.reduce_sum(batch["x"])
            return total

        return go(ds)

    agrees(fn, [batches_spec()], [batches()])


def test_a_dataset_is_a_result(agrees, batches_spec, batches):
    def fn(ds, k):
        return collections.OrderedDict(
            scaled=ds.map(lambda b: b["x"] * k),
            count=ds.reduce(np.int64(0), lambda s, _: s + 1),
        )

    computation = agrees(fn, [batches_spec(), F32], [batches(), 3.0])
    assert str(computation.type.result) == "<scaled=float32[?,4]*,count=int64>"


def test_a_dataset_that_captures_a_variable_is_a_result(agrees, batches_spec, batches):
    def fn(ds):
        v = tf.Variable(2.0)
        v.assign_add(1.0)
        return ds.map(lambda b: b["x"] * v)

    expected = batches().map(lambda b: b["x"] * 3.0)
    agrees(fn, [batches_spec()], [batches()], expected=expected)


def test_ragged_tensors_inside(agrees, batches_spec, batches):
    def fn(ds):
        ragged = ds.map(lambda b: tf.RaggedTensor.from_tensor(b["x"]))
        return ragged.reduce(0.0, lambda s, r: s + tf.reduce_sum(r))

    agrees(fn, [batches_spec()], [batches()])


def test_a_dataset_made_inside(agrees):
    def fn(n):
        return tf.data.Dataset.range(tf.cast(n, tf.int64)).map(lambda i: i * 2)

    agrees(fn, [tf.TensorSpec([], tf.int32)], [4])


def test_elements_keep_their_containers(traced):
    seen = []

    def fn(ds):
        seen.append(ds.element_spec)
        return ds.reduce(0.0, lambda s, e: s + e["b"] * e["a"][1])

    scalar = TensorType(tf.float32)
    pair = StructWithPythonType([(None, scalar), (None, scalar)], tuple)
    element = StructWithPythonType([("a", pair), ("b", scalar)], dict)
    computation = traced(fn, SequenceType(element))
    assert seen[0] == {"a": (F32, F32), "b": F32}
    ds = tf.data.Dataset.from_tensors({"b": 2.0, "a": (1.0, 3.0)})
    assert float(computation(ds)) == 6.0
