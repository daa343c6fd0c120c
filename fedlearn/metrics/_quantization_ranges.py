"""In which range a metric's numbers count when they are summed securely."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore.aggregators import PrivateQuantileEstimationProcess
from fedcore.templates import EstimationProcess
from fedcore.types import Type, structure_from_tensor_type_tree, to_type

# 20 bits are enough for counts, and leave 2¹² clients' sums below 2³².
DEFAULT_FIXED_SECURE_LOWER_BOUND = 0
DEFAULT_FIXED_SECURE_UPPER_BOUND = 2**20 - 1

# By metric name structures of ranges (lower, upper); None stands for the default.
RangeStructure = Mapping[str, Any] | None

_FUNCTION = "create_default_secure_sum_quantization_ranges"
_NUMBERS = (int, float, np.integer, np.floating)


def create_default_secure_sum_quantization_ranges(
    local_unfinalized_metrics_type: Type,
    lower_bound: int | float = DEFAULT_FIXED_SECURE_LOWER_BOUND,
    upper_bound: int | float = DEFAULT_FIXED_SECURE_UPPER_BOUND,
    use_auto_tuned_bounds_for_float_values: bool = True,
) -> Any:
    """Makes the ranges in which unfinalized metrics count by default.

    Args:
        local_unfinalized_metrics_type: U, the type of a client's unfinalized metrics.
        lower_bound: a; for integers the part of it before the point.
        upper_bound: b, likewise.
        use_auto_tuned_bounds_for_float_values: Whether floats have in the place of (a, b)
            the range (None, process), whose process estimates twice the 0.95 quantile of
            clients' greatest absolute values, from 100 on.

    Returns:
        A structure as that of U with a pair in the place of each tensor.

    Raises:
        TypeError: If a bound is no number, or U holds something else than integers and
            floats.
        ValueError: If a is not below b, for integers after rounding.
    """
    for name, bound in (("lower_bound", lower_bound), ("upper_bound", upper_bound)):
        if isinstance(bound, bool) or not isinstance(bound, _NUMBERS):
            raise TypeError(
                f"`{_FUNCTION}` needs a number at `{name}`, found "
                f"`{type(bound).__name__}`."
            )
    if not lower_bound < upper_bound:
        raise ValueError(
            f"`{_FUNCTION}` needs `lower_bound` below `upper_bound`, found "
            f"{lower_bound} and {upper_bound}."
        )

    def of_tensor(dtype: tf.DType) -> tuple[Any, Any]:
        if dtype.is_floating:
            if use_auto_tuned_bounds_for_float_values:
                return None, default_estimation_process()
            return float(lower_bound), float(upper_bound)
        if dtype.is_integer:
            return _integers(lower_bound, upper_bound)
        raise TypeError(
            f"`{_FUNCTION}` needs integers and floats, found {dtype.name} in "
            f"`{local_unfinalized_metrics_type}`."
        )

    return structure_from_tensor_type_tree(
        lambda tensor: of_tensor(tensor.dtype), to_type(local_unfinalized_metrics_type)
    )


@functools.cache
def default_estimation_process() -> EstimationProcess:
    """The process that bounds floats by default; one object, so that it is known."""
    return PrivateQuantileEstimationProcess.no_noise(
        50.0, 0.95, 1.0, multiplier=2.0, secure_estimation=True
    )


def checked_range(value: Any, dtype: tf.DType, where: str) -> tuple[Any, Any]:
    """The range of a tensor of `dtype`, its numbers as Python's own."""
    if not is_range(value):
        raise TypeError(
            f"`{where}` needs a pair (lower, upper) or None for a tensor, found "
            f"`{value!r}`."
        )
    lower, upper = (b.item() if isinstance(b, np.generic) else b for b in value)
    if dtype.is_integer:
        fits = isinstance(lower, int) and isinstance(upper, int)
        wanted = "integers"
    else:
        known = float if isinstance(upper, float) else EstimationProcess
        fits = isinstance(upper, known) and isinstance(lower, known | None)
        wanted = "floats or estimation processes"
    if not fits:
        raise TypeError(
            f"`{where}` needs {wanted} for a tensor of {dtype.name}, found `{value!r}`."
        )
    return lower, upper


def is_range(value: Any) -> bool:
    """Whether this is a pair of bounds, and not a structure of such pairs."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], (EstimationProcess, type(None), *_NUMBERS))
        and isinstance(value[1], (EstimationProcess, *_NUMBERS))
    )


def _integers(lower_bound: Any, upper_bound: Any) -> tuple[int, int]:
    lower, upper = int(lower_bound), int(upper_bound)
    if lower == upper:
        raise ValueError(
            f"`{_FUNCTION}` needs room for two integers between `lower_bound` and "
            f"`upper_bound`, found {lower_bound} and {upper_bound}, which are {lower} "
            "and nothing else."
        )
    return lower, upper
