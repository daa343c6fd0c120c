"""Clipping of clients' updates to a bounded norm."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fedcore.aggregators._bounded import bounded_factory, l2_norm
from fedcore.aggregators.factory import (
    AggregationFactory,
    UnweightedAggregationFactory,
)
from fedcore.templates import EstimationProcess


def clipping_factory(
    clipping_norm: float | EstimationProcess,
    inner_agg_factory: AggregationFactory,
    clipped_count_sum_factory: UnweightedAggregationFactory | None = None,
) -> AggregationFactory:
    """Clips each client's update to an L2 norm, then aggregates with the inner factory.

    Δ ← Δ · min(1, S / ‖Δ‖₂), over all tensors of Δ together (McMahan et al., 2018,
    alg. 1). Weights, if any, are not touched.

    Args:
        clipping_norm: The bound S, a float, or a process that estimates it: it reports
            `float32@SERVER` and goes on with the clients' norms before clipping.
        inner_agg_factory: Aggregates the clipped updates.
        clipped_count_sum_factory: Sums the count of clipped clients; `SumFactory()` if
            None.

    Returns:
        A factory of the inner factory's kind. Its `create(T)`, T a structure of floats,
        gives a process with state `<clipping_norm=...,inner_agg=...,
        clipped_count_agg=...>@SERVER` and measurements `<clipping=...,
        clipping_norm=float32,clipped_count=int32>@SERVER`.

    Raises:
        TypeError: If an argument is of another kind than said.

    References:
        H. B. McMahan et al., Learning Differentially Private Recurrent Language Models,
        ICLR 2018. arXiv:1710.06963.
    """
    return bounded_factory(
        "clip", clipping_norm, inner_agg_factory, _clip, clipped_count_sum_factory
    )


def _clip(tensors: list[tf.Tensor], bound: tf.Tensor) -> tuple[Any, list[Any], Any]:
    norm = l2_norm(tensors)
    is_clipped = norm > bound
    factor = tf.where(is_clipped, tf.math.divide_no_nan(bound, norm), 1.0)
    return norm, [t * tf.cast(factor, t.dtype) for t in tensors], is_clipped
