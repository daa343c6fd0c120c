"""`debug`: calls as plain Python."""

import collections
import sys

import keras
import looked_into
import numpy as np
import pytest
import tensorflow as tf
from looked_into import CLIENTS, a_round, seen

import fedcore
import fedlearn
import fedsim


@pytest.fixture(scope="module")
def averaging():
    return looked_into.averaging()


def test_debug_runs_python_with_values():
    seen.clear()
    with fedsim.debug():
        total, _ = a_round(CLIENTS, 2.0)
    assert total == 2 * (3 + 3 + 15)
    assert [float(x.numpy()) for x in seen] == [3.0, 3.0, 15.0]
    assert not tf.config.functions_run_eagerly()


def test_debug_goes_into_functions_and_computations_inside():
    values = []

    @tf.function
    def inner(x):
        values.append(x)
        return x + 1

    @fedcore.tf_computation(tf.int32)
    def double(x):
        values.append(x)
        return x * 2

    outer = fedcore.tf_computation(lambda x: double(inner(x)), tf.int32)
    values.clear()
    with fedsim.debug():
        assert outer(3) == 8
    assert [int(value) for value in values] == [3, 4]


def test_debug_stops_at_breakpoints(monkeypatch):
    stopped = []

    def look():
        frame = sys._getframe(1)
        stopped.append((frame.f_code.co_name, frame.f_locals["doubled"]))

    monkeypatch.setattr(sys, "breakpointhook", look)

    @fedcore.tf_computation(tf.float32)
    def twice(x):
        doubled = 2 * x
        breakpoint()
        return doubled

    run = fedcore.federated_computation(
        lambda xs: fedcore.federated_map(twice, xs), fedcore.type_at_clients(tf.float32)
    )
    stopped.clear()  # it stops once when it is traced, too
    with fedsim.debug():
        assert run([1.0, 2.0]) == [2.0, 4.0]
    assert [(name, float(x.numpy())) for name, x in stopped] == [
        ("twice", 2.0),
        ("twice", 4.0),
    ]


def test_debug_nests_and_restores_what_was_before(monkeypatch):
    eager = tf.config.functions_run_eagerly
    with fedsim.debug():
        with pytest.raises(KeyError), fedsim.debug():
            raise KeyError("x")
        assert eager()
        assert a_round(CLIENTS, 1.0)[0] == 21.0
    assert not eager()
    tf.config.run_functions_eagerly(True)
    try:
        with fedsim.debug():
            pass
        assert eager()
    finally:
        tf.config.run_functions_eagerly(False)


def test_debug_runs_models_with_optimizers_and_metrics():
    seen_losses = []

    @fedcore.tf_computation(fedcore.TensorType(tf.float32, [None, 2]))
    def one_step(x):
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        optimizer, mean = keras.optimizers.SGD(0.1), keras.metrics.Mean()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        mean.update_state(loss)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        if tf.executing_eagerly():
            seen_losses.append(loss.numpy())
        return mean.result(), [v.value for v in variables]

    with fedsim.debug(seed=1):
        mean, weights = one_step(np.ones([3, 2], np.float32))
    assert seen_losses == [pytest.approx(mean)]
    assert [w.shape for w in weights] == [(2, 1), (1,)]


class HandWritten(fedlearn.Model):
    """A line through the origin; it keeps what its loss was, to be looked at."""

    losses: list = []

    def __init__(self):
        self.slope = tf.Variable(tf.zeros([1, 1]))
        self.batches = tf.Variable(0.0, trainable=False)

    trainable_variables = property(lambda self: [self.slope])
    non_trainable_variables = property(lambda self: [])
    local_variables = property(lambda self: [self.batches])
    input_spec = property(
        lambda self: collections.OrderedDict(
            x=tf.TensorSpec([None, 1]), y=tf.TensorSpec([None, 1])
        )
    )

    @tf.function
    def predict_on_batch(self, batch_input, training=True):
        return batch_input @ self.slope

    @tf.function
    def forward_pass(self, batch_input, training=True):
        predictions = self.predict_on_batch(batch_input["x"])
        loss = tf.reduce_mean((predictions - batch_input["y"]) ** 2)
        self.batches.assign_add(1.0)
        if tf.executing_eagerly():
            self.losses.append(float(loss.numpy()))
        return fedlearn.BatchOutput(loss, predictions, tf.shape(batch_input["x"])[0])

    @tf.function
    def report_local_unfinalized_metrics(self):
        return collections.OrderedDict(batches=[self.batches.read_value()])

    def metric_finalizers(self):
        return collections.OrderedDict(batches=lambda values: values[0])

    def reset_metrics(self):
        self.batches.assign(0.0)


def test_debug_goes_into_a_model_of_the_users_own():
    process = fedlearn.algorithms.build_weighted_fed_avg(
        HandWritten, client_optimizer_fn=lambda: keras.optimizers.SGD(0.1)
    )
    batch = collections.OrderedDict(
        x=np.ones([2, 1], np.float32), y=np.ones([2, 1], np.float32)
    )
    data = [[batch, batch], [batch]]
    fast = process.next(process.initialize(), data)
    HandWritten.losses.clear()
    with fedsim.debug():
        slow = process.next(process.initialize(), data)
    assert HandWritten.losses == pytest.approx([1.0, 0.64, 1.0])
    for a, b in zip(
        fast.state.global_model_weights.trainable,
        slow.state.global_model_weights.trainable,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_debug_shows_the_users_own_line():
    with fedsim.debug(), pytest.raises(fedsim.runtime.ClientError) as caught:
        a_round([[1.0], [99.0, 2.0]], 1.0)
    assert "Client 1 of 2 failed in `federated_map`" in str(caught.value)
    assert "in scaled_sum" in str(caught.value)
    assert "tf.debugging.assert_less(total, 100.0)" in str(caught.value)
    assert caught.value.client == 1


def test_debug_trains_as_the_fast_runtime_does(averaging):
    process, state, cohort = averaging
    fast = process.next(state, cohort)
    with fedsim.debug():
        slow = process.next(state, cohort)
    weights = zip(
        fast.state.global_model_weights.trainable,
        slow.state.global_model_weights.trainable,
    )
    for a, b in weights:
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_debug_ends_when_the_block_raises():
    before = fedcore.context.get_context_stack().current
    with pytest.raises(KeyError), fedsim.debug():
        raise KeyError("x")
    assert not tf.config.functions_run_eagerly()
    assert fedcore.context.get_context_stack().current is before


def test_debug_with_a_seed_draws_the_same_again():
    results = []
    for _ in range(2):
        with fedsim.debug(seed=3):
            results.append(a_round(CLIENTS, 2.0)[1])
    np.testing.assert_array_equal(*results)
