"""Debug measurements against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from fedcore.aggregators import MeanFactory, SumFactory
from fedcore.context import use
from fedcore.types import TensorType, to_type
from fedlearn.debug_measurements import (
    add_debug_measurements,
    add_debug_measurements_with_mixed_dtype,
)
from fedsim.runtime import local_context, reference_context

FLOAT = TensorType(tf.float32)
VECTOR = TensorType(tf.float32, [4])
MIXED = to_type([(tf.float32, [2]), (tf.float64, [3])])
VALUES = list(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
WEIGHTS = [np.float32(w) for w in (1, 2, 3, 4, 5, 0)]


@pytest.fixture(params=[reference_context, local_context], ids=["reference", "fused"])
def context(request):
    context = request.param(seed=11)
    with use(context):
        yield context


def spread(norms, weights):
    """The mean and the deviation by weights, not biased."""
    total = np.sum(weights)
    mean = np.sum(norms * weights) / total
    freedom = total - np.sum(np.square(weights)) / total
    return mean, np.sqrt(np.sum(weights * (norms - mean) ** 2) / freedom)


@pytest.mark.parametrize(
    "add", [add_debug_measurements, add_debug_measurements_with_mixed_dtype]
)
def test_weighted_measurements(add, context):
    process = add(MeanFactory()).create(VECTOR, FLOAT)
    output = process.next(process.initialize(), VALUES, WEIGHTS)
    norms = np.linalg.norm(VALUES, axis=1)
    mean, deviation = spread(norms, np.array(WEIGHTS))
    measured = output.measurements
    assert measured["average_client_norm"] == pytest.approx(mean, rel=1e-5)
    assert measured["std_dev_client_norm"] == pytest.approx(deviation, rel=1e-5)
    result = np.average(VALUES, axis=0, weights=WEIGHTS)
    norm = np.linalg.norm(result)
    assert measured["server_update_norm"] == pytest.approx(norm, rel=1e-5)
    assert measured["server_update_max"] == pytest.approx(result.max(), rel=1e-5)
    assert measured["server_update_min"] == pytest.approx(result.min(), rel=1e-5)


def test_unweighted_measurements(context):
    process = add_debug_measurements(SumFactory()).create(VECTOR)
    measured = process.next(process.initialize(), VALUES).measurements
    norms = np.linalg.norm(VALUES, axis=1)
    assert measured["average_client_norm"] == pytest.approx(norms.mean(), rel=1e-5)
    deviation = norms.std(ddof=1)
    assert measured["std_dev_client_norm"] == pytest.approx(deviation, rel=1e-5)


def test_large_norms_that_hardly_differ(context):
    process = add_debug_measurements(SumFactory()).create(FLOAT)
    values = [np.float32(1e6), np.float32(1e6 + 2)]
    measured = process.next(process.initialize(), values).measurements
    assert measured["std_dev_client_norm"] == pytest.approx(np.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("clients", [0, 1])
def test_no_client_and_one_client_have_no_deviation(clients, context):
    process = add_debug_measurements(SumFactory()).create(VECTOR)
    measured = process.next(process.initialize(), VALUES[:clients]).measurements
    assert measured["std_dev_client_norm"] == 0.0


def test_mixed_dtypes(context):
    process = add_debug_measurements_with_mixed_dtype(SumFactory()).create(MIXED)
    value = [np.array([3.0, 0.0], np.float32), np.array([0.0, 4.0, 0.0])]
    output = process.next(process.initialize(), [value])
    assert output.measurements["average_client_norm"] == pytest.approx(5.0)
    assert output.measurements["server_update_max"] == 4.0


def test_errors():
    with pytest.raises(TypeError, match="needs floats of one dtype"):
        add_debug_measurements(SumFactory()).create(MIXED)
    with pytest.raises(TypeError, match="needs a structure of floats"):
        add_debug_measurements(SumFactory()).create(TensorType(tf.int32))
    with pytest.raises(TypeError, match="`inner_agg_factory` needs"):
        add_debug_measurements(3)
