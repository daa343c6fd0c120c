"""How many participants a call has, as its arguments say it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from fedcore import structure
from fedcore.framework.executors_errors import CardinalityError
from fedcore.types import CLIENTS, FederatedType, PlacementLiteral, StructType, Type

CardinalitiesType = Mapping[PlacementLiteral, int]


class CardinalityCarrying(abc.ABC):
    """A value that knows how many participants it belongs to."""

    @property
    @abc.abstractmethod
    def cardinality(self) -> CardinalitiesType:
        """The number of participants at each placement, for example `{CLIENTS: 10}`."""


def merge_cardinalities(
    existing: CardinalitiesType, to_add: CardinalitiesType
) -> CardinalitiesType:
    """The numbers of participants that two parts of one call agree on.

    Args:
        existing: What is known, by placement.
        to_add: What another part says.

    Returns:
        Both together.

    Raises:
        CardinalityError: If they differ for a placement.
        TypeError: If a key is not a placement.
    """
    merged = dict(existing)
    for placement, count in [*existing.items(), *to_add.items()]:
        if not isinstance(placement, PlacementLiteral):
            raise TypeError(
                "`merge_cardinalities` needs placements as keys, found "
                f"`{type(placement).__name__}`: {placement!r}."
            )
        if merged.setdefault(placement, count) != count:
            raise CardinalityError(
                f"All values of one call need the same number of {placement.name}, "
                f"found {merged[placement]} and {count}."
            )
    return merged


def infer_cardinalities(value: Any, type_spec: Type | None) -> CardinalitiesType:
    """How many participants an argument tells of, by the lengths of its lists.

    Args:
        value: The argument as packed by the call.
        type_spec: The type of the parameter.

    Returns:
        The number of clients, if the argument says it; else nothing.

    Raises:
        CardinalityError: If two lists differ in length.
    """
    if isinstance(value, CardinalityCarrying):
        return value.cardinality
    if isinstance(type_spec, FederatedType):
        if type_spec.placement is CLIENTS and not type_spec.all_equal:
            return {CLIENTS: len(value)} if isinstance(value, list | tuple) else {}
        return {}
    found: CardinalitiesType = {}
    if isinstance(type_spec, StructType):
        for item, element in zip(_elements(value, type_spec), type_spec):
            found = merge_cardinalities(found, infer_cardinalities(item, element))
    return found


def _elements(value: Any, type_: StructType) -> list[Any]:
    """The elements in the type's order; of a value that does not fit, none."""
    if isinstance(value, dict):
        return [value.get(name) for name in structure.name_list_with_nones(type_)]
    try:
        return [item for _, item in structure.iter_elements(_struct(value))]
    except TypeError:
        return []  # the context says what is wrong with it


def _struct(value: Any) -> structure.Struct:
    if isinstance(value, structure.Struct):
        return value
    return structure.from_container(value)
