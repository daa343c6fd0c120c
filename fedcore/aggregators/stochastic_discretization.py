"""Aggregation of floats rounded at random to multiples of a step."""

from __future__ import annotations

from collections import OrderedDict

import tensorflow as tf

from fedcore.aggregators._checks import (
    float_type_of,
    inner_factory,
    positive,
    result_of,
)
from fedcore.aggregators._rounding import round_stochastically, split_seed
from fedcore.aggregators._tensors import draw_seed, flat, leaves, map_types, packed
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, TensorType, Type, at_clients


class StochasticDiscretizationFactory(UnweightedAggregationFactory):
    """Rounds clients' floats at random to multiples of a step, and aggregates integers.

    x ← ⌊x / Δ⌋ or ⌈x / Δ⌉, such that the expected value is x / Δ; the aggregate is
    multiplied by Δ.

    Args:
        inner_agg_factory: Aggregates the integers, int32.
        step_size: Δ, a float > 0.
        distortion_aggregation_factory: Aggregates each client's distortion, a float32:
            the mean squared change of a tensor's numbers, summed over tensors. It starts
            anew in each round. Not measured if None.

    Raises:
        TypeError: If a factory takes weights.
        ValueError: If the step is not positive.
    """

    def __init__(
        self,
        inner_agg_factory: UnweightedAggregationFactory,
        step_size: float,
        distortion_aggregation_factory: UnweightedAggregationFactory | None = None,
    ):
        self._inner = inner_factory("inner_agg_factory", inner_agg_factory)
        self._step = float(positive("step_size", step_size))
        if distortion_aggregation_factory is not None:
            inner_factory(
                "distortion_aggregation_factory", distortion_aggregation_factory
            )
        self._distortion = distortion_aggregation_factory

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that aggregates discretised values of `value_type`.

        Args:
            value_type: T, a structure of floats.

        Returns:
            A process with next `(<state=<step_size=float32,inner_agg_process=S>@SERVER,
            value={T}@CLIENTS> -> <state=...,result=T@SERVER,
            measurements=<stochastic_discretization=M,distortion=float32>@SERVER>)`.

        Raises:
            TypeError: If T holds something else than floats.
        """
        value_type = float_type_of(self, value_type)
        integers = map_types(lambda t: TensorType(tf.int32, t.shape), value_type)
        inner = self._inner.create(integers)
        step = self._step
        distortions = self._distortion and self._distortion.create(
            TensorType(tf.float32)
        )

        @tf_computation(value_type, tf.float32)
        def discretize(value, step_size):
            seed = draw_seed()
            rounded = [
                round_stochastically(
                    t / tf.cast(step_size, t.dtype), split_seed(seed, i)
                )
                for i, t in enumerate(flat(value))
            ]
            return packed([tf.cast(t, tf.int32) for t in rounded], integers)

        @tf_computation(result_of(inner), tf.float32)
        def undiscretize(value, step_size):
            parts = zip(flat(value), leaves(value_type))
            floats = [
                tf.cast(t, to.dtype) * tf.cast(step_size, to.dtype) for t, to in parts
            ]
            return packed(floats, value_type)

        @tf_computation(value_type, integers, tf.float32)
        def distortion(value, discretized, step_size):
            changes = [
                tf.reduce_mean(
                    tf.math.squared_difference(
                        t, tf.cast(q, t.dtype) * tf.cast(step_size, t.dtype)
                    )
                )
                for t, q in zip(flat(value), flat(discretized))
            ]
            return tf.add_n(
                [tf.constant(0.0), *(tf.cast(change, tf.float32) for change in changes)]
            )

        def named(step_size, inner_state):
            return federated_zip(
                OrderedDict(step_size=step_size, inner_agg_process=inner_state)
            )

        @federated_computation
        def initialize_fn():
            return named(federated_value(step, SERVER), inner.initialize())

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(value_type)
        )
        def next_fn(state, value):
            step_size, inner_state = state
            known = federated_broadcast(step_size)
            discretized = federated_map(discretize, (value, known))
            output = inner.next(inner_state, discretized)
            measurements = OrderedDict(stochastic_discretization=output.measurements)
            if distortions:
                changes = federated_map(distortion, (value, discretized, known))
                average = distortions.next(distortions.initialize(), changes)
                measurements["distortion"] = average.result
            return MeasuredProcessOutput(
                named(step_size, output.state),
                federated_map(undiscretize, (output.result, step_size)),
                federated_zip(measurements),
            )

        return AggregationProcess(initialize_fn, next_fn)
