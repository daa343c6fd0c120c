"""Clipping, zeroing, quantiles, means: values against NumPy, and what goes wrong."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedcore.test
from fedcore import aggregators as a
from fedcore.types import TensorType, to_type

VECTOR = TensorType(tf.float32, [3])
FLOAT = TensorType(tf.float32)
NESTED = to_type(OrderedDict(w=(tf.float32, [2]), b=[tf.float64]))
no_noise = a.PrivateQuantileEstimationProcess.no_noise


@pytest.fixture(autouse=True)
def in_context(context):
    del context


def run(factory, value_type, values, *weights):
    arguments = [value_type] + [FLOAT] * len(weights)
    process = factory.create(*arguments)
    return process.next(process.initialize(), values, *weights)


def test_clipping_takes_the_norm_over_all_tensors():
    values = [
        OrderedDict(w=[2.0, 4.0], b=[4.0]),  # norm 6
        OrderedDict(w=[0.1, 0.0], b=[0.2]),
    ]
    output = run(a.clipping_factory(3.0, a.SumFactory()), NESTED, values)
    np.testing.assert_allclose(output.result["w"], [1.1, 2.0], rtol=1e-6)
    np.testing.assert_allclose(output.result["b"], [2.2], rtol=1e-6)
    assert output.measurements["clipped_count"] == 1


def test_clipping_bounds_every_norm():
    generator = np.random.default_rng(0)
    for scale in (1e-30, 1e-3, 1.0, 1e15):
        value = (generator.normal(size=3) * scale).astype(np.float32)
        result = run(a.clipping_factory(0.5, a.SumFactory()), VECTOR, [value]).result
        assert np.linalg.norm(result) <= 0.5 * (1 + 1e-6)
        if np.linalg.norm(value) <= 0.5:
            np.testing.assert_array_equal(result, value)


def test_clipping_of_infinity_is_nan_and_of_nan_is_kept():
    factory = a.clipping_factory(1.0, a.SumFactory())
    output = run(factory, VECTOR, [[math.inf, 1.0, 0.0], [0.0, 0.5, 0.0]])
    np.testing.assert_array_equal(output.result, [np.nan, 0.5, 0.0])
    assert output.measurements["clipped_count"] == 1
    output = run(factory, VECTOR, [[math.nan, 1.0, 0.0]])
    np.testing.assert_array_equal(output.result, [np.nan, 1.0, 0.0])
    assert output.measurements["clipped_count"] == 0


def test_clipping_leaves_weights_alone():
    factory = a.clipping_factory(1.0, a.MeanFactory())
    output = run(factory, VECTOR, [[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], [3.0, 1.0])
    np.testing.assert_allclose(output.result, [0.45, 0.6, 0.0], rtol=1e-6)


def test_counts_can_be_summed_securely():
    secure = a.SecureSumFactory(1, 0)
    clip = a.clipping_factory(1.0, a.SecureSumFactory(1.0), secure)
    zero = a.zeroing_factory(9.0, clip, zeroed_count_sum_factory=secure)
    process = zero.create(VECTOR)
    fedcore.test.assert_not_contains_unsecure_aggregation(process.next)
    fedcore.test.assert_contains_secure_aggregation(process.next)
    values = [[3.0, 4.0, 0.0], [0.0, 0.0, 10.0]]
    output = process.next(process.initialize(), values)
    assert output.measurements["zeroed_count"] == 1
    assert output.measurements["zeroing"]["clipped_count"] == 1


@pytest.mark.parametrize(
    ("order", "kept"), [(1.0, [1.0]), (2.0, [1.0, 2.0]), (math.inf, [1.0, 2.0, 2.0])]
)
def test_zeroing_by_each_norm(order, kept):
    values = [[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [2.0, 2.0, 2.0], [3.0, 0.0, 0.0]]
    factory = a.zeroing_factory(2.5, a.SumFactory(), norm_order=order)
    output = run(factory, VECTOR, values)
    assert output.result[0] == sum(kept)
    assert output.measurements["zeroed_count"] == len(values) - len(kept)


def test_zeroing_drops_infinity_and_keeps_nan():
    factory = a.zeroing_factory(2.5, a.SumFactory())
    output = run(factory, VECTOR, [[math.inf, 1.0, 1.0], [math.nan, 1.0, 1.0]])
    np.testing.assert_array_equal(output.result, [np.nan, 1.0, 1.0])
    assert output.measurements["zeroed_count"] == 1


def test_an_estimated_bound_finds_the_quantile():
    norms = np.arange(1.0, 21.0, dtype=np.float32)
    process = no_noise(1.0, 0.8, 0.5)
    state = process.initialize()
    for _ in range(60):
        state = process.next(state, list(norms))
    assert 15.0 <= process.report(state) <= 17.1


def test_an_estimate_stays_without_clients():
    process = no_noise(1.5, 0.8, 0.5, multiplier=2.0, increment=1.0)
    state = process.next(process.initialize(), [])
    assert process.report(state) == 4.0


def test_the_query_of_an_estimate_can_be_anything_with_its_methods():
    class Greatest:
        """'Estimates' the mean of clients' values in the last round."""

        def initial_global_state(self):
            return OrderedDict(current_estimate=tf.constant(7.0))

        def derive_sample_params(self, global_state):
            return ()

        def preprocess_record(self, params, record):
            return OrderedDict(total=record, count=tf.constant(1.0))

        def get_noised_result(self, sample_state, global_state):
            mean = sample_state["total"] / sample_state["count"]
            return mean, OrderedDict(current_estimate=mean)

    process = a.PrivateQuantileEstimationProcess(Greatest())
    state = process.initialize()
    assert process.report(state) == 7.0
    assert process.report(process.next(state, [1.0, 3.0])) == 2.0


