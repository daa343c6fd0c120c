"""Aggregators recommended for learning, made of those of `fedcore.aggregators`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fedcore.aggregators import (
    AggregationFactory,
    EliasGammaEncodedSumFactory,
    EncodedSumFactory,
    MeanFactory,
    PrivateQuantileEstimationProcess,
    SecureSumFactory,
    StochasticDiscretizationFactory,
    UnweightedAggregationFactory,
    UnweightedMeanFactory,
    clipping_factory,
    zeroing_factory,
)
from fedcore.templates import EstimationProcess

# A client's weight in a secure sum is at most this: 20 bits, above which it is clipped.
_GREATEST_WEIGHT = float(2**20 - 1)


def robust_aggregator(
    *,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    debug_measurements_fn: Callable[[AggregationFactory], AggregationFactory]
    | None = None,
) -> AggregationFactory:
    """A mean that outliers do not spoil.

    Updates are zeroed if a number in them is far over what is usual, then clipped to about
    the 0.8 quantile of their norms, then averaged; both bounds follow the clients.

    Args:
        zeroing: Whether to zero updates whose greatest absolute value is over 2 C + 1, C
            an estimate of its 0.98 quantile that starts at 10 and moves by up to a factor
            of 10 in a round.
        clipping: Whether to clip updates to an estimate of the 0.8 quantile of their L2
            norms; it starts at 1 and moves by up to 20 % in a round.
        weighted: Whether the mean takes weights.
        debug_measurements_fn: Wraps the factory of the mean to measure more, for example
            `fedlearn.add_debug_measurements`.

    Returns:
        A factory, weighted or not, for structures of floats.
    """
    mean = MeanFactory() if weighted else UnweightedMeanFactory()
    return _robust(_measured(mean, debug_measurements_fn), zeroing, clipping)


def compression_aggregator(
    *,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    debug_measurements_fn: Callable[[AggregationFactory], AggregationFactory]
    | None = None,
    **kwargs: Any,
) -> AggregationFactory:
    """As `robust_aggregator`, with large tensors quantised to 8 bits a number.

    Tensors of more than 20000 elements are quantised, at random and unbiased.

    Args:
        zeroing: As for `robust_aggregator`.
        clipping: As for `robust_aggregator`.
        weighted: As for `robust_aggregator`.
        debug_measurements_fn: As for `robust_aggregator`.
        **kwargs: Arguments of `EncodedSumFactory.quantize_above_threshold` in the place
            of 8 bits and 20000 elements, and beside them.

    Returns:
        A factory, weighted or not, for structures of floats.
    """
    kwargs = {"quantization_bits": 8, "threshold": 20000, **kwargs}
    sums = EncodedSumFactory.quantize_above_threshold(**kwargs)
    mean = MeanFactory(sums) if weighted else UnweightedMeanFactory(sums)
    return _robust(_measured(mean, debug_measurements_fn), zeroing, clipping)


def entropy_compression_aggregator(
    *,
    step_size: float = 0.5,
    zeroing: bool = True,
    clipping: bool = True,
    weighted: bool = True,
    debug_measurements_fn: Callable[[AggregationFactory], AggregationFactory]
    | None = None,
) -> AggregationFactory:
    """As `robust_aggregator`, with numbers rounded to multiples of a step and coded.

    The bits that a number takes in the code and the squared error of rounding are measured.

    Args:
        step_size: The step > 0; a number is rounded at random, unbiased.
        zeroing: As for `robust_aggregator`.
        clipping: As for `robust_aggregator`.
        weighted: As for `robust_aggregator`.
        debug_measurements_fn: As for `robust_aggregator`.

    Returns:
        A factory, weighted or not, for structures of floats of known shapes.

    Raises:
        ValueError: If the step is not positive.
    """
    sums = StochasticDiscretizationFactory(
        EliasGammaEncodedSumFactory(UnweightedMeanFactory()),
        step_size,
        UnweightedMeanFactory(),
    )
    mean = MeanFactory(sums) if weighted else UnweightedMeanFactory(sums)
    return _robust(_measured(mean, debug_measurements_fn), zeroing, clipping)


def secure_aggregator(
    *, zeroing: bool = True, clipping: bool = True, weighted: bool = True
) -> AggregationFactory:
    """As `robust_aggregator`, with every sum over clients a secure one.

    A number of an update counts within ±2 C, C an estimate of the 0.95 quantile of
    updates' greatest absolute values that starts at 50; a weight counts up to 2²⁰ − 1.

    Args:
        zeroing: As for `robust_aggregator`.
        clipping: As for `robust_aggregator`.
        weighted: As for `robust_aggregator`.

    Returns:
        A factory, weighted or not, for structures of floats of one dtype.
    """
    sums = SecureSumFactory(
        PrivateQuantileEstimationProcess.no_noise(
            50.0, 0.95, 1.0, multiplier=2.0, secure_estimation=True
        )
    )
    counts = SecureSumFactory(1, 0)
    if weighted:
        mean = MeanFactory(sums, SecureSumFactory(_GREATEST_WEIGHT, 0.0))
    else:
        mean = UnweightedMeanFactory(sums, counts)
    return _robust(mean, zeroing, clipping, counts)


def _robust(
    mean: AggregationFactory,
    zeroing: bool,
    clipping: bool,
    secure_counts: UnweightedAggregationFactory | None = None,
) -> AggregationFactory:
    """Clips, and zeroes before that; its own sums are secure if a factory is given."""
    is_secure = secure_counts is not None
    if clipping:
        mean = clipping_factory(_clipping_norm(is_secure), mean, secure_counts)
    if zeroing:
        mean = zeroing_factory(
            _zeroing_norm(is_secure), mean, zeroed_count_sum_factory=secure_counts
        )
    return mean


def _measured(
    mean: AggregationFactory, debug_measurements_fn: Any
) -> AggregationFactory:
    return debug_measurements_fn(mean) if debug_measurements_fn else mean


def _clipping_norm(secure: bool) -> EstimationProcess:
    return PrivateQuantileEstimationProcess.no_noise(
        1.0, 0.8, 0.2, secure_estimation=secure
    )


def _zeroing_norm(secure: bool) -> EstimationProcess:
    return PrivateQuantileEstimationProcess.no_noise(
        10.0,
        0.98,
        math.log(10.0),
        multiplier=2.0,
        increment=1.0,
        secure_estimation=secure,
    )
