"""Runs, traces, threads and processes do not meet; nothing leaks."""

import collections
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.tensorflow import _graph

SHAPES = [(4, 8), (8,), (8, 3), (3,)]


@tf.function
def client_update(model, dataset, weights, optimizer):
    for variable, value in zip(model.trainable_variables, weights):
        variable.assign(value)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for batch in dataset:
        with tf.GradientTape() as tape:
            loss = loss_fn(batch["y"], model(batch["x"], training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return model.trainable_variables


@pytest.fixture
def tutorial(small_model):
    def fn(ds, *weights):
        optimizer = keras.optimizers.Adam(0.01)
        return client_update(small_model(), ds, weights, optimizer)

    return fn


@pytest.fixture
def specs(batches_spec):
    return [batches_spec(), *[tf.TensorSpec(s, tf.float32) for s in SHAPES]]


def weights():
    return [tf.random.stateless_normal(shape, [1, 2]) for shape in SHAPES]


def in_threads(count, work):
    failures = []

    def run():
        try:
            work()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def bits(result, as_arrays):
    return [array.tobytes() for array in as_arrays(result)]


def test_four_threads_on_one_computation(traced, tutorial, specs, batches, as_arrays):
    computation = traced(tutorial, *specs)
    ds, start = batches(), weights()
    expected = bits(computation(ds, *start), as_arrays)

    def call():
        for _ in range(10):
            assert bits(computation(ds, *start), as_arrays) == expected

    in_threads(4, call)


def test_four_threads_that_trace_at_once(traced, tutorial, specs, batches, as_arrays):
    alone = traced(tutorial, *specs)
    ds, start = batches(), weights()
    expected = bits(alone(ds, *start), as_arrays)

    def trace_and_call():
        computation = traced(tutorial, *specs)
        assert computation.graph == computation.again == alone.graph
        assert bits(computation(ds, *start), as_arrays) == expected

    in_threads(4, trace_and_call)


def test_the_executable_of_equal_bytes_is_one():
    def fn(x):
        return x + 1.0

    from fedcore.tensorflow._trace import trace
    from fedcore.types import TensorType

    graphs = [trace(fn, TensorType(tf.float32))[0] for _ in range(2)]
    assert graphs[0] is not graphs[1]
    assert _graph.executable(graphs[0]) is _graph.executable(graphs[1])


_IN_ANOTHER_PROCESS = """
import collections, sys
import numpy as np, tensorflow as tf
from fedcore.tensorflow._graph import executable

@tf.function
def client_update(x):  # a function of the same name is here already
    return x

client_update(tf.constant(1.0))
directory = sys.argv[1]
given = np.load(directory + "/in.npz")
columns = collections.OrderedDict(x=given["x"], y=given["y"])
ds = tf.data.Dataset.from_tensor_slices(columns).batch(6)
inputs = [tf.data.experimental.to_variant(ds)]
inputs += [tf.constant(given[f"w{i}"]) for i in range(4)]
with open(directory + "/graph", "rb") as file:
    outputs = executable(file.read())(inputs)
np.savez(directory + "/out.npz", *[tensor.numpy() for tensor in outputs])
"""


def test_the_bytes_run_in_a_fresh_process(
    traced, tutorial, specs, batches, as_arrays, tmp_path
):
    computation = traced(tutorial, *specs)
    ds, start = batches(), weights()
    expected = as_arrays(computation(ds, *start))
    (tmp_path / "graph").write_bytes(computation.graph)
    elements = list(ds.unbatch())
    columns = {k: np.stack([e[k].numpy() for e in elements]) for k in ("x", "y")}
    named = {f"w{i}": value.numpy() for i, value in enumerate(start)}
    np.savez(tmp_path / "in.npz", **columns, **named)
    subprocess.run(
        [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(tmp_path)],
        check=True,
        timeout=300,
    )
    with np.load(tmp_path / "out.npz") as out:
        for i, array in enumerate(expected):
            np.testing.assert_array_equal(out[f"arr_{i}"], array)


def resident_megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_variables_do_not_outlive_their_run(traced):
    def fn(x):
        return tf.reduce_sum(tf.Variable(tf.ones([1 << 20]) * x))

    computation = traced(fn, tf.float32)
    computation(1.0)
    before = resident_megabytes()
    for _ in range(300):
        computation(1.0)
    assert resident_megabytes() - before < 60  # each run holds 4 MB


def test_keras_global_state_is_untouched(traced, small_model):
    from keras.src.backend.common import global_state

    layer = keras.layers.Dense(1)
    keras.random.normal((1,))
    names = global_state.get_global_attribute("object_name_uids")
    counts = dict(names)
    generator = global_state.get_global_attribute("global_seed_generator")
    state = generator.state.numpy().tolist()
    traced(lambda: (small_model().trainable_variables, keras.random.normal((1,))))
    assert global_state.get_global_attribute("object_name_uids") is names
    assert dict(names) == counts
    assert global_state.get_global_attribute("global_seed_generator") is generator
    assert generator.state.numpy().tolist() == state
    stem, _, number = layer.name.partition("_")
    assert keras.layers.Dense(1).name == f"{stem}_{int(number or 0) + 1}"


def test_names_of_layers_do_not_depend_on_what_came_before(traced):
    def names():
        layer = keras.layers.Dense(2)
        layer.build((None, 2))
        return collections.OrderedDict({v.path: v.shape[0] for v in layer.variables})

    keras.layers.Dense(1)
    computation = traced(names)
    assert str(computation.type) == "( -> <dense/kernel=int32,dense/bias=int32>)"
    assert computation.graph == computation.again


def test_two_functions_with_one_name_do_not_clash(traced):
    def make(k):
        @tf.function
        def inner(x):
            return x * k

        return lambda x: inner(x) + inner(x)

    two, three = traced(make(2.0), tf.float32), traced(make(3.0), tf.float32)
    assert [float(two(1.0)), float(three(1.0)), float(two(1.0))] == [4.0, 6.0, 4.0]
