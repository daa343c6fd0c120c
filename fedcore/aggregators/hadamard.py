"""Aggregation of values rotated by a randomised Hadamard transform."""

from __future__ import annotations

import math

import tensorflow as tf

from fedcore.aggregators._rotated import RotatedFactory
from fedcore.aggregators.factory import UnweightedAggregationFactory


class HadamardTransformFactory(RotatedFactory):
    """Rotates clients' values by a randomised Hadamard transform before aggregating.

    x ← H D x, H the normalised Walsh-Hadamard matrix and D a diagonal of random signs,
    the same for all clients in a round; the aggregate is rotated back, D H. Each tensor is
    flattened and padded with zeros to a power of 2. A rotation spreads a vector evenly
    over its coordinates, which then have a small range (Suresh et al., 2017).

    Args:
        inner_agg_factory: Aggregates the rotated vectors, float32; `SumFactory()` if None.
        num_repeats: How many rotations, one after another.

    Raises:
        TypeError: If the inner factory takes weights.
        ValueError: If `num_repeats` is not a positive integer.

    References:
        A. T. Suresh et al., Distributed Mean Estimation with Limited Communication, ICML
        2017. arXiv:1611.00429.
    """

    def __init__(
        self,
        inner_agg_factory: UnweightedAggregationFactory | None = None,
        num_repeats: int = 1,
    ):
        super().__init__(
            "hd", inner_agg_factory, num_repeats, power_of_2, rotate, rotate_back
        )


def power_of_2(length: int) -> int:
    """The least power of 2 that is not below `length`."""
    return 1 << max(length - 1, 0).bit_length()


def rotate(vector: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """H D x, for a vector whose length is a power of 2."""
    return hadamard(vector * signs(vector.shape.num_elements(), seed))


def rotate_back(vector: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """D H x: H and D are their own inverses."""
    return hadamard(vector) * signs(vector.shape.num_elements(), seed)


def signs(length: int, seed: tf.Tensor) -> tf.Tensor:
    """Random signs, +1 and −1 alike likely."""
    uniform = tf.random.stateless_uniform([length], seed)
    return tf.where(uniform > 0.5, 1.0, -1.0)


def hadamard(vector: tf.Tensor) -> tf.Tensor:
    """The normalised fast Walsh-Hadamard transform, in n log₂ n additions."""
    length = vector.shape.num_elements()
    block = 1
    while block < length:
        pairs = tf.reshape(vector, [-1, 2, block])
        left, right = pairs[:, 0], pairs[:, 1]
        vector = tf.reshape(tf.stack([left + right, left - right], axis=1), [length])
        block *= 2
    return vector / math.sqrt(length)
