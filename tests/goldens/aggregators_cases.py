"""Aggregators and values that real TFF and fedcore are both run on.

Everything is made of the modules that the caller hands in, so that one description serves
both: `aggregators` and `learning` are TFF's or ours.
"""

import collections
import math

import numpy as np

OD = collections.OrderedDict
VECTORS = [[1.0, 2.0, 2.0], [0.3, -0.4, 0.0], [0.0, 0.0, 0.0], [-30.0, 40.0, 0.0]]
INTEGERS = [[1, 2, 3], [-4, 0, 11], [100, -100, 5], [10, 9, -1]]
WEIGHTS = [1.0, 2.0, 3.0, 4.0]
NAN, INF = math.nan, math.inf


def value_types(tff, tf):
    """Types of clients' values, by name."""
    return {
        "scalar": tff.TensorType(tf.float32),
        "vector": tff.TensorType(tf.float32, [3]),
        "nested": tff.to_type(
            OD(a=(tf.float32, [2]), b=[(tf.float32, [2, 2]), tf.float32])
        ),
        "float64": tff.TensorType(tf.float64, [2]),
        "int32": tff.TensorType(tf.int32),
        "int_nested": tff.to_type(OD(a=(tf.int32, [2]), b=tf.int32)),
        "int64": tff.TensorType(tf.int64),
        "mixed": tff.to_type(OD(a=(tf.float32, [2]), b=tf.int32)),
        "bool": tff.TensorType(tf.bool),
        "empty": tff.StructType([]),
    }


def factories(aggregators, learning, counted):
    """Functions that make a factory, by name.

    Args:
        aggregators: `tff.aggregators` or ours.
        learning: `tff.learning` or ours.
        counted: From anything, to an OrderedDict with the number of clients at SERVER.
    """
    a, made = aggregators, learning

    def quantile(**kwargs):
        no_noise = a.PrivateQuantileEstimationProcess.no_noise
        return no_noise(1.0, 0.5, 0.2, **kwargs)

    return {
        "sum": lambda: a.SumFactory(),
        "mean": lambda: a.MeanFactory(),
        "mean_no_nan": lambda: a.MeanFactory(no_nan_division=True),
        "unweighted_mean": lambda: a.UnweightedMeanFactory(),
        "clip": lambda: a.clipping_factory(1.0, a.SumFactory()),
        "clip_adaptive": lambda: a.clipping_factory(quantile(), a.MeanFactory()),
        "zero": lambda: a.zeroing_factory(3.0, a.SumFactory()),
        "zero_l1": lambda: a.zeroing_factory(3.0, a.SumFactory(), norm_order=1.0),
        "zero_l2": lambda: a.zeroing_factory(3.0, a.SumFactory(), norm_order=2.0),
        "zero_adaptive": lambda: a.zeroing_factory(
            quantile(multiplier=2.0, increment=1.0), a.MeanFactory()
        ),
        "concat": lambda: a.concat_factory(a.SumFactory()),
        "concat_clip": lambda: a.concat_factory(
            a.clipping_factory(1.0, a.MeanFactory())
        ),
        "secure_int": lambda: a.SecureSumFactory(10),
        "secure_int_range": lambda: a.SecureSumFactory(10, -5),
        "secure_float": lambda: a.SecureSumFactory(10.0),
        "secure_float_range": lambda: a.SecureSumFactory(10.0, -3.0),
        "secure_process": lambda: a.SecureSumFactory(quantile()),
        "secure_modular": lambda: a.SecureModularSumFactory(8),
        "secure_modular_symmetric": lambda: a.SecureModularSumFactory(8, True),
        "hadamard": lambda: a.HadamardTransformFactory(),
        "hadamard_twice": lambda: a.HadamardTransformFactory(a.SumFactory(), 2),
        "fourier": lambda: a.DiscreteFourierTransformFactory(),
        "elias_gamma": lambda: a.EliasGammaEncodedSumFactory(a.UnweightedMeanFactory()),
        "reservoir": lambda: a.UnweightedReservoirSamplingFactory(10),
        "encoded": lambda: a.EncodedSumFactory.quantize_above_threshold(4, 2),
        "weighted_sum": lambda: a.as_weighted_aggregator(a.SumFactory()),
        "measured": lambda: a.add_measurements(
            a.SumFactory(),
            client_measurement_fn=counted,
            server_measurement_fn=lambda result: OD(result=result),
        ),
        "robust": lambda: made.robust_aggregator(),
        "robust_unweighted": lambda: made.robust_aggregator(weighted=False),
        "robust_no_zeroing": lambda: made.robust_aggregator(zeroing=False),
        "robust_no_clipping": lambda: made.robust_aggregator(clipping=False),
        "robust_debug": lambda: made.robust_aggregator(
            debug_measurements_fn=made.add_debug_measurements
        ),
        "robust_debug_unweighted": lambda: made.robust_aggregator(
            weighted=False, debug_measurements_fn=made.add_debug_measurements
        ),
        "compression": lambda: made.compression_aggregator(),
        "compression_unweighted": lambda: made.compression_aggregator(weighted=False),
        "entropy": lambda: made.entropy_compression_aggregator(),
        "entropy_unweighted": lambda: made.entropy_compression_aggregator(
            weighted=False
        ),
        "secure": lambda: made.secure_aggregator(),
        "secure_unweighted": lambda: made.secure_aggregator(weighted=False),
        "secure_bare": lambda: made.secure_aggregator(zeroing=False, clipping=False),
        "debug": lambda: made.add_debug_measurements(a.MeanFactory()),
        "debug_mixed": lambda: made.add_debug_measurements_with_mixed_dtype(
            a.MeanFactory()
        ),
    }


