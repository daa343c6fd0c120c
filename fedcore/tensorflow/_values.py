"""Types to symbolic values, and results of the user's function to types and tensors."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore._containers import build_container, container_elements, is_named_tuple
from fedcore.types import (
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    TypedObject,
    infer_unplaced_type,
)

# Things that hold variables rather than being values, and what to return instead.
_NOT_VALUES = {
    keras.Model: "a Keras model",
    keras.layers.Layer: "a Keras layer",
    keras.optimizers.Optimizer: "a Keras optimizer",
    keras.metrics.Metric: "a Keras metric",
    keras.losses.Loss: "a Keras loss",
    tf.Module: "a tf.Module",
    tf.lookup.experimental.MutableHashTable: "a lookup table",
    tf.lookup.StaticHashTable: "a lookup table",
    tf.Operation: "a tf.Operation",
}


class ResultError(TypeError):
    """A traced function returned something that is not a value."""


# ---- from types


def leaves(type_: Type | None) -> Iterator[TensorType | SequenceType]:
    """The leaves of a local type in flat order.

    Raises:
        TypeError: If the type holds functions or placements.
    """
    match type_:
        case None:
            return
        case TensorType() | SequenceType():
            yield type_
        case StructType():
            for element in type_:
                yield from leaves(element)
        case _:
            raise TypeError(
                "`tf_computation` needs tensors, sequences and structures of them, found "
                f"`{type_}`."
            )


def element_spec(type_: Type) -> Any:
    """The `tf.TypeSpec` structure of a dataset whose elements are of `type_`."""
    match type_:
        case TensorType():
            return tf.TensorSpec(type_.shape, type_.dtype)
        case SequenceType():
            return tf.data.DatasetSpec(element_spec(type_.element))
        case StructType():
            pairs = structure.to_elements(type_)
            pairs = [(name, element_spec(element)) for name, element in pairs]
            return _spec_container(type_, pairs)
    raise TypeError(f"A sequence needs tensors for elements, found `{type_}`.")


def _spec_container(type_: StructType, pairs: list[tuple[str | None, Any]]) -> Any:
    container = _python_container(type_)
    if container is tf.RaggedTensor:
        values, splits = (spec for _, spec in pairs)
        rows = [None] * (len(splits) + 1)
        inner = values.shape[1:] if values.shape.rank is not None else None
        return tf.RaggedTensorSpec(
            shape=None if inner is None else tf.TensorShape(rows).concatenate(inner),
            dtype=values.dtype,
            ragged_rank=len(splits),
            row_splits_dtype=splits[0].dtype,
        )
    if container is tf.SparseTensor:
        by_name = dict(pairs)
        rank = tf.compat.dimension_value(by_name["dense_shape"].shape[0])
        shape = None if rank is None else [None] * rank
        return tf.SparseTensorSpec(shape, by_name["values"].dtype)
    if container is not None and container is not list:
        return build_container(container, pairs)
    names = [name for name, _ in pairs]
    if any(name is not None for name in names):
        if None in names:
            raise TypeError(
                "A sequence needs structures with all elements named, or none, found "
                f"`{type_}`."
            )
        return collections.OrderedDict(pairs)
    return tuple(spec for _, spec in pairs)  # tf.data packs a list into one tensor


def argument(
    type_: Type, new_input: Callable[[tf.DType, tf.TensorShape], tf.Tensor]
) -> Any:
    """The value of `type_` that the user's function gets, made of new inputs."""
    match type_:
        case TensorType():
            return new_input(type_.dtype, type_.shape)
        case SequenceType():
            return from_leaf(type_, new_input(tf.variant, tf.TensorShape([])))
        case StructType():
            pairs = structure.to_elements(type_)
            pairs = [(name, argument(element, new_input)) for name, element in pairs]
            return _container(type_, pairs)
    next(leaves(type_))
    raise AssertionError("unreachable: `leaves` refuses the type")


def from_leaf(type_: TensorType | SequenceType, tensor: tf.Tensor) -> Any:
    """A leaf's value: the dataset that a variant stands for, or the tensor itself."""
    if isinstance(type_, SequenceType):
        return tf.data.experimental.from_variant(tensor, element_spec(type_.element))
    return tensor


def pack(type_: Type, flat: Iterator[tf.Tensor]) -> Any:
    """The value of `type_` with tensors in flat order; the inverse of `flatten`."""
    match type_:
        case StructType():
            pairs = structure.to_elements(type_)
            pairs = [(name, pack(element, flat)) for name, element in pairs]
            return _container(type_, pairs)
    return from_leaf(type_, next(flat))


def _container(type_: StructType, pairs: list[tuple[str | None, Any]]) -> Any:
    container = _python_container(type_)
    if container is None:
        return structure.Struct(pairs)
    if container is tf.RaggedTensor:
        values, splits = (value for _, value in pairs)
        return tf.RaggedTensor.from_nested_row_splits(values, splits, validate=False)
    if container is tf.SparseTensor:
        return tf.SparseTensor(**dict(pairs))
    return build_container(container, pairs)


def _python_container(type_: StructType) -> Any:
    return type_.python_container if isinstance(type_, StructWithPythonType) else None


# ---- to types


def flatten_as(value: Any, type_: Type, name: str) -> list[tf.Tensor]:
    """The tensors, in flat order, of a value given to a parameter of type `type_`.

    Raises:
        TypeError: If the value is not of that type; `name` is whom it was given to.
    """
    flat: list[tf.Tensor] = []
    _flatten_as(value, type_, flat, name, "argument")
    return flat


