"""Arithmetic on structures of tensors, as computations: what reductions are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from fedcore import structure
from fedcore.computation import Computation, PolymorphicComputation
from fedcore.tensorflow import tf_computation
from fedcore.tensorflow._values import leaves
from fedcore.types import (
    StructType,
    TensorType,
    Type,
    type_to_py_container,
)


def flat(value: Any) -> list[Any]:
    """The tensors of a structure in any container, in flat order."""
    return structure.flatten(structure.from_container([value], recursive=True))


def packed(tensors: list[Any], type_: Type) -> Any:
    """The tensors as a value of `type_`, in its containers."""
    items = iter(tensors)

    def fill(t: Type) -> Any:
        if not isinstance(t, StructType):
            return next(items)
        return structure.Struct([(n, fill(e)) for n, e in structure.iter_elements(t)])

    return type_to_py_container(fill(type_), type_)


def on_tensors(op: Callable[[Any], Any]) -> PolymorphicComputation:
    """`(T -> T')`: `op` of every tensor."""
    return tf_computation(lambda value: _map_like(value, map(op, flat(value))))


def on_pairs(op: Callable[[Any, Any], Any]) -> PolymorphicComputation:
    """`(<T,T> -> T')`: `op` of every two tensors that stand at one place."""

    def apply(left: Any, right: Any) -> Any:
        xs, ys = flat(left), flat(right)
        if len(xs) != len(ys):
            raise TypeError(
                "Arithmetic needs structures with the same number of tensors, found "
                f"{len(xs)} and {len(ys)}."
            )
        return _map_like(left, map(op, xs, ys))

    return tf_computation(apply)


def _map_like(value: Any, tensors: Iterable[Any]) -> Any:
    nested = structure.from_container([value], recursive=True)
    return structure.pack_sequence_as(nested, list(tensors))[0]


@functools.lru_cache(maxsize=512)
def zeros(type_: Type) -> Computation:
    """`( -> T)`: zeros of T; an unknown dimension is 0 long."""
    return _constants(type_, lambda dtype: dtype.as_numpy_dtype(0))


@functools.lru_cache(maxsize=512)
def lowest(type_: Type) -> Computation:
    """`( -> T)`: the least value of each dtype, the neutral element of the maximum."""
    return _constants(type_, lambda dtype: dtype.min)


@functools.lru_cache(maxsize=512)
def highest(type_: Type) -> Computation:
    """`( -> T)`: the greatest value of each dtype."""
    return _constants(type_, lambda dtype: dtype.max)


def _constants(type_: Type, value_of: Callable[[tf.DType], Any]) -> Computation:
    def constants() -> Any:
        return packed([_fill(t, value_of(t.dtype)) for t in leaves(type_)], type_)

    return tf_computation(constants)


def _fill(leaf: TensorType, value: Any) -> tf.Tensor:
    shape = [0 if size is None else size for size in leaf.shape]
    tensor = tf.fill(shape, tf.constant(value, leaf.dtype))
    if leaf.shape.is_fully_defined():
        return tensor
    return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=leaf.shape)


def _binary(type_: Type, op: Callable[[Any, Any], Any]) -> Computation:
    def apply(left: Any, right: Any) -> Any:
        return packed([op(x, y) for x, y in zip(flat(left), flat(right))], type_)

    return tf_computation(apply, type_, type_)


@functools.lru_cache(maxsize=512)
def plus(type_: Type) -> Computation:
    """`(<T,T> -> T)`: the sum, tensor by tensor."""
    return _binary(type_, tf.add)


@functools.lru_cache(maxsize=512)
def maximum(type_: Type) -> Computation:
    """`(<T,T> -> T)`: the greater, element by element."""
    return _binary(type_, tf.maximum)


@functools.lru_cache(maxsize=512)
def minimum(type_: Type) -> Computation:
    """`(<T,T> -> T)`: the less, element by element."""
    return _binary(type_, tf.minimum)


@functools.lru_cache(maxsize=512)
def multiply(type_: Type, weight_type: TensorType) -> Computation:
    """`(<T,weight> -> T)`: every tensor times the weight, in the tensor's dtype."""

    def apply(value: Any, weight: Any) -> Any:
        return packed([t * tf.cast(weight, t.dtype) for t in flat(value)], type_)

    return tf_computation(apply, type_, weight_type)


@functools.lru_cache(maxsize=512)
def divide(type_: Type, weight_type: TensorType) -> Computation:
    """`(<T,weight> -> T)`: every tensor over the weight; 0 / 0 is NaN."""

    def apply(value: Any, weight: Any) -> Any:
        return packed([t / tf.cast(weight, t.dtype) for t in flat(value)], type_)

    return tf_computation(apply, type_, weight_type)


@functools.lru_cache(maxsize=512)
def floor_mod(type_: Type, modulus_type: Type) -> Computation:
    """`(<T,M> -> T)`: T modulo M, in [0, M); M a scalar or a scalar for each tensor."""

    def apply(value: Any, modulus: Any) -> Any:
        tensors, moduli = flat(value), flat(modulus)
        if len(moduli) == 1:
            moduli = moduli * len(tensors)
        remainders = [
            tf.math.floormod(t, tf.cast(m, t.dtype)) for t, m in zip(tensors, moduli)
        ]
        return packed(remainders, type_)

    return tf_computation(apply, type_, modulus_type)


@functools.lru_cache(maxsize=512)
def identity(type_: Type) -> Computation:
    """`(T -> T)`: the value as it is."""
    return tf_computation(lambda value: value, type_)
