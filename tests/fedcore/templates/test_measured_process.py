"""`MeasuredProcess`, and processes one after another and side by side."""

import collections

import pytest
import tensorflow as tf

import fedcore
from fedcore.templates import (
    IterativeProcess,
    MeasuredProcess,
    MeasuredProcessOutput,
    TemplateNotMeasuredProcessOutputError,
    TemplateStateNotAssignableError,
    chain_measured_processes,
    concatenate_measured_processes,
)
from fedcore.types import SERVER, at_clients, at_server

OD = collections.OrderedDict


def zero():
    return fedcore.tf_computation(lambda: 0)


def times(factor, dtype=tf.int32):
    """Multiplies its value; counts its steps."""

    @fedcore.tf_computation(tf.int32, dtype)
    def next_fn(state, value):
        result = value * tf.cast(factor, dtype)
        return MeasuredProcessOutput(state + 1, result, OD(steps=state))

    return MeasuredProcess(zero(), next_fn)


def times_at_clients(factor):
    """As `times`, with the state at the server and the value at the clients."""

    @fedcore.federated_computation
    def initialize():
        return fedcore.federated_value(0, SERVER)

    @fedcore.federated_computation(at_server(tf.int32), at_clients(tf.int32))
    def next_fn(state, value):
        return MeasuredProcessOutput(state + 1, value * factor, state)

    return MeasuredProcess(initialize, next_fn)


def next_text(process):
    return str(process.next.type_signature)


# --- MeasuredProcess -----------------------------------------------------------------


def test_next_type():
    assert next_text(times(2)) == (
        "(<state=int32,value=int32> -> "
        "<state=int32,result=int32,measurements=<steps=int32>>)"
    )


def test_a_process_of_the_state_alone():
    @fedcore.tf_computation(tf.int32)
    def next_fn(state):
        return MeasuredProcessOutput(state + 1, (), ())

    process = MeasuredProcess(zero(), next_fn)
    assert isinstance(process, IterativeProcess)
    assert process.next(4).state == 5


def test_output_is_a_measured_process_output():
    output = times(3).next(1, 5)
    assert isinstance(output, MeasuredProcessOutput)
    assert (output.state, output.result, output.measurements) == (2, 15, OD(steps=1))


@pytest.mark.parametrize(
    "output",
    [
        lambda s, x: (s, x, ()),
        lambda s, x: OD(state=s, result=x, measurements=()),
        lambda s, x: s,
    ],
)
def test_next_returns_a_measured_process_output(output):
    next_fn = fedcore.tf_computation(output, tf.int32, tf.int32)
    with pytest.raises(
        TemplateNotMeasuredProcessOutputError,
        match="`next_fn` needs to return a `MeasuredProcessOutput`, found `",
    ):
        MeasuredProcess(zero(), next_fn)


def test_the_state_fits():
    next_fn = fedcore.tf_computation(
        lambda s, x: MeasuredProcessOutput(1.0, x, ()), tf.int32, tf.int32
    )
    with pytest.raises(TemplateStateNotAssignableError, match="that `next_fn` returns"):
        MeasuredProcess(zero(), next_fn)


# --- One after another ---------------------------------------------------------------


def test_chain_types():
    process = chain_measured_processes(OD(a=times_at_clients(2), b=times_at_clients(3)))
    assert str(process.initialize.type_signature) == "( -> <a=int32,b=int32>@SERVER)"
    assert next_text(process) == (
        "(<state=<a=int32,b=int32>@SERVER,values={int32}@CLIENTS> -> "
        "<state=<a=int32,b=int32>@SERVER,result={int32}@CLIENTS,"
        "measurements=<a=int32,b=int32>@SERVER>)"
    )


def test_chain_passes_results_on():
    process = chain_measured_processes(OD(a=times_at_clients(2), b=times_at_clients(3)))
    state = process.initialize()
    assert state == OD(a=0, b=0)
    output = process.next(process.next(state, [1]).state, [1, 5])
    assert output.state == OD(a=2, b=2)
    assert output.result == [6, 30]
    assert output.measurements == OD(a=1, b=1)


def test_chain_of_unplaced_processes():
    process = chain_measured_processes(OD(a=times(2), b=times(3)))
    output = process.next(process.initialize(), 5)
    assert output.result == 30
    assert output.measurements == OD(a=OD(steps=0), b=OD(steps=0))


# --- Side by side --------------------------------------------------------------------


def test_concatenate_types():
    process = concatenate_measured_processes(
        OD(a=times_at_clients(2), b=times_at_clients(3))
    )
    values = "<a={int32}@CLIENTS,b={int32}@CLIENTS>"
    assert next_text(process) == (
        f"(<state=<a=int32,b=int32>@SERVER,values={values}> -> "
        f"<state=<a=int32,b=int32>@SERVER,result={values},"
        "measurements=<a=int32,b=int32>@SERVER>)"
    )


@pytest.mark.parametrize(
    ("make", "value", "result"),
    [(times, 5, (10, 15)), (times_at_clients, [5, 1], ([10, 2], [15, 3]))],
)
def test_concatenate_gives_each_its_element(make, value, result):
    process = concatenate_measured_processes(OD(a=make(2), b=make(3)))
    output = process.next(process.initialize(), OD(a=value, b=value))
    assert output.result == OD(a=result[0], b=result[1])
    assert output.state == OD(a=1, b=1)


# --- Errors --------------------------------------------------------------------------

BOTH = [chain_measured_processes, concatenate_measured_processes]


def of_state_alone():
    next_fn = fedcore.tf_computation(
        lambda s: MeasuredProcessOutput(s, s, ()), tf.int32
    )
    return MeasuredProcess(zero(), next_fn)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ([1], "needs an OrderedDict of processes by name, found `list`"),
        (OD(a=3), "needs each value to be a `MeasuredProcess`, found `int` for `a`"),
        (OD(a=of_state_alone()), "needs each `next` to take a state and one value"),
    ],
)
def test_what_is_no_measured_process(function, processes, message):
    with pytest.raises(TypeError, match=f"`{function.__name__}` {message}"):
        function(processes)


@pytest.mark.parametrize("function", BOTH)
def test_no_process(function):
    with pytest.raises(ValueError, match="needs at least one process, found none"):
        function(OD())


def test_states_at_different_placements():
    with pytest.raises(TypeError, match="needs all states at one placement, found `a`"):
        concatenate_measured_processes(OD(a=times_at_clients(2), b=times(3)))


def test_a_chain_fits():
    with pytest.raises(TypeError, match="needs `b` to take what `a` returns"):
        chain_measured_processes(OD(a=times(2), b=times(2, tf.float32)))
