"""Values in the serialised form: their type first, then bytes in the type's order."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore.ir._blocks import Node
from fedcore.ir._serialize_nodes import read_node, write_node
from fedcore.ir._serialize_tensors import (
    checked_count,
    has_bytes,
    read_elements,
    write_elements,
)
from fedcore.ir._serialize_wire import Reader, SerializationError, Writer
from fedcore.types import (
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    Type,
)

# Parts of a value that take no byte of their own: so many, and four for each byte.
_FREE_PARTS = 100_000
# Members of a list, or elements of a sequence, that take no byte.
_FREE_ITEMS = 1 << 16


def write_value(writer: Writer, value: Any, type_: Type, path: str = "value") -> None:
    """Writes `value`, which must be of the type `type_`."""
    match type_:
        case TensorType():
            array = _array(value, type_, path)
            _write_shape(writer, array.shape, type_)
            write_elements(writer, array)
        case StructType():
            for i, (item, (name, element)) in enumerate(
                zip(_items(value, type_, path), structure.iter_elements(type_))
            ):
                inner = f"{path}[{i}]" if name is None else f"{path}.{name}"
                write_value(writer, item, element, inner)
        case SequenceType():
            _write_sequence(writer, value, type_, path)
        case FederatedType(all_equal=True):
            write_value(writer, value, type_.member, path)
        case FederatedType():
            if not isinstance(value, list | tuple):
                raise TypeError(
                    f"`serialize_value` needs a list of values for `{type_}`, found "
                    f"{type(value).__name__} at `{path}`."
                )
            writer.uint(len(value))
            for i, member in enumerate(value):
                write_value(writer, member, type_.member, f"{path}[{i}]")
        case FunctionType():
            node = getattr(value, "node", value)
            if not isinstance(node, Node) or not type_.is_assignable_from(node.type):
                raise TypeError(
                    f"`serialize_value` needs a computation of type `{type_}`, found "
                    f"`{value}` at `{path}`."
                )
            write_node(writer, node)
        case _:
            raise TypeError(
                "`serialize_value` needs tensors, structures, sequences, placed values "
                f"or computations, found type `{type_}` at `{path}`."
            )


def read_value(
    reader: Reader, type_: Type, hint: Type, *, allow_side_effects: bool
) -> Any:
    """The value that `write_value` wrote; structures are `Struct`s.

    The elements of a sequence are in the Python containers of `hint`.
    """
    parts_left = _FREE_PARTS + 4 * reader.remaining

    def read(t: Type, h: Type) -> Any:
        nonlocal parts_left
        parts_left -= 1
        if parts_left < 0:
            raise SerializationError(
                "The message claims far more parts than it has bytes."
            )
        match t:
            case TensorType():
                return _read_tensor(reader, t)
            case StructType():
                elements = structure.iter_elements(t)
                hints = (element for _, element in structure.iter_elements(h))
                pairs = [(name, read(e, i)) for (name, e), i in zip(elements, hints)]
                return _struct(pairs)
            case SequenceType():
                return _read_sequence(reader, t, h.element)
            case FederatedType(all_equal=True):
                return read(t.member, h.member)
            case FederatedType():
                count = reader.count(free=_FREE_ITEMS)
                return [read(t.member, h.member) for _ in range(count)]
            case FunctionType():
                node = read_node(reader, allow_side_effects=allow_side_effects)
                _check_function(t, node)
                return node
            case _:
                raise SerializationError(f"There are no values of type `{t}`.")

    return read(type_, hint)


def _struct(pairs: list[tuple[str | None, Any]]) -> structure.Struct:
    try:
        return structure.Struct(pairs)
    except (TypeError, ValueError) as e:
        raise SerializationError(f"The names of a value are not sound: {e}") from e


def _check_function(type_: FunctionType, node: Node) -> None:
    try:
        fits = type_ is node.type or type_.is_assignable_from(node.type)
    except TypeError:  # abstract types compare with nothing
        fits = False
    if not fits:
        raise SerializationError(
            f"A value of type `{type_}` needs that type, found `{node.type}`."
        )


def _read_tensor(reader: Reader, type_: TensorType) -> Any:
    shape = _read_shape(reader, type_)
    _check_bytes(type_)
    elements = read_elements(reader, type_.dtype, checked_count(shape))
    return elements.reshape(shape)[()]


def _check_bytes(type_: TensorType) -> None:
    if not has_bytes(type_.dtype) and type_.dtype != tf.string:
        raise SerializationError(f"There are no values of dtype {type_.dtype.name}.")


def _array(value: Any, type_: TensorType, path: str) -> np.ndarray:
    """The value as an array of the type's dtype and shape; strings as bytes."""
    if not has_bytes(type_.dtype) and type_.dtype != tf.string:
        raise TypeError(
            "`serialize_value` needs numbers, bools or strings, found type "
            f"`{type_}` at `{path}`."
        )
    try:
        with tf.init_scope(), tf.device("/CPU:0"):
            array = tf.convert_to_tensor(value, type_.dtype).numpy()
    except (TypeError, ValueError, AttributeError, tf.errors.OpError) as e:
        raise TypeError(
            f"`serialize_value` needs a value of type `{type_}`, found "
            f"{type(value).__name__} at `{path}`: {e}"
        ) from e
    array = np.asarray(array, object if type_.dtype == tf.string else None)
    if not type_.shape.is_compatible_with(array.shape):
        raise TypeError(
            f"`serialize_value` needs a value of type `{type_}`, found shape "
            f"{list(array.shape)} at `{path}`."
        )
    return array