# Factory, dtype, values of the clients, rounds; values grow with the round.
RUNS = [
    *(
        (name, "float32", VECTORS, 3)
        for name in (
            *("sum", "mean", "unweighted_mean", "clip", "clip_adaptive", "zero"),
            *("zero_l1", "zero_l2", "zero_adaptive", "concat_clip"),
            *("secure_float", "secure_float_range", "secure_process"),
            *("robust", "robust_unweighted", "robust_debug", "robust_debug_unweighted"),
            *("compression", "secure", "secure_unweighted", "secure_bare"),
            *("debug", "debug_mixed", "weighted_sum", "measured"),
        )
    ),
    *(
        (name, "int32", INTEGERS, 1)
        for name in (
            *("sum", "secure_int", "secure_int_range", "secure_modular"),
            *("secure_modular_symmetric", "elias_gamma"),
        )
    ),
    ("secure_float", "float64", VECTORS, 1),
    ("clip", "float32", [[NAN, 0.0, 0.0], [1.0, 1.0, 1.0]], 1),
    ("clip", "float32", [[INF, 0.0, 0.0], [1.0, 1.0, 1.0]], 1),
    ("zero", "float32", [[NAN, 0.0, 0.0], [1.0, 1.0, 1.0]], 1),
    ("zero", "float32", [[INF, 0.0, 0.0], [1.0, 1.0, 1.0]], 1),
    ("zero", "float32", [[3.0, 0.0, 0.0], [3.1, 0.0, 0.0]], 1),
    ("debug", "float32", [[1.0, 2.0, 2.0]], 1),
    ("mean", "float32", [], 1),
    ("mean_no_nan", "float32", [], 1),
    ("sum", "int32", [[2**31 - 1, -(2**31), 1]] * 2, 1),
    ("secure_modular", "int32", [[2**31 - 1, -(2**31), 1]] * 2, 1),
    *(
        ("elias_gamma", "int32", [row], 1)
        for row in (
            *([0] * 15, [0] * 126, [0] * 127, [0] * 14 + [1], [1] + [0] * 127),
            *([0] * 7 + [7], [-1] * 8, [1, 1, 0], [1, 1, 0, 0], [2**31 - 1], [0]),
        )
    ),
]

