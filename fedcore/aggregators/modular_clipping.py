"""Sums of integers wrapped around into a range."""

from __future__ import annotations

import math
from collections import OrderedDict

import tensorflow as tf

from fedcore.aggregators._checks import inner_factory, integer_type_of, result_of
from fedcore.aggregators._tensors import flat, packed
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.aggregators.sum import SumFactory
from fedcore.computation import Computation
from fedcore.federated import federated_computation, federated_map, federated_zip
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import Type, at_clients


class ModularClippingSumFactory(UnweightedAggregationFactory):
    """Wraps clients' integers around into [a, b), aggregates, and wraps the result.

    x ← a + (x − a) mod (b − a), before and after the sum.

    Args:
        clip_range_lower: a, an integer.
        clip_range_upper: b ≥ a, an integer; b − a is at most the greatest int32.
        inner_agg_factory: Sums the wrapped integers; `SumFactory()` if None.
        estimate_stddev: Whether to measure the standard deviation of the aggregate's
            numbers, estimated of their wrapped values r as that of a wrapped normal
            distribution: (b − a) / 2π · √(−2 ln |mean exp(2πi r / (b − a))|).

    Raises:
        TypeError: If the inner factory takes weights, or a bound is not an integer.
        ValueError: If the range is empty or too large.
    """

    def __init__(
        self,
        clip_range_lower: int,
        clip_range_upper: int,
        inner_agg_factory: UnweightedAggregationFactory | None = None,
        estimate_stddev: bool = False,
    ):
        for bound in (clip_range_lower, clip_range_upper):
            if not isinstance(bound, int) or isinstance(bound, bool):
                raise TypeError(
                    "`ModularClippingSumFactory` needs integers as bounds, found "
                    f"`{type(bound).__name__}`."
                )
        if not 0 < clip_range_upper - clip_range_lower <= tf.int32.max:
            raise ValueError(
                "`ModularClippingSumFactory` needs a range of 1 to 2**31 - 1 integers, "
                f"found [{clip_range_lower}, {clip_range_upper})."
            )
        self._lower = clip_range_lower
        self._span = clip_range_upper - clip_range_lower
        self._inner = inner_factory(
            "inner_agg_factory", inner_agg_factory or SumFactory()
        )
        self._estimate_stddev = estimate_stddev

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that sums values of `value_type`.

        Args:
            value_type: T, a structure of integers.

        Returns:
            A process with next `(<state=S@SERVER,value={T}@CLIENTS> -> <state=S@SERVER,
            result=T@SERVER,measurements=<modclip=M>@SERVER>)`, S the state and M the
            measurements of the inner one; with `estimate_stddev` also
            `estimated_stddev=float32`.

        Raises:
            TypeError: If T holds something else than integers.
        """
        value_type = integer_type_of(self, value_type)
        inner = self._inner.create(value_type)
        wrap, wrap_result = self._wrap(value_type), self._wrap(result_of(inner))
        stddev = self._stddev(result_of(inner)) if self._estimate_stddev else None

        @federated_computation(inner.state_type, at_clients(value_type))
        def next_fn(state, value):
            output = inner.next(state, federated_map(wrap, value))
            result = federated_map(wrap_result, output.result)
            measurements = OrderedDict(modclip=output.measurements)
            if stddev is not None:
                measurements["estimated_stddev"] = federated_map(stddev, result)
            return MeasuredProcessOutput(
                output.state, result, federated_zip(measurements)
            )

        return AggregationProcess(inner.initialize, next_fn)

    def _wrap(self, value_type: Type) -> Computation:
        lower, span = self._lower, self._span

        @tf_computation(value_type)
        def wrap(value):
            # In int64: x - a may leave the range of int32.
            wide = [tf.cast(t, tf.int64) - lower for t in flat(value)]
            wrapped = [
                tf.cast(tf.math.floormod(w, span) + lower, t.dtype)
                for w, t in zip(wide, flat(value))
            ]
            return packed(wrapped, value_type)

        return wrap

    def _stddev(self, value_type: Type) -> Computation:
        span = self._span

        @tf_computation(value_type)
        def stddev(value):
            numbers = tf.concat(
                [tf.cast(tf.reshape(t, [-1]), tf.float64) for t in flat(value)], axis=0
            )
            angles = numbers * (2 * math.pi / span)
            length = tf.sqrt(
                tf.reduce_mean(tf.cos(angles)) ** 2
                + tf.reduce_mean(tf.sin(angles)) ** 2
            )
            deviation = tf.sqrt(tf.maximum(-2 * tf.math.log(length), 0))
            return tf.cast(deviation * (span / (2 * math.pi)), tf.float32)

        return stddev
