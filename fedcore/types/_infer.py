"""The type of a value that has no placement."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore import _containers, structure
from fedcore.types import _convert, _types

_INT32 = np.iinfo(np.int32)
_INT64 = np.iinfo(np.int64)


def infer_unplaced_type(arg: Any) -> Any:
    """The type of a value: a tensor, a Python scalar, a data set, or containers of these.

    Python ints are `int32` (`int64` if they need it), floats `float32`. The keys of a
    plain dict are sorted. A client's data may be a `tf.data.Dataset` or any object with
    `element_spec` and `to_tf()`.

    Args:
        arg: The value, or any `TypedObject`.

    Returns:
        The type, or None if `arg` is None.

    Raises:
        TypeError: If `arg` holds something that has no type.
    """
    if arg is None:
        return None
    return _infer(arg, _infer_leaf)


def type_from_tensors(tensors: Any) -> "_types.Type":
    """The type of a tensor, or of a container of tensors.

    Args:
        tensors: A tensor, a variable or what TensorFlow makes a tensor of; or a nested
            container of such.
    """

    def tensor_type(value: Any) -> "_types.Type":
        if not tf.is_tensor(value) and not isinstance(value, tf.Variable):
            value = tf.convert_to_tensor(value)
        return _types.TensorType(value.dtype, value.shape)

    return _infer(tensors, tensor_type)


def _infer(value: Any, leaf: Callable[[Any], "_types.Type"]) -> Any:
    if isinstance(value, _types.TypedObject):
        return value.type_signature
    if isinstance(value, _types.Type):
        raise _no_type(value)
    if isinstance(value, structure.Struct):
        return _types.StructType(_infer_all(structure.to_elements(value), leaf))
    if isinstance(value, tf.RaggedTensor):
        fields = [
            ("flat_values", value.flat_values),
            ("nested_row_splits", value.nested_row_splits),
        ]
        return _types.StructWithPythonType(_infer_all(fields, leaf), tf.RaggedTensor)
    if isinstance(value, tf.SparseTensor):
        names = ("indices", "values", "dense_shape")
        fields = [(name, getattr(value, name)) for name in names]
        return _types.StructWithPythonType(_infer_all(fields, leaf), tf.SparseTensor)
    if is_data_set(value):
        element = _convert.type_of_element_spec(value.element_spec)
        return _types.SequenceType(element)
    elements = _containers.container_elements(value)
    if elements is None or _is_tensor_like(value):
        return leaf(value)
    return _types.StructWithPythonType(_infer_all(elements, leaf), type(value))


def is_data_set(value: Any) -> bool:
    """Whether `value` is a `tf.data.Dataset` or follows the client data protocol."""
    if isinstance(value, tf.data.Dataset):
        return True
    return hasattr(value, "element_spec") and hasattr(value, "to_tf")


def _infer_all(elements: Any, leaf: Callable[[Any], "_types.Type"]) -> Any:
    return [(name, _infer(value, leaf)) for name, value in elements]


def _is_tensor_like(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, tf.Variable)


def _infer_leaf(value: Any) -> "_types.Type":
    if isinstance(value, bool):
        return _types.TensorType(tf.bool)
    if isinstance(value, int):
        return _types.TensorType(_dtype_of_int(value))
    if isinstance(value, float) and not isinstance(value, np.generic):
        return _types.TensorType(tf.float32)
    if isinstance(value, (str, bytes)):
        return _types.TensorType(tf.string)
    if isinstance(value, (np.generic, np.ndarray)):
        dtype = tf.string if _holds_strings(value) else _convert.as_dtype(value.dtype)
        if dtype is not None:
            return _types.TensorType(dtype, value.shape)
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        # Tensors, variables of TensorFlow and of Keras, arrays of other libraries.
        return _types.TensorType(tf.as_dtype(value.dtype).base_dtype, value.shape)
    if isinstance(value, complex):
        return _types.TensorType(tf.complex128)
    raise _no_type(value)


def _no_type(value: Any) -> TypeError:
    return TypeError(
        "A value needs a type that can be inferred, found "
        f"{value!r} of type `{type(value).__name__}`.\n"
        "Use tensors, NumPy arrays, Python scalars, data sets, or containers of these."
    )


def _dtype_of_int(value: int) -> tf.DType:
    if _INT32.min <= value <= _INT32.max:
        return tf.int32
    if _INT64.min <= value <= _INT64.max:
        return tf.int64
    raise TypeError(f"A value needs ints of 64 bits or fewer, found {value}.")


def _holds_strings(value: Any) -> bool:
    if value.dtype.kind != "O":
        return False
    return all(isinstance(item, (str, bytes)) for item in np.ravel(value))
