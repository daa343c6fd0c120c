"""Secure sums: equal to plain sums inside their range, clipping reported outside it."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedcore.test
from fedcore import aggregators as a
from fedcore.types import TensorType, to_type

no_noise = a.PrivateQuantileEstimationProcess.no_noise
NESTED = to_type(OrderedDict(w=(tf.float32, [2]), b=[tf.float32]))


@pytest.fixture(autouse=True)
def in_context(context):
    del context


def run(factory, value_type, values):
    process = factory.create(value_type)
    return process.next(process.initialize(), values)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_inside_the_range_are_summed_exactly(dtype):
    values = list(np.random.default_rng(0).integers(-100, 101, (20, 4)).astype(dtype))
    output = run(a.SecureSumFactory(100), TensorType(tf.as_dtype(dtype), [4]), values)
    np.testing.assert_array_equal(output.result, np.sum(values, axis=0))
    assert output.result.dtype == dtype
    assert output.measurements["secure_upper_clipped_count"] == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_inside_the_range_are_summed_to_the_quantum(dtype):
    values = list(np.random.default_rng(0).uniform(-1, 1, (50, 7)).astype(dtype))
    output = run(a.SecureSumFactory(1.0), TensorType(tf.as_dtype(dtype), [7]), values)
    error = np.abs(output.result - np.sum(values, axis=0, dtype=np.float64))
    assert error.max() < 50 * 2 / 2**32 + 50 * np.finfo(dtype).eps
    assert output.measurements["secure_lower_clipped_count"] == 0


def test_clipping_is_counted_once_for_each_client():
    values = [
        OrderedDict(w=[9.0, 9.0], b=[9.0]),
        OrderedDict(w=[9.0, -9.0], b=[0.0]),
        OrderedDict(w=[0.5, 1.0], b=[-2.0]),
    ]
    output = run(a.SecureSumFactory(1.0, -2.0), NESTED, values)
    np.testing.assert_allclose(output.result["w"], [2.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(output.result["b"], [-1.0], atol=1e-6)
    assert output.measurements["secure_upper_clipped_count"] == 2
    assert output.measurements["secure_lower_clipped_count"] == 1


def test_nan_counts_as_the_lower_bound_and_infinities_are_clipped():
    value_type = TensorType(tf.float32, [3])
    values = [[math.nan, math.inf, -math.inf]]
    output = run(a.SecureSumFactory(2.0, -1.0), value_type, values)
    np.testing.assert_allclose(output.result, [-1.0, 2.0, -1.0])


def test_a_sum_over_the_dtype_wraps_around():
    value_type = TensorType(tf.int32)
    output = run(a.SecureSumFactory(2**31 - 1), value_type, [2**31 - 1, 2])
    assert output.result == -(2**31) + 1


def test_two_processes_follow_the_greatest_and_the_least():
    lower = no_noise(1.0, 0.5, 1.0).map(_negation())
    process = a.SecureSumFactory(no_noise(1.0, 0.5, 1.0), lower).create(
        TensorType(tf.float32, [2])
    )
    state = process.initialize()
    output = process.next(state, [[5.0, 0.0], [4.0, 3.0]])
    assert output.measurements["secure_upper_threshold"] == 1.0
    assert output.measurements["secure_lower_threshold"] == -1.0
    np.testing.assert_allclose(output.result, [2.0, 1.0], atol=1e-6)
    later = process.next(output.state, [[5.0, 0.0], [4.0, 3.0]]).measurements
    assert later["secure_upper_threshold"] == pytest.approx(math.exp(0.5))


def _negation():
    negative = fedcore.tf_computation(lambda x: -x, tf.float32)

    @fedcore.federated_computation(fedcore.type_at_server(tf.float32))
    def negation(estimate):
        return fedcore.federated_map(negative, estimate)

    return negation


@pytest.mark.parametrize("modulus", [1, 7, 2**31 - 1])
def test_modular_sums(modulus):
    values = [[2**31 - 1, -(2**31), 5], [3, -4, 5]]
    value_type = TensorType(tf.int32, [3])
    output = run(a.SecureModularSumFactory(modulus), value_type, values)
    wanted = np.sum(np.array(values, np.int64), axis=0) % modulus
    np.testing.assert_array_equal(output.result, wanted)


def test_symmetric_modular_sums():
    value_type = TensorType(tf.int64, [4])
    factory = a.SecureModularSumFactory(4, symmetric_range=True)
    output = run(factory, value_type, [[3, 3, -3, 0], [0, 1, -1, -2]])
    np.testing.assert_array_equal(output.result, [3, -3, 3, -2])


def test_quantized_sum_takes_bounds_at_the_server_and_for_each_tensor():
    at_server = fedcore.type_at_server(tf.float32)

    @fedcore.federated_computation(
        fedcore.type_at_clients(tf.float32), at_server, at_server
    )
    def total(value, lower, upper):
        return a.secure_quantized_sum(value, lower, upper)

    assert total([1.0, 2.0, 3.0], 0.0, 2.5) == pytest.approx(5.5)

    mixed = to_type([tf.float32, tf.int32])

    @fedcore.federated_computation(fedcore.type_at_clients(mixed))
    def mixed_total(value):
        return a.secure_quantized_sum(value, [-1.0, 0], [1.0, 5])

    floats, integers = mixed_total([[0.5, 9], [-3.0, 2]])
    assert floats == pytest.approx(-0.5)
    assert integers == 7
    fedcore.test.assert_not_contains_unsecure_aggregation(mixed_total)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: a.SecureSumFactory("a"), TypeError, "`upper_bound_threshold` needs"),
        (lambda: a.SecureSumFactory(True), TypeError, "`upper_bound_threshold` needs"),
        (lambda: a.SecureSumFactory(2, 1.0), TypeError, "thresholds of one kind"),
        (lambda: a.SecureSumFactory(1, 2), ValueError, "a lower threshold below"),
        (lambda: a.SecureSumFactory(-1.0), ValueError, "a lower threshold below"),
        (
            lambda: a.SecureSumFactory(1).create(TensorType(tf.float32)),
            TypeError,
            "integers of one dtype",
        ),
        (
            lambda: a.SecureSumFactory(1.0).create(to_type([tf.float32, tf.float64])),
            TypeError,
            "floats of one dtype",
        ),
        (lambda: a.SecureModularSumFactory(0), ValueError, "`modulus` needs to be > 0"),
        (lambda: a.SecureModularSumFactory(1.5), TypeError, "`modulus` needs"),
        (
            lambda: a.SecureModularSumFactory(3).create(TensorType(tf.float32)),
            TypeError,
            "a structure of integers",
        ),
        (lambda: _quantized(tf.float32, 0, 1), TypeError, "bounds of the dtype"),
        (
            lambda: _quantized(tf.float32, 0.0, 1),
            TypeError,
            "bound` of one type|of one",
        ),
        (lambda: _quantized(tf.string, 0.0, 1.0), TypeError, "tensors of int32"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def _quantized(dtype, lower, upper):
    @fedcore.federated_computation(fedcore.type_at_clients(dtype))
    def total(value):
        return a.secure_quantized_sum(value, lower, upper)
