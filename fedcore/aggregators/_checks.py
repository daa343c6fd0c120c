"""Checks that every factory makes of the types it is asked for."""

from __future__ import annotations

from typing import Any

from fedcore.aggregators.factory import (
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.templates import AggregationProcess, EstimationProcess
from fedcore.types import (
    StructType,
    TensorType,
    Type,
    is_structure_of_floats,
    is_structure_of_integers,
    is_structure_of_tensors,
    to_type,
)


def value_type_of(factory: Any, value_type: Any) -> Type:
    """The type of a client's value, checked to be tensors."""
    type_ = to_type(value_type)
    if not isinstance(type_, TensorType | StructType) or not is_structure_of_tensors(
        type_
    ):
        raise TypeError(
            f"`{_name(factory)}` needs a structure of tensors as `value_type`, found "
            f"`{type_}`."
        )
    return type_


def float_type_of(factory: Any, value_type: Any) -> Type:
    """The type of a client's value, checked to be floats."""
    type_ = value_type_of(factory, value_type)
    if not is_structure_of_floats(type_):
        raise TypeError(
            f"`{_name(factory)}` needs a structure of floats as `value_type`, found "
            f"`{type_}`.\nCast on the clients first."
        )
    return type_


def integer_type_of(factory: Any, value_type: Any) -> Type:
    """The type of a client's value, checked to be integers."""
    type_ = value_type_of(factory, value_type)
    if not is_structure_of_integers(type_):
        raise TypeError(
            f"`{_name(factory)}` needs a structure of integers as `value_type`, found "
            f"`{type_}`.\nQuantise on the clients first."
        )
    return type_


def number_type_of(factory: Any, value_type: Any) -> Type:
    """The type of a client's value, checked to be all floats or all integers."""
    type_ = value_type_of(factory, value_type)
    if not (is_structure_of_floats(type_) or is_structure_of_integers(type_)):
        raise TypeError(
            f"`{_name(factory)}` needs all floats or all integers as `value_type`, "
            f"found `{type_}`."
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
            f"`{_name(factory)}` needs a scalar number as `weight_type`, found "
            f"`{type_}`."
        )
    return type_


def inner_factory(name: str, value: Any, *, weighted: bool | None = False) -> Any:
    """An aggregator given as an argument, checked to be of the kind that is wanted."""
    wanted: tuple[type, ...] = (
        UnweightedAggregationFactory,
        WeightedAggregationFactory,
    )
    if weighted is not None:
        wanted = wanted[weighted : weighted + 1]
    if not isinstance(value, wanted):
        names = " or a ".join(f"`{kind.__name__}`" for kind in wanted)
        raise TypeError(
            f"`{name}` needs to be a {names}, found `{type(value).__name__}`."
        )
    return value


def positive(name: str, value: float) -> Any:
    """A number given as an argument, checked to be > 0."""
    if not value > 0:
        raise ValueError(f"`{name}` needs to be > 0, found {value}.")
    return value


def known_shapes(factory: Any, type_: Type) -> Type:
    """`type_`, whose tensors are checked to have a known number of elements."""
    if isinstance(type_, StructType):
        for element in type_:
            known_shapes(factory, element)
    elif not type_.shape.is_fully_defined():
        raise TypeError(
            f"`{_name(factory)}` needs tensors of known shape, found `{type_}`."
        )
    return type_


def result_of(process: AggregationProcess) -> Type:
    """The type of what a process returns, unplaced."""
    return process.next.type_signature.result.result.member


def is_estimate(value: Any) -> bool:
    return isinstance(value, EstimationProcess)


def _name(factory: Any) -> str:
    return factory if isinstance(factory, str) else f"{type(factory).__name__}.create"
