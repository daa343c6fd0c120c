"""Graphs inside graphs: emitting, composing and pruning, under XLA too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from fedcore.computation import Unpack
from fedcore.tensorflow import TracingError, _compose, _graph, _ops
from fedcore.tensorflow._trace import trace
from fedcore.types import StructType, TensorType, to_type

F32 = TensorType(tf.float32)


def graph_of(fn, *specs):
    parameter = StructType([to_type(s) for s in specs]) if specs else None
    return trace(fn, parameter, Unpack(tuple(range(len(specs))), ()))[0]


def run(graph, *args, seed=None):
    return [out.numpy() for out in _graph.executable(graph)(args, seed)]


def ops_of(graph):
    return _ops.op_names(_graph.unpack(graph).graph_def)


def counted(x):
    v = tf.Variable(x)
    v.assign_add(1.0)
    return v


def test_compose_runs_the_second_on_the_results_of_the_first():
    first = graph_of(lambda x: (x, x * 2.0), F32)
    second = graph_of(lambda a, b: a + 10.0 * b, F32, F32)
    assert run(_compose.compose(first, second), 1.0) == [21.0]


def test_compose_keeps_states_apart():
    graph = graph_of(counted, F32)
    assert run(_compose.compose(graph, graph), 1.0) == [3.0]


def test_compose_is_deterministic():
    graph = graph_of(counted, F32)
    assert _compose.compose(graph, graph) == _compose.compose(graph, graph)


def test_compose_draws_apart_from_one_seed():
    noisy = graph_of(lambda x: x + keras.random.normal(()), F32)
    twice = _compose.compose(noisy, noisy)
    (once,) = run(noisy, 0.0, seed=[1, 2])
    (both,) = run(twice, 0.0, seed=[1, 2])
    assert run(twice, 0.0, seed=[1, 2]) == [both]
    assert run(twice, 0.0, seed=[1, 3]) != [both]
    assert both != pytest.approx(2 * once)


def test_compose_of_graphs_that_do_not_fit():
    one = graph_of(lambda x: x, F32)
    two = graph_of(lambda x, y: x + y, F32, F32)
    with pytest.raises(ValueError, match="needs 2 outputs of the first graph, found 1"):
        _compose.compose(one, two)


def test_input_specs():
    graph = graph_of(lambda x, y: x, TensorType(tf.int32, [None, 3]), F32)
    assert _compose.input_specs(graph) == [
        tf.TensorSpec([None, 3], tf.int32),
        tf.TensorSpec([], tf.float32),
    ]


def test_emit_of_an_input_that_is_an_output_and_one_that_is_unused():
    graph = graph_of(lambda x, y: (x, 2.0), F32, F32)
    out = tf.function(lambda x: _compose.emit(graph, [x, x]))(tf.constant(7.0))
    assert [float(value) for value in out] == [7.0, 2.0]


def test_a_recursive_function_has_no_canonical_form():
    graph_def = graph_pb2.GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    for nodes in (graph_def.node, function.node_def):
        node = nodes.add(name="call", op="PartitionedCall")
        node.attr["f"].func.name = "f"
    with pytest.raises(TracingError, match=r"recursive tf\.function, found `f`"):
        _graph.pack(_graph.Unpacked(graph_def, (), ()))


def test_emit_needs_a_seed_outside_of_a_trace():
    noisy = graph_of(lambda: keras.random.normal(()))
    with pytest.raises(ValueError, match="needs the hidden seed"):
        tf.function(lambda: _compose.emit(noisy, []))()
    out = tf.function(lambda: _compose.emit(noisy, [], seed=tf.constant([1, 2])))()
    assert float(out[0]) == run(noisy, seed=[1, 2])[0]


WEIGHTS = [TensorType(tf.float32, s) for s in ([4, 8], [8], [8, 3], [3])]
BATCH = [TensorType(tf.float32, [None, 4]), TensorType(tf.int32, [None])]


def keras_step(*args):
    *weights, x, y = args
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    weights = list(weights)
    state = [variable.value for variable in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        logits, _ = model.stateless_call(weights, state, x, training=False)
        losses = keras.losses.sparse_categorical_crossentropy(
            y, logits, from_logits=True
        )
        loss = tf.reduce_mean(losses)
    return [w - 0.1 * g for w, g in zip(weights, tape.gradient(loss, weights))]


def step_values():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=t.shape).astype(np.float32) for t in WEIGHTS]
    x = rng.normal(size=(5, 4)).astype(np.float32)
    return [*weights, x, np.array([0, 1, 2, 0, 1], np.int32)]


def test_prune_drops_a_model_built_for_its_stateless_call():
    graph = graph_of(keras_step, *WEIGHTS, *BATCH)
    pruned = _compose.prune(graph)
    assert "VarHandleOp" in ops_of(graph)
    assert "VarHandleOp" not in ops_of(pruned)
    assert not any("Random" in name for name in ops_of(pruned))
    assert _graph.executable(graph).has_seed
    assert not _graph.executable(pruned).has_seed
    for a, b in zip(run(graph, *step_values()), run(pruned, *step_values())):
        np.testing.assert_array_equal(a, b)


def test_xla_compiles_a_pruned_keras_step_in_a_loop():
    graph = graph_of(keras_step, *WEIGHTS, *BATCH)
    pruned = _compose.prune(graph)

    @tf.function(jit_compile=True)
    def three_steps(weights, x, y):
        def body(i, w):
            return i + 1, tuple(_compose.emit(pruned, [*w, x, y]))

        return tf.while_loop(lambda i, _: i < 3, body, (0, tuple(weights)))[1]

    *weights, x, y = [tf.constant(value) for value in step_values()]
    compiled = three_steps(weights, x, y)
    for _ in range(3):
        weights = _graph.executable(graph)([*weights, x, y])
    for a, b in zip(compiled, weights):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


LIVE_STATE = {
    "assigned": counted,
    "assigned in a loop": lambda x: _counted_in_a_loop(x),
    "assigned in an inner function": lambda x: _counted_inside(x),
    "read before it changes": lambda x: _read_then_change(x),
    "a table": lambda x: _with_a_table(x),
    "metric": lambda x: _metric(x),
}


def _counted_in_a_loop(x):
    v = tf.Variable(x)
    for _ in tf.range(3):
        v.assign_add(1.0)
    return v


def _counted_inside(x):
    v = tf.Variable(x)
    tf.function(lambda: v.assign_add(1.0))()
    return v


def _read_then_change(x):
    v = tf.Variable(x)
    before = v.read_value()
    v.assign(100.0)
    return before, v


def _with_a_table(x):
    table = tf.lookup.experimental.MutableHashTable(tf.int32, tf.float32, -1.0)
    table.insert(1, x)
    return table.lookup(1), table.lookup(2)


def _metric(x):
    mean, unused = keras.metrics.Mean(), keras.metrics.Sum()
    mean.update_state([x, x + 2.0])
    unused.update_state(x)
    return mean.result()


@pytest.mark.parametrize("name", LIVE_STATE)
def test_prune_keeps_state_that_is_read(name):
    graph = graph_of(LIVE_STATE[name], F32)
    assert run(_compose.prune(graph), 1.0) == run(graph, 1.0)


def test_prune_drops_state_that_only_a_loop_changes():
    def fn(x):
        v = tf.Variable(0.0)
        for _ in tf.range(3):
            v.assign_add(1.0)
        return x + 1.0

    graph = graph_of(fn, F32)
    pruned = _compose.prune(graph)
    assert "VarHandleOp" not in ops_of(pruned)
    assert run(pruned, 1.0) == [2.0]


def test_prune_keeps_a_check_that_can_fail():
    def fn(x):
        tf.debugging.assert_positive(x)
        return x * 2.0

    pruned = _compose.prune(graph_of(fn, F32))
    assert run(pruned, 1.0) == [2.0]
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(pruned, -1.0)
