"""Python containers seen as ordered lists of `(name | None, value)` pairs."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

Element = tuple[str | None, Any]


def is_named_tuple(value: object) -> bool:
    """Whether `value` is a namedtuple (an instance or a class)."""
    cls = value if isinstance(value, type) else type(value)
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def is_record(value: object) -> bool:
    """Whether `value` is an instance of an attrs class or of a dataclass."""
    return not isinstance(value, type) and is_record_class(type(value))


def is_record_class(cls: type) -> bool:
    """Whether `cls` is an attrs class or a dataclass."""
    return attrs.has(cls) or dataclasses.is_dataclass(cls)


def record_fields(cls: type) -> list[tuple[str, Any]]:
    """The `(name, annotation)` of each field of an attrs class or a dataclass."""
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    return [(field.name, field.type) for field in fields]


def container_elements(value: Any) -> list[Element] | None:
    """The elements of a list, tuple, mapping or record; None if it is none of them.

    An OrderedDict keeps its order; the keys of another mapping are sorted, since
    `tf.nest` and XLA see them in that order.
    """
    if is_named_tuple(value):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, collections.OrderedDict):
        return list(zip(_string_keys(value), value.values(), strict=True))
    if isinstance(value, Mapping):
        return [(name, value[name]) for name in sorted(_string_keys(value))]
    if isinstance(value, (list, tuple)):
        return [(None, item) for item in value]
    if is_record(value):
        return [(name, getattr(value, name)) for name, _ in record_fields(type(value))]
    return None


def _string_keys(mapping: Mapping[Any, Any]) -> list[str]:
    for key in mapping:
        if not isinstance(key, str):
            raise TypeError(f"A mapping needs keys that are strings, found {key!r}.")
    return list(mapping)


def build_container(container: Callable[..., Any], elements: Iterable[Element]) -> Any:
    """Makes a container of class `container` that holds `elements`.

    Elements of a namedtuple, an attrs class or a dataclass are given by position.
    """
    elements = list(elements)
    if isinstance(container, type) and issubclass(container, collections.defaultdict):
        return container(None, elements)
    if isinstance(container, type) and issubclass(container, Mapping):
        return container(elements)
    values = [value for _, value in elements]
    if is_named_tuple(container):
        return container(*values)
    if isinstance(container, type) and issubclass(container, (list, tuple)):
        return container(values)
    return build_record(container, elements)


def build_record(cls: Callable[..., Any], elements: list[Element]) -> Any:
    """Makes an attrs or dataclass instance; private attrs fields lose the underscore."""
    if not isinstance(cls, type) or not is_record_class(cls):
        return cls(**{str(name): value for name, value in elements})
    aliases = {f.name: f.alias for f in attrs.fields(cls)} if attrs.has(cls) else {}
    return cls(**{aliases.get(name, name): value for name, value in elements})
