"""`Struct`, an ordered collection of optionally named elements, and functions on it."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import attrs
import tensorflow as tf

from fedcore import _containers

__all__ = [
    "Struct",
    "flatten",
    "from_container",
    "has_field",
    "is_same_structure",
    "iter_elements",
    "map_structure",
    "name_list",
    "name_list_with_nones",
    "name_to_index_map",
    "pack_sequence_as",
    "to_container_recursive",
    "to_elements",
    "to_odict",
    "to_odict_or_tuple",
    "update_struct",
]

_Container = TypeVar("_Container")
_MAX_FIELDS_SHOWN = 10
# The attributes of `Struct` itself; `_asdict` would make tree libraries take a
# `Struct` for a namedtuple.
_RESERVED = ("_names", "_values", "_index", "_hash", "_asdict")


class Struct:
    """An immutable, ordered collection of elements, each with a name or without.

    Elements are reached by position (`s[0]`, `s[1:]`) or by name (`s.x`, `s["x"]`).
    Two are equal if names and elements are; a `Struct` never equals a tuple or a dict.

    >>> from fedcore.structure import Struct
    >>> s = Struct([("x", 10), (None, 20), ("y", Struct.unnamed(30))])
    >>> s.x, s[1], len(s)
    (10, 20, 3)
    >>> print(s)
    <x=10,20,y=<30>>
    """

    __slots__ = ("__weakref__", "_hash", "_index", "_names", "_values")

    _names: tuple[str | None, ...]
    _values: tuple[Any, ...]
    _index: dict[str, int]
    _hash: int | None

    @classmethod
    def named(cls, **kwargs: Any) -> "Struct":
        """A `Struct` whose elements are named by the keywords, in their order."""
        return cls(kwargs.items())

    @classmethod
    def unnamed(cls, *args: Any) -> "Struct":
        """A `Struct` of `args` without names."""
        return cls((None, value) for value in args)

    def __init__(self, elements: Iterable[tuple[str | None, Any]]):
        """Makes a `Struct` of `(name, value)` pairs, where a name may be None.

        Args:
            elements: An iterable of pairs.

        Raises:
            TypeError: If `elements` is no iterable of such pairs.
            ValueError: If a name occurs twice or is one of the few reserved ones.
        """
        if not isinstance(elements, Iterable):
            raise TypeError(
                "`Struct` needs an iterable of (name, value) pairs, found "
                f"`{type(elements).__name__}`."
            )
        names: list[str | None] = []
        values: list[Any] = []
        for element in elements:
            if not _is_pair(element):
                raise TypeError(
                    "`Struct` needs (name, value) pairs whose name is a string or None, "
                    f"found {element!r}.\n"
                    "Use `Struct.unnamed(...)` for elements without names."
                )
            names.append(element[0])
            values.append(element[1])
        index = {name: i for i, name in enumerate(names) if name is not None}
        if len(index) < sum(name is not None for name in names):
            raise ValueError(f"`Struct` needs names that differ, found {names}.")
        if not index.keys().isdisjoint(_RESERVED):
            raise ValueError(
                f"`Struct` needs names other than the reserved {list(_RESERVED)}, "
                f"found {names}."
            )
        self._fill(tuple(names), tuple(values), index)

    def _fill(
        self,
        names: tuple[str | None, ...],
        values: tuple[Any, ...],
        index: dict[str, int],
    ) -> None:
        # `object.__setattr__`, because sub-classes may be frozen.
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_hash", None)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __dir__(self) -> list[str]:
        return list(self._index)

    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, str):
            return self.__getattr__(key)
        if isinstance(key, slice):
            return self._values[key]
        if not hasattr(key, "__index__"):
            raise TypeError(
                "`Struct` needs an index that is an int, a str or a slice, found "
                f"`{type(key).__name__}`."
            )
        if not 0 <= key < len(self):
            raise IndexError(
                f"`Struct` needs an index from 0 to {len(self) - 1}, found {key}."
                if self._values
                else f"An empty `Struct` has no element {key}."
            )
        return self._values[key]

    def __getattr__(self, name: str) -> Any:
        # Before `_fill` (unpickling, copying) there is no index to look into.
        index = {} if name in _RESERVED else self._index
        if name not in index:
            shown = list(index)[:_MAX_FIELDS_SHOWN]
            more = ", ..." if len(index) > len(shown) else ""
            raise AttributeError(
                f"This `{type(self).__name__}` has no element named `{name}`; its names "
                f"are {shown}{more}."
            )
        return self._values[index[name]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Struct):
            return NotImplemented
        return self._names == other._names and self._values == other._values

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(self, "_hash", hash((self._names, self._values)))
        return self._hash  # pyright: ignore[reportReturnType]

    def __repr__(self) -> str:
        return f"Struct({to_elements(self)!r})"

    def __str__(self) -> str:
        pairs = iter_elements(self)
        return (
            f"<{','.join(f'{n}={v}' if n is not None else str(v) for n, v in pairs)}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (to_elements(self),)


def iter_elements(struct: Struct) -> Iterator[tuple[str | None, Any]]:
    """Iterates over the `(name, value)` pairs of `struct`; a name may be None."""
    _check_struct(struct, "iter_elements")
    return iter(zip(struct._names, struct._values, strict=True))


def to_elements(struct: Struct) -> list[tuple[str | None, Any]]:
    """The `(name, value)` pairs of `struct`; a name may be None."""
    _check_struct(struct, "to_elements")
    return list(zip(struct._names, struct._values, strict=True))


def name_list(struct: Struct) -> list[str]:
    """The names of the named elements, in order."""
    _check_struct(struct, "name_list")
    return [name for name in struct._names if name is not None]


def name_list_with_nones(struct: Struct) -> list[str | None]:
    """The name of each element, None for those without."""
    _check_struct(struct, "name_list_with_nones")
    return list(struct._names)


def name_to_index_map(structure: Struct) -> dict[str, int]:
    """The position of each named element, by name."""
    _check_struct(structure, "name_to_index_map")
    return dict(structure._index)


def has_field(structure: Struct, field: str) -> bool:
    """Whether `structure` has an element named `field`."""
    _check_struct(structure, "has_field")
    return field in structure._index


def to_odict(
    struct: Struct, recursive: bool = False
) -> "collections.OrderedDict[str, Any]":
    """Returns `struct` as an OrderedDict.

    Args:
        struct: A `Struct` whose elements are all named.
        recursive: Whether the `Struct`s in it become OrderedDicts as well.

    Raises:
        ValueError: If an element has no name.
    """

    def to_dict(elements: list[tuple[str | None, Any]]) -> Any:
        if any(name is None for name, _ in elements):
            raise ValueError(
                "`to_odict` needs a `Struct` whose elements are all named, found "
                f"`{struct}`."
            )
        return collections.OrderedDict(elements)

    if recursive:
        return to_container_recursive(struct, to_dict)
    return to_dict(to_elements(struct))


def to_odict_or_tuple(
    struct: Struct, recursive: bool = True
) -> "collections.OrderedDict[str, Any] | tuple[Any, ...]":
    """Returns `struct` as an OrderedDict if all is named, as a tuple if nothing is.

    Args:
        struct: A `Struct`; an empty one becomes `()`.
        recursive: Whether the `Struct`s in it are turned as well.

    Raises:
        ValueError: If some elements are named and some are not.
    """

    def to_dict_or_tuple(elements: list[tuple[str | None, Any]]) -> Any:
        named = [name is not None for name, _ in elements]
        if all(named) and elements:
            return collections.OrderedDict(elements)
        if not any(named):
            return tuple(value for _, value in elements)
        raise ValueError(
            "`to_odict_or_tuple` needs elements that are all named or all unnamed, found "
            f"`{Struct(elements)}`."
        )

    if recursive:
        return to_container_recursive(struct, to_dict_or_tuple)
    return to_dict_or_tuple(to_elements(struct))


def to_container_recursive(
    value: Struct,
    container_fn: Callable[[list[tuple[str | None, Any]]], Any],
) -> Any:
    """Turns every nested `Struct` of `value` into what `container_fn` makes of it.

    Args:
        value: A `Struct`. Other containers in it are left as they are.
        container_fn: Takes the list of `(name, value)` pairs, innermost first.
    """
    return container_fn(
        [
            (
                name,
                to_container_recursive(element, container_fn)
                if isinstance(element, Struct)
                else element,
            )
            for name, element in iter_elements(value)
        ]
    )


def from_container(value: Any, recursive: bool = False) -> Struct:
    """Makes a `Struct` of a list, tuple, dict, namedtuple, attrs class or dataclass.

    An OrderedDict keeps its order; the keys of a plain dict are sorted.

    Args:
        value: The container.
        recursive: Whether the containers in it become `Struct`s as well.

    Raises:
        TypeError: If `value` is no container.
    """
    elements = _elements(value)
    if elements is None:
        raise TypeError(
            "`from_container` needs a list, tuple, dict, namedtuple, attrs class or "
            f"dataclass, found `{type(value).__name__}`: {value!r}."
        )
    if not recursive:
        return Struct(elements)
    return Struct(
        (name, element if _elements(element) is None else from_container(element, True))
        for name, element in elements
    )


def flatten(struct: Any) -> list[Any]:
    """The leaves of `struct`, depth first; anything that is no container is a leaf."""
    if not isinstance(struct, Struct):
        return tf.nest.flatten(struct)
    return [leaf for value in struct for leaf in flatten(value)]


def pack_sequence_as(structure: Any, flat_sequence: list[Any]) -> Any:
    """Puts the leaves in `flat_sequence` into the shape of `structure`.

    Args:
        structure: Nested `Struct`s, or a single leaf.
        flat_sequence: The leaves, as many as `flatten(structure)` gives.

    Raises:
        TypeError: If `structure` holds containers other than `Struct`.
        IndexError: If there are fewer leaves than `structure` has.
    """
    if not isinstance(flat_sequence, list):
        raise TypeError(
            "`pack_sequence_as` needs a list of leaves, found "
            f"`{type(flat_sequence).__name__}`."
        )
    leaves = iter(flat_sequence)

    def pack(part: Any) -> Any:
        if isinstance(part, Struct):
            return Struct(
                [(name, pack(element)) for name, element in iter_elements(part)]
            )
        if _containers.container_elements(part) is not None:
            raise TypeError(
                "`pack_sequence_as` needs nested `Struct`s, found "
                f"`{type(part).__name__}`: {part!r}.\n"
                "Use `from_container(value, recursive=True)` first."
            )
        try:
            return next(leaves)
        except StopIteration:
            raise IndexError(
                f"`pack_sequence_as` needs {len(flatten(structure))} leaves, found "
                f"{len(flat_sequence)}."
            ) from None

    return pack(structure)


def is_same_structure(a: Struct, b: Struct) -> bool:
    """Whether `a` and `b` are nested alike, with the same names in the same order."""
    _check_struct(a, "is_same_structure")
    _check_struct(b, "is_same_structure")
    return a._names == b._names and all(map(_same_nesting, a, b))


def map_structure(fn: Callable[..., Any], *structures: Struct) -> Any:
    """Calls `fn` on the leaves of structures of the same nesting.

    Args:
        fn: Takes as many leaves as there are structures.
        *structures: One or more `Struct`s.

    Returns:
        A `Struct` nested as the first one, with the results of `fn` as leaves.

    Raises:
        TypeError: If `fn` cannot be called or the structures are nested differently.
        ValueError: If there is no structure.
    """
    if not callable(fn):
        raise TypeError(
            f"`map_structure` needs a function, found `{type(fn).__name__}`."
        )
    if not structures:
        raise ValueError("`map_structure` needs one structure or more, found none.")
    first = structures[0]
    for position, structure in enumerate(structures):
        _check_struct(structure, "map_structure")
        if not is_same_structure(first, structure):
            raise TypeError(
                "`map_structure` needs structures that are nested alike, found "
                f"`{first}` and, at position {position}, `{structure}`."
            )
    leaves = zip(*map(flatten, structures), strict=True)
    return pack_sequence_as(first, [fn(*group) for group in leaves])


def update_struct(structure: Any, **kwargs: Any) -> Any:
    """A copy of `structure` in which the fields named by the keywords are replaced.

    Args:
        structure: A `Struct`, mapping, namedtuple, attrs class or dataclass.
        **kwargs: The new values.

    Raises:
        KeyError: If `structure` has no field of such a name.
        TypeError: If `structure` has no named fields.
    """
    elements = _elements(structure)
    if elements is None or type(structure) in (list, tuple):
        raise TypeError(
            "`update_struct` needs a structure with named fields (a dict, namedtuple, "
            f"attrs class, dataclass or Struct), found `{type(structure).__name__}`."
        )
    names = [name for name, _ in elements]
    for name in kwargs:
        if name not in names:
            raise KeyError(
                f"`update_struct` needs one of the fields {names}, found `{name}`."
            )
    new = [(name, kwargs.get(name, value)) for name, value in elements]  # pyright: ignore
    if isinstance(structure, Struct):
        return Struct(new)
    if isinstance(structure, collections.defaultdict):
        return collections.defaultdict(
            structure.default_factory, {**structure, **kwargs}
        )
    if isinstance(structure, collections.OrderedDict):
        return type(structure)(new)
    if isinstance(structure, Mapping):
        return type(structure)({**structure, **kwargs})  # pyright: ignore
    if attrs.has(type(structure)):
        return attrs.evolve(structure, **_by_alias(type(structure), kwargs))
    return _containers.build_container(type(structure), new)


def _by_alias(cls: type, kwargs: dict[str, Any]) -> dict[str, Any]:
    aliases = {field.name: field.alias for field in attrs.fields(cls)}
    return {aliases[name]: value for name, value in kwargs.items()}


def _elements(value: Any) -> list[tuple[str | None, Any]] | None:
    if isinstance(value, Struct):
        return to_elements(value)
    return _containers.container_elements(value)


def _same_nesting(a: Any, b: Any) -> bool:
    if isinstance(a, Struct) or isinstance(b, Struct):
        both = isinstance(a, Struct) and isinstance(b, Struct)
        return both and is_same_structure(a, b)
    try:
        tf.nest.assert_same_structure(a, b, check_types=True)
    except (TypeError, ValueError):
        return False
    return True


def _is_pair(element: Any) -> bool:
    return (
        isinstance(element, (tuple, list))
        and len(element) == 2
        and (element[0] is None or isinstance(element[0], str))
    )


def _check_struct(value: Any, function: str) -> None:
    if not isinstance(value, Struct):
        raise TypeError(
            f"`{function}` needs a `Struct`, found `{type(value).__name__}`."
        )
