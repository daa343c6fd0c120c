"""`AggregationProcess`: from the clients to the server, with or without weights."""

import pytest
import tensorflow as tf

import fedcore
from fedcore.templates import (
    AggregationProcess,
    MeasuredProcessOutput,
    TemplateNextFnNumArgsError,
    TemplateNotFederatedError,
    TemplateNotMeasuredProcessOutputError,
    TemplatePlacementError,
)
from fedcore.types import CLIENTS, SERVER, at_clients, at_server

STATE, VALUE = at_server(tf.int32), at_clients(tf.int32)


def at(placement, value=0):
    return fedcore.federated_computation(
        lambda: fedcore.federated_value(value, placement)
    )


def nothing():
    return fedcore.federated_value((), SERVER)


def process(next_fn, *types, initialize=None):
    traced = fedcore.federated_computation(next_fn, *types)
    return AggregationProcess(initialize or at(SERVER), traced)


def output(state, value, weight=None):
    return MeasuredProcessOutput(state, fedcore.federated_sum(value), nothing())


def test_types_with_and_without_weights():
    unweighted = process(lambda state, value: output(state, value), STATE, VALUE)
    weighted = process(output, STATE, VALUE, VALUE)
    assert (unweighted.is_weighted, weighted.is_weighted) == (False, True)
    assert str(unweighted.next.type_signature) == (
        "(<state=int32@SERVER,value={int32}@CLIENTS> -> "
        "<state=int32@SERVER,result=int32@SERVER,measurements=<>@SERVER>)"
    )


def test_a_round():
    total = process(lambda state, value: output(state, value), STATE, VALUE)
    result = total.next(total.initialize(), [1, 2, 3])
    assert (result.state, result.result, result.measurements) == (0, 6, ())


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: process(lambda s: MeasuredProcessOutput(s, s, nothing()), STATE),
            TemplateNextFnNumArgsError,
            "`next_fn` needs to take several arguments, the state first",
        ),
        (
            lambda: process(
                lambda s, v, w, x: output(s, v), STATE, VALUE, VALUE, VALUE
            ),
            TemplateNextFnNumArgsError,
            "a state and a value, and possibly weights, found 4 arguments",
        ),
        (
            lambda: AggregationProcess(
                fedcore.tf_computation(lambda: 0),
                fedcore.tf_computation(
                    lambda s, v: MeasuredProcessOutput(s, v, ()), tf.int32, tf.int32
                ),
            ),
            TemplateNotFederatedError,
            "The state that `initialize_fn` returns needs to be a federated value",
        ),
        (
            lambda: process(
                lambda s, v: output(s, v),
                at_clients(tf.int32, all_equal=True),
                VALUE,
                initialize=at(CLIENTS),
            ),
            TemplatePlacementError,
            "The state that `initialize_fn` returns needs to be at SERVER",
        ),
        (
            lambda: process(
                lambda s, v: MeasuredProcessOutput(s, v, nothing()), STATE, STATE
            ),
            TemplatePlacementError,
            "The value that `next_fn` takes needs to be at CLIENTS, found `int32@SERVER`",
        ),
        (
            lambda: process(output, STATE, VALUE, STATE),
            TemplatePlacementError,
            "The weight that `next_fn` takes needs to be at CLIENTS",
        ),
        (
            lambda: process(
                lambda s, v: MeasuredProcessOutput(s, v, nothing()), STATE, VALUE
            ),
            TemplatePlacementError,
            "The `result` that `next_fn` returns needs to be at SERVER",
        ),
        (
            lambda: process(lambda s, v: MeasuredProcessOutput(s, s, v), STATE, VALUE),
            TemplatePlacementError,
            "The `measurements` that `next_fn` returns needs to be at SERVER",
        ),
        (
            lambda: process(lambda s, v: MeasuredProcessOutput(s, s, ()), STATE, VALUE),
            TemplateNotFederatedError,
            "The `measurements` that `next_fn` returns needs to be a federated value",
        ),
        (
            lambda: process(
                lambda s, v: MeasuredProcessOutput(s, (s, s), nothing()), STATE, VALUE
            ),
            TemplateNotFederatedError,
            "Make one federated value of it with `federated_zip`",
        ),
        (
            lambda: process(lambda s, v: (s, s, nothing()), STATE, VALUE),
            TemplateNotMeasuredProcessOutputError,
            "needs to return a `MeasuredProcessOutput`",
        ),
    ],
)
def test_each_breach_has_its_error(build, error, message):
    with pytest.raises(error, match=message):
        build()
