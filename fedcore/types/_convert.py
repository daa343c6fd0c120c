"""What may stand for a type (`to_type`), and types at a placement."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore import _containers, structure
from fedcore.types import _types
from fedcore.types._placements import CLIENTS, SERVER

_ABSTRACT = (
    np.generic,
    np.number,
    np.integer,
    np.signedinteger,
    np.unsignedinteger,
    np.inexact,
    np.floating,
    np.complexfloating,
    np.flexible,
    np.character,
)
_HOW_TO_SAY_PYTHON_TYPES = {
    bool: "tf.bool",
    int: "tf.int32 or tf.int64",
    float: "tf.float32",
    str: "tf.string",
    bytes: "tf.string",
}


def to_type(spec: Any) -> Any:
    """Turns anything that describes a type into a type.

    Args:
        spec: One of
            - a type, or None (which is returned as it is);
            - a TensorFlow or NumPy dtype (a scalar), or a pair `(dtype, shape)`;
            - a `tf.TensorSpec`, `tf.RaggedTensorSpec`, `tf.SparseTensorSpec` or
              `tf.data.DatasetSpec`;
            - a list, tuple, OrderedDict, namedtuple, attrs object, dataclass object or
              `Struct` of such specs, which gives a struct type that remembers the
              container; a list or tuple of `(name, spec)` pairs gives one without;
            - an attrs class or a dataclass whose annotations are specs.

    Returns:
        A `fedcore.Type`, or None if `spec` is None.

    Raises:
        TypeError: If `spec` is none of these; so is a plain dict, whose order of
            elements is ambiguous.
    """
    if spec is None or isinstance(spec, _types.Type):
        return spec
    dtype = as_dtype(spec)
    if dtype is not None:
        return _types.TensorType(dtype)
    if isinstance(spec, tf.TypeSpec):
        return _type_of_tf_spec(spec)
    if _is_dtype_and_shape(spec):
        return _types.TensorType(*spec)
    if isinstance(spec, structure.Struct):
        return _types.StructType(spec)
    if isinstance(spec, type):
        return _type_of_class(spec)
    if isinstance(spec, Mapping) and not isinstance(spec, collections.OrderedDict):
        raise TypeError(
            f"`to_type` needs an ordered mapping, found a `{type(spec).__name__}`, whose "
            f"order of elements is ambiguous: {spec!r}.\n"
            "Use collections.OrderedDict."
        )
    if type(spec) in (list, tuple):
        return _type_of_sequence(spec)
    elements = _containers.container_elements(spec)
    if elements is None:
        raise _not_a_spec(spec)
    return _types.StructWithPythonType(elements, type(spec))


def at_clients(type_spec: Any, all_equal: bool = False) -> "_types.FederatedType":
    """The type of values of `type_spec` at the clients: `{T}@CLIENTS`."""
    return _types.FederatedType(type_spec, CLIENTS, all_equal)


def at_server(type_spec: Any) -> "_types.FederatedType":
    """The type of a value of `type_spec` at the server: `T@SERVER`."""
    return _types.FederatedType(type_spec, SERVER, True)


def as_dtype(spec: Any) -> tf.DType | None:
    """The TensorFlow dtype of a TensorFlow or NumPy dtype, else None."""
    if isinstance(spec, tf.DType):
        return spec
    if isinstance(spec, type) and issubclass(spec, np.generic):
        # Abstract NumPy classes such as np.floating stand for no dtype.
        spec = np.dtype(spec) if spec not in _ABSTRACT else None
    if not isinstance(spec, np.dtype) or spec.kind == "O":
        return None
    if spec.kind in "SU":
        return tf.string
    try:
        return tf.as_dtype(spec)
    except TypeError:
        return None


def _is_dtype_and_shape(spec: Any) -> bool:
    if type(spec) is not tuple or len(spec) != 2 or as_dtype(spec[0]) is None:
        return False
    shape = spec[1]
    if isinstance(shape, tf.TensorShape):
        return True
    return type(shape) in (list, tuple) and all(
        d is None or (isinstance(d, (int, np.integer)) and not isinstance(d, bool))
        for d in shape
    )


def _type_of_tf_spec(spec: Any) -> Any:
    if isinstance(spec, tf.TensorSpec):
        return _types.TensorType(spec.dtype, spec.shape)
    if isinstance(spec, tf.data.DatasetSpec):
        return _types.SequenceType(type_of_element_spec(spec.element_spec))
    if isinstance(spec, tf.RaggedTensorSpec):
        splits = _types.TensorType(spec.row_splits_dtype, [None])
        fields = [
            ("flat_values", _types.TensorType(spec.dtype, tf.TensorShape(None))),
            ("nested_row_splits", (splits,) * spec.ragged_rank),
        ]
        return _types.StructWithPythonType(fields, tf.RaggedTensor)
    if isinstance(spec, tf.SparseTensorSpec):
        rank = spec.shape.rank
        fields = [
            ("indices", _types.TensorType(tf.int64, [None, rank])),
            ("values", _types.TensorType(spec.dtype, [None])),
            ("dense_shape", _types.TensorType(tf.int64, [rank])),
        ]
        return _types.StructWithPythonType(fields, tf.SparseTensor)
    raise _not_a_spec(spec)


def type_of_element_spec(element_spec: Any) -> Any:
    """The type of a dataset's elements; plain dicts are sorted, as `tf.nest` does it."""
    elements = _containers.container_elements(element_spec)
    if elements is None or isinstance(element_spec, tf.TypeSpec):
        return to_type(element_spec)
    pairs = [(name, type_of_element_spec(spec)) for name, spec in elements]
    return _types.StructWithPythonType(pairs, type(element_spec))


def _type_of_sequence(spec: Any) -> Any:
    """The type of a list or tuple of specs or of `(name, spec)` pairs."""
    if _types.is_named_pair(spec):
        return _types.StructWithPythonType([spec], type(spec))
    if any(_types.is_named_pair(item) and item[0] is not None for item in spec):
        return _types.StructType(spec)
    return _types.StructWithPythonType(spec, type(spec))


def _type_of_class(cls: type) -> Any:
    """The type that an attrs class or a dataclass describes by its annotations."""
    if not (_containers.is_record_class(cls)):
        raise _not_a_spec(cls)
    fields = _containers.record_fields(cls)
    for name, annotation in fields:
        if annotation is None or isinstance(annotation, str):
            raise TypeError(
                f"`to_type` needs a type for each field of `{cls.__name__}`, found "
                f"{annotation!r} for `{name}`.\n"
                "Annotate it with a type, or give an instance that holds the types."
            )
    return _types.StructWithPythonType(fields, cls)


def _not_a_spec(spec: Any) -> TypeError:
    what = f"`{spec.__name__}`" if isinstance(spec, type) else f"{spec!r}"
    hint = (
        "Use e.g. tf.float32, (tf.int32, [None, 3]), a tf.TensorSpec, or an OrderedDict, "
        "list, tuple, namedtuple, attrs object or dataclass object of these."
    )
    if isinstance(spec, type) and spec in _HOW_TO_SAY_PYTHON_TYPES:
        hint = f"Use {_HOW_TO_SAY_PYTHON_TYPES[spec]}."
    return TypeError(
        f"`to_type` needs what describes a type, found {what} of type "
        f"`{type(spec).__name__}`.\n{hint}"
    )
