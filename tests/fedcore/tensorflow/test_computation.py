"""`tf_computation`: decorating, polymorphism, and calling one inside another."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore.tensorflow
from fedcore.tensorflow import _graph, _ops, tf_computation
from fedcore.types import SequenceType, TensorType

pytestmark = pytest.mark.usefixtures("graph_context")


def test_the_names_are_one_object():
    assert fedcore.tensorflow.computation is tf_computation
    assert fedcore.tensorflow.experimental_tf_fn_computation is tf_computation


def test_types_of_computations():
    def text(*args):
        return str(tf_computation(*args).type_signature)

    assert text(lambda: 1.0) == "( -> float32)"
    assert text(lambda x: x > 1, tf.int32) == "(int32 -> bool)"
    assert (
        text(lambda x, y: x + y, tf.int32, tf.int32) == "(<x=int32,y=int32> -> int32)"
    )
    assert text(lambda x: x, SequenceType(tf.int32)) == "(int32* -> int32*)"


def test_without_types_each_type_is_traced_once():
    traces = []

    @tf_computation
    def double(x):
        traces.append(x.dtype)
        return x * 2

    assert int(double(2)) == 4
    assert float(double(1.5)) == 3.0
    assert int(double(5)) == 10
    assert traces == [tf.int32, tf.float32]


def test_a_partial_and_a_tf_function_are_functions():
    add = functools.partial(tf.add, y=2.0)
    assert float(tf_computation(add, tf.float32)(1.0)) == 3.0
    half = tf.function(lambda x: x / 2.0)
    assert float(tf_computation(half, tf.float32)(1.0)) == 0.5


def test_the_user_code_runs_once():
    runs = []

    @tf_computation(tf.float32)
    def fn(x):
        runs.append(1)
        return x

    fn(1.0)
    fn(2.0)
    assert runs == [1]


@tf_computation(tf.float32)
def add_one(x):
    return x + 1.0


@tf_computation(tf.float32)
def count_up(x):
    v = tf.Variable(x)
    v.assign_add(1.0)
    return {"value": v, "pair": (x, x)}


def test_one_computation_inside_another():
    @tf_computation(tf.float32)
    def outer(x):
        counted = count_up(add_one(x))
        return counted["value"] + counted["pair"][1]

    assert float(outer(1.0)) == 5.0


def test_state_of_an_inner_call_is_its_own():
    @tf_computation
    def outer():
        return [count_up(1.0)["value"], count_up(1.0)["value"]]

    assert [float(v) for v in outer()] == [2.0, 2.0]


def test_state_of_a_call_in_a_loop_is_fresh_each_time():
    @tf_computation(tf.int32)
    def outer(n):
        total = 0.0
        for _ in tf.range(n):
            total += count_up(1.0)["value"]
        return total

    assert float(outer(3)) == 6.0


def test_a_call_inside_map_fn_and_a_dataset():
    @tf_computation
    def outer():
        mapped = tf.map_fn(add_one, tf.constant([1.0, 2.0]))
        ds = tf.data.Dataset.from_tensor_slices([5.0, 6.0]).map(add_one)
        return mapped, ds

    mapped, ds = outer()
    assert mapped.numpy().tolist() == [2.0, 3.0]
    assert [float(e) for e in ds] == [6.0, 7.0]


def test_gradients_flow_through_a_call():
    square = tf_computation(lambda x: x * x, tf.float32)

    @tf_computation(tf.float32)
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = square(x)
        return tape.gradient(y, x)

    assert float(slope(3.0)) == 6.0


def test_a_dataset_goes_into_a_call():
    @tf_computation(SequenceType(tf.int64))
    def total(ds):
        return ds.reduce(np.int64(0), lambda s, e: s + e)

    outer = tf_computation(lambda: total(tf.data.Dataset.range(4)))
    assert int(outer()) == 6


def test_a_polymorphic_computation_inside_another():
    double = tf_computation(lambda x: x * 2)

    @tf_computation(tf.int32, tf.float32)
    def outer(n, x):
        return double(n), double(x)

    n, x = outer(2, 1.5)
    assert (int(n), float(x)) == (4, 3.0)


def test_a_computation_defined_inside_another_trains():
    @tf_computation(tf.float32)
    def outer(x):
        @tf_computation(tf.float32)
        def inner(y):
            v = keras.Variable(y)
            with tf.GradientTape() as tape:
                loss = v * v
            keras.optimizers.SGD(0.5).apply_gradients([(tape.gradient(loss, v), v)])
            return v

        return inner(x) + 1.0

    assert float(outer(4.0)) == 1.0


def test_an_argument_of_another_type_in_a_call():
    with pytest.raises(TypeError, match=r"`add_one` needs `float32`, found `int32`"):
        tf_computation(lambda x: add_one(x), tf.int32)
    with pytest.raises(TypeError, match=r"`add_one` needs `float32`"):
        tf_computation(lambda: add_one([1.0, 2.0]))


def test_a_wrong_number_of_tensors_for_a_graph():
    with pytest.raises(ValueError, match="needs 1 tensors, found 2"):
        _graph.executable(add_one.node.graph)([1.0, 2.0])


def test_bytes_that_are_no_graph():
    with pytest.raises(ValueError, match="needs its packed bytes"):
        _graph.unpack(b"no graph at all")
    other = add_one.node.graph.replace(b'"version":1', b'"version":9', 1)
    with pytest.raises(ValueError, match="needs version 1, found 9"):
        _graph.unpack(other)


def test_the_operations_of_a_graph_include_those_of_inner_functions():
    @tf.function
    def inner(x):
        return tf.sin(x)

    computation = tf_computation(lambda x: inner(x) + 1.0, TensorType(tf.float32))
    names = _ops.op_names(_graph.unpack(computation.node.graph).graph_def)
    assert {"Sin", "AddV2"} <= names
    assert not any(name.startswith("fn_") for name in names)