# Initial estimate, target, learning rate, multiplier, increment, secure.
QUANTILES = [
    (1.0, 0.5, 0.2, 1.0, 0.0, False),
    (10.0, 0.98, math.log(10.0), 2.0, 1.0, False),
    (1.0, 0.8, 0.2, 1.0, 0.0, True),
]
QUANTILE_ROUNDS = [
    [0.5, 1.0, 3.0, 2.0],
    [0.2, 0.3, 0.4, 0.1],
    [5.0, 6.0, 7.0, 8.0],
    [NAN, 1.0, 2.0, 3.0],
    [INF, 0.0, 0.1, 1.0],
]

# Transform, repeats, shapes of the tensors, the value's numbers; the seed is [7, 0].
ROTATIONS = [
    ("Hadamard", 1, [[]], [3.0]),
    ("Hadamard", 1, [[3]], [1.0, 2.0, 3.0]),
    ("Hadamard", 2, [[3]], [1.0, 2.0, 3.0]),
    ("Hadamard", 1, [[5]], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ("Hadamard", 1, [[2, 2]], [1.0, 2.0, 3.0, 4.0]),
    ("Hadamard", 1, [[2], [3]], [1.0, 2.0, 4.0, 5.0, 6.0]),
    ("Hadamard", 3, [[2], [3]], [1.0, 2.0, 4.0, 5.0, 6.0]),
    ("DiscreteFourier", 1, [[]], [3.0]),
    ("DiscreteFourier", 1, [[3]], [1.0, 2.0, 3.0]),
    ("DiscreteFourier", 2, [[4]], [1.0, 2.0, 0.0, 0.0]),
    ("DiscreteFourier", 1, [[5]], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ("DiscreteFourier", 1, [[2], [3]], [1.0, 2.0, 4.0, 5.0, 6.0]),
    ("DiscreteFourier", 3, [[2], [3]], [1.0, 2.0, 4.0, 5.0, 6.0]),
]

# dtype, bounds, values of the clients.
QUANTIZED_SUMS = [
    ("float32", -1.0, 2.0, [[1.0, 2.0, 3.0], [-1.0, -2.0, 0.333]]),
    ("float32", -1e6, 1e6, [[1.0, 2.0, 3.0], [-1.0, -2.0, 0.333]]),
    ("float32", -1.0, 2.0, [[NAN, INF, -INF], [-1.0, -2.0, 0.333]]),
    ("float32", 1.0, 1.0, [[1.0], [1.0]]),
    ("float64", -1.0, 2.0, [[1.0, 2.0, 3.0], [-1.0, -2.0, 0.333]]),
    ("int32", -10, 20, [[1, 2, 30], [-1, -20, 3]]),
    ("int64", -(2**20), 2**40, [[2**30, -(2**22)], [2**42, 1]]),
]


def rows(values, dtype, round_number):
    """The clients' values in a round, which counts from 1."""
    if dtype.startswith("int"):
        return [np.array(row, dtype) for row in values]
    return [np.array(row, dtype) * np.array(round_number, dtype) for row in values]


def split(numbers, shapes):
    """The numbers as float32 tensors of the shapes."""
    tensors = []
    for shape in shapes:
        size = math.prod(shape)
        tensors.append(np.array(numbers[:size], np.float32).reshape(shape))
        numbers = numbers[size:]
    return tensors


def flat(value):
    """All numbers in a value, in order; names are part of types, which are compared too."""
    if hasattr(value, "__attrs_attrs__") and type(value).__name__ != "Struct":
        value = [getattr(value, field.name) for field in value.__attrs_attrs__]
    elif isinstance(value, dict):
        value = list(value.values())
    elif type(value).__name__ == "Struct":
        value = list(value)
    if isinstance(value, (list, tuple)):
        return [number for element in value for number in flat(element)]
    return np.asarray(value).ravel().tolist()


def key(*parts):
    return "/".join(map(str, parts))
