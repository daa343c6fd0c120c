"""Aggregation of values rotated by a randomised discrete Fourier transform."""

from __future__ import annotations

import math

import tensorflow as tf

from fedcore.aggregators._rotated import RotatedFactory
from fedcore.aggregators.factory import UnweightedAggregationFactory


class DiscreteFourierTransformFactory(RotatedFactory):
    """Rotates clients' values by a randomised Fourier transform before aggregating.

    x ← F U z, where z takes the first half of x as real and the second as imaginary
    parts, U is a diagonal of random phases, the same for all clients in a round, and F
    the normalised Fourier matrix; the aggregate is rotated back. Each tensor is flattened
    and padded with zeros to an even length, shorter than the power of 2 that
    `HadamardTransformFactory` needs (Kairouz et al., 2021).

    Args:
        inner_agg_factory: Aggregates the rotated vectors, float32; `SumFactory()` if None.
        num_repeats: How many rotations, one after another.

    Raises:
        TypeError: If the inner factory takes weights.
        ValueError: If `num_repeats` is not a positive integer.

    References:
        P. Kairouz, Z. Liu, T. Steinke, The Distributed Discrete Gaussian Mechanism for
        Federated Learning with Secure Aggregation, ICML 2021. arXiv:2102.06387.
    """

    def __init__(
        self,
        inner_agg_factory: UnweightedAggregationFactory | None = None,
        num_repeats: int = 1,
    ):
        super().__init__(
            "dft", inner_agg_factory, num_repeats, _even, _rotate, _rotate_back
        )


def _even(length: int) -> int:
    return length + length % 2


def _rotate(vector: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    half = vector.shape.num_elements() // 2
    if half == 0:
        return vector
    values = tf.complex(vector[:half], vector[half:]) * _phases(half, seed)
    return _real(tf.signal.fft(values) / tf.cast(math.sqrt(half), tf.complex64))


def _rotate_back(vector: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    half = vector.shape.num_elements() // 2
    if half == 0:
        return vector
    values = tf.complex(vector[:half], vector[half:])
    values = tf.signal.ifft(values) * tf.cast(math.sqrt(half), tf.complex64)
    return _real(values * tf.math.conj(_phases(half, seed)))


def _phases(length: int, seed: tf.Tensor) -> tf.Tensor:
    angles = tf.random.stateless_uniform([length], seed, maxval=2 * math.pi)
    return tf.exp(tf.complex(tf.zeros_like(angles), angles))


def _real(values: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.math.real(values), tf.math.imag(values)], axis=0)
