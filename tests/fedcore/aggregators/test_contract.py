"""What holds for every aggregator that is exported, whatever it does."""

import inspect
import math
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import aggregators as a
from fedcore import structure
from fedcore.context import use
from fedcore.templates import AggregationProcess
from fedcore.types import TensorType, to_type
from fedsim.runtime import local_context, reference_context

no_noise = a.PrivateQuantileEstimationProcess.no_noise
VECTOR = TensorType(tf.float32, [3])
INTEGERS = TensorType(tf.int32, [3])
NESTED = to_type(OrderedDict(w=(tf.float32, [2, 2]), b=[tf.float32]))
FLOAT64 = TensorType(tf.float64, [2])
SCALAR = TensorType(tf.float32)

# Factories by exported name, with the types of values each is tried on.
FLOATS = (NESTED, FLOAT64)
FACTORIES = {
    "SumFactory": ([a.SumFactory], (*FLOATS, INTEGERS)),
    "MeanFactory": (
        [a.MeanFactory, lambda: a.MeanFactory(no_nan_division=True)],
        FLOATS,
    ),
    "UnweightedMeanFactory": ([a.UnweightedMeanFactory], FLOATS),
    "clipping_factory": (
        [
            lambda: a.clipping_factory(0.5, a.MeanFactory()),
            lambda: a.clipping_factory(no_noise(1.0, 0.5, 0.5), a.SumFactory()),
        ],
        FLOATS,
    ),
    "zeroing_factory": (
        [
            lambda: a.zeroing_factory(0.5, a.MeanFactory()),
            lambda: a.zeroing_factory(no_noise(1.0, 0.5, 0.5), a.SumFactory(), 2.0),
        ],
        FLOATS,
    ),
    "concat_factory": (
        [
            lambda: a.concat_factory(a.SumFactory()),
            lambda: a.concat_factory(a.MeanFactory()),
        ],
        FLOATS,
    ),
    "SecureSumFactory": (
        [
            lambda: a.SecureSumFactory(1.0),
            lambda: a.SecureSumFactory(no_noise(1.0, 0.5, 0.5)),
        ],
        FLOATS,
    ),
    "SecureModularSumFactory": (
        [
            lambda: a.SecureModularSumFactory(7),
            lambda: a.SecureModularSumFactory(7, symmetric_range=True),
        ],
        (INTEGERS,),
    ),
    "HadamardTransformFactory": (
        [a.HadamardTransformFactory, lambda: a.HadamardTransformFactory(num_repeats=2)],
        FLOATS,
    ),
    "DiscreteFourierTransformFactory": ([a.DiscreteFourierTransformFactory], FLOATS),
    "DiscretizationFactory": (
        [
            lambda: a.DiscretizationFactory(a.SumFactory(), 8.0),
            lambda: a.DiscretizationFactory(a.SumFactory(), 8.0, True, 0.1, 4.0),
        ],
        FLOATS,
    ),
    "StochasticDiscretizationFactory": (
        [
            lambda: a.StochasticDiscretizationFactory(
                a.SumFactory(), 0.25, a.UnweightedMeanFactory()
            )
        ],
        FLOATS,
    ),
    "ModularClippingSumFactory": (
        [lambda: a.ModularClippingSumFactory(-3, 4, estimate_stddev=True)],
        (INTEGERS,),
    ),
    "EncodedSumFactory": (
        [
            lambda: a.EncodedSumFactory.quantize_above_threshold(8, 1),
            lambda: a.EncodedSumFactory(
                lambda spec: a.encoders.hadamard(
                    spec, lambda s: a.encoders.sparsification(s, 0.5)
                )
            ),
        ],
        FLOATS,
    ),
    "EliasGammaEncodedSumFactory": (
        [lambda: a.EliasGammaEncodedSumFactory(a.UnweightedMeanFactory())],
        (INTEGERS,),
    ),
    "UnweightedReservoirSamplingFactory": (
        [lambda: a.UnweightedReservoirSamplingFactory(100)],
        (*FLOATS, INTEGERS),
    ),
    "add_measurements": (
        [
            lambda: a.add_measurements(
                a.SumFactory(), server_measurement_fn=lambda r: OrderedDict(result=r)
            )
        ],
        (*FLOATS, INTEGERS),
    ),
    "as_weighted_aggregator": (
        [lambda: a.as_weighted_aggregator(a.SumFactory())],
        (*FLOATS, INTEGERS),
    ),
}
CASES = [
    pytest.param(make, type_, id=f"{name}-{i}-{type_}")
    for name, (makers, types) in FACTORIES.items()
    for i, make in enumerate(makers)
    for type_ in types
]
# Each client draws numbers of its own in these.
RANDOM = (
    *("EncodedSumFactory", "DiscretizationFactory"),
    *("StochasticDiscretizationFactory", "UnweightedReservoirSamplingFactory"),
)
ORDERED = [case for case in CASES if not case.id.startswith(RANDOM)]