def _flatten_as(
    value: Any, type_: Type, flat: list[tf.Tensor], name: str, path: str
) -> None:
    if isinstance(type_, StructType):
        if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
            value = _parts(value)
        elif not isinstance(value, structure.Struct):
            elements = container_elements(value)
            if elements is None:
                raise _not_of_type(value, type_, name, path)
            value = structure.Struct(elements)
        wanted = structure.to_elements(type_)
        given = structure.to_elements(value)
        if len(wanted) != len(given):
            raise _not_of_type(value, type_, name, path)
        for i, ((key, element), (found, part)) in enumerate(zip(wanted, given)):
            if found is not None and found != key:
                raise _not_of_type(value, type_, name, path)
            where = f"{path}[{i}]" if key is None else f"{path}.{key}"
            _flatten_as(part, element, flat, name, where)
        return
    if isinstance(type_, TensorType) and not isinstance(
        value, keras.Variable | tf.Variable | tf.Tensor | np.ndarray | np.generic
    ):
        # A Python constant takes the dtype that is asked for, if it can have it.
        try:
            value = tf.convert_to_tensor(value, type_.dtype)
        except (TypeError, ValueError) as error:
            raise _not_of_type(value, type_, name, path) from error
    part = flatten(value, path)
    if not type_.is_assignable_from(part.type):
        raise _not_of_type(value, type_, name, path)
    flat.extend(part.flat)


def _not_of_type(value: Any, type_: Type, name: str, path: str) -> TypeError:
    try:
        found = f"`{flatten(value).type}`"
    except TypeError:
        found = f"`{type(value).__name__}`"
    return TypeError(f"`{name}` needs `{type_}`, found {found} at {path}.")


@attrs.frozen
class Result:
    """What a traced function returned: its type, and its tensors in flat order."""

    type: Type
    flat: list[tf.Tensor]


def flatten(value: Any, path: str = "result") -> Result:
    """The type of a value that the user's function returned, and its tensors.

    Raises:
        ResultError: If it holds something that is not a value.
    """
    if isinstance(value, keras.Variable):
        value = value.value
    if isinstance(value, tf.Variable):
        value = value.read_value()
    if isinstance(value, tf.data.Dataset):
        return Result(
            infer_unplaced_type(value), [tf.data.experimental.to_variant(value)]
        )
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        elements = structure.to_elements(_parts(value))
        return _flatten_struct(elements, type(value), path)
    _refuse_what_is_no_value(value, path)
    if isinstance(value, structure.Struct):
        return _flatten_struct(structure.to_elements(value), None, path)
    elements = container_elements(value)
    if elements is not None:
        return _flatten_struct(elements, _container_class(value), path)
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ResultError(
            f"`tf_computation` needs tensors, datasets and Python containers of them for "
            f"its result, found `{type(value).__name__}` at {path}: {value!r:.80}."
        ) from error
    return Result(TensorType(tensor.dtype, tensor.shape), [tensor])


def _parts(value: tf.RaggedTensor | tf.SparseTensor) -> structure.Struct:
    """The tensors that make up a composite tensor, named as its type names them."""
    if isinstance(value, tf.RaggedTensor):
        splits = tuple(value.nested_row_splits)
        return structure.Struct(
            [("flat_values", value.flat_values), ("nested_row_splits", splits)]
        )
    names = ("indices", "values", "dense_shape")
    return structure.Struct([(name, getattr(value, name)) for name in names])


def _flatten_struct(
    elements: list[tuple[str | None, Any]], container: Any, path: str
) -> Result:
    pairs, flat = [], []
    for i, (name, value) in enumerate(elements):
        if name is not None and not isinstance(name, str):
            raise ResultError(
                "`tf_computation` needs strings for the keys of a result, found "
                f"`{type(name).__name__}` at {path}: {name!r:.80}."
            )
        where = f"{path}[{i}]" if name is None else f"{path}.{name}"
        part = flatten(value, where)
        pairs.append((name, part.type))
        flat.extend(part.flat)
    if container is None:
        return Result(StructType(pairs), flat)
    return Result(StructWithPythonType(pairs, container), flat)


def _container_class(value: Any) -> type:
    """The container to give back: TensorFlow's tracking wrappers become what they wrap."""
    if isinstance(value, collections.OrderedDict):
        return collections.OrderedDict
    if isinstance(value, dict):
        return dict
    if isinstance(value, list):
        return list
    if isinstance(value, tuple) and not is_named_tuple(value):
        return tuple
    return value.__class__


def _refuse_what_is_no_value(value: Any, path: str) -> None:
    what = None
    if isinstance(value, keras.KerasTensor):
        what = "a symbolic KerasTensor, which has no value"
    elif value is None:
        what = "None"
    elif isinstance(value, TypedObject):
        what = f"`{value.type_signature}`, a computation or federated value"
    elif isinstance(value, Type):
        what = f"the type `{value}`"
    elif isinstance(value, np.ndarray) and value.dtype == object:
        what = "a NumPy array of Python objects"
    else:
        for kind, words in _NOT_VALUES.items():
            if isinstance(value, kind):
                what = f"{words} (`{type(value).__name__}`)"
                break
    if what is not None:
        raise ResultError(
            f"`tf_computation` needs values for its result, found {what} at {path}.\n"
            "Return tensors, for example the values of its variables."
        )
