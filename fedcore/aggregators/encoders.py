"""Encoders: what a client sends of a tensor, and how the tensor is got back of it.

`fedcore.aggregators.EncodedSumFactory` takes a function from a tensor's spec to an
`Encoder`. Encoders nest: those that change a tensor's values take the function that makes
the encoder of the changed values.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import tensorflow as tf

from fedcore.aggregators import hadamard as transform
from fedcore.aggregators._rounding import round_stochastically, split_seed


@attrs.frozen
class Encoder:
    """How a tensor of one shape and dtype is sent.

    Attributes:
        encode: `(tensor, seed) -> sent`: runs on a client, in TensorFlow. The seed is
            int32[2], drawn anew for each client, tensor and round. What is sent is a
            structure of tensors of known dtype.
        decode: `sent -> tensor`: gets the tensor back of it, exactly or not.
    """

    encode: Callable[[tf.Tensor, tf.Tensor], Any]
    decode: Callable[[Any], tf.Tensor]


EncoderFn = Callable[[tf.TensorSpec], Encoder]


def identity(spec: tf.TensorSpec) -> Encoder:
    """Sends the tensor as it is.

    Args:
        spec: The tensor's.

    Returns:
        An `Encoder`.
    """
    del spec
    return Encoder(lambda tensor, seed: tensor, lambda sent: sent)


def uniform_quantization(
    spec: tf.TensorSpec, bits: int = 8, stochastic: bool = True
) -> Encoder:
    """Sends of each number one of 2^bits levels between the least and the greatest.

    x ← round((x − min) s), s = (2^bits − 1) / (max − min), at random such that the expected
    value is right (Suresh et al., 2017). A tensor that holds a NaN comes back as NaN.

    Args:
        spec: The tensor's, of floats.
        bits: 1 to 16.
        stochastic: Whether to round at random, and not to the nearest level.

    Returns:
        An `Encoder`.

    Raises:
        TypeError: If the spec is not one of floats.
        ValueError: If `bits` is out of range.

    References:
        A. T. Suresh et al., Distributed Mean Estimation with Limited Communication, ICML
        2017. arXiv:1611.00429.
    """
    _check_bits(bits)
    _check_float(spec, "uniform_quantization")
    levels = 2**bits - 1
    sent_dtype = tf.uint8 if bits <= 8 else tf.uint16

    def encode(tensor, seed):
        low, high = tf.reduce_min(tensor), tf.reduce_max(tensor)
        step = (high - low) / levels
        scaled = tf.math.divide_no_nan(tensor - low, step)
        rounded = round_stochastically(scaled, seed) if stochastic else tf.round(scaled)
        rounded = tf.clip_by_value(rounded, 0, levels)
        rounded = tf.where(tf.math.is_finite(rounded), rounded, tf.zeros_like(rounded))
        return OrderedDict(levels=tf.cast(rounded, sent_dtype), low=low, step=step)

    def decode(sent):
        return sent["low"] + tf.cast(sent["levels"], spec.dtype) * sent["step"]

    return Encoder(encode, decode)


def hadamard(spec: tf.TensorSpec, inner: EncoderFn = identity) -> Encoder:
    """Sends the tensor rotated by a randomised Hadamard transform, and its seed.

    Spreads the numbers evenly, so that they quantise better.

    Args:
        spec: The tensor's, of floats, of known shape.
        inner: Makes the encoder of the rotated vector.

    Returns:
        An `Encoder`.

    Raises:
        TypeError: If the spec is not one of floats.
    """
    _check_float(spec, "hadamard")
    size = spec.shape.num_elements()
    length = transform.power_of_2(size)
    values = inner(tf.TensorSpec([length], spec.dtype))

    def encode(tensor, seed):
        vector = tf.pad(tf.reshape(tensor, [-1]), [[0, length - size]])
        signs = tf.cast(transform.signs(length, seed), spec.dtype)
        rotated = transform.hadamard(vector * signs)
        return OrderedDict(
            rotated=values.encode(rotated, split_seed(seed, 1)), seed=seed
        )

    def decode(sent):
        signs = tf.cast(transform.signs(length, sent["seed"]), spec.dtype)
        vector = transform.hadamard(values.decode(sent["rotated"])) * signs
        return tf.reshape(vector[:size], spec.shape)

    return Encoder(encode, decode)


def sparsification(
    spec: tf.TensorSpec, fraction: float, inner: EncoderFn = identity
) -> Encoder:
    """Sends some of the numbers, picked at random and scaled up, and the seed of the pick.

    k = ⌈fraction · n⌉ of n numbers are sent as x n / k; the others come back as 0, so that
    the expected value is right (Konečný et al., 2016, "random mask").

    Args:
        spec: The tensor's, of floats, of known shape.
        fraction: In (0, 1].
        inner: Makes the encoder of the vector of picked numbers.

    Returns:
        An `Encoder`.

    Raises:
        TypeError: If the spec is not one of floats.
        ValueError: If `fraction` is out of range.

    References:
        J. Konečný et al., Federated Learning: Strategies for Improving Communication
        Efficiency, 2016. arXiv:1610.05492.
    """
    _check_float(spec, "sparsification")
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` needs to be in (0, 1], found {fraction}.")
    size = spec.shape.num_elements()
    kept = min(size, max(1, math.ceil(fraction * size)))
    values = inner(tf.TensorSpec([kept], spec.dtype))

    def picked(seed):
        order = tf.argsort(tf.random.stateless_uniform([size], seed), stable=True)
        return order[:kept]

    def encode(tensor, seed):
        numbers = tf.gather(tf.reshape(tensor, [-1]), picked(seed)) * (size / kept)
        return OrderedDict(
            numbers=values.encode(numbers, split_seed(seed, 1)), seed=seed
        )

    def decode(sent):
        numbers = values.decode(sent["numbers"])
        places = tf.expand_dims(picked(sent["seed"]), 1)
        return tf.reshape(tf.scatter_nd(places, numbers, [size]), spec.shape)

    return Encoder(encode, decode)


def _check_bits(bits: int) -> None:
    if not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ValueError(f"`bits` needs to be an integer from 1 to 16, found {bits!r}.")


def _check_float(spec: tf.TensorSpec, name: str) -> None:
    if not spec.dtype.is_floating or not spec.shape.is_fully_defined():
        raise TypeError(
            f"`encoders.{name}` needs a tensor of floats of known shape, found `{spec}`."
        )
