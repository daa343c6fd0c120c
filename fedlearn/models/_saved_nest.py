"""Structures of tensor specs as JSON, and back."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

_MAX_DEPTH = 50


def to_json(nest: Any) -> Any:
    """A JSON value for a nest of `tf.TensorSpec`, tensors or arrays.

    Raises:
        TypeError: If the nest holds something else.
    """
    if isinstance(nest, Mapping):
        kind = "ordered" if isinstance(nest, collections.OrderedDict) else "dict"
        return {kind: [[_name(key), to_json(value)] for key, value in nest.items()]}
    if type(nest) in (list, tuple):
        return {type(nest).__name__: [to_json(value) for value in nest]}
    if hasattr(nest, "shape") and hasattr(nest, "dtype"):
        shape = tf.TensorShape(nest.shape)
        dims = None if shape.rank is None else shape.as_list()
        return {"dtype": tf.as_dtype(nest.dtype).name, "shape": dims}
    raise TypeError(
        "A saved model needs tensors in dicts, lists and tuples, found "
        f"`{type(nest).__name__}`."
    )


def from_json(value: Any, depth: int = 0) -> Any:
    """The nest of `tf.TensorSpec` that `to_json` described.

    Raises:
        ValueError: If `value` is no such description.
    """
    if depth > _MAX_DEPTH or not isinstance(value, dict):
        raise ValueError(f"A structure of tensors was expected, found {value!r}.")
    match value:
        case {"dtype": str(dtype), "shape": shape}:
            return tf.TensorSpec(shape, tf.as_dtype(dtype))
        case {"ordered": list(items)}:
            pairs = [(name, from_json(item, depth + 1)) for name, item in items]
            return collections.OrderedDict(pairs)
        case {"dict": list(items)}:
            return {name: from_json(item, depth + 1) for name, item in items}
        case {"list": list(items)}:
            return [from_json(item, depth + 1) for item in items]
        case {"tuple": list(items)}:
            return tuple(from_json(item, depth + 1) for item in items)
    raise ValueError(f"A structure of tensors was expected, found {value!r}.")


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"A saved model needs strings as keys, found {key!r}.")
    return key
