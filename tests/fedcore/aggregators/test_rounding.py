"""Discretisation, modular clipping, rotations, codes, encoders: against NumPy."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

from fedcore import aggregators as a
from fedcore import ir
from fedcore.aggregators import _rounding as rounding
from fedcore.types import TensorType, to_type

encoders = a.encoders
NESTED = to_type(OrderedDict(w=(tf.float32, [2, 3]), b=[tf.float64]))


@pytest.fixture(autouse=True)
def in_context(context):
    del context


def run(factory, value_type, values):
    process = factory.create(value_type)
    return process.next(process.initialize(), values)


def numbers(clients, size, seed=0):
    return list(
        np.random.default_rng(seed).normal(size=(clients, size)).astype("float32")
    )


def test_discretisation_rounds_halves_to_even():
    values = [[0.2, 0.25, 0.75, -1.25], [0.3, 1.1, -0.26, -0.25]]
    output = run(a.DiscretizationFactory(a.SumFactory(), 2.0), _vector(4), values)
    np.testing.assert_array_equal(output.result, [0.5, 1.0, 0.5, -1.0])
    assert output.state["scale_factor"] == 2.0
    nested = a.DiscretizationFactory(a.SumFactory()).create(NESTED)
    result_type = nested.next.type_signature.result.result
    assert str(result_type) == "<w=float32[2,3],b=<float64>>@SERVER"


def _vector(size, dtype=tf.float32):
    return TensorType(dtype, [size])


@pytest.mark.parametrize(
    "factory",
    [
        a.DiscretizationFactory(a.SumFactory(), 4.0, stochastic=True),
        a.DiscretizationFactory(a.SumFactory(), 4.0, True, 0.0, 100.0),
        a.StochasticDiscretizationFactory(a.SumFactory(), 0.25),
        a.EncodedSumFactory.quantize_above_threshold(3, 0),
        a.EncodedSumFactory(lambda spec: encoders.sparsification(spec, 0.5)),
        a.EncodedSumFactory(
            lambda spec: encoders.hadamard(
                spec, lambda s: encoders.uniform_quantization(s, 4)
            )
        ),
    ],
    ids=["discretise", "conditional", "step", "quantise", "sparse", "rotate"],
)
def test_random_rounding_has_the_right_mean_and_differs_by_client(factory):
    value = np.array([0.1, -0.35, 0.8, 0.0, 1.0], np.float32)
    clients = 200
    process = factory.create(_vector(5))
    output = process.next(process.initialize(), [value] * clients)
    np.testing.assert_allclose(output.result / clients, value, atol=0.15)
    again = process.next(output.state, [value] * clients)
    assert not np.array_equal(again.result, output.result)


def test_conditional_rounding_keeps_the_norm():
    dimension, bound = 50, 1.0
    value = np.full(dimension, bound / math.sqrt(dimension), np.float32)
    factory = a.DiscretizationFactory(
        a.add_measurements(
            a.SumFactory(), server_measurement_fn=lambda r: OrderedDict(integers=r)
        ),
        scale_factor=2.0,
        stochastic=True,
        beta=0.6,
        prior_norm_bound=bound,
    )
    process = factory.create(_vector(dimension))
    limit = rounding.norm_bound_after_rounding(2.0 * bound, dimension, 0.6)
    assert limit < 2.0 + math.sqrt(dimension)
    state = process.initialize()
    for _ in range(8):
        output = process.next(state, [value])
        integers = output.measurements["discretize"]["integers"]
        assert np.linalg.norm(integers) <= limit


def test_step_discretisation_measures_the_distortion():
    factory = a.StochasticDiscretizationFactory(
        a.SumFactory(), 0.5, a.UnweightedMeanFactory()
    )
    value = np.array([0.2, 0.25, 0.75, -1.25], np.float32)
    output = run(factory, _vector(4), [value])
    wanted = np.mean((output.result - value) ** 2)
    assert output.measurements["distortion"] == pytest.approx(wanted)
    assert set(np.abs(output.result * 2) % 1) == {0.0}


def test_modular_clipping_wraps_into_the_range():
    factory = a.ModularClippingSumFactory(-2, 3)
    values = [[-3, -2, 2, 3, 9, -(2**31)], [0, 1, 2, 3, 4, 2**31 - 1]]
    output = run(factory, _vector(6, tf.int32), values)
    wanted = (np.sum(np.array(values, np.int64), axis=0) + 2) % 5 - 2
    np.testing.assert_array_equal(output.result, wanted)


def test_modular_clipping_estimates_the_deviation():
    factory = a.ModularClippingSumFactory(-100, 100, estimate_stddev=True)
    values = np.random.default_rng(0).normal(scale=12, size=5000).astype(np.int32)
    output = run(factory, _vector(5000, tf.int32), [values])
    assert output.measurements["estimated_stddev"] == pytest.approx(12, rel=0.05)


@pytest.mark.parametrize(
    "factory", [a.HadamardTransformFactory, a.DiscreteFourierTransformFactory]
)
@pytest.mark.parametrize("repeats", [1, 3])
def test_rotations_keep_norms_and_are_undone(factory, repeats):
    inner = a.add_measurements(
        a.SumFactory(), server_measurement_fn=lambda r: OrderedDict(rotated=r)
    )
    process = factory(inner, repeats).create(_vector(21))
    values = numbers(3, 21)
    state = process.initialize()
    first = process.next(state, values)
    np.testing.assert_allclose(first.result, np.sum(values, axis=0), atol=1e-5)
    (name,) = first.measurements
    rotated = first.measurements[name]["rotated"]
    norm = np.linalg.norm(np.sum(values, axis=0))
    assert np.linalg.norm(rotated) == pytest.approx(norm, rel=1e-5)
    second = process.next(first.state, values)
    assert not np.allclose(second.measurements[name]["rotated"], rotated)


def test_rotations_spread_a_vector_evenly():
    inner = a.add_measurements(
        a.SumFactory(), server_measurement_fn=lambda r: OrderedDict(rotated=r)
    )
    peak = np.zeros(256, np.float32)
    peak[3] = 16.0
    output = run(a.HadamardTransformFactory(inner), _vector(256), [peak])
    np.testing.assert_allclose(np.abs(output.measurements["hd"]["rotated"]), 1.0)


def test_rotations_give_integers_back():
    for factory in (a.HadamardTransformFactory(), a.DiscreteFourierTransformFactory()):
        values = [[1, -2, 3], [100, 0, 7]]
        output = run(factory, _vector(3, tf.int32), values)
        np.testing.assert_array_equal(output.result, [101, -2, 10])


def _gamma_code(value):
    bits, run_length = "", 0

    def gamma(n):
        binary = bin(n)[2:]
        return "0" * (len(binary) - 1) + binary

    for number in value:
        if number == 0:
            run_length += 1
            continue
        bits += gamma(run_length + 1) + str(int(number < 0)) + gamma(abs(number))
        run_length = 0
    if run_length:
        bits += gamma(run_length + 1)
    return bits


def test_the_size_of_the_code_is_that_of_the_code():
    generator = np.random.default_rng(0)
    values = [
        generator.poisson(0.3, 60) * generator.integers(-50, 50, 60) for _ in range(9)
    ]
    values = [value.astype(np.int32) for value in values]
    factory = a.EliasGammaEncodedSumFactory(a.UnweightedMeanFactory())
    output = run(factory, _vector(60, tf.int32), values)
    sizes = [
        math.ceil(len(_gamma_code(value.tolist())) / 8) * 8 / 60 for value in values
    ]
    bitrate = output.measurements["elias_gamma_code_avg_bitrate"]
    assert bitrate == pytest.approx(np.mean(sizes), rel=1e-12)
    np.testing.assert_array_equal(output.result, np.sum(values, axis=0))


def test_the_least_int32_is_coded_too():
    factory = a.EliasGammaEncodedSumFactory(a.UnweightedMeanFactory())
    output = run(factory, TensorType(tf.int32), [-(2**31)])
    assert output.result == -(2**31)
    assert output.measurements["elias_gamma_code_avg_bitrate"] == 72.0


def test_encoders_are_exact_where_nothing_is_lost():
    values = numbers(4, 6)
    for encoder_fn in (
        encoders.identity,
        encoders.hadamard,
        lambda spec: encoders.sparsification(spec, 1.0),
    ):
        output = run(a.EncodedSumFactory(encoder_fn), _vector(6), values)
        np.testing.assert_allclose(output.result, np.sum(values, axis=0), atol=1e-5)


def test_quantisation_keeps_extremes_constants_and_structures():
    factory = a.EncodedSumFactory.quantize_above_threshold(2, 0, stochastic=False)
    output = run(factory, _vector(4), [[-1.0, 0.3, 0.4, 2.0]])
    np.testing.assert_allclose(output.result, [-1.0, 0.0, 0.0, 2.0], atol=1e-6)
    np.testing.assert_array_equal(run(factory, _vector(2), [[5.0, 5.0]]).result, [5, 5])
    value = OrderedDict(w=[[1.0, 2.0, 4.0]] * 2, b=[3.0])
    nested = run(factory, NESTED, [value, value]).result
    np.testing.assert_allclose(nested["w"], [[2.0, 4.0, 8.0]] * 2)
    assert nested["b"] == [6.0]


def test_quantisation_of_nan_is_nan():
    factory = a.EncodedSumFactory.quantize_above_threshold(8, 0)
    assert np.isnan(run(factory, _vector(2), [[math.nan, 1.0]]).result).all()


def test_small_tensors_are_not_quantised():
    values = numbers(3, 5)
    factory = a.EncodedSumFactory.quantize_above_threshold(1, threshold=5)
    result = run(factory, _vector(5), values).result
    np.testing.assert_allclose(result, np.sum(values, axis=0), rtol=1e-6)


def test_what_is_sent_is_small():
    factory = a.EncodedSumFactory.quantize_above_threshold(8, 0)
    (sent,) = [
        node.type.parameter[0]
        for node in ir.walk(factory.create(_vector(1000)).next.node)
        if isinstance(node, ir.Intrinsic) and node.uri == "federated_aggregate"
    ]
    assert str(sent) == "{<<levels=uint8[1000],low=float32,step=float32>>}@CLIENTS"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: a.DiscretizationFactory(a.SumFactory(), 0.0),
            ValueError,
            "scale_factor",
        ),
        (
            lambda: a.DiscretizationFactory(a.SumFactory(), 1.0, True, 1.0),
            ValueError,
            "`beta` needs to be in",
        ),
        (
            lambda: a.DiscretizationFactory(a.SumFactory(), 1.0, False, 0.5),
            ValueError,
            "`beta` needs `stochastic",
        ),
        (
            lambda: a.StochasticDiscretizationFactory(a.SumFactory(), -1.0),
            ValueError,
            "`step_size` needs to be > 0",
        ),
        (lambda: a.ModularClippingSumFactory(3, -2), ValueError, "a range of 1 to"),
        (
            lambda: a.ModularClippingSumFactory(-(2**31), 2**31),
            ValueError,
            "a range of",
        ),
        (lambda: a.ModularClippingSumFactory(0, 1.5), TypeError, "integers as bounds"),
        (
            lambda: a.HadamardTransformFactory(None, 0),
            ValueError,
            "`num_repeats` needs",
        ),
        (
            lambda: a.HadamardTransformFactory().create(
                to_type([tf.float32, tf.int32])
            ),
            TypeError,
            "all floats or all integers",
        ),
        (
            lambda: a.EliasGammaEncodedSumFactory().create(TensorType(tf.int64)),
            TypeError,
            "needs int32 numbers",
        ),
        (
            lambda: a.EncodedSumFactory.quantize_above_threshold(17),
            ValueError,
            "`quantization_bits` needs",
        ),
        (
            lambda: a.EncodedSumFactory.quantize_above_threshold(8, -1),
            ValueError,
            "`threshold` needs",
        ),
        (lambda: a.EncodedSumFactory(3), TypeError, "`encoder_fn` needs"),
        (
            lambda: a.EncodedSumFactory.quantize_above_threshold(8, 0).create(
                TensorType(tf.int32)
            ),
            TypeError,
            r"`encoders.uniform_quantization` needs",
        ),
        (
            lambda: encoders.sparsification(tf.TensorSpec([3], tf.float32), 0.0),
            ValueError,
            "`fraction` needs",
        ),
        (
            lambda: encoders.uniform_quantization(tf.TensorSpec([3], tf.float32), 0),
            ValueError,
            "`bits` needs",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
