"""`record`: what chosen clients had and made, and doing it again."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from looked_into import CLIENTS, DATA, a_round, fed_avg, noise, seen

import fedcore
import fedsim


def test_record_keeps_what_chosen_clients_had_and_made():
    recording = fedsim.record(a_round, clients=[2], seed=5)
    total, mean = recording(CLIENTS, 2.0)
    assert total == 42.0
    assert mean.shape == (20,)
    assert {step.client for step in recording.steps} == {2}
    first = recording.client(2)[0]
    assert (first.operator, first.function) == ("federated_map", "scaled_sum")
    assert list(first.input[0].as_numpy_iterator()) == [4.0, 5.0, 6.0]
    assert (first.input[1], first.output) == (2.0, 30.0)
    sends = [s.operator for s in recording.steps if s.output_type is None]
    assert sends == ["federated_sum", "federated_mean"]
    assert "client 2: federated_map of scaled_sum" in repr(recording)


def test_replay_of_a_client_gives_the_same_bits():
    recording = fedsim.record(a_round, clients=[0, 1], seed=5)
    recording(CLIENTS, 2.0)
    before, after = recording.client(1), recording.replay(1)
    drawn = [step.output for step in before if step.function == "noise"]
    assert len(drawn) == 1
    assert len(np.unique(drawn[0])) == 2  # dropped, or not
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old.output, new.output)


@pytest.fixture(scope="module")
def drawing():
    """A process with dropout, over datasets that are shuffled without a seed."""
    return fed_avg(
        lambda dataset: dataset.shuffle(100).repeat(2).batch(20),
        lambda: [keras.layers.Dropout(0.3)],
        0.002,
    )


def assert_same_bits(some, others):
    for a, b in zip(tf.nest.flatten(some), tf.nest.flatten(others), strict=True):
        np.testing.assert_array_equal(a, b)


def test_replay_repeats_shuffles_and_dropout(drawing):
    process, state, cohort = drawing
    recording = fedsim.record(process.next, clients=[0, 2], seed=7)
    recording(state, cohort)
    before = recording.client(2)[0].output
    assert_same_bits(before, recording.replay(2)[0].output)
    alone = fedsim.record(process.next, clients=[2], seed=7)
    alone(state, cohort)
    assert_same_bits(before, alone.client(2)[0].output)
    other = fedsim.record(process.next, clients=[2], seed=8)
    other(state, cohort)
    with pytest.raises(AssertionError):
        assert_same_bits(before, other.client(2)[0].output)


def test_a_recorded_call_is_the_fast_runtimes_of_that_seed(drawing):
    process, state, cohort = drawing
    recorded = fedsim.record(process.next, clients=[], seed=7)(state, cohort)
    with fedcore.context.use(fedsim.local_context(seed=7)):
        fast = process.next(state, cohort)
    for a, b in zip(
        recorded.state.global_model_weights.trainable,
        fast.state.global_model_weights.trainable,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, value in recorded.metrics["client_work"]["train"].items():
        np.testing.assert_allclose(
            value, fast.metrics["client_work"]["train"][name], rtol=1e-5
        )


@fedcore.tf_computation(fedcore.SequenceType(tf.float32))
def in_what_order(xs):
    total, weight = 0.0, 1.0
    for x in xs:
        total, weight = total + weight * x, weight + 1.0
    return total


@fedcore.federated_computation(DATA)
def two_passes(data):
    return (
        fedcore.federated_map(in_what_order, data),
        fedcore.federated_map(in_what_order, data),
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda d: d.shuffle(50).map(lambda e: tf.cast(e["label"], tf.float32)),
        lambda d: d.map(lambda e: tf.cast(e["label"], tf.float32)).shuffle(50),
        lambda d: (
            d.map(lambda e: tf.cast(e["label"], tf.float32))
            .shuffle(50)
            .batch(3, drop_remainder=True)
            .map(tf.reduce_sum)
        ),
    ],
    ids=["rows", "mapped rows", "batches"],
)
def test_each_map_sees_a_clients_dataset_from_its_first_pass(form):
    train, _ = fedsim.datasets.emnist.load_synthetic(num_writers=2)
    data = [form(client) for client in train.clients(train.client_ids)]
    recording = fedsim.record(two_passes, seed=3)
    first, second = recording(data)
    assert first == second
    with fedsim.debug(seed=3):
        assert two_passes(data)[0] == pytest.approx(first)
    for client in (0, 1):
        seen = recording.client(client)[0].input
        weighted = sum(i * x for i, x in enumerate(seen.as_numpy_iterator(), 1))
        assert float(weighted) == pytest.approx(float(first[client]))
        assert recording.replay(client)[0].output == first[client]


def test_replay_in_debug_mode_runs_python():
    recording = fedsim.record(a_round, clients=[1])
    recording(CLIENTS, 2.0)
    seen.clear()
    with fedsim.debug():
        recording.replay(1)
    assert [float(x.numpy()) for x in seen] == [3.0]


def test_recording_of_a_call_that_failed_has_the_failure():
    recording = fedsim.record(a_round)
    with pytest.raises(fedsim.runtime.ClientError):
        recording([[1.0], [99.0, 2.0]], 1.0)
    last = recording.steps[-1]
    assert last.client == 1
    assert isinstance(last.error, tf.errors.InvalidArgumentError)
    assert "InvalidArgumentError" in repr(last)
    with fedsim.debug(), pytest.raises(tf.errors.InvalidArgumentError):
        recording.replay(1)


def test_recording_finds_what_is_not_finite():
    recording = fedsim.record(a_round)
    recording([[1.0], [float("-inf")], [2.0]], 1.0)
    where = recording.not_finite()
    assert where[0] == (1, "federated_map", "output")
    assert {client for client, _, _ in where} == {1}


def test_record_says_how_it_is_used():
    recording = fedsim.record(a_round, clients=[7])
    assert "not called yet" in repr(recording)
    with pytest.raises(ValueError, match="Nothing is recorded yet"):
        recording.steps
    with pytest.raises(
        ValueError, match="needs clients of the call, which has 3, found 7"
    ):
        recording(CLIENTS, 1.0)
    recording = fedsim.record(a_round, clients=[0])
    recording(CLIENTS, 1.0)
    with pytest.raises(ValueError, match="Client 2 was not recorded"):
        recording.replay(2)
    with pytest.raises(TypeError, match=r"For one client pass `clients=\[3\]`"):
        fedsim.record(a_round, clients=3)
    with pytest.raises(TypeError, match="needs indices at `clients`, found 'writer'"):
        fedsim.record(a_round, clients=["writer"])
    alone = fedsim.record(noise)
    alone(1.0)
    assert repr(alone) == "<recording of noise: no client took part>"
    with pytest.raises(TypeError, match="`record` needs a traced computation"):
        fedsim.record(3)