def _items(value: Any, type_: StructType, path: str) -> list[Any]:
    """The elements of a structure, in the order of its type."""
    names = structure.name_list_with_nones(type_)
    named = bool(names) and None not in names
    found: list[Any] | None = None
    if isinstance(value, Mapping):
        if named and set(value) == set(names):
            found = [value[name] for name in names]
    elif isinstance(value, structure.Struct):
        if structure.name_list_with_nones(value) in (names, [None] * len(names)):
            found = [item for _, item in structure.iter_elements(value)]
    elif isinstance(value, list | tuple):
        if getattr(value, "_fields", None) in (None, tuple(names)):
            found = list(value)
    elif named and all(hasattr(value, name) for name in names):
        found = [getattr(value, name) for name in names]
    if found is None or len(found) != len(names):
        raise TypeError(
            f"`serialize_value` needs a structure of type `{type_}`, found "
            f"{type(value).__name__} `{value}` at `{path}`."
        )
    return found


def _write_shape(writer: Writer, shape: tuple[int, ...], type_: TensorType) -> None:
    """The sizes that the type leaves open."""
    if type_.shape.rank is None:
        writer.uint(len(shape))
    for size, known in zip(shape, _sizes(type_, len(shape))):
        if known is None:
            writer.uint(size)


def _read_shape(reader: Reader, type_: TensorType) -> list[int]:
    rank = type_.shape.rank
    if rank is None:
        rank = reader.index(255, "rank")
    return [reader.uint() if n is None else n for n in _sizes(type_, rank)]


def _sizes(type_: TensorType, rank: int) -> list[int | None]:
    return [None] * rank if type_.shape.rank is None else type_.shape.as_list()


# Sequences: column by column, so that a reader makes one array for each.


def _write_sequence(writer: Writer, value: Any, type_: SequenceType, path: str) -> None:
    leaves = _leaves(type_, TypeError)
    rows = [
        list(_flat(element, type_.element, f"{path}[{i}]"))
        for i, element in enumerate(_elements(value, type_, path))
    ]
    writer.uint(len(rows))
    for column, leaf in zip(zip(*rows), leaves):
        shapes = {array.shape for array in column}
        writer.uint(len(shapes) > 1)
        if len(shapes) == 1:
            _write_shape(writer, column[0].shape, leaf)
        else:
            ranks = {len(shape) for shape in shapes}
            if len(ranks) > 1:
                raise TypeError(
                    "`serialize_value` needs elements of one rank, found ranks "
                    f"{sorted(ranks)} at `{path}`."
                )
            writer.uint(ranks.pop())
            sizes = np.array([array.shape for array in column], np.int64)
            write_elements(writer, sizes)
        for array in column:
            write_elements(writer, array)


def _elements(value: Any, type_: SequenceType, path: str) -> Iterable[Any]:
    if hasattr(value, "to_tf"):
        value = value.to_tf()
    if isinstance(value, tf.data.Dataset):
        if value.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"`serialize_value` needs a finite dataset, found an infinite one at "
                f"`{path}`. Take a part of it."
            )
        return value
    if isinstance(value, list | tuple):
        return value
    raise TypeError(
        f"`serialize_value` needs a dataset or a list of elements for `{type_}`, found "
        f"{type(value).__name__} at `{path}`."
    )


def _flat(value: Any, type_: Type, path: str) -> Iterable[np.ndarray]:
    if isinstance(type_, TensorType):
        yield _array(value, type_, path)
        return
    elements = structure.iter_elements(type_)
    for item, (name, element) in zip(_items(value, type_, path), elements):
        yield from _flat(item, element, f"{path}.{name}" if name else path)


