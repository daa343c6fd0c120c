"""Aggregation of floats rounded to integers, on one scale for all."""

from __future__ import annotations

from collections import OrderedDict

import tensorflow as tf

from fedcore.aggregators._checks import (
    float_type_of,
    inner_factory,
    known_shapes,
    positive,
    result_of,
)
from fedcore.aggregators._rounding import (
    norm_bound_after_rounding,
    round_stochastically,
    split_seed,
)
from fedcore.aggregators._tensors import (
    count,
    draw_seed,
    flat,
    leaves,
    map_types,
    packed,
)
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.computation import Computation
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

# An attempt fails with probability at most beta; after these one takes what there is.
_ATTEMPTS = 1000


class DiscretizationFactory(UnweightedAggregationFactory):
    """Scales clients' floats, rounds them to integers, aggregates, and scales back.

    x ← round(s x), the aggregate divided by s. A number that is no integer is rounded to
    the nearest one (halves to even) or, with `stochastic`, at random so that the expected
    value is right. With a bound on the norm of values, random rounding is repeated until
    the result's norm is within what rounding exceeds with probability β (Kairouz et al.,
    2021, alg. 1).

    Args:
        inner_agg_factory: Aggregates the integers, int32.
        scale_factor: s > 0.
        stochastic: Whether to round at random.
        beta: β in [0, 1): the bias that conditional rounding may have; with
            `prior_norm_bound`.
        prior_norm_bound: c > 0: a bound on the L2 norm of each client's value, over all of
            its tensors, before scaling. Rounding has no condition if None.

    Raises:
        TypeError: If the inner factory takes weights.
        ValueError: If a number is out of its range, or β is given for rounding to the
            nearest.

    References:
        P. Kairouz, Z. Liu, T. Steinke, The Distributed Discrete Gaussian Mechanism for
        Federated Learning with Secure Aggregation, ICML 2021. arXiv:2102.06387.
    """

    def __init__(
        self,
        inner_agg_factory: UnweightedAggregationFactory,
        scale_factor: float = 1.0,
        stochastic: bool = False,
        beta: float = 0.0,
        prior_norm_bound: float | None = None,
    ):
        self._inner = inner_factory("inner_agg_factory", inner_agg_factory)
        self._scale = float(positive("scale_factor", scale_factor))
        if not 0 <= beta < 1:
            raise ValueError(f"`beta` needs to be in [0, 1), found {beta}.")
        if beta and not stochastic:
            raise ValueError(
                "`beta` needs `stochastic=True`, found rounding to nearest."
            )
        if prior_norm_bound is not None:
            positive("prior_norm_bound", prior_norm_bound)
        self._stochastic = stochastic
        self._beta = beta
        self._norm_bound = prior_norm_bound

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that aggregates discretised values of `value_type`.

        Args:
            value_type: T, a structure of floats of known shapes.

        Returns:
            A process with next `(<state=<scale_factor=float32,prior_norm_bound=float32,
            inner_agg_process=S>@SERVER,value={T}@CLIENTS> -> <state=...,result=T@SERVER,
            measurements=<discretize=M>@SERVER>)`.

        Raises:
            TypeError: If T holds something else than floats.
        """
        value_type = known_shapes(self, float_type_of(self, value_type))
        integers = map_types(lambda t: TensorType(tf.int32, t.shape), value_type)
        inner = self._inner.create(integers)
        discretize = self._discretize(value_type, integers)
        scale, bound = self._scale, self._norm_bound or 0.0

        @tf_computation(result_of(inner), tf.float32)
        def undiscretize(value, scale_factor):
            parts = zip(flat(value), leaves(value_type))
            floats = [
                tf.cast(t, to.dtype) / tf.cast(scale_factor, to.dtype)
                for t, to in parts
            ]
            return packed(floats, value_type)

        def named(scale_factor, norm_bound, inner_state):
            names = ("scale_factor", "prior_norm_bound", "inner_agg_process")
            parts = (scale_factor, norm_bound, inner_state)
            return federated_zip(OrderedDict(zip(names, parts)))

        @federated_computation
        def initialize_fn():
            return named(
                federated_value(scale, SERVER),
                federated_value(bound, SERVER),
                inner.initialize(),
            )

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(value_type)
        )
        def next_fn(state, value):
            scale_factor, norm_bound, inner_state = state
            known = federated_broadcast(scale_factor)
            output = inner.next(inner_state, federated_map(discretize, (value, known)))
            return MeasuredProcessOutput(
                named(scale_factor, norm_bound, output.state),
                federated_map(undiscretize, (output.result, scale_factor)),
                federated_zip(OrderedDict(discretize=output.measurements)),
            )

        return AggregationProcess(initialize_fn, next_fn)

    def _discretize(self, value_type: Type, integers: Type) -> Computation:
        stochastic, norm_bound = self._stochastic, self._norm_bound
        limit = None
        if stochastic and norm_bound is not None:
            limit = norm_bound_after_rounding(
                self._scale * norm_bound, count(value_type), self._beta
            )

        @tf_computation(value_type, tf.float32)
        def discretize(value, scale_factor):
            scaled = [t * tf.cast(scale_factor, t.dtype) for t in flat(value)]
            if not stochastic:
                rounded = [tf.round(t) for t in scaled]
            elif limit is None:
                rounded = _round_all(scaled, draw_seed())
            else:
                rounded = _round_within(scaled, draw_seed(), limit)
            return packed([tf.cast(t, tf.int32) for t in rounded], integers)

        return discretize


def _round_all(tensors: list[tf.Tensor], seed: tf.Tensor) -> list[tf.Tensor]:
    return [round_stochastically(t, split_seed(seed, i)) for i, t in enumerate(tensors)]


def _round_within(
    tensors: list[tf.Tensor], seed: tf.Tensor, limit: float
) -> list[tf.Tensor]:
    """Rounds at random until the norm is within the limit."""

    def is_over(attempt, *rounded):
        squares = [tf.cast(tf.reduce_sum(t * t), tf.float64) for t in rounded]
        over = tf.add_n(squares) > tf.constant(limit**2, tf.float64)
        return tf.logical_and(over, attempt < _ATTEMPTS)

    def again(attempt, *rounded):
        del rounded
        return attempt + 1, *_round_all(tensors, split_seed(seed, attempt))

    first = (tf.constant(1), *_round_all(tensors, split_seed(seed, 0)))
    return list(tf.while_loop(is_over, again, first)[1:])
