"""Recommended stacks: what they are made of, that they learn, that secure ones are."""

from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedcore.test
from fedcore import aggregators
from fedcore.context import use
from fedcore.types import TensorType, to_type
from fedlearn import aggregator as stacks
from fedlearn.debug_measurements import add_debug_measurements
from fedsim.runtime import local_context, reference_context

FLOAT = TensorType(tf.float32)
MODEL = to_type([(tf.float32, [3, 2]), (tf.float32, [2])])
STACKS = [
    stacks.robust_aggregator,
    stacks.compression_aggregator,
    stacks.entropy_compression_aggregator,
    stacks.secure_aggregator,
]


@pytest.fixture(params=[reference_context, local_context], ids=["reference", "fused"])
def context(request):
    context = request.param(seed=11)
    with use(context):
        yield context


def create(factory, value_type=MODEL):
    if isinstance(factory, aggregators.WeightedAggregationFactory):
        return factory.create(value_type, FLOAT)
    return factory.create(value_type)


def updates(clients, scale=0.1, seed=0):
    generator = np.random.default_rng(seed)
    return [
        [
            (scale * generator.normal(size=(3, 2))).astype(np.float32),
            (scale * generator.normal(size=2)).astype(np.float32),
        ]
        for _ in range(clients)
    ]


def call(process, state, values):
    weights = [[np.float32(i + 1) for i in range(len(values))]]
    return process.next(state, values, *(weights if process.is_weighted else []))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("make", STACKS)
def test_stacks_give_the_mean_of_updates_that_are_not_unusual(make, weighted, context):
    kwargs = (
        {"step_size": 1e-4} if make is stacks.entropy_compression_aggregator else {}
    )
    process = create(make(weighted=weighted, **kwargs))
    assert process.is_weighted == weighted
    values = updates(5)
    output = call(process, process.initialize(), values)
    weights = range(1, 6) if weighted else [1] * 5
    for i in range(2):
        wanted = np.average([value[i] for value in values], axis=0, weights=weights)
        np.testing.assert_allclose(output.result[i], wanted, atol=2e-4)
    assert output.measurements["zeroed_count"] == 0


@pytest.mark.parametrize("zeroing", [True, False])
@pytest.mark.parametrize("clipping", [True, False])
@pytest.mark.parametrize("make", STACKS)
def test_options_leave_parts_out(make, clipping, zeroing):
    process = create(make(zeroing=zeroing, clipping=clipping))
    measurements = str(process.next.type_signature.result.measurements)
    assert ("zeroing=" in measurements) == zeroing
    assert ("clipping=" in measurements) == clipping


@pytest.mark.parametrize("make", STACKS[:3])
def test_an_outlier_moves_the_mean_little(make, context):
    process = create(make(weighted=False))
    values = updates(9)
    values.append([np.full((3, 2), 1e6, np.float32), np.zeros(2, np.float32)])
    values.append([np.full((3, 2), 20.0, np.float32), np.zeros(2, np.float32)])
    output = call(process, process.initialize(), values)
    assert output.measurements["zeroed_count"] == 1
    assert output.measurements["zeroing"]["clipped_count"] == 1
    assert np.abs(output.result[0]).max() < 0.2


def test_bounds_follow_the_clients(context):
    process = create(stacks.robust_aggregator())
    state = process.initialize()
    norms = []
    for _ in range(25):
        output = call(process, state, updates(5, scale=10.0))
        state = output.state
        norms.append(output.measurements["zeroing"]["clipping_norm"])
    assert norms[0] == 1.0
    assert norms == sorted(norms)
    assert norms[-1] > 5


@pytest.mark.parametrize("weighted", [True, False])
def test_secure_stack_sums_nothing_in_the_clear(weighted):
    process = create(stacks.secure_aggregator(weighted=weighted))
    fedcore.test.assert_contains_secure_aggregation(process.next)
    fedcore.test.assert_not_contains_unsecure_aggregation(process.next)
    plain = create(stacks.robust_aggregator(weighted=weighted))
    fedcore.test.assert_not_contains_secure_aggregation(plain.next)
    fedcore.test.assert_contains_unsecure_aggregation(plain.next)


def test_compression_quantises_large_tensors_only(context):
    value_type = to_type(OrderedDict(large=(tf.float32, [30]), small=(tf.float32, [3])))
    factory = stacks.compression_aggregator(
        zeroing=False, clipping=False, weighted=False, threshold=10, quantization_bits=2
    )
    value = OrderedDict(
        large=np.linspace(0, 1, 30, dtype=np.float32), small=np.float32([0.1, 0.2, 0.7])
    )
    process = create(factory, value_type)
    result = call(process, process.initialize(), [value]).result
    np.testing.assert_array_equal(result["small"], value["small"])
    assert len(np.unique(result["large"].round(5))) <= 4


def test_entropy_compression_measures_bits_and_distortion(context):
    process = create(stacks.entropy_compression_aggregator(step_size=0.01))
    measurements = call(process, process.initialize(), updates(5)).measurements
    measured = measurements["zeroing"]["clipping"]["mean_value"]
    assert 0 < measured["distortion"] < 2 * 0.01**2
    bitrate = measured["stochastic_discretization"]["elias_gamma_code_avg_bitrate"]
    assert 5 < bitrate < 20


def test_debug_measurements_are_taken_of_the_mean(context):
    factory = stacks.robust_aggregator(debug_measurements_fn=add_debug_measurements)
    process = create(factory)
    measured = call(process, process.initialize(), updates(5)).measurements
    assert measured["zeroing"]["clipping"]["average_client_norm"] > 0


def test_the_step_needs_to_be_positive():
    with pytest.raises(ValueError, match="`step_size` needs to be > 0"):
        stacks.entropy_compression_aggregator(step_size=0.0)
