"""Tensors in the serialised form: their bytes, and room only for bytes that are there."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import message
from tensorflow.core.framework import tensor_pb2

from fedcore.ir._serialize_wire import Reader, SerializationError, Writer
from fedcore.types import TensorType

# Sizes of zero count as one here: TensorFlow multiplies the others all the same.
_MAX_EXTENT = 1 << 40

_TYPED_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.uint32: "uint32_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
    **dict.fromkeys((tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16), "int_val"),
}


def has_bytes(dtype: tf.DType) -> bool:
    """Whether tensors of `dtype` hold numbers that can be written."""
    return dtype in _TYPED_FIELDS and dtype != tf.string


def check_literal(proto: bytes, type_: TensorType) -> None:
    """Raises unless a constant has the type's dtype and shape and each element."""
    try:
        tensor = tensor_pb2.TensorProto.FromString(proto)
    except message.DecodeError as e:
        raise SerializationError(f"A constant needs a TensorProto: {e}") from e
    if tensor.dtype != type_.dtype.as_datatype_enum or type_.dtype not in _TYPED_FIELDS:
        raise SerializationError(
            f"A constant of type `{type_}` needs its dtype, found {tensor.dtype}."
        )
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or len(shape) > 254:
        raise SerializationError("A constant needs a shape, found none.")
    count = checked_count(shape)
    if not type_.shape.is_compatible_with(shape):
        raise SerializationError(
            f"A constant of type `{type_}` needs its shape, found {shape}."
        )
    # A proto may repeat its last value up to its shape; ours name every one.
    wanted = count * (2 if type_.dtype.is_complex else 1)
    if tensor.tensor_content and has_bytes(type_.dtype):
        wanted, found = count * type_.dtype.size, len(tensor.tensor_content)
    else:
        found = len(getattr(tensor, _TYPED_FIELDS[type_.dtype]))
    if wanted != found:
        raise SerializationError(
            f"A constant of shape {shape} needs {wanted} values, found {found}."
        )
    try:
        tf.make_ndarray(tensor)
    except (TypeError, ValueError, OverflowError) as e:
        raise SerializationError(f"A constant needs sound values: {e}") from e


def checked_count(shape: Sequence[int]) -> int:
    """The number of elements of a shape that is not beyond reason."""
    if min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) > _MAX_EXTENT:
        raise SerializationError(f"A tensor needs a sound shape, found {shape}.")
    return math.prod(shape)


def write_elements(writer: Writer, array: np.ndarray) -> None:
    """The elements in row order: numbers as little-endian bytes, strings as blobs."""
    if array.dtype == object:
        for item in array.ravel():
            writer.blob(item)
    else:
        if sys.byteorder == "big":
            array = array.byteswap()
        writer.data += np.ascontiguousarray(array).tobytes()


def read_elements(reader: Reader, dtype: tf.DType, count: int) -> np.ndarray:
    """The next `count` elements, in one dimension."""
    if dtype == tf.string:
        if count > reader.remaining:
            raise SerializationError(
                f"The message claims {count} strings, found {reader.remaining} bytes."
            )
        array = np.empty(count, object)
        for i in range(count):
            array[i] = reader.blob()
        return array
    content = reader.raw(count * dtype.size)
    if dtype == tf.bool and content.translate(None, b"\0\1"):
        raise SerializationError("A bool needs a byte of 0 or 1, found another.")
    array = np.frombuffer(content, dtype.as_numpy_dtype).copy()
    return array.byteswap() if sys.byteorder == "big" else array
