"""Questions about a whole type."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs

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
    return _only(type_spec, "is_structure_of_floats", _not_float)


def is_structure_of_integers(type_spec: "_types.Type") -> bool:
    """Whether the type, or its federated member, has only tensors of integers."""
    return _only(type_spec, "is_structure_of_integers", _not_integer)


def is_structure_of_tensors(type_spec: "_types.Type") -> bool:
    """Whether the type is a tensor or a struct of such."""
    return contains_only(type_spec, lambda t: t.is_struct() or t.is_tensor())


def is_tensorflow_compatible_type(type_spec: "_types.Type | None") -> bool:
    """Whether TensorFlow can take the type: tensors, sequences and structs; or None."""
    return type_spec is None or contains_only(
        type_spec, lambda t: t.is_struct() or t.is_sequence() or t.is_tensor()
    )


@attrs.frozen
class Breach:
    """A leaf of a type that an operator cannot take.

    Args:
        path: Where the leaf stands, such as `a.b[1]`; empty if it is the whole type.
        leaf: Its type.
        reason: What is wrong, to follow the leaf in a sentence, such as `is not numeric`.
    """

    path: str
    leaf: "_types.Type"
    reason: str


def sum_breach(type_spec: "_types.Type") -> Breach | None:
    """The first leaf that cannot be summed: no number, or of a shape not wholly known."""
    return _first_breach(type_spec, _not_numeric, _shape_unknown)


def average_breach(type_spec: "_types.Type") -> Breach | None:
    """The first leaf that cannot be averaged: neither float nor complex."""
    return _first_breach(type_spec, _not_float_or_complex)


def min_max_breach(type_spec: "_types.Type") -> Breach | None:
    """The first leaf without a minimum: no integer or float, or of a shape not known."""
    return _first_breach(type_spec, _not_ordered, _shape_unknown)


def is_sum_compatible(type_spec: "_types.Type") -> bool:
    """Whether values of the type can be summed."""
    return sum_breach(type_spec) is None


def is_average_compatible(type_spec: "_types.Type") -> bool:
    """Whether values of the type can be averaged."""
    return average_breach(type_spec) is None


def is_min_max_compatible(type_spec: "_types.Type") -> bool:
    """Whether values of the type have a minimum and a maximum."""
    return min_max_breach(type_spec) is None


_Rule = Callable[[Any], str]


def _not_numeric(tensor: Any) -> str:
    dtype = tensor.dtype
    numeric = dtype.is_integer or dtype.is_floating or dtype.is_complex
    return "" if numeric else "is not numeric"


def _not_float_or_complex(tensor: Any) -> str:
    fits = tensor.dtype.is_floating or tensor.dtype.is_complex
    return "" if fits else "is neither floating nor complex"


def _not_ordered(tensor: Any) -> str:
    fits = tensor.dtype.is_integer or tensor.dtype.is_floating
    return "" if fits else "is neither an integer nor floating"


def _shape_unknown(tensor: Any) -> str:
    return (
        ""
        if tensor.shape.is_fully_defined()
        else "has a shape that is not wholly known"
    )


def _not_float(tensor: Any) -> str:
    return "" if tensor.dtype.is_floating else "is not floating"


def _not_integer(tensor: Any) -> str:
    return "" if tensor.dtype.is_integer else "is not an integer"


def _first_breach(type_spec: Any, *rules: _Rule, path: str = "") -> Breach | None:
    """The first leaf that is no tensor or that a rule has something against."""
    if type_spec.is_federated():
        return _first_breach(type_spec.member, *rules, path=path)
    if type_spec.is_tensor():
        reason = next(filter(None, (rule(type_spec) for rule in rules)), "")
        return Breach(path, type_spec, reason) if reason else None
    if not type_spec.is_struct():
        return Breach(path, type_spec, "is not a tensor")
    for position, (name, element) in enumerate(structure.iter_elements(type_spec)):
        dot = "." if path and name is not None else ""
        part = f"[{position}]" if name is None else f"{dot}{name}"
        breach = _first_breach(element, *rules, path=path + part)
        if breach is not None:
            return breach
    return None


def _walk(type_spec: "_types.Type") -> "Iterator[_types.Type]":
    yield type_spec
    for child in type_spec.children():
        yield from _walk(child)


def _only(type_spec: Any, function: str, rule: _Rule) -> bool:
    if not isinstance(type_spec, _types.Type):
        raise TypeError(f"`{function}` needs a type, found {type_spec!r}.")
    return _first_breach(type_spec, rule) is None
