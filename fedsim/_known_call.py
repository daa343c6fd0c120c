"""What is known of a call that is not made: from arguments, from their types, or counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import tensorflow as tf

from fedcore import structure
from fedcore.compiler import LeafType, Plan
from fedcore.computation import ConcreteComputation, PolymorphicComputation, pack_args
from fedcore.types import (
    FederatedType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    TypeRelation,
    to_type,
    type_mismatch_error_message,
)
from fedsim import _traffic as traffic
from fedsim._explanation import Size
from fedsim._traced import traced
from fedsim.datasets.client_dataset import ClientDataset
from fedsim.runtime import _plan
from fedsim.runtime._context import number_of_clients
from fedsim.runtime._values import from_python


@attrs.frozen
class Call:
    """What is known of a call: values or types of the parameter's leaves, by name."""

    clients: int | None
    values: dict[str, Any]
    types: dict[str, LeafType]


def call_of(
    comp: ConcreteComputation,
    plan: Plan,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    clients: int | None,
) -> Call:
    if not args and not kwargs:
        return Call(clients, {}, {})
    parameter, names = comp.type_signature.parameter, plan.program.parameters
    packed = pack_args(parameter, args, kwargs, comp.__name__)
    given = (*args, *kwargs.values())
    if all(map(_is_type, given)):
        sized = _sized(packed, parameter)
        return Call(clients, {}, dict(zip(names, sized, strict=True)))
    if any(map(_is_type, given)):
        raise TypeError(
            "`explain` needs values for all arguments, or types for all of them, found "
            "both.\nPass types, such as `fedcore.TensorType(tf.float32, [3])`, in the "
            "place of all."
        )
    argument = from_python(packed, parameter)
    counted = number_of_clients(argument, parameter, -1)
    if counted >= 0 and clients not in (None, counted):
        raise ValueError(
            f"`explain` needs `clients` to be the number of clients of the arguments, "
            f"which is {counted}, found {clients}.\nLeave `clients` out."
        )
    clients = counted if counted >= 0 else clients
    values = _plan._leaves_in(argument, parameter)
    return Call(clients, dict(zip(names, values, strict=True)), {})


def of_types(
    computation: PolymorphicComputation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ConcreteComputation:
    """The computation of the types that stand in the place of arguments."""
    given = [*args, *kwargs.values()]
    if not all(map(_is_type, given)):
        return traced("explain", computation)
    elements = [*((None, arg) for arg in args), *kwargs.items()]
    type_ = StructType([(n, to_type(t)) if n else to_type(t) for n, t in elements])
    type_ = to_type(given[0]) if len(given) == 1 else type_
    return traced("explain", computation.fn_for_argument_type(type_))


def _is_type(value: Any) -> bool:
    return isinstance(value, Type | tf.TypeSpec)


def _sized(given: Any, declared: Type) -> list[LeafType]:
    """The types of the leaves, from types in the place of arguments."""
    if isinstance(given, structure.Struct):
        given = StructType(
            [
                (n, to_type(t)) if n else to_type(t)
                for n, t in structure.iter_elements(given)
            ]
        )
    given = to_type(given)
    sized, wanted = list(leaf_types(given)), list(leaf_types(declared))
    if len(sized) != len(wanted):
        raise TypeError(
            f"`explain` needs types of the shape of `{declared}`, found `{given}`."
        )
    for one, other in zip(wanted, sized):
        if not one.is_assignable_from(other):
            raise TypeError(
                type_mismatch_error_message(other, one, TypeRelation.ASSIGNABLE)
            )
    return sized


def leaf_types(type_: Type) -> Iterable[Any]:
    """The types of the leaves, without placements, in order."""
    if isinstance(type_, FederatedType):
        yield from leaf_types(type_.member)
    elif isinstance(type_, StructType):
        for element in type_:
            yield from leaf_types(element)
    else:
        yield type_


def data_of(plan: Plan, call: Call, examples: int | None) -> Size | None:
    """What the clients' own arguments hold, in all."""
    program = plan.program
    own = [name for name in program.parameters if name in program.at_clients]
    if not own or call.clients is None:
        return None
    total = Size(0)
    for name in own:
        if name in call.values:
            sizes = map(_value_size, call.values[name])
            total = sum(sizes, total)
            continue
        size = _type_size(call.types.get(name, program.types[name]), examples)
        total += size.times(call.clients)
    return total


def _value_size(value: Any) -> Size:
    if isinstance(value, ClientDataset):
        columns = tf.nest.flatten(value.columns.features)
        row = sum(column.itemsize * column[:1].size for column in columns)
        return Size(value.num_examples * row)
    size = traffic.value_bytes(value)
    return Size(size or 0, size is not None)


def _type_size(type_: LeafType, examples: int | None) -> Size:
    if not isinstance(type_, SequenceType):
        size = traffic.type_bytes(type_)
        return Size(size or 0, size is not None)
    tensors = list(leaf_types(type_.element))
    if examples is None or not all(isinstance(t, TensorType) for t in tensors):
        return Size(0, exact=False)
    if all(t.shape.rank and t.shape[0] is None for t in tensors):
        tensors = [TensorType(t.dtype, t.shape[1:]) for t in tensors]
    sizes = [traffic.type_bytes(t) for t in tensors]
    known = sum(size for size in sizes if size is not None)
    return Size(known * examples, None not in sizes)
