"""What cannot become a computation says so, and what to do instead."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.computation import ComputationReturnedNoneError
from fedcore.federated import federated_computation
from fedcore.tensorflow import TracingError, tf_computation
from fedcore.types import CLIENTS, FederatedType, FunctionType, to_type

F32 = tf.float32


def refused(fn, *specs):
    with pytest.raises(TracingError) as caught:
        tf_computation(fn, *specs)
    message = str(caught.value)
    assert len(message) < 600
    return message


def test_a_captured_model(small_model):
    model = small_model()
    message = refused(lambda x: model(tf.ones([1, 4]) * x), F32)
    assert "created outside of it" in message
    assert "tf.Variable" in message
    assert "inside that function, or in one that it calls" in message


def test_a_captured_variable():
    variable = tf.Variable(1.0, name="weight")
    message = refused(lambda x: variable + x, F32)
    assert "captures the tf.Variable 'weight:0'" in message


def test_a_captured_variable_of_keras():
    variable = keras.Variable(1.0)
    assert "created outside of it" in refused(lambda x: variable + x, F32)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_captured_optimizer(momentum):
    optimizer = keras.optimizers.SGD(0.1, momentum=momentum)

    def fn(x):
        variable = keras.Variable(1.0)
        optimizer.apply_gradients([(x, variable)])
        return variable

    assert "created outside of it" in refused(fn, F32)


def test_the_iterations_of_a_captured_optimizer():
    optimizer = keras.optimizers.SGD(0.1)
    message = refused(lambda x: optimizer.iterations + tf.cast(x, tf.int64), F32)
    assert "created outside of it" in message


def test_a_captured_metric():
    metric = keras.metrics.Mean()

    def fn(x):
        metric.update_state(x)
        return metric.result()

    assert "created outside of it" in refused(fn, F32)


def test_a_captured_dataset():
    ds = tf.data.Dataset.range(3)
    message = refused(lambda x: ds.reduce(np.int64(0), lambda a, b: a + b), F32)
    assert "captures a tf.data.Dataset" in message
    assert "SequenceType" in message


def test_a_captured_dataset_in_a_loop():
    ds = tf.data.Dataset.range(3)

    def fn(x):
        for i in ds:
            x += tf.cast(i, tf.float32)
        return x

    assert "captures a tf.data.Dataset" in refused(fn, F32)


def test_a_captured_table():
    keys = tf.constant(["a"])
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1]))
    table = tf.lookup.StaticHashTable(initializer, -1)
    assert "created outside of it" in refused(lambda s: table.lookup(s), tf.string)


def test_a_layer_built_in_another_computation():
    built = []

    def first(x):
        built.append(keras.layers.Dense(2))
        return built[0](tf.reshape(x, [1, 1]))

    tf_computation(first, F32)
    message = refused(lambda x: built[0](tf.reshape(x, [1, 1])), F32)
    assert "of another computation" in message
    assert "build it again inside this function" in message


@pytest.mark.parametrize("call", [tf.py_function, tf.numpy_function])
def test_python_called_at_run_time(call):
    message = refused(lambda x: call(lambda v: v, [x], tf.float32), F32)
    assert "tf.py_function" in message


def test_python_called_in_a_dataset():
    def fn(n):
        ds = tf.data.Dataset.range(n)
        return ds.map(lambda i: tf.numpy_function(lambda v: v, [i], tf.int64))

    assert "tf.numpy_function" in refused(fn, tf.int64)


def test_a_variable_literal_in_a_loop():
    def fn(n):
        total = 0.0
        for _ in tf.range(n):
            v = tf.Variable(1.0)
            total += v.assign_add(1.0)
        return total

    message = refused(fn, tf.int32)
    assert "inside a loop" in message
    assert "before the loop" in message


def test_a_variable_of_a_constant_tensor_in_a_loop():
    def fn(n):
        total = 0.0
        for _ in tf.range(n):
            total += tf.Variable(tf.zeros([])).assign_add(1.0)
        return total

    assert "inside a loop" in refused(fn, tf.int32)


def test_none_names_file_and_line():
    def forgets(x):
        x + 1.0

    with pytest.raises(ComputationReturnedNoneError) as caught:
        tf_computation(forgets, F32)
    line = forgets.__code__.co_firstlineno
    assert "forgets" in str(caught.value)
    assert f"test_trace_errors.py:{line}" in str(caught.value)


NO_VALUES = {
    "a Keras model": lambda: keras.Sequential([keras.layers.Dense(1)]),
    "a Keras layer": lambda: keras.layers.Dense(1),
    "a Keras optimizer": lambda: keras.optimizers.SGD(),
    "a Keras metric": lambda: keras.metrics.Mean(),
    "a Keras loss": lambda: keras.losses.MeanSquaredError(),
    "a symbolic KerasTensor": lambda: keras.Input((3,)),
    "None at result": lambda: [None, 1.0],
    "a tf.Operation": lambda: tf.group(tf.Variable(1.0).assign(2.0)),
}


@pytest.mark.parametrize("words", NO_VALUES)
def test_a_result_that_is_no_value(words):
    with pytest.raises(TypeError, match=words):
        tf_computation(NO_VALUES[words])


def test_the_place_of_what_is_no_value():
    with pytest.raises(TypeError, match=r"at result\.a\[1\]"):
        tf_computation(lambda: {"a": (1.0, keras.metrics.Mean())})


def test_a_computation_as_a_result():
    inner = tf_computation(lambda: 1.0)
    with pytest.raises(TypeError, match="float32"):
        tf_computation(lambda: [inner])


def test_a_python_object_as_a_result():
    with pytest.raises(TypeError, match="found `object` at result"):
        tf_computation(lambda: object())


@pytest.mark.parametrize(
    "spec",
    [FederatedType(F32, CLIENTS), FunctionType(to_type(F32), to_type(F32))],
    ids=["federated", "function"],
)
def test_a_parameter_that_is_not_local(spec):
    with pytest.raises(TypeError, match="needs tensors, sequences and structures"):
        tf_computation(lambda x: x, spec)


def test_an_error_of_the_user_keeps_its_class_and_place():
    def fn(x):
        if x.dtype == tf.float32:
            raise KeyError("no such thing")
        return x

    with pytest.raises(KeyError, match="no such thing"):
        tf_computation(fn, F32)


def test_a_federated_computation_called_inside():
    greet = federated_computation(lambda: "hello")
    with pytest.raises(RuntimeError, match="can call other tf_computations only"):
        tf_computation(lambda x: [x, greet()], F32)


class OwnError(ValueError):
    def __init__(self, number):
        super().__init__(f"number {number}")


def test_an_error_of_a_class_of_the_users_own():
    def fn(x):
        raise OwnError(7)

    with pytest.raises(OwnError, match="number 7"):
        tf_computation(fn, F32)


def test_a_failed_trace_leaves_nothing_behind(traced):
    variable = tf.Variable(1.0)
    refused(lambda x: variable + x, F32)
    assert float(traced(lambda x: x + 1.0, F32)(1.0)) == 2.0
    assert float(tf.function(lambda: variable + 1.0)()) == 2.0