def test_estimates_of_a_secure_process_are_summed_securely():
    process = no_noise(1.0, 0.5, 0.2, secure_estimation=True)
    fedcore.test.assert_not_contains_unsecure_aggregation(process.next)
    fedcore.test.assert_contains_unsecure_aggregation(no_noise(1.0, 0.5, 0.2).next)


def test_means_with_zero_total_weight():
    values, weights = [[1.0, 2.0, 3.0]] * 2, [0.0, 0.0]
    assert np.isnan(run(a.MeanFactory(), VECTOR, values, weights).result).all()
    no_nan = a.MeanFactory(no_nan_division=True)
    np.testing.assert_array_equal(
        run(no_nan, VECTOR, values, weights).result, [0, 0, 0]
    )


def test_means_of_nan_and_infinity():
    output = run(a.MeanFactory(), VECTOR, [[math.nan, math.inf, 1.0]] * 2, [1.0, 1.0])
    np.testing.assert_array_equal(output.result, [np.nan, np.inf, 1.0])


def test_an_empty_structure_passes_through():
    empty = fedcore.StructType([])
    for factory in (
        a.SumFactory(),
        a.UnweightedMeanFactory(),
        a.clipping_factory(1.0, a.SumFactory()),
        a.zeroing_factory(no_noise(1.0, 0.5, 0.2), a.SumFactory()),
        a.HadamardTransformFactory(),
        a.SecureModularSumFactory(7),
    ):
        output = run(factory, empty, [(), ()])
        assert len(output.result) == 0


def test_integer_sums_wrap_around():
    output = run(a.SumFactory(), TensorType(tf.int32), [2**31 - 1, 1])
    assert output.result == -(2**31)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: a.clipping_factory(1, a.SumFactory()), TypeError, "a float or an"),
        (lambda: a.clipping_factory(1.0, 3), TypeError, "`inner_agg_factory` needs"),
        (
            lambda: a.clipping_factory(1.0, a.SumFactory(), a.MeanFactory()),
            TypeError,
            "`clipped_count_sum_factory` needs to be a `Unw",
        ),
        (
            lambda: a.zeroing_factory(1.0, a.SumFactory(), 3.0),
            ValueError,
            "`norm_order`",
        ),
        (
            lambda: no_noise(1, 0.5, 0.2),
            TypeError,
            "`initial_estimate` needs to be a fl",
        ),
        (
            lambda: no_noise(0.0, 0.5, 0.2),
            ValueError,
            "`initial_estimate` needs to be > 0",
        ),
        (lambda: no_noise(1.0, 1.5, 0.2), ValueError, "`target_quantile` needs"),
        (lambda: no_noise(1.0, 0.5, -0.2), ValueError, "`learning_rate` needs"),
        (lambda: no_noise(1.0, 0.5, 0.2, -1.0), ValueError, "`multiplier` needs"),
        (lambda: no_noise(1.0, 0.5, 0.2, 1.0, -1.0), ValueError, "`increment` needs"),
        (
            lambda: a.PrivateQuantileEstimationProcess(object()),
            TypeError,
            "`quantile_estimator_query` needs",
        ),
        (
            lambda: a.clipping_factory(1.0, a.SumFactory()).create(
                TensorType(tf.int32)
            ),
            TypeError,
            "`clipping_factory` needs a structure of floats",
        ),
        (
            lambda: a.MeanFactory().create(FLOAT, VECTOR),
            TypeError,
            "needs a scalar number as `weight_type`",
        ),
        (
            lambda: a.concat_factory(a.SumFactory()).create(NESTED),
            TypeError,
            "`concat_factory` needs tensors of one dtype",
        ),
        (
            lambda: a.concat_factory(a.SumFactory()).create(
                TensorType(tf.int32, [None])
            ),
            TypeError,
            "`concat_factory` needs tensors of known shape",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
