"""Which type can stand for which, and messages that show where two types differ."""

import difflib
import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedcore import structure
from fedcore.types._remedies import remedy

if TYPE_CHECKING:
    from fedcore.types._types import Type

# Longer types stand on lines of their own, with a diff.
_LONG = 80


class TypeRelation(enum.Enum):
    """How two types may relate: identical ones are equivalent, equivalent ones assignable."""

    EQUIVALENT = "equivalent"
    IDENTICAL = "identical"
    ASSIGNABLE = "assignable"


class TypeNotAssignableError(TypeError):
    """A value of the source type cannot be used where the target type is wanted."""

    def __init__(self, source_type: "Type", target_type: "Type"):
        self.source_type = source_type
        self.target_type = target_type
        super().__init__(
            type_mismatch_error_message(
                source_type, target_type, TypeRelation.ASSIGNABLE
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source_type, self.target_type)


class TypesNotEquivalentError(TypeError):
    """Two types that cannot be used for each other."""

    def __init__(self, first_type: "Type", second_type: "Type"):
        self.first_type = first_type
        self.second_type = second_type
        super().__init__(
            type_mismatch_error_message(
                first_type, second_type, TypeRelation.EQUIVALENT
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.first_type, self.second_type)


class TypesNotIdenticalError(TypeError):
    """Two types that are not the same."""

    def __init__(self, first_type: "Type", second_type: "Type"):
        self.first_type = first_type
        self.second_type = second_type
        super().__init__(
            type_mismatch_error_message(first_type, second_type, TypeRelation.IDENTICAL)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.first_type, self.second_type)


def is_assignable(target: Any, source: Any) -> bool:
    """Whether a value of type `source` can be used where `target` is wanted."""
    return next(_breaches(target, source, ""), None) is None


def is_equivalent(first: Any, second: Any) -> bool:
    """Whether each of the types can be used for the other."""
    return is_assignable(first, second) and is_assignable(second, first)


def type_mismatch_error_message(
    first: "Type",
    second: "Type",
    relation: TypeRelation,
    second_is_expected: bool = False,
) -> str:
    """Says that `first` does not have `relation` to `second`, and where they differ.

    Args:
        first: The type that came (for ASSIGNABLE: the source).
        second: The type to compare it with (for ASSIGNABLE: the target).
        relation: The relation that does not hold.
        second_is_expected: Whether `second` is the type that was wanted.
    """
    short_first, short_second = str(first), str(second)
    kind = "expected type" if second_is_expected else "type"
    where = _first_difference(first, second, relation, second_is_expected)
    if relation is TypeRelation.ASSIGNABLE:
        advice = remedy(second, first)
        where += f"\n{advice}" if advice else ""
    if short_first == short_second:
        # Only the Python containers differ, which `str` does not show.
        short_first, short_second = repr(first), repr(second)
    if max(len(short_first), len(short_second)) <= _LONG:
        return (
            f"Type `{short_first}` is not {relation.value} to {kind} `{short_second}`"
            f"{where}"
        )
    if str(first) == str(second):
        return (
            f"Type\n`{short_first}`\nis not {relation.value} to {kind}\n"
            f"`{short_second}`{where}"
        )
    article = "the expected" if second_is_expected else "another"
    return (
        f"A type is not {relation.value} to {article} type.{where}\n\n"
        f"{_diff(first, second, relation, second_is_expected)}"
    )


def _diff(
    first: "Type", second: "Type", relation: TypeRelation, second_is_expected: bool
) -> str:
    """What two long types differ in, line by line, with a little of what is around."""
    lines = difflib.unified_diff(
        first.formatted_representation().split("\n"),
        second.formatted_representation().split("\n"),
        lineterm="",
    )
    came, wanted = "the first", "the second"
    if relation is TypeRelation.ASSIGNABLE or second_is_expected:
        came, wanted = "what came", "what was wanted"
    return "\n".join([f"Diff (- {came}, + {wanted}):", *list(lines)[2:]])


def _first_difference(
    first: Any, second: Any, relation: TypeRelation, second_is_expected: bool
) -> str:
    """One line that says at which path the two types part; empty if at the root."""
    if relation is TypeRelation.IDENTICAL:
        breaches = _differences(first, second, "")
    elif relation is TypeRelation.EQUIVALENT:
        # A breach one way is a difference; if there is none, there is one the other way.
        breach = next(_breaches(second, first, ""), None)
        swapped = ((p, found, want) for p, want, found in _breaches(first, second, ""))
        breaches = swapped if breach is None else iter([breach])
    else:
        breaches = _breaches(second, first, "")
    path, wanted, found = next(breaches, ("", "", ""))
    if not path:
        return ""
    path = path if path == "the top" else f"`{path}`"
    if relation is TypeRelation.ASSIGNABLE or second_is_expected:
        return f"\nThey first differ at {path}: wanted {wanted}, found {found}."
    return (
        f"\nThey first differ at {path}: {found} in the first, {wanted} in the second."
    )


_Breach = tuple[str, str, str]


def _breaches(target: Any, source: Any, path: str) -> Iterator[_Breach]:
    """Yields `(path, wanted, found)` wherever `source` is not assignable to `target`.

    The one rule of assignability; it is lazy, so that the first breach is enough.
    """
    if target.is_abstract():
        raise TypeError(
            f"A comparison needs concrete types, found the abstract type `{target}`.\n"
            "Put a concrete type in its place first."
        )
    if target is source:
        return
    if not _same_kind(target, source):
        yield path, f"`{target}`", f"`{source}`"
    elif target.is_tensor():
        if not _tensor_fits(target, source):
            yield path, f"`{target}`", f"`{source}`"
    elif target.is_sequence():
        yield from _breaches(target.element, source.element, _join(path, "element"))
    elif target.is_struct():
        yield from _struct_breaches(target, source, path)
    elif target.is_federated():
        if not _placement_fits(target, source):
            yield path, f"`{target}`", f"`{source}`"
        yield from _breaches(target.member, source.member, path)
    elif target.is_function():
        yield from _function_breaches(target, source, path)


def _same_kind(target: Any, source: Any) -> bool:
    return type(target) is type(source) or (target.is_struct() and source.is_struct())


def _tensor_fits(target: Any, source: Any) -> bool:
    if target.dtype != source.dtype:
        return False
    if target.shape.rank is None:
        return True
    if target.shape.rank != source.shape.rank:
        return False
    dims = zip(target.shape.as_list(), source.shape.as_list(), strict=True)
    return all(want is None or want == found for want, found in dims)


def _placement_fits(target: Any, source: Any) -> bool:
    all_equal_fits = source.all_equal or not target.all_equal
    return target.placement == source.placement and all_equal_fits


def _struct_breaches(target: Any, source: Any, path: str) -> Iterator[_Breach]:
    if len(target) != len(source):
        yield path or "the top", _count(target), _count(source)
        return
    names = structure.name_list_with_nones(source)
    for position, (name, element) in enumerate(structure.iter_elements(target)):
        if names[position] not in (None, name):
            where = _join(path, f"[{position}]")
            wanted = f"a name `{name}`" if name is not None else "no name"
            yield where, wanted, f"the name `{names[position]}`"
        where = _join(path, f"[{position}]" if name is None else name)
        yield from _breaches(element, source[position], where)


def _count(struct: Any) -> str:
    count = f"{len(struct)} element{'' if len(struct) == 1 else 's'}"
    return count if len(str(struct)) > _LONG else f"{count} `{struct}`"


def _function_breaches(target: Any, source: Any, path: str) -> Iterator[_Breach]:
    where = _join(path, "parameter")
    if target.parameter is None or source.parameter is None:
        if target.parameter is not source.parameter:
            yield where, _or_none(target.parameter), _or_none(source.parameter)
    else:
        # The other way round: the source has to take whatever the target is called with.
        for at, wanted, found in _breaches(source.parameter, target.parameter, where):
            yield at, found, wanted
    yield from _breaches(target.result, source.result, _join(path, "result"))


def _or_none(parameter: Any) -> str:
    return "no parameter" if parameter is None else f"`{parameter}`"


def _join(path: str, part: str) -> str:
    return path + part if not path or part.startswith("[") else f"{path}.{part}"


def _differences(first: Any, second: Any, path: str) -> Iterator[_Breach]:
    """Yields `(path, wanted, found)` where the types, or their containers, differ."""
    if first is second:
        return
    children = list(zip(_labelled_children(first), _labelled_children(second)))
    same_labels = [a[0] for a, _ in children] == [b[0] for _, b in children]
    same_count = len(_labelled_children(first)) == len(_labelled_children(second))
    if type(first) is type(second) and same_count and same_labels:
        for (label, mine), (_, other) in children:
            yield from _differences(mine, other, _join(path, label))
    # Reached first if no child differs, or the children cannot be compared.
    yield path, _with_container(second), _with_container(first)


def _labelled_children(type_spec: Any) -> list[tuple[str, Any]]:
    if type_spec.is_struct():
        return [
            (f"[{position}]" if name is None else name, element)
            for position, (name, element) in enumerate(
                structure.iter_elements(type_spec)
            )
        ]
    if type_spec.is_function() and type_spec.parameter is not None:
        return [("parameter", type_spec.parameter), ("result", type_spec.result)]
    labels = {
        "is_function": "result",
        "is_federated": "member",
        "is_sequence": "element",
    }
    label = next((n for kind, n in labels.items() if getattr(type_spec, kind)()), "")
    return [(label, child) for child in type_spec.children()]


def _with_container(type_spec: Any) -> str:
    container = type_spec.python_container if type_spec.is_struct() else None
    return f"`{type_spec}`" + (f" as {container.__name__}" if container else "")
