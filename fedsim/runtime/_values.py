"""Values in and out of a runtime: checked on entry, in Python's containers on return."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore.types import (
    FederatedType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    TypeRelation,
    infer_unplaced_type,
    to_type,
    type_mismatch_error_message,
    type_to_py_container,
    type_to_tf_tensor_specs,
)
from fedsim.datasets.client_dataset import ClientDataset

_LONGEST_TYPE = 200  # characters, in a message


@attrs.frozen(eq=False)
class Placed:
    """A federated value: one member for each client, or one that all places share."""

    members: tuple[Any, ...]
    all_equal: bool

    def at(self, client: int) -> Any:
        """The member of one client."""
        return self.members[0] if self.all_equal else self.members[client]


@attrs.frozen(eq=False)
class Elements:
    """A sequence that is held as a list of its elements."""

    items: tuple[Any, ...]


# --- In -----------------------------------------------------------------------------


def from_python(value: Any, type_: Type, path: str = "") -> Any:
    """A value of Python as the runtime holds it: eager tensors, `Struct`s, sequences.

    Args:
        value: What the caller passed.
        type_: The type declared for it.
        path: Where in the argument it stands, for messages.

    Raises:
        TypeError: If the value is not of the type.
    """
    match type_:
        case TensorType():
            return _tensor(value, type_, path)
        case StructType():
            return _struct(value, type_, path)
        case SequenceType():
            return _sequence(value, type_, path)
        case FederatedType():
            return _federated(value, type_, path)
    raise TypeError(
        f"An argument of type `{type_}` cannot be passed in{_at(path)}; pass values, and "
        "compose functions inside a federated computation."
    )


def _at(path: str) -> str:
    return f" at `{path}`" if path else ""


def _tensor(value: Any, type_: TensorType, path: str) -> tf.Tensor:
    wanted = type_.dtype
    if isinstance(value, tf.Variable):
        value = value.read_value()
    elif hasattr(value, "value") and type(value).__module__.startswith("keras"):
        value = tf.convert_to_tensor(value)
    if isinstance(value, tf.Tensor):
        if value.dtype != wanted:
            raise _wrong(value, f"`{to_type(value.dtype)}`", type_, path)
        tensor = value
    else:
        tensor = _constant(value, type_, path)
    if not type_.shape.is_compatible_with(tensor.shape):
        found = f"`{to_type((tensor.dtype, tensor.shape))}`"
        raise _wrong(value, found, type_, path)
    return tensor


def _constant(value: Any, type_: TensorType, path: str) -> tf.Tensor:
    if isinstance(value, structure.Struct | dict) or value is None:
        raise _wrong(value, f"`{type(value).__name__}`", type_, path)
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise _wrong(value, f"`{type(value).__name__}`", type_, path) from error
    # An empty list is float64 to NumPy, and fits any dtype.
    if array.size and not _fits(array, type_.dtype):
        name = "string" if array.dtype.kind in "SU" else array.dtype.name
        raise _wrong(value, f"`{name}`", type_, path)
    if type_.dtype != tf.string:
        array = _narrowed(array, value, type_, path)
    elif not array.size:
        array = array.astype(object)
    return tf.constant(array, type_.dtype)


def _fits(array: np.ndarray, dtype: tf.DType) -> bool:
    if dtype != tf.string:
        return _same_kind(array, np.dtype(dtype.as_numpy_dtype))
    if array.dtype.kind == "O":
        return all(isinstance(item, str | bytes) for item in array.flat)
    return array.dtype.kind in "SU"


def _same_kind(array: np.ndarray, wanted: np.dtype) -> bool:
    if array.dtype.kind == "V" or wanted.kind == "V":  # bfloat16 and its like
        return array.dtype == wanted or array.dtype.kind in "fiu"
    return np.can_cast(array.dtype, wanted, "same_kind") or (
        array.dtype.kind in "iu" and wanted.kind in "iu"
    )


def _narrowed(
    array: np.ndarray, value: Any, type_: TensorType, path: str
) -> np.ndarray:
    """The array in the wanted dtype; an integer that does not fit is not wrapped."""
    wanted = np.dtype(type_.dtype.as_numpy_dtype)
    if array.dtype.kind in "iu" and wanted.kind in "iu" and array.size:
        bounds = np.iinfo(wanted)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise TypeError(
                f"An argument of type `{type_}` needs integers from {bounds.min} to "
                f"{bounds.max}{_at(path)}, found {_short(value)}."
            )
    return array.astype(wanted)


def _wrong(value: Any, found: str, type_: Type, path: str) -> TypeError:
    return TypeError(
        f"An argument of type `{type_}` is needed{_at(path)}, found {found}: "
        f"{_short(value)}.\nCast or reshape it, or change the declared type."
    )


def _brief(type_: StructType) -> str:
    """The type, its elements cut short where it would fill the screen."""
    text = str(type_)
    if len(text) <= _LONGEST_TYPE:
        return text
    parts = (
        f"{name}={_cut(str(t))}" if name else _cut(str(t))
        for name, t in structure.iter_elements(type_)
    )
    return f"<{', '.join(parts)}>"


def _short(value: Any) -> str:
    return _cut(" ".join(repr(value).split()))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _struct(value: Any, type_: StructType, path: str) -> structure.Struct:
    container = type_.python_container
    if container in (tf.RaggedTensor, tf.SparseTensor) and isinstance(value, container):
        value = _components(value)
    if not _is_container(value):
        raise _wrong(value, f"`{type(value).__name__}`", type_, path)
    elements = structure.to_elements(structure.from_container(value))
    names = structure.name_list_with_nones(type_)
    if isinstance(value, dict) and set(value) == set(names):
        # The type knows the order; that of a dict is an accident.
        elements = [(name, value[name]) for name in names]
    if len(elements) != len(names):
        raise TypeError(
            f"A structure of {len(names)} element{'s' * (len(names) != 1)} is needed"
            f"{_at(path)}, found {len(elements)}: {_short(value)}.\n"
            f"The type is `{_brief(type_)}`." + _parts_remedy(value, names, path)
        )
    packed = []
    for i, ((found, item), wanted, element) in enumerate(zip(elements, names, type_)):
        if found is not None and found != wanted:
            raise TypeError(
                f"The element named `{wanted or i}` is needed{_at(path)}, found "
                f"`{found}`: `{type_}`."
            )
        here = f"{path}.{wanted}" if wanted else f"{path}[{i}]"
        packed.append((wanted, from_python(item, element, here.lstrip("."))))
    return structure.Struct(packed)


def _parts_remedy(value: Any, names: list[str | None], path: str) -> str:
    if "state" in _attributes(value) and "state" not in names:
        return "\nThis is what a process returns: pass its `state`."
    if not path and all(names):
        return f"\nPass all arguments: {', '.join(map(str, names))}."
    return ""


def _attributes(value: Any) -> list[str]:
    elements = structure.to_elements(structure.from_container(value))
    return [name for name, _ in elements if name]


def _is_container(value: Any) -> bool:
    return (
        isinstance(value, structure.Struct | dict | list | tuple)
        or attrs.has(type(value))
        or hasattr(type(value), "__dataclass_fields__")
    )


def _components(value: Any) -> structure.Struct:
    if isinstance(value, tf.SparseTensor):
        return structure.Struct.named(
            indices=value.indices, values=value.values, dense_shape=value.dense_shape
        )
    return structure.Struct.named(
        flat_values=value.flat_values, nested_row_splits=value.nested_row_splits
    )


def _federated(value: Any, type_: FederatedType, path: str) -> Placed:
    if type_.all_equal:
        return Placed((from_python(value, type_.member, path),), True)
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"A list with one value for each client is needed{_at(path)}, found "
            f"`{type(value).__name__}`: {_short(value)}.\nThe type is `{type_}`.\n"
            "For one client, pass a list with one element."
        )
    members = []
    for i, member in enumerate(value):
        here = f"{path} of client {i}".strip() if path else f"client {i}"
        members.append(from_python(member, type_.member, here))
    return Placed(tuple(members), False)


def _sequence(value: Any, type_: SequenceType, path: str) -> Any:
    if isinstance(value, Elements):
        return value
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = (
            from_python(item, type_.element, f"{path}[{i}]")
            for i, item in enumerate(value)
        )
        return Elements(tuple(items))
    if not (hasattr(value, "element_spec") and _is_dataset(value)):
        raise TypeError(
            f"A sequence of type `{type_}` is needed{_at(path)}, found "
            f"`{type(value).__name__}`: {_short(value)}.\n"
            "Pass a tf.data.Dataset, a client's dataset, or a list of elements."
        )
    kind = value.pipeline if isinstance(value, ClientDataset) else value
    if _known_to_fit.get(kind) is type_:
        return value
    found = infer_unplaced_type(value)
    if not type_.is_assignable_from(_in_order_of(type_, found)):
        raise TypeError(
            f"A dataset does not have the elements declared for it{_at(path)}.\n"
            + type_mismatch_error_message(
                found, type_, TypeRelation.ASSIGNABLE, second_is_expected=True
            )
        )
    _known_to_fit[kind] = type_
    return value


# What a dataset was last found to fit; recorded pipelines are shared by all clients.
_known_to_fit: weakref.WeakKeyDictionary[Any, SequenceType] = (
    weakref.WeakKeyDictionary()
)


def _in_order_of(wanted: Type, found: Type) -> Type:
    """`found` with the entries of dicts in the order of `wanted`: that of a dict, which
    tf.data sorts, is an accident."""
    if isinstance(wanted, SequenceType) and isinstance(found, SequenceType):
        return SequenceType(_in_order_of(wanted.element, found.element))
    if not (isinstance(wanted, StructType) and isinstance(found, StructType)):
        return found
    names = structure.name_list_with_nones(found)
    container = found.python_container
    if container is not None and issubclass(container, dict):
        order = structure.name_list_with_nones(wanted)
        names = order if set(order) == set(names) else names
        elements = [(name, found[name]) for name in names]
    else:
        elements = structure.to_elements(found)
    if len(elements) != len(wanted):
        return found
    return StructType([(n, _in_order_of(w, t)) for (n, t), w in zip(elements, wanted)])


def _is_dataset(value: Any) -> bool:
    return isinstance(value, tf.data.Dataset) or hasattr(value, "to_tf")


# --- Sequences ----------------------------------------------------------------------


def to_dataset(value: Any, type_: SequenceType) -> tf.data.Dataset:
    """A sequence as a tf.data.Dataset whose elements have the containers of the type."""
    spec = type_to_tf_tensor_specs(type_.element)
    if isinstance(value, Elements):
        return _dataset_of(value.items, type_.element, spec)
    if not isinstance(value, tf.data.Dataset):
        value = value.to_tf()
    if _has_containers_of.get(value) is not type_:
        found = infer_unplaced_type(value).element
        if _containers(found) != _containers(type_.element):
            return value.map(lambda *element: _repacked(element, type_.element))
        _has_containers_of[value] = type_
    return value


# Of which type a dataset was last found to have the containers.
_has_containers_of: weakref.WeakKeyDictionary[Any, SequenceType] = (
    weakref.WeakKeyDictionary()
)


def _containers(type_: Type) -> Any:
    """The Python containers of a type, nested as it is."""
    if not isinstance(type_, StructType):
        return None
    elements = structure.iter_elements(type_)
    return type_.python_container, [(name, _containers(t)) for name, t in elements]


def _repacked(element: Any, type_: Type) -> Any:
    element = element[0] if len(element) == 1 else element
    return in_containers(from_nest(element, type_), type_)


def from_nest(element: Any, type_: Type) -> Any:
    """An element of a dataset as the runtime holds it; it is known to be of the type."""
    if not isinstance(type_, StructType):
        return element
    container = type_.python_container
    if container in (tf.RaggedTensor, tf.SparseTensor):
        element = _components(element)
    elements = structure.to_elements(structure.from_container(element))
    names = structure.name_list_with_nones(type_)
    if isinstance(element, dict):
        elements = [(name, element[name]) for name in names]
    return structure.Struct(
        [(n, from_nest(v, t)) for n, (_, v), t in zip(names, elements, type_)]
    )


def _dataset_of(items: tuple[Any, ...], element: Type, spec: Any) -> tf.data.Dataset:
    """A dataset of elements; neighbours of one shape (all but a last batch) are stacked."""
    parts = []
    for _, group in itertools.groupby(items, key=_shapes):
        nested = [in_containers(item, element) for item in group]
        stacked = tf.nest.map_structure(lambda *xs: tf.stack(xs), *nested)
        parts.append(_with_spec(tf.data.Dataset.from_tensor_slices(stacked), spec))
    if not parts:
        return _empty(spec)
    dataset = parts[0]
    for part in parts[1:]:
        dataset = dataset.concatenate(part)
    return dataset


def _shapes(item: Any) -> tuple[Any, ...]:
    return tuple(
        tuple(t.shape) for t in structure.flatten(structure.Struct([(None, item)]))
    )


def _with_spec(dataset: tf.data.Dataset, spec: Any) -> tf.data.Dataset:
    """The dataset with the declared shapes, so that parts of other sizes fit on."""

    def relax(*element: Any) -> Any:
        element = element[0] if len(element) == 1 else element
        return tf.nest.map_structure(
            lambda t, s: tf.raw_ops.PlaceholderWithDefault(input=t, shape=s.shape),
            element,
            spec,
        )

    return dataset.map(relax)


def _empty(spec: Any) -> tf.data.Dataset:
    def one(s: tf.TensorSpec) -> tf.Tensor:
        return tf.zeros([1, *(0 if d is None else d for d in s.shape)], s.dtype)

    blank = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(one, spec))
    return _with_spec(blank, spec).take(0)


def iterate(value: Any, type_: SequenceType) -> Iterator[Any]:
    """The elements of a sequence, as the runtime holds values."""
    if isinstance(value, Elements):
        return iter(value.items)
    dataset = value if isinstance(value, tf.data.Dataset) else value.to_tf()
    return (from_nest(element, type_.element) for element in dataset)


# --- Flat tensors, for graphs -------------------------------------------------------


def flatten(value: Any, type_: Type) -> list[tf.Tensor]:
    """The tensors of an unplaced value in flat order; a sequence is a variant."""
    if isinstance(type_, StructType):
        return [
            tensor
            for item, element in zip(value, type_)
            for tensor in flatten(item, element)
        ]
    if isinstance(type_, SequenceType):
        return [tf.data.experimental.to_variant(to_dataset(value, type_))]
    return [value]


def unflatten(tensors: Iterator[tf.Tensor], type_: Type) -> Any:
    """The value of `type_` that flat tensors make; the inverse of `flatten`."""
    if isinstance(type_, StructType):
        return structure.Struct(
            [(n, unflatten(tensors, t)) for n, t in structure.iter_elements(type_)]
        )
    if isinstance(type_, SequenceType):
        spec = type_to_tf_tensor_specs(type_.element)
        return tf.data.experimental.from_variant(next(tensors), spec)
    return next(tensors)


# --- Out ----------------------------------------------------------------------------


def to_python(value: Any, type_: Type) -> Any:
    """A value of the runtime as Python code gets it: NumPy, in the type's containers."""
    return type_to_py_container(_leaves_out(value, type_), type_)


def in_containers(value: Any, type_: Type) -> Any:
    """An unplaced value in the type's containers, its tensors as they are."""
    return type_to_py_container(value, type_)


def _leaves_out(value: Any, type_: Type) -> Any:
    match type_:
        case TensorType():
            return value.numpy()
        case SequenceType():
            return to_dataset(value, type_)
        case FederatedType():
            if value.all_equal:
                return _leaves_out(value.members[0], type_.member)
            return [_leaves_out(member, type_.member) for member in value.members]
        case StructType():
            names = structure.name_list_with_nones(type_)
            items = (_leaves_out(v, t) for v, t in zip(value, type_))
            return structure.Struct(list(zip(names, items)))
    raise TypeError(
        f"A result of type `{type_}` cannot be returned to Python; return values."
    )
