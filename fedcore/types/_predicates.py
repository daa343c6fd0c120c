"""Questions about a whole type."""

from collections.abc import Callable, Iterator
from typing import Any

from fedcore import structure
from fedcore.types import _types

_Predicate = Callable[["_types.Type"], bool]


def contains(type_signature: "_types.Type", predicate: _Predicate) -> bool:
    """Whether `predicate` holds for the type or for a type anywhere in it."""
    return any(map(predicate, _walk(type_signature)))


def contains_only(type_signature: "_types.Type", predicate: _Predicate) -> bool:
    """Whether `predicate` holds for the type and for every type in it."""
    return all(map(predicate, _walk(type_signature)))


def count(type_signature: "_types.Type", predicate: _Predicate) -> int:
    """How many types, the type itself and those in it, `predicate` holds for."""
    return sum(map(bool, map(predicate, _walk(type_signature))))


def is_structure_of_floats(type_spec: "_types.Type") -> bool:
    """Whether the type, or its federated member, has only tensors of floats."""
    return _only_dtypes(type_spec, "is_structure_of_floats", lambda d: d.is_floating)


def is_structure_of_integers(type_spec: "_types.Type") -> bool:
    """Whether the type, or its federated member, has only tensors of integers."""
    return _only_dtypes(type_spec, "is_structure_of_integers", lambda d: d.is_integer)


def is_structure_of_tensors(type_spec: "_types.Type") -> bool:
    """Whether the type is a tensor or a struct of such."""
    return contains_only(type_spec, lambda t: t.is_struct() or t.is_tensor())


def is_tensorflow_compatible_type(type_spec: "_types.Type | None") -> bool:
    """Whether TensorFlow can take the type: tensors, sequences and structs; or None."""
    return type_spec is None or contains_only(
        type_spec, lambda t: t.is_struct() or t.is_sequence() or t.is_tensor()
    )


def sum_breach(type_spec: "_types.Type") -> "tuple[str, _types.Type] | None":
    """Path and type of the first leaf that cannot be summed, None if all can.

    What can be summed are numbers of any dtype; a federated type is asked for its member.
    """
    return _first_leaf(
        type_spec, lambda d: d.is_integer or d.is_floating or d.is_complex
    )


def average_breach(type_spec: "_types.Type") -> "tuple[str, _types.Type] | None":
    """Path and type of the first leaf that cannot be averaged (is no float or complex)."""
    return _first_leaf(type_spec, lambda d: d.is_floating or d.is_complex)


def min_max_breach(type_spec: "_types.Type") -> "tuple[str, _types.Type] | None":
    """Path and type of the first leaf without an order (is no integer or float)."""
    return _first_leaf(type_spec, lambda d: d.is_integer or d.is_floating)


def is_sum_compatible(type_spec: "_types.Type") -> bool:
    """Whether values of the type can be summed."""
    return sum_breach(type_spec) is None


def is_average_compatible(type_spec: "_types.Type") -> bool:
    """Whether values of the type can be averaged."""
    return average_breach(type_spec) is None


def is_min_max_compatible(type_spec: "_types.Type") -> bool:
    """Whether values of the type have a minimum and a maximum."""
    return min_max_breach(type_spec) is None


def _walk(type_spec: "_types.Type") -> "Iterator[_types.Type]":
    yield type_spec
    for child in type_spec.children():
        yield from _walk(child)


def _only_dtypes(type_spec: Any, function: str, fits: Callable[[Any], bool]) -> bool:
    if not isinstance(type_spec, _types.Type):
        raise TypeError(f"`{function}` needs a type, found {type_spec!r}.")
    return _first_leaf(type_spec, fits) is None


def _first_leaf(
    type_spec: Any, fits: Callable[[Any], bool], path: str = ""
) -> "tuple[str, _types.Type] | None":
    """The first leaf, with its path, that is no tensor of a dtype that `fits`."""
    if type_spec.is_federated():
        return _first_leaf(type_spec.member, fits, path)
    if type_spec.is_tensor():
        return None if fits(type_spec.dtype) else (path, type_spec)
    if not type_spec.is_struct():
        return path, type_spec
    for position, (name, element) in enumerate(structure.iter_elements(type_spec)):
        dot = "." if path and name is not None else ""
        part = f"[{position}]" if name is None else f"{dot}{name}"
        breach = _first_leaf(element, fits, path + part)
        if breach is not None:
            return breach
    return None