def _leaves(type_: SequenceType, error: type[Exception]) -> list[TensorType]:
    """The tensors of an element: at least one, and nothing else."""
    found: list[TensorType] = []

    def visit(t: Type) -> None:
        match t:
            case TensorType():
                found.append(t)
            case StructType():
                for _, element in structure.iter_elements(t):
                    visit(element)
            case _:
                raise error(f"A sequence needs elements of tensors, found `{type_}`.")

    visit(type_.element)
    if not found:
        raise error(f"A sequence needs elements with a tensor, found `{type_}`.")
    return found


def _read_sequence(reader: Reader, type_: SequenceType, hint: Type) -> tf.data.Dataset:
    leaves = _leaves(type_, SerializationError)
    count = reader.count(free=_FREE_ITEMS)
    with tf.init_scope(), tf.device("/CPU:0"):
        if not count:
            columns = [_none(leaf) for leaf in leaves]
        else:
            columns = [_read_column(reader, leaf, count) for leaf in leaves]
        try:
            return _dataset(columns, leaves, count, hint)
        except (TypeError, ValueError, OverflowError, tf.errors.OpError) as e:
            raise SerializationError(f"The elements are not a sequence: {e}") from e


def _none(leaf: TensorType) -> tuple[np.ndarray, np.ndarray]:
    """A column of no elements."""
    rank = leaf.shape.rank or 0
    return np.zeros(0, leaf.dtype.as_numpy_dtype), np.zeros((0, rank), np.int64)


def _read_column(
    reader: Reader, leaf: TensorType, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """All elements of a column in one dimension, and the sizes of each: one row for
    all of them if they agree."""
    _check_bytes(leaf)
    if not reader.index(2, "flag"):
        sizes = np.array([_read_shape(reader, leaf)], np.int64)
        total = checked_count(sizes[0].tolist()) * count
        return read_elements(reader, leaf.dtype, total), sizes
    rank = reader.index(255, "rank")
    sizes = read_elements(reader, tf.int64, count * rank).reshape(count, rank)
    if leaf.shape.rank not in (None, rank) or any(
        known is not None and (sizes[:, i] != known).any()
        for i, known in enumerate(_sizes(leaf, rank))
    ):
        raise SerializationError(f"The elements do not have the shape of `{leaf}`.")
    # In floating point first: products of sizes that are not to be had may overflow.
    most = np.maximum(sizes, 1).astype(np.float64).prod(axis=1)
    if (sizes < 0).any() or (most > 1 << 40).any() or most.sum() > 1 << 50:
        raise SerializationError("The elements need sound shapes, found others.")
    return read_elements(reader, leaf.dtype, int(sizes.prod(axis=1).sum())), sizes


def _dataset(
    columns: list[tuple[np.ndarray, np.ndarray]],
    leaves: list[TensorType],
    count: int,
    element_type: Type,
) -> tf.data.Dataset:
    if count and all(len(sizes) == 1 for _, sizes in columns):
        whole = [flat.reshape(count, *sizes[0]) for flat, sizes in columns]
        return tf.data.Dataset.from_tensor_slices(_nest(element_type, iter(whole)))
    tables = []
    for (flat, sizes), leaf in zip(columns, leaves):
        sizes = np.broadcast_to(sizes, (count, sizes.shape[1]))
        ends = sizes.prod(axis=1).cumsum()
        starts = np.concatenate([[0], ends])
        tables.append((tf.constant(flat, leaf.dtype), starts, tf.constant(sizes)))

    def element(i: tf.Tensor) -> Any:
        tensors = []
        for (flat, starts, sizes), leaf in zip(tables, leaves):
            bounds = tf.gather(starts, [i, i + 1])
            tensor = tf.reshape(flat[bounds[0] : bounds[1]], sizes[i])
            # The shape of the type, even where this one column says more or less.
            tensors.append(
                tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=leaf.shape)
            )
        return _nest(element_type, iter(tensors))

    return tf.data.Dataset.range(count).map(element)


def _nest(type_: Type, leaves: Iterable[Any]) -> Any:
    """A nest that `tf.data` understands: it takes a list for a tensor."""
    if isinstance(type_, TensorType):
        return next(leaves)
    pairs = [(n, _nest(e, leaves)) for n, e in structure.iter_elements(type_)]
    if not pairs or any(name is None for name, _ in pairs):
        return tuple(item for _, item in pairs)
    container = type_.python_container
    if attrs.has(container) or hasattr(container, "_fields"):
        return container(**dict(pairs))
    return collections.OrderedDict(pairs)
