"""`EstimationProcess`: a state that can be asked for an estimate."""

import pytest
import tensorflow as tf

import fedcore
from fedcore.templates import (
    EstimateNotAssignableError,
    EstimationProcess,
    TemplateStateNotAssignableError,
)
from fedcore.types import SERVER, at_server


@fedcore.tf_computation
def initialize():
    return 0


@fedcore.tf_computation(tf.int32)
def increase(state):
    return state + 1


@fedcore.tf_computation(tf.int32)
def half(state):
    return tf.cast(state, tf.float32) / 2


@fedcore.tf_computation(tf.float32)
def rounded(estimate):
    return tf.cast(tf.math.ceil(estimate), tf.int64)


def process():
    return EstimationProcess(initialize, increase, half)


def at_the_server():
    same = fedcore.federated_computation(lambda s: s, at_server(tf.int32))
    zero = fedcore.federated_computation(lambda: fedcore.federated_value(0, SERVER))
    return EstimationProcess(zero, same, same)


def test_types():
    assert str(process().report.type_signature) == "(int32 -> float32)"
    mapped = process().map(rounded)
    assert isinstance(mapped, EstimationProcess)
    assert str(mapped.report.type_signature) == "(int32 -> int64)"
    assert mapped.next is increase
    assert mapped.initialize is initialize
    assert mapped.state_type is process().state_type


def test_report_and_map():
    state = process().next(process().next(process().next(process().initialize())))
    assert process().report(state) == 1.5
    assert process().map(rounded).report(state) == 2
    assert (
        process()
        .map(rounded)
        .map(fedcore.tf_computation(lambda x: -x, tf.int64))
        .report(state)
        == -2
    )


def test_map_at_the_server():
    twice = fedcore.federated_computation(lambda s: 2 * s, at_server(tf.int32))
    mapped = at_the_server().map(twice)
    assert str(mapped.report.type_signature) == "(int32@SERVER -> int32@SERVER)"
    assert mapped.report(21) == 42


@pytest.mark.parametrize(
    ("report", "error", "message"),
    [
        (lambda s: s, TypeError, "`report_fn` needs to be a traced computation"),
        (
            rounded,
            TemplateStateNotAssignableError,
            "`report_fn` needs to take the state",
        ),
        (
            initialize,
            TemplateStateNotAssignableError,
            "It takes no argument, and is given",
        ),
    ],
)
def test_report_takes_the_state(report, error, message):
    with pytest.raises(error, match=message):
        EstimationProcess(initialize, increase, report)


@pytest.mark.parametrize(
    ("map_fn", "error", "message"),
    [
        (lambda x: x, TypeError, "`map_fn` needs to be a traced computation"),
        (
            fedcore.tf_computation(lambda x: x),
            TypeError,
            "Declare the types of its param",
        ),
        (
            half,
            EstimateNotAssignableError,
            "`map_fn` needs to take what `report` returns",
        ),
        (initialize, EstimateNotAssignableError, "It takes no argument, and is given"),
    ],
)
def test_map_takes_the_estimate(map_fn, error, message):
    with pytest.raises(error, match=message):
        process().map(map_fn)


def test_map_does_not_enter_a_placement():
    with pytest.raises(
        EstimateNotAssignableError, match="`int32@SERVER` is not assignable"
    ):
        at_the_server().map(increase)
