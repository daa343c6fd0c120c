"""Zeroing of clients' updates that are too large to be right."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from fedcore.aggregators._bounded import (
    Change,
    bounded_factory,
    l1_norm,
    l2_norm,
    max_norm,
)
from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
)
from fedcore.templates import EstimationProcess

_NORMS = {1.0: l1_norm, 2.0: l2_norm, math.inf: max_norm}


def zeroing_factory(
    zeroing_norm: float | EstimationProcess,
    inner_agg_factory: AggregationFactory,
    norm_order: float = math.inf,
    zeroed_count_sum_factory: UnweightedAggregationFactory | None = None,
) -> AggregationFactory:
    """Replaces an update by zeros where its norm is over a bound, then aggregates.

    Δ ← 0 if ‖Δ‖ > Z. Weights, if any, are not touched, so a zeroed update still counts.
    An update with a NaN has no norm over any bound and stays.

    Args:
        zeroing_norm: The bound Z, a float, or a process that estimates it: it reports
            `float32@SERVER` and goes on with the clients' norms before zeroing.
        inner_agg_factory: Aggregates the updates that are left.
        norm_order: Which norm, over all tensors of Δ together: 1, 2 or infinity.
        zeroed_count_sum_factory: Sums the count of zeroed clients; `SumFactory()` if None.

    Returns:
        A factory of the inner factory's kind. Its `create(T)`, T a structure of floats,
        gives a process with state `<zeroing_norm=...,inner_agg=...,
        zeroed_count_agg=...>@SERVER` and measurements `<zeroing=...,
        zeroing_norm=float32,zeroed_count=int32>@SERVER`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `norm_order` is another number.
    """
    if norm_order not in _NORMS:
        raise ValueError(
            f"`norm_order` needs to be 1, 2 or math.inf, found {norm_order}."
        )
    return bounded_factory(
        "zero",
        zeroing_norm,
        inner_agg_factory,
        _zeroing(_NORMS[norm_order]),
        zeroed_count_sum_factory,
    )


def _zeroing(norm_of: Callable[[list[tf.Tensor]], tf.Tensor]) -> Change:
    def zero(tensors, bound):
        norm = norm_of(tensors)
        is_zeroed = norm > bound
        kept = [tf.where(is_zeroed, tf.zeros_like(t), t) for t in tensors]
        return norm, kept, is_zeroed

    return zero
