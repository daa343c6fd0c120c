"""The secure sum of floats: quantised on the clients, summed as integers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fedcore.aggregators._tensors import flat, leaves, map_types, packed
from fedcore.federated import (
    Value,
    federated_broadcast,
    federated_map,
    federated_secure_sum_bitwidth,
    federated_value,
    federated_zip,
    to_value,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructType,
    TensorType,
    Type,
)

# A client's number is one of 2**BITS levels between the bounds.
BITS = 32
_DTYPES = (tf.int32, tf.int64, tf.float32, tf.float64)


def secure_quantized_sum(
    client_value: Any, lower_bound: Any, upper_bound: Any
) -> Value:
    """Sums clients' numbers within bounds, so that the server learns the sum alone.

    A number x is clipped to [a, b] and sent as the integer round((x − a) s), with
    s = (2³² − 1) / (b − a); the server makes of the integers' sum Q over n clients
    Q / s + n a. Integers in a range of at most 2³² numbers are sent exactly, s = 1. A NaN
    is sent as the lower bound.

    Args:
        client_value: `{T}@CLIENTS`, T a structure of int32, int64, float32 or float64.
        lower_bound: a: a number of the dtype of all of T, or a structure like T of such;
            a constant or `@SERVER`.
        upper_bound: b, of the same type as `lower_bound`.

    Returns:
        `T@SERVER`. A sum of integers wraps around in the dtype of T.

    Raises:
        TypeError: If T holds another dtype, or the bounds do not go with T.
    """
    value = _at_clients(client_value)
    lower, upper = _bound(lower_bound), _bound(upper_bound)
    member = value.type_signature.member
    bounds = _checked_bounds(member, lower, upper)
    sent = map_types(lambda t: TensorType(tf.int64, t.shape), member)

    @tf_computation(member, bounds, bounds)
    def quantize(x, a, b):
        parts = zip(flat(x), _spread(a, x), _spread(b, x))
        return packed([_quantized(*part) for part in parts], sent)

    @tf_computation(sent, tf.int32, bounds, bounds)
    def dequantize(total, n, a, b):
        parts = zip(flat(total), leaves(member), _spread(a, total), _spread(b, total))
        return packed([_summed(q, t.dtype, n, u, v) for q, t, u, v in parts], member)

    known = [federated_broadcast(lower), federated_broadcast(upper)]
    quantized = federated_map(quantize, [value, *known])
    total = federated_secure_sum_bitwidth(quantized, BITS)
    count = federated_secure_sum_bitwidth(federated_value(1, CLIENTS), 1)
    return federated_map(dequantize, [total, count, lower, upper])


def _quantized(x: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    clipped = tf.clip_by_value(x, a, b)
    if x.dtype.is_integer:
        exact = tf.cast(clipped, tf.int64) - tf.cast(a, tf.int64)
        scaled = tf.round(tf.cast(exact, tf.float64) * _scale(a, b))
        return tf.where(_is_exact(a, b), exact, tf.cast(scaled, tf.int64))
    shifted = tf.cast(clipped, tf.float64) - tf.cast(a, tf.float64)
    scaled = tf.round(shifted * _scale(a, b))
    scaled = tf.where(tf.math.is_nan(scaled), tf.zeros_like(scaled), scaled)
    return tf.cast(scaled, tf.int64)


def _summed(
    q: tf.Tensor, dtype: tf.DType, n: tf.Tensor, a: tf.Tensor, b: tf.Tensor
) -> tf.Tensor:
    scaled = tf.math.divide_no_nan(tf.cast(q, tf.float64), _scale(a, b))
    if dtype.is_integer:
        scaled = tf.cast(tf.round(scaled), tf.int64)
        spread = tf.where(_is_exact(a, b), q, scaled)
        return tf.cast(spread + tf.cast(n, tf.int64) * tf.cast(a, tf.int64), dtype)
    return tf.cast(scaled + tf.cast(n, tf.float64) * tf.cast(a, tf.float64), dtype)


def _scale(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    span = tf.cast(b, tf.float64) - tf.cast(a, tf.float64)
    return tf.math.divide_no_nan(tf.constant(2.0**BITS - 1, tf.float64), span)


def _is_exact(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.cast(b, tf.float64) - tf.cast(a, tf.float64) <= 2.0**BITS - 1


def _spread(bound: Any, value: Any) -> list[Any]:
    """A bound for each tensor of a value."""
    bounds, tensors = flat(bound), flat(value)
    return bounds * len(tensors) if len(bounds) == 1 else bounds


def _at_clients(value: Any) -> Value:
    value = to_value(value)
    if isinstance(value.type_signature, StructType):
        value = federated_zip(value)
    type_ = value.type_signature
    if not isinstance(type_, FederatedType) or type_.placement is not CLIENTS:
        raise TypeError(
            "`secure_quantized_sum` needs `client_value` to be at CLIENTS, found "
            f"`{type_}`."
        )
    for leaf in leaves(type_.member):
        if not isinstance(leaf, TensorType) or leaf.dtype not in _DTYPES:
            names = ", ".join(dtype.name for dtype in _DTYPES)
            raise TypeError(
                f"`secure_quantized_sum` needs tensors of {names}, found `{type_}`."
            )
    return value


def _bound(bound: Any) -> Value:
    value = to_value(bound)
    if isinstance(value.type_signature, FederatedType):
        return value
    return federated_value(value, SERVER)


def _checked_bounds(member: Type, lower: Value, upper: Value) -> Type:
    """The type of both bounds, once it is known to go with the value's."""
    found, other = lower.type_signature, upper.type_signature
    if found is not other or found.placement is not SERVER:
        raise TypeError(
            "`secure_quantized_sum` needs `lower_bound` and `upper_bound` of one type at "
            f"SERVER, found `{found}` and `{other}`."
        )
    bounds, tensors = leaves(found.member), leaves(member)
    if not isinstance(found.member, StructType):
        bounds = bounds * len(tensors)
    fits = len(bounds) == len(tensors) and all(
        isinstance(b, TensorType) and b.dtype == t.dtype
        for b, t in zip(bounds, tensors)
    )
    if not fits:
        raise TypeError(
            "`secure_quantized_sum` needs bounds of the dtype of `client_value`, one for "
            f"all or one for each tensor, found bounds `{found.member}` for "
            f"`{member}`."
        )
    return found.member
