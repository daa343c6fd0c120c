"""From types to values: Python containers, `tf.TensorSpec`s, trees of tensors."""

import collections
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore import _containers, structure
from fedcore.types import _convert, _types


def type_to_py_container(value: Any, type_spec: Any) -> Any:
    """Puts a value into the Python containers that its type remembers.

    A struct type without a container gives an OrderedDict if all its elements are named
    and a tuple if none is. What is no `Struct` already has its container and stays.

    Args:
        value: A value of type `type_spec`; one of `{T}@CLIENTS` is a list.
        type_spec: Its type.

    Raises:
        TypeError: If a value with one entry per client is not a list.
        ValueError: If names or number of elements differ from the type's, or a struct
            has named and unnamed elements, which no Python container can hold.
    """
    if type_spec.is_federated():
        if type_spec.all_equal:
            return type_to_py_container(value, type_spec.member)
        if not isinstance(value, list):
            raise TypeError(
                f"A value of type `{type_spec}` needs to be a list with one entry per "
                f"participant, found `{type(value).__name__}`."
            )
        return [type_to_py_container(item, type_spec.member) for item in value]
    if type_spec.is_sequence() and isinstance(value, list):
        return [type_to_py_container(item, type_spec.element) for item in value]
    if type_spec.is_struct() and isinstance(value, structure.Struct):
        return _struct_to_container(value, type_spec)
    return value


def structure_from_tensor_type_tree(
    fn: "Callable[[_types.TensorType], Any]", type_spec: Any
) -> Any:
    """Calls `fn` on each tensor type of a struct type, in the type's Python containers.

    Args:
        fn: Takes a `TensorType`.
        type_spec: A tensor type or a struct of such (anything `to_type` takes).

    Raises:
        ValueError: If there is another type than tensors and structs in it.
    """

    def build(part: Any) -> Any:
        if part.is_tensor():
            return fn(part)
        if not part.is_struct():
            raise ValueError(
                "`structure_from_tensor_type_tree` needs a tensor or struct type, found "
                f"`{part}`."
            )
        elements = [(name, build(e)) for name, e in structure.iter_elements(part)]
        return _fill_container(elements, part)

    return build(_convert.to_type(type_spec))


def type_to_tf_tensor_specs(type_spec: Any) -> Any:
    """The `tf.TensorSpec`s of a type of tensors, in the type's Python containers.

    Ragged and sparse tensors give a `tf.RaggedTensorSpec` and a `tf.SparseTensorSpec`.

    Args:
        type_spec: A tensor type or a struct of such (anything `to_type` takes).

    Raises:
        ValueError: If there is another type than tensors and structs in it, or a struct
            that has named and unnamed elements.
    """

    def build(part: Any) -> Any:
        if part.is_tensor():
            return tf.TensorSpec(part.shape, part.dtype)
        if not part.is_struct():
            raise ValueError(
                f"`type_to_tf_tensor_specs` needs a type of tensors, found `{part}`."
            )
        if part.python_container is tf.RaggedTensor:
            return _ragged_spec(part)
        if part.python_container is tf.SparseTensor:
            return tf.SparseTensorSpec(
                [None] * (part.dense_shape.shape[0] or 0) or None, part.values.dtype
            )
        elements = [(name, build(e)) for name, e in structure.iter_elements(part)]
        return _fill_container(elements, part)

    return build(_convert.to_type(type_spec))


def _ragged_spec(ragged: Any) -> tf.RaggedTensorSpec:
    splits = ragged.nested_row_splits
    inner = ragged.flat_values.shape
    # Without the rank of the values the ragged tensor's own shape is unknown.
    known = inner.rank is not None
    shape = [None] * (len(splits) + 1) + inner.as_list()[1:] if known else None
    return tf.RaggedTensorSpec(
        shape,
        ragged.flat_values.dtype,
        ragged_rank=len(splits),
        row_splits_dtype=splits[0].dtype,
    )


def _struct_to_container(value: structure.Struct, type_spec: Any) -> Any:
    if len(value) != len(type_spec):
        raise ValueError(
            f"A value of type `{type_spec}` needs {len(type_spec)} elements, found "
            f"{len(value)}: {value!r}."
        )
    elements: list[tuple[str | None, Any]] = []
    for (name, item), (wanted, item_type) in zip(
        structure.iter_elements(value), structure.iter_elements(type_spec), strict=True
    ):
        if name is not None and name != wanted:
            raise ValueError(
                f"A value of type `{type_spec}` needs "
                + (f"a field `{wanted}`" if wanted else "unnamed elements")
                + f", found the name `{name}`."
            )
        elements.append((wanted, type_to_py_container(item, item_type)))
    return _fill_container(elements, type_spec)


def _fill_container(elements: list[tuple[str | None, Any]], type_spec: Any) -> Any:
    """Puts `elements` into the container of `type_spec`, or a fitting one."""
    container = type_spec.python_container
    names = [name for name, _ in elements if name is not None]
    if 0 < len(names) < len(elements):
        raise ValueError(
            "A Python container needs elements that are all named or all unnamed, found "
            f"`{type_spec}`.\nName all of them, or none."
        )
    if container is None:
        container = collections.OrderedDict if names else tuple
    if names and container in (list, tuple):
        raise ValueError(
            f"A `{container.__name__}` needs elements without names, found `{type_spec}`."
        )
    if container is tf.RaggedTensor:
        return tf.RaggedTensor.from_nested_row_splits(
            *(value for _, value in elements), validate=False
        )
    if container is tf.SparseTensor:
        return tf.SparseTensor(*(value for _, value in elements))
    return _containers.build_container(container, elements)
