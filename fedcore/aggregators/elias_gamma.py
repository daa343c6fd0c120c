"""Sums of integers whose size in an entropy code is measured."""

from __future__ import annotations

from collections import OrderedDict

import tensorflow as tf

from fedcore.aggregators._checks import (
    inner_factory,
    integer_type_of,
    known_shapes,
)
from fedcore.aggregators._tensors import count, flat, leaves
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.federated import (
    federated_computation,
    federated_map,
    federated_sum,
    federated_value,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, TensorType, Type, at_clients, at_server


class EliasGammaEncodedSumFactory(UnweightedAggregationFactory):
    """Sums integers that clients send in a run-length Elias gamma code.

    Each number x ≠ 0 is written as γ(r + 1), a sign bit and γ(|x|), r the number of zeros
    before it; zeros at the end as γ(r + 1). γ(n) takes 2⌊log₂ n⌋ + 1 bits (Elias, 1975).
    A tensor takes whole bytes. The code loses nothing, so here values are summed as they
    are and only the size of their code is computed.

    Args:
        bitrate_mean_factory: Aggregates each client's bits per number, a float64;
            `UnweightedMeanFactory()` gives the mean. It starts anew in each round. Not
            measured if None.

    Raises:
        TypeError: If the factory takes weights.

    References:
        P. Elias, Universal Codeword Sets and Representations of the Integers, IEEE
        Transactions on Information Theory 21 (1975).
    """

    def __init__(
        self, bitrate_mean_factory: UnweightedAggregationFactory | None = None
    ):
        if bitrate_mean_factory is not None:
            inner_factory("bitrate_mean_factory", bitrate_mean_factory)
        self._bitrate = bitrate_mean_factory

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that sums values of `value_type`.

        Args:
            value_type: T, a structure of int32 tensors of known shapes, not empty.

        Returns:
            A process with next `(<state=<>@SERVER,value={T}@CLIENTS> ->
            <state=<>@SERVER,result=T@SERVER,
            measurements=<elias_gamma_code_avg_bitrate=float64>@SERVER>)`.

        Raises:
            TypeError: If T holds something else than int32, or nothing.
        """
        value_type = known_shapes(self, integer_type_of(self, value_type))
        size = count(value_type)
        if size == 0 or any(t.dtype != tf.int32 for t in leaves(value_type)):
            raise TypeError(
                "`EliasGammaEncodedSumFactory.create` needs int32 numbers as "
                f"`value_type`, found `{value_type}`."
            )
        bitrates = self._bitrate and self._bitrate.create(TensorType(tf.float64))

        @tf_computation(value_type)
        def bitrate(value):
            bits = tf.add_n([_coded_bytes(t) for t in flat(value)]) * 8
            return tf.cast(bits, tf.float64) / size

        @federated_computation
        def initialize_fn():
            return federated_value((), SERVER)

        @federated_computation(at_server(()), at_clients(value_type))
        def next_fn(state, value):
            measurements = federated_value((), SERVER)
            if bitrates:
                output = bitrates.next(
                    bitrates.initialize(), federated_map(bitrate, value)
                )
                measurements = federated_zip(
                    OrderedDict(elias_gamma_code_avg_bitrate=output.result)
                )
            return MeasuredProcessOutput(state, federated_sum(value), measurements)

        return AggregationProcess(initialize_fn, next_fn)


def _coded_bytes(tensor: tf.Tensor) -> tf.Tensor:
    """How many bytes the code of a tensor takes, an int64."""
    numbers = tf.cast(tf.reshape(tensor, [-1]), tf.int64)
    places = tf.reshape(tf.where(numbers != 0), [-1])
    before = tf.concat([tf.constant([-1], tf.int64), places[:-1]], axis=0)
    gaps = places - before[: tf.size(places)]  # r + 1
    signed = 1 + _gamma_bits(gaps) + _gamma_bits(tf.abs(tf.gather(numbers, places)))
    end = tf.size(numbers, tf.int64)
    last = tf.concat([tf.constant([-1], tf.int64), places], axis=0)[-1]
    at_end = tf.where(last + 1 < end, _gamma_bits(end - last), tf.constant(0, tf.int64))
    return (tf.reduce_sum(signed) + at_end + 7) // 8


def _gamma_bits(n: tf.Tensor) -> tf.Tensor:
    """2⌊log₂ n⌋ + 1 for 1 <= n <= 2³¹: the number of thresholds 2ᵏ that n reaches."""
    powers = tf.constant([2**k for k in range(1, 32)], tf.int64)
    reached = tf.expand_dims(n, -1) >= powers
    return 2 * tf.reduce_sum(tf.cast(reached, tf.int64), axis=-1) + 1
