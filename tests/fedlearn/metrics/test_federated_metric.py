import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.federated import federated_computation
from fedcore.types import at_clients
from fedlearn.metrics._federated_metric import federated_aggregate_keras_metric

ERROR = [tf.float32, tf.float32]


def aggregate(metrics, *types):
    if len(types) == 1:
        return federated_computation(
            lambda value: federated_aggregate_keras_metric(metrics, value),
            at_clients(types[0]),
        )
    return federated_computation(
        lambda a, b: federated_aggregate_keras_metric(metrics, [a, b]),
        *map(at_clients, types),
    )


@pytest.mark.parametrize(
    "metric", [keras.metrics.MeanAbsoluteError(), keras.metrics.MeanAbsoluteError]
)
def test_one_metric(metric):
    computation = aggregate(metric, ERROR)
    assert str(computation.type_signature) == (
        "({<float32,float32>}@CLIENTS -> float32@SERVER)"
    )
    assert computation([[2.0, 1.0], [4.0, 2.0]]) == 2.0


def test_several_metrics_in_one_value():
    metrics = [keras.metrics.MeanAbsoluteError(), keras.metrics.Sum()]
    values = collections.OrderedDict(error=ERROR, total=[tf.float32])
    computation = aggregate(metrics, values)
    assert str(computation.type_signature.result) == (
        "<error=float32,total=float32>@SERVER"
    )
    data = [collections.OrderedDict(error=[2.0, 1.0], total=[3.0])] * 2
    assert computation(data) == {"error": 2.0, "total": 6.0}


def test_several_metrics_placed_each_on_its_own():
    metrics = [keras.metrics.MeanAbsoluteError, keras.metrics.Sum]
    computation = aggregate(metrics, ERROR, [tf.float32])
    found = computation([[2.0, 1.0], [4.0, 2.0]], [[3.0], [4.0]])
    assert found == {"mean_absolute_error": 2.0, "sum": 7.0}


def test_area_under_curve_equals_that_of_the_pooled_data():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.uniform(size=40)
    pooled = keras.metrics.AUC(num_thresholds=10)
    pooled.update_state(labels, scores)
    clients = []
    for rows in (slice(0, 5), slice(5, 40)):
        client = keras.metrics.AUC(num_thresholds=10)
        client.update_state(labels[rows], scores[rows])
        clients.append([v.numpy() for v in client.variables])
    value = [tf.TensorSpec([10], tf.float32)] * 4
    computation = aggregate(lambda: keras.metrics.AUC(num_thresholds=10), value)
    np.testing.assert_allclose(computation(clients), pooled.result(), rtol=1e-6)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="A metric needs to be"):
        aggregate(3, ERROR)
    with pytest.raises(ValueError, match="needs the values of 2 metrics"):
        aggregate([keras.metrics.Sum(name="a"), keras.metrics.Sum(name="b")], [ERROR])
    with pytest.raises(ValueError, match="found `sum` twice"):
        aggregate([keras.metrics.Sum(name="sum")] * 2, [ERROR, ERROR])


def test_values_by_the_names_of_the_metrics_may_come_in_any_order():
    metrics = [keras.metrics.Mean(name="mean"), keras.metrics.Sum(name="total")]
    values = collections.OrderedDict(total=[tf.float32], mean=[tf.float32, tf.float32])
    computation = aggregate(metrics, values)
    assert str(computation.type_signature.result) == (
        "<total=float32,mean=float32>@SERVER"
    )
    client = collections.OrderedDict(total=[5.0], mean=[6.0, 2.0])
    assert computation([client, client]) == {"total": 10.0, "mean": 3.0}