def test_every_exported_factory_is_tried():
    made = {
        name
        for name in a.__all__
        if name.endswith("_factory")
        or (
            inspect.isclass(getattr(a, name))
            and issubclass(
                getattr(a, name),
                (a.UnweightedAggregationFactory, a.WeightedAggregationFactory),
            )
            and not inspect.isabstract(getattr(a, name))
        )
    }
    assert made <= set(FACTORIES)


def create(make, value_type):
    factory = make()
    if isinstance(factory, a.WeightedAggregationFactory):
        return factory.create(value_type, SCALAR)
    return factory.create(value_type)


def random_value(type_, generator):
    def number(t):
        if t.dtype.is_integer:
            return generator.integers(-9, 10, t.shape).astype(t.dtype.as_numpy_dtype)
        return generator.normal(size=t.shape).astype(t.dtype.as_numpy_dtype)

    if type_ is NESTED:
        return OrderedDict(w=number(NESTED.w), b=[number(NESTED.b[0])])
    return number(type_)


def arguments(process, value_type, clients=5):
    generator = np.random.default_rng(3)
    found = [[random_value(value_type, generator) for _ in range(clients)]]
    if process.is_weighted:
        found.append([np.float32(i + 1) for i in range(clients)])
    return found


def flat(value):
    tensors = structure.flatten(structure.from_container([value], recursive=True))
    return [np.asarray(t) for t in tensors]


@pytest.mark.parametrize(("make", "value_type"), CASES)
def test_types_and_state_over_rounds(make, value_type, context):
    process = create(make, value_type)
    assert isinstance(process, AggregationProcess)
    parameter, output = (
        process.next.type_signature.parameter,
        process.next.type_signature.result,
    )
    assert parameter[1] == fedcore.type_at_clients(value_type)
    assert output.state == process.state_type
    state = process.initialize()
    for _ in range(2):
        state = process.next(state, *arguments(process, value_type)).state
    again = create(make, value_type)
    assert again.next.type_signature == process.next.type_signature


@pytest.mark.parametrize(("make", "value_type"), ORDERED)
def test_order_of_clients_does_not_matter(make, value_type, context):
    process = create(make, value_type)
    values = arguments(process, value_type)
    state = process.initialize()
    one = process.next(state, *values)
    other = process.next(state, *[list(reversed(part)) for part in values])
    for left, right in zip(flat(one.result), flat(other.result)):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "value_type"), CASES)
def test_no_clients_do_no_harm_to_the_state(make, value_type, context):
    process = create(make, value_type)
    state = process.initialize()
    empty = [[] for _ in arguments(process, value_type)]
    after = process.next(state, *empty).state
    assert all(np.isfinite(t).all() for t in flat(after) if t.size)
    process.next(after, *arguments(process, value_type))


def test_the_same_seed_gives_the_same_bits_on_every_runtime():
    make = FACTORIES["EncodedSumFactory"][0][0]
    process = create(make, VECTOR)
    values = arguments(process, VECTOR)
    results = []
    for runtime in (reference_context, reference_context, local_context):
        with use(runtime(seed=5)):
            results.append(process.next(process.initialize(), *values).result)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], rtol=1e-6)
    assert math.isfinite(results[0].sum())
