"""Agreement with real TFF 0.40: types to the letter, figures to float32's precision."""

import collections
import json
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import aggregators
from fedlearn import aggregator as stacks
from fedlearn import debug_measurements

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens"
sys.path.insert(0, str(GOLDENS))
import aggregators_cases as cases  # noqa: E402

WANTED = json.loads((GOLDENS / "aggregators_tff_0_40.json").read_text())
OD = collections.OrderedDict
LEARNING = types.SimpleNamespace(**(vars(stacks) | vars(debug_measurements)))


def counted(value):
    ones = fedcore.federated_value(1, fedcore.CLIENTS)
    return OD(clients=fedcore.federated_sum(ones))


MAKERS = cases.factories(aggregators, LEARNING, counted)

# Where TFF fails for no reason that a user could see, we do what is asked for.
WE_TAKE_MORE = {
    *(
        f"{name}/empty"
        for name in (
            *("clip", "clip_adaptive", "zero", "zero_l1", "zero_l2", "zero_adaptive"),
            *("secure_modular_symmetric", "hadamard", "hadamard_twice", "fourier"),
            *("reservoir", "robust", "robust_unweighted", "robust_no_zeroing"),
            *("robust_no_clipping", "compression", "compression_unweighted"),
        )
    ),
    "debug/float64",
    "robust_debug/float64",
    "robust_debug_unweighted/float64",
}


def create(factory, value_type):
    if isinstance(factory, aggregators.WeightedAggregationFactory):
        return factory.create(value_type, fedcore.TensorType(tf.float32))
    return factory.create(value_type)


@pytest.mark.parametrize("name", MAKERS)
def test_types_are_those_of_tff_to_the_letter(name):
    for type_name, type_ in cases.value_types(fedcore, tf).items():
        key = cases.key(name, type_name)
        wanted = WANTED["types"][key]
        if isinstance(wanted, str) and key not in WE_TAKE_MORE:
            with pytest.raises(TypeError, match=r"needs|cannot"):
                create(MAKERS[name](), type_)
            continue
        process = create(MAKERS[name](), type_)
        if not isinstance(wanted, str):
            found = [process.initialize.type_signature, process.next.type_signature]
            assert list(map(str, found)) == wanted, key


@pytest.mark.parametrize(
    "index", range(len(cases.RUNS)), ids=[case[0] for case in cases.RUNS]
)
def test_figures_are_those_of_tff(index, context):
    name, dtype, values, rounds = cases.RUNS[index]
    size = len(values[0]) if values else 3
    process = create(MAKERS[name](), fedcore.TensorType(tf.as_dtype(dtype), [size]))
    state = process.initialize()
    # A number that is sent as one of 2**32 levels is off by half a level at each client.
    secure = name.startswith("secure")
    tolerance = {"rtol": 1e-5, "atol": 1e-4 if secure else 1e-6}
    for number in range(1, rounds + 1):
        arguments = [cases.rows(values, dtype, number)]
        if process.is_weighted:
            arguments.append([np.float32(w) for w in cases.WEIGHTS[: len(values)]])
        output = process.next(state, *arguments)
        state = output.state
        found = (output.state, output.result, output.measurements)
        for part, wanted in zip(found, WANTED["runs"][index][number - 1]):
            np.testing.assert_allclose(cases.flat(part), wanted, **tolerance)


@pytest.mark.parametrize("index", range(len(cases.QUANTILES)))
def test_quantiles_are_those_of_tff(index, context):
    *numbers, secure = cases.QUANTILES[index]
    process = aggregators.PrivateQuantileEstimationProcess.no_noise(
        *numbers, secure_estimation=secure
    )
    state = process.initialize()
    reports = [process.report(state)]
    for values in cases.QUANTILE_ROUNDS:
        state = process.next(state, [np.float32(v) for v in values])
        reports.append(process.report(state))
    np.testing.assert_allclose(reports, WANTED["quantiles"][index], rtol=1e-6)


@pytest.mark.parametrize("index", range(len(cases.ROTATIONS)))
def test_rotations_are_those_of_tff_given_its_seed(index, context):
    transform, repeats, shapes, numbers = cases.ROTATIONS[index]
    inner = aggregators.add_measurements(
        aggregators.SumFactory(),
        server_measurement_fn=lambda result: OD(rotated=result),
    )
    factory = getattr(aggregators, transform + "TransformFactory")
    value_type = fedcore.to_type([(tf.float32, shape) for shape in shapes])
    process = factory(inner, repeats).create(value_type)
    state = ((), np.array([7, 0], np.int64))
    for wanted in WANTED["rotations"][index]:
        output = process.next(state, [cases.split(numbers, shapes)])
        state = output.state
        found = (output.measurements, output.result, output.state)
        for part, figures in zip(found, wanted):
            np.testing.assert_allclose(cases.flat(part), figures, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("index", range(len(cases.QUANTIZED_SUMS)))
def test_quantized_sums_are_those_of_tff(index, context):
    dtype, lower, upper, values = cases.QUANTIZED_SUMS[index]
    value_type = fedcore.TensorType(tf.as_dtype(dtype), [len(values[0])])
    bounds = np.array([lower, upper], dtype)

    @fedcore.federated_computation(fedcore.type_at_clients(value_type))
    def total(value):
        return aggregators.secure_quantized_sum(value, *bounds)

    found = total(cases.rows(values, dtype, 1))
    level = (float(upper) - float(lower)) / 2**32
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, WANTED["quantized_sums"][index], rtol=1e-6, atol=2 * level * len(values)
    )
