"""Samples of clients' values, and measurements added to an aggregator."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import aggregators as a
from fedcore.types import TensorType, to_type

FLOAT = TensorType(tf.float32)


@pytest.fixture(autouse=True)
def in_context(context):
    del context


def sampled(type_, size):
    @fedcore.federated_computation(fedcore.type_at_clients(type_))
    def sample(value):
        return a.federated_sample(value, size)

    return sample


def test_a_sample_holds_whole_clients_and_no_more_than_asked_for():
    type_ = to_type(OrderedDict(number=tf.int32, row=(tf.float32, [2]), name=tf.string))
    sample = sampled(type_, 4)
    assert str(sample.type_signature.result) == (
        "<number=int32[?],row=float32[?,2],name=string[?]>@SERVER"
    )
    values = [OrderedDict(number=i, row=[i, -i], name=f"c{i}") for i in range(10)]
    result = sample(values)
    assert len(set(result["number"])) == 4
    for number, row, name in zip(*result.values()):
        assert list(row) == [number, -number]
        assert name == f"c{number}".encode()


@pytest.mark.parametrize("clients", [0, 1, 3])
def test_few_clients_are_all_in_the_sample(clients):
    result = sampled(FLOAT, 3)([float(i) for i in range(clients)])
    assert sorted(result) == list(range(clients))


def test_samples_are_uniform():
    sample = sampled(TensorType(tf.int32), 2)
    counts = np.zeros(6)
    for _ in range(90):
        counts[sample(list(range(6)))] += 1
    assert counts.sum() == 180
    assert counts.min() > 12  # 30 expected, standard deviation 4.5
    assert counts.max() < 48


def test_reservoir_counts_clients_that_are_not_finite():
    type_ = to_type(OrderedDict(w=(tf.float32, [2]), n=tf.int32))
    process = a.UnweightedReservoirSamplingFactory(2).create(type_)
    values = [
        OrderedDict(w=[math.nan, math.nan], n=1),
        OrderedDict(w=[1.0, -math.inf], n=1),
        OrderedDict(w=[1.0, 2.0], n=1),
    ]
    output = process.next(process.initialize(), values)
    assert output.measurements == {"w": 2, "n": 0}
    assert output.result["w"].shape == (2, 2)


def clients(value):
    ones = fedcore.federated_value(1, fedcore.CLIENTS)
    return OrderedDict(clients=fedcore.federated_sum(ones))


def test_measurements_stand_beside_inner_ones_and_in_their_place():
    def of_clients(value, weight):
        return OrderedDict(
            total_weight=fedcore.federated_sum(weight),
            mean_value=fedcore.federated_sum(value),
        )

    factory = a.add_measurements(a.MeanFactory(), client_measurement_fn=of_clients)
    process = factory.create(FLOAT, FLOAT)
    output = process.next(process.initialize(), [1.0, 4.0], [1.0, 2.0])
    assert output.result == 3.0
    assert output.measurements == OrderedDict(
        mean_value=5.0, mean_weight=(), total_weight=3.0
    )


def test_as_weighted_aggregator_leaves_weights_unused():
    process = a.as_weighted_aggregator(a.SumFactory()).create(FLOAT, FLOAT)
    assert process.is_weighted
    assert process.next(process.initialize(), [1.0, 2.0], [5.0, 0.0]).result == 3.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: a.add_measurements(a.SumFactory()), ValueError, "found neither"),
        (
            lambda: a.add_measurements(3, client_measurement_fn=clients),
            TypeError,
            "`inner_agg_factory` needs",
        ),
        (
            lambda: a.add_measurements(
                a.UnweightedReservoirSamplingFactory(1), client_measurement_fn=clients
            ).create(FLOAT),
            TypeError,
            "needs measurements with names",
        ),
        (
            lambda: a.as_weighted_aggregator(a.MeanFactory()),
            TypeError,
            "`unweighted_aggregator` needs",
        ),
        (
            lambda: a.UnweightedReservoirSamplingFactory(0),
            ValueError,
            "`sample_size` need",
        ),
        (lambda: sampled(FLOAT, 0), ValueError, "`max_num_samples` needs"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
