"""Checks that every factory makes of the types it is asked for."""

from __future__ import annotations

from typing import Any

from fedcore.aggregators.factory import (
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.types import (
    StructType,
    TensorType,
    Type,
    is_structure_of_tensors,
    to_type,
)


def value_type_of(factory: Any, value_type: Any) -> Type:
    """The type of a client's value, checked to be tensors."""
    type_ = to_type(value_type)
    if not isinstance(type_, TensorType | StructType) or not is_structure_of_tensors(type_):
        raise TypeError(
            f"`{type(factory).__name__}.create` needs a structure of tensors as "
            f"`value_type`, found `{type_}`."
        )
    return type_


def weight_type_of(factory: Any, weight_type: Any) -> TensorType:
    """The type of a client's weight, checked to be a scalar number."""
    type_ = to_type(weight_type)
    if not (
        isinstance(type_, TensorType)
        and type_.shape.rank == 0
        and (type_.dtype.is_floating or type_.dtype.is_integer)
    ):
        raise TypeError(
            f"`{type(factory).__name__}.create` needs a scalar number as `weight_type`, "
            f"found `{type_}`."
        )
    return type_


def inner_factory(name: str, value: Any, *, weighted: bool = False) -> Any:
    """An aggregator given as an argument, checked to be of the kind that is wanted."""
    wanted = WeightedAggregationFactory if weighted else UnweightedAggregationFactory
    if not isinstance(value, wanted):
        raise TypeError(
            f"`{name}` needs to be a `{wanted.__name__}`, found `{type(value).__name__}`."
        )
    return value
