"""`MeanFactory` and `UnweightedMeanFactory`: means of sums by inner aggregators."""

import collections

import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore.aggregators import (
    MeanFactory,
    SumFactory,
    UnweightedAggregationFactory,
    UnweightedMeanFactory,
    WeightedAggregationFactory,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.types import SERVER, TensorType, at_clients, at_server, to_type

OD = collections.OrderedDict
FLOAT = TensorType(tf.float32)
NAMED = to_type(OD(a=tf.float64, b=(tf.float32, [2])))


class CountingSum(UnweightedAggregationFactory):
    """A sum that counts its rounds and measures them."""

    def create(self, value_type):
        @fedcore.federated_computation
        def initialize():
            return fedcore.federated_value(0, SERVER)

        @fedcore.federated_computation(at_server(tf.int32), at_clients(value_type))
        def next_fn(rounds, value):
            return MeasuredProcessOutput(
                rounds + 1, fedcore.federated_sum(value), rounds
            )

        return AggregationProcess(initialize, next_fn)


def a_round(process, *args):
    output = process.next(process.initialize(), *args)
    return output.result


# --- Types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value_type", "weight_type", "member"),
    [
        (FLOAT, FLOAT, "float32"),
        (NAMED, TensorType(tf.int32), "<a=float64,b=float32[2]>"),
    ],
)
def test_mean_types_are_those_of_tff(value_type, weight_type, member):
    process = MeanFactory().create(value_type, weight_type)
    state = "<value_sum_process=<>,weight_sum_process=<>>@SERVER"
    assert process.is_weighted
    assert str(process.initialize.type_signature) == f"( -> {state})"
    assert str(process.next.type_signature) == (
        f"(<state={state},value={{{member}}}@CLIENTS,weight={{{weight_type}}}@CLIENTS> -> "
        f"<state={state},result={member}@SERVER,"
        "measurements=<mean_value=<>,mean_weight=<>>@SERVER>)"
    )


def test_unweighted_mean_types_are_those_of_tff():
    process = UnweightedMeanFactory().create(NAMED)
    member = "<a=float64,b=float32[2]>"
    assert not process.is_weighted
    assert str(process.initialize.type_signature) == "( -> <<>,<>>@SERVER)"
    assert str(process.next.type_signature) == (
        f"(<state=<<>,<>>@SERVER,value={{{member}}}@CLIENTS> -> "
        f"<state=<<>,<>>@SERVER,result={member}@SERVER,"
        "measurements=<mean_value=<>,mean_count=<>>@SERVER>)"
    )


def test_kinds_of_factories():
    assert isinstance(MeanFactory(), WeightedAggregationFactory)
    assert isinstance(UnweightedMeanFactory(), UnweightedAggregationFactory)


# --- Values --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tf.float32, tf.int32, tf.float64])
def test_mean_is_that_of_numpy(kind):
    process = MeanFactory().create(NAMED, TensorType(kind))
    rng = np.random.default_rng(1)
    a, b, weights = rng.normal(size=4), rng.normal(size=(4, 2)), [1, 2, 3, 5]
    values = [OD(a=x, b=y) for x, y in zip(a, b)]
    result = a_round(process, values, weights)
    np.testing.assert_allclose(result["a"], np.average(a, weights=weights), rtol=1e-6)
    np.testing.assert_allclose(
        result["b"], np.average(b, axis=0, weights=weights), rtol=1e-5
    )
    assert (result["a"].dtype, result["b"].dtype) == (np.float64, np.float32)


def test_unweighted_mean_is_that_of_numpy():
    process = UnweightedMeanFactory().create(NAMED)
    values = [OD(a=1, b=[1, 2]), OD(a=2, b=[3, 6]), OD(a=6, b=[5, 7])]
    result = a_round(process, values)
    assert result["a"] == 3
    assert result["b"].tolist() == [3, 5]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_the_order_of_clients_does_not_matter(order):
    values, weights = [1.0, 2.0, 4.0], [1.0, 2.0, 5.0]
    process = MeanFactory().create(FLOAT, FLOAT)
    result = a_round(process, [values[i] for i in order], [weights[i] for i in order])
    assert result == 3.125


def test_total_weight_of_zero():
    nan = MeanFactory().create(FLOAT, FLOAT)
    zero = MeanFactory(no_nan_division=True).create(FLOAT, FLOAT)
    for values, weights in (([1.0, 2.0], [0.0, 0.0]), ([], [])):
        assert np.isnan(a_round(nan, values, weights))
        assert a_round(zero, values, weights) == 0.0
    assert a_round(zero, [3.0, 5.0], [1.0, 1.0]) == 4.0
    assert np.isnan(a_round(UnweightedMeanFactory().create(FLOAT), []))


def test_a_value_that_is_nan_is_not_hidden_by_its_weight():
    process = MeanFactory().create(FLOAT, FLOAT)
    assert np.isnan(a_round(process, [float("nan"), 2.0], [0.0, 1.0]))


def test_one_client():
    assert a_round(MeanFactory().create(FLOAT, FLOAT), [7.0], [3.0]) == 7.0
    assert a_round(UnweightedMeanFactory().create(FLOAT), [7.0]) == 7.0


# --- Inner aggregators ---------------------------------------------------------------


def test_states_and_measurements_of_the_sums_are_threaded():
    mean = MeanFactory(CountingSum(), SumFactory()).create(FLOAT, FLOAT)
    state = mean.next(mean.initialize(), [1.0], [1.0]).state
    output = mean.next(state, [1.0, 3.0], [1.0, 1.0])
    assert output.state == OD(value_sum_process=2, weight_sum_process=())
    assert output.measurements == OD(mean_value=1, mean_weight=())
    assert output.result == 2.0

    unweighted = UnweightedMeanFactory(SumFactory(), CountingSum()).create(FLOAT)
    output = unweighted.next(unweighted.initialize(), [1.0, 3.0])
    assert output.state == ((), 1)
    assert output.measurements == OD(mean_value=(), mean_count=0)
    assert output.result == 2.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MeanFactory(MeanFactory()), "`value_sum_factory` needs to be a"),
        (lambda: MeanFactory(None, MeanFactory()), "`weight_sum_factory` needs to be"),
        (
            lambda: UnweightedMeanFactory(MeanFactory()),
            "`value_sum_factory` needs to be",
        ),
        (lambda: UnweightedMeanFactory(None, 3), "`count_sum_factory` needs to be"),
        (
            lambda: MeanFactory().create(TensorType(tf.int32), FLOAT),
            "structure of floats",
        ),
        (
            lambda: UnweightedMeanFactory().create(TensorType(tf.int32)),
            "of floats as `val",
        ),
        (
            lambda: MeanFactory().create(FLOAT, TensorType(tf.string)),
            "a scalar number as",
        ),
        (
            lambda: MeanFactory().create(FLOAT, TensorType(tf.float32, [2])),
            "a scalar numb",
        ),
        (
            lambda: MeanFactory().create(FLOAT, to_type((tf.float32,))),
            "a scalar number as",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(TypeError, match=message):
        build()
