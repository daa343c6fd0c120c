"""Rounding of floats to integers, to the nearest or at random."""

from __future__ import annotations

import math

import tensorflow as tf


def round_stochastically(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """⌊x⌋ or ⌈x⌉, whichever by chance, so that the expected value is x."""
    floor = tf.floor(x)
    uniform = tf.random.stateless_uniform(tf.shape(x), seed, dtype=x.dtype)
    return floor + tf.cast(uniform < x - floor, x.dtype)


def split_seed(seed: tf.Tensor, index: int) -> tf.Tensor:
    """A seed of its own for each index."""
    return tf.random.experimental.stateless_fold_in(seed, index)


def norm_bound_after_rounding(norm_bound: float, size: int, beta: float) -> float:
    """The L2 norm that a randomly rounded vector exceeds with probability at most β.

    Of a vector with `size` numbers and a norm of at most `norm_bound`:
    min(√(c² + d/4 + √(2 ln 1/β) (c + √d/2)), c + √d) (Kairouz et al., 2021, sec. 3).
    """
    certain = norm_bound + math.sqrt(size)
    if beta == 0:
        return certain
    likely = math.sqrt(2 * math.log(1 / beta)) * (norm_bound + math.sqrt(size) / 2)
    return min(certain, math.sqrt(norm_bound**2 + size / 4 + likely))
