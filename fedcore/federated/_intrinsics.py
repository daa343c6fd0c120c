"""The table of intrinsics: for each operator its name, type rule, meaning and body.

The public function is the type rule: it checks its arguments and makes the call. The
body, where an operator can be said in others, is what the compiler puts in its place;
the reference runtime does not use it and gives every operator its meaning by itself.
The table is one idea and so one file, though a long one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore import ir, structure
from fedcore.federated import _arithmetic as arithmetic
from fedcore.federated._value import (
    Value,
    current_trace,
    node_of,
    to_value,
    trace_call,
)
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    PlacementLiteral,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    TypeRelation,
    contains,
    to_type,
    type_mismatch_error_message,
)


class SumIncompatibleError(TypeError):
    """A sum was asked of something that is not numbers."""


@attrs.frozen
class Operator:
    """One entry of the table."""

    uri: str
    function: Callable[..., Any]
    body: Callable[..., Value] | None


INTRINSICS: dict[str, Operator] = {}


def intrinsic(*, body: Callable[..., Value] | None = None) -> Callable[..., Any]:
    """Enters a public function into the table, with what it can be said in."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        INTRINSICS[function.__name__] = Operator(function.__name__, function, body)
        return function

    return enter


# --- Checks of arguments ------------------------------------------------------------


def _call(uri: str, arguments: list[Value], result: Type) -> Value:
    trace = current_trace(uri)
    nodes = [node_of(a) for a in arguments]
    argument = nodes[0]
    if len(nodes) > 1:
        argument = ir.Struct(tuple((None, node) for node in nodes))
    type_ = FunctionType(argument.type, result)
    return trace.bind(ir.Call(ir.Intrinsic(uri, type_), argument))


def _placed(
    value: Any, placement: PlacementLiteral | None, uri: str, name: str
) -> Value:
    """`value` as one federated value (a structure of such is zipped), at `placement`."""
    current_trace(uri)
    value = to_value(value)
    if isinstance(value.type_signature, StructType) and len(value.type_signature):
        value = _zipped(value, uri, f"`{name}`")
    type_ = value.type_signature
    wanted = f"at {placement.name}" if placement else "at CLIENTS or SERVER"
    if not isinstance(type_, FederatedType) or placement not in (None, type_.placement):
        raise TypeError(
            f"`{uri}` needs `{name}` to be a federated value {wanted}, found "
            f"`{type_}`.\n" + _remedy(type_, placement)
        )
    return value


def _remedy(type_: Type, placement: PlacementLiteral | None) -> str:
    if not isinstance(type_, FederatedType):
        where = (placement or SERVER).name
        text = f"Place it with `federated_value(value, fedcore.{where})`"
        if type_.is_function():
            return text + "."
        return text + (
            "; if it is a parameter, declare it as `fedcore.type_at_clients(...)` or "
            "`fedcore.type_at_server(...)`."
        )
    if placement is CLIENTS:
        return (
            "It is one value already. To have it at each client, send it with "
            "`federated_broadcast(value)`."
        )
    return "Bring it to the server with an aggregation, for example `federated_sum`."


def _function(fn: Any, argument: Type | None, uri: str, name: str) -> Value:
    """`fn` as a value that takes `argument`; local: it holds no placed value."""
    value = to_value(fn, parameter_type_hint=argument)
    type_ = value.type_signature
    if not isinstance(type_, FunctionType):
        raise TypeError(f"`{uri}` needs `{name}` to be a function, found `{type_}`.")
    _check_taken(type_.parameter, argument, uri, name)
    placed = _placed_inside(value.comp)
    if placed is not None:
        raise TypeError(
            f"`{uri}` needs `{name}` to compute at one place, found in it a value of "
            f"federated type `{placed.type}`: `{placed}`.\n"
            "Pass federated values as arguments, zipped with the value that is mapped."
        )
    return value


def _check_taken(parameter: Type | None, argument: Type | None, uri: str, name: str):
    """Refuses a function whose parameter does not take what it is called with."""
    if argument is None and parameter is not None:
        raise TypeError(
            f"`{uri}` needs `{name}` to take no argument, found that it takes "
            f"`{parameter}`.\nTo give it a value, use federated_map(fn, value)."
        )
    if argument is not None and parameter is None:
        raise TypeError(
            f"`{uri}` needs `{name}` to take an argument of type `{argument}`, found a "
            "function without parameter."
        )
    if argument is not None and not parameter.is_assignable_from(argument):
        mismatch = type_mismatch_error_message(
            argument, parameter, TypeRelation.ASSIGNABLE, second_is_expected=True
        )
        raise TypeError(
            f"`{uri}` needs `{name}` to take what it is called with, found that it takes "
            f"another type.\n{mismatch}\nChange the declared types of the function, or what it is applied to."
        )


def _placed_inside(function: ir.Node) -> ir.Node | None:
    """A placed value that a function makes or uses; None if it computes at one place."""
    todo = [function]
    while todo:
        node = todo.pop()
        root = node
        while isinstance(root, ir.Selection):
            root = root.source
        if not isinstance(root, ir.Reference | ir.Intrinsic):
            todo.extend(reversed(root.children()))
        elif contains(node.type, lambda t: t.is_federated()):
            return node
    return None


def _leaf_that(type_: Type, refuses: Callable[[Any], bool], path: str = "") -> str:
    """Where in `type_` a leaf is refused, in words; empty if none is."""
    if isinstance(type_, StructType):
        for i, (name, element) in enumerate(structure.iter_elements(type_)):
            here = f"{path}.{name}" if name else f"{path}[{i}]"
            found = _leaf_that(element, refuses, here)
            if found:
                return found
        return ""
    subject = f"`{path.lstrip('.')}`" if path else "it"
    return f"{subject} is `{type_}`" if refuses(type_) else ""


def _need_leaves(
    value: Value,
    uri: str,
    wanted: str,
    accepts: Callable[[tf.DType], bool],
    advice: str,
    error: type[TypeError] = TypeError,
) -> None:
    """Refuses leaves that are no tensors of a known shape, or of another dtype."""
    type_ = value.type_signature
    member = type_.member if isinstance(type_, FederatedType) else type_.element
    found = _leaf_that(
        member, lambda t: not (isinstance(t, TensorType) and accepts(t.dtype))
    )
    if found:
        raise error(f"`{uri}` needs {wanted}, found `{type_}`: {found}.\n{advice}")
    found = _leaf_that(member, lambda t: not t.shape.is_fully_defined())
    if found:
        raise error(
            f"`{uri}` needs tensors of one known shape, found `{type_}`: {found}.\n"
            "Declare the shape, or pad to one on the clients first."
        )


def _is_number(dtype: tf.DType) -> bool:
    return dtype.is_floating or dtype.is_integer or dtype.is_complex


def _at_server(member: Type) -> FederatedType:
    return FederatedType(member, SERVER)


# --- Moving and mapping -------------------------------------------------------------


@intrinsic(body=lambda value: _value_at_clients(value))
def federated_value(value: Any, placement: PlacementLiteral) -> Value:
    """Places a value that is not placed yet.

    Args:
        value: An unplaced value, `T`, or what `to_value` makes one of.
        placement: `fedcore.CLIENTS` or `fedcore.SERVER`.

    Returns:
        `T@SERVER`, or `T@CLIENTS` with all clients having the same value.

    Raises:
        TypeError: If the value is placed already, or is a function.
    """
    current_trace("federated_value")
    _check_placement(placement, "federated_value")
    value = to_value(value)
    if contains(value.type_signature, lambda t: t.is_federated() or t.is_function()):
        raise TypeError(
            "`federated_value` needs a value that is not placed, found "
            f"`{value.type_signature}`."
        )
    result = FederatedType(value.type_signature, placement, True)
    return _call("federated_value", [value], result)


@intrinsic()
def federated_eval(fn: Any, placement: PlacementLiteral) -> Value:
    """Computes a function without parameter at a placement, once for each client there.

    Args:
        fn: A computation `( -> T)`.
        placement: `fedcore.CLIENTS` or `fedcore.SERVER`.

    Returns:
        `{T}@CLIENTS` (clients may draw different values) or `T@SERVER`.

    Raises:
        TypeError: If `fn` takes a parameter or holds placed values.
    """
    current_trace("federated_eval")
    _check_placement(placement, "federated_eval")
    fn = _function(fn, None, "federated_eval", "fn")
    result = FederatedType(fn.type_signature.result, placement)
    return _call("federated_eval", [fn], result)


@intrinsic()
def federated_map(fn: Any, arg: Any) -> Value:
    """Applies a function at the place where its argument is.

    Args:
        fn: A computation `(T -> U)`, or a Python function that is traced as one.
        arg: `{T}@CLIENTS` or `T@SERVER`; a structure of federated values is zipped.

    Returns:
        `{U}@CLIENTS` or `U@SERVER`.

    Raises:
        TypeError: If `arg` is not federated, or `fn` does not take its member.
    """
    arg = _placed(arg, None, "federated_map", "arg")
    type_ = arg.type_signature
    fn = _function(fn, type_.member, "federated_map", "fn")
    result = FederatedType(fn.type_signature.result, type_.placement)
    return _call("federated_map", [fn, arg], result)


def map_selection(select: Callable[[Value], Any], value: Value) -> Value:
    """Elements of a federated structure, in its place; all-equal if the structure is."""
    type_ = value.type_signature
    fn = _function(select, type_.member, "federated_map", "fn")
    result = FederatedType(fn.type_signature.result, type_.placement, type_.all_equal)
    return _call("federated_map", [fn, value], result)


@intrinsic()
def federated_broadcast(value: Any) -> Value:
    """Sends a value from the server to every client.

    Args:
        value: `T@SERVER`.

    Returns:
        `T@CLIENTS`, the same at all clients.

    Raises:
        TypeError: If the value is not at SERVER.
    """
    value = _placed(value, SERVER, "federated_broadcast", "value")
    result = FederatedType(value.type_signature.member, CLIENTS, True)
    return _call("federated_broadcast", [value], result)


@intrinsic()
def federated_zip(value: Any) -> Value:
    """Makes one federated value of a structure of federated values at one placement.

    Args:
        value: A structure, nested as it may be, such as `<{T}@CLIENTS,{U}@CLIENTS>`.

    Returns:
        The structure inside the placement, such as `{<T,U>}@CLIENTS`; not all-equal
        there, whatever its parts are.

    Raises:
        TypeError: If a part is not federated, the parts are at different placements, or
            there is none.
    """
    current_trace("federated_zip")
    value = to_value(value)
    if isinstance(value.type_signature, FederatedType):
        return value
    return _zipped(value, "federated_zip", "its argument")


def _zipped(value: Value, uri: str, name: str) -> Value:
    """A structure of federated values as one; `name` is what `uri` calls it."""
    type_ = value.type_signature
    leaves = _federated_leaves(type_)
    if not leaves or any(not isinstance(leaf, FederatedType) for leaf in leaves):
        raise TypeError(
            f"`{uri}` needs {name} to be a structure of federated values, found "
            f"`{type_}`.\nPlace the parts that are not with `federated_value`."
        )
    if len({leaf.placement for leaf in leaves}) > 1:
        raise TypeError(
            f"`{uri}` needs all parts of {name} at one placement, found "
            f"`{type_}`.\nBring them together with `federated_broadcast` or an "
            "aggregation."
        )
    result = FederatedType(_without_placements(type_), leaves[0].placement)
    return _call("federated_zip", [value], result)


def _federated_leaves(type_: Type) -> list[Type]:
    if not isinstance(type_, StructType):
        return [type_]
    return [leaf for element in type_ for leaf in _federated_leaves(element)]


def _without_placements(type_: Type) -> Type:
    if isinstance(type_, FederatedType):
        return type_.member
    elements = [
        (name, _without_placements(element))
        for name, element in structure.iter_elements(type_)
    ]
    if isinstance(type_, StructWithPythonType):
        return StructWithPythonType(elements, type_.python_container)
    return StructType(elements)


def _select(client_keys: Any, max_key: Any, server_val: Any, select_fn: Any, uri: str):
    keys = _placed(client_keys, CLIENTS, uri, "client_keys")
    max_key = _placed(max_key, SERVER, uri, "max_key")
    server_val = _placed(server_val, SERVER, uri, "server_val")
    keys_type, int32 = keys.type_signature.member, TensorType(tf.int32)
    if not (
        isinstance(keys_type, TensorType)
        and keys_type.dtype == tf.int32
        and keys_type.shape.rank == 1
        and keys_type.shape[0] is not None
    ):
        raise TypeError(
            f"`{uri}` needs `client_keys` to be int32 vectors of one known length, "
            f"found `{keys.type_signature}`."
        )
    if max_key.type_signature.member is not int32:
        raise TypeError(
            f"`{uri}` needs `max_key` to be `int32@SERVER`, found "
            f"`{max_key.type_signature}`."
        )
    argument = StructType([server_val.type_signature.member, int32])
    select_fn = _function(select_fn, argument, uri, "select_fn")
    result = FederatedType(SequenceType(select_fn.type_signature.result), CLIENTS)
    return _call(uri, [keys, max_key, server_val, select_fn], result)


@intrinsic()
def federated_select(
    client_keys: Any, max_key: Any, server_val: Any, select_fn: Any
) -> Value:
    """Sends each client the slices of a server value that it asks for by key.

    Args:
        client_keys: `{int32[N]}@CLIENTS`, N known: the keys each client wants.
        max_key: `int32@SERVER`: keys are below it.
        server_val: `T@SERVER`, what slices are made of.
        select_fn: `(<T,int32> -> U)`: makes the slice of one key.

    Returns:
        `{U*}@CLIENTS`: a client's slices, in the order of its keys.

    Raises:
        TypeError: If an argument is of another type.
    """
    return _select(client_keys, max_key, server_val, select_fn, "federated_select")


@intrinsic(body=lambda *arguments: federated_select(*arguments))
def federated_secure_select(
    client_keys: Any, max_key: Any, server_val: Any, select_fn: Any
) -> Value:
    """As `federated_select`, where the server must not learn a client's keys.

    In simulation the result is the same as that of `federated_select`.

    Args:
        client_keys: `{int32[N]}@CLIENTS`, N known.
        max_key: `int32@SERVER`: keys are below it.
        server_val: `T@SERVER`.
        select_fn: `(<T,int32> -> U)`.

    Returns:
        `{U*}@CLIENTS`.

    Raises:
        TypeError: If an argument is of another type.
    """
    return _select(
        client_keys, max_key, server_val, select_fn, "federated_secure_select"
    )


# --- Aggregating --------------------------------------------------------------------


@intrinsic()
def federated_aggregate(
    value: Any, zero: Any, accumulate: Any, merge: Any, report: Any
) -> Value:
    """Aggregates clients' values at the server with operators of the caller's.

    Args:
        value: `{T}@CLIENTS`.
        zero: `U`, what an accumulator starts from; also `U@SERVER`.
        accumulate: `(<U,T> -> U)`: adds one client's value.
        merge: `(<U,U> -> U)`: joins two accumulators.
        report: `(U -> R)`: makes the result of the last accumulator.

    Returns:
        `R@SERVER`. The order of accumulating and merging is the runtime's, so the
        operators should be associative and commutative.

    Raises:
        TypeError: If the types do not fit together.
    """
    uri = "federated_aggregate"
    value = _placed(value, CLIENTS, uri, "value")
    member = value.type_signature.member
    zero = to_value(zero)
    zero_type = zero.type_signature
    if isinstance(zero_type, FederatedType):
        zero = _placed(zero, SERVER, uri, "zero")
        zero_type = zero_type.member
    accumulate = _function(
        accumulate, StructType([zero_type, member]), uri, "accumulate"
    )
    state = accumulate.type_signature.result
    merge = _function(merge, StructType([state, state]), uri, "merge")
    report = _function(report, state, uri, "report")
    _same_state(zero_type, state, "accumulate")
    _same_state(state, merge.type_signature.result, "merge")
    result = _at_server(report.type_signature.result)
    return _call(uri, [value, zero, accumulate, merge, report], result)


def _same_state(wanted: Type, found: Type, name: str) -> None:
    if not (wanted.is_assignable_from(found) or found.is_assignable_from(wanted)):
        raise TypeError(
            f"`federated_aggregate` needs `{name}` to return an accumulator of type "
            f"`{wanted}`, found `{found}`."
        )


@intrinsic(body=lambda value: _reduce(value, arithmetic.zeros, arithmetic.plus))
def federated_sum(value: Any) -> Value:
    """Sums clients' values at the server; over no clients the sum is zero.

    Args:
        value: `{T}@CLIENTS`, T a structure of numbers of known shapes.

    Returns:
        `T@SERVER`.

    Raises:
        SumIncompatibleError: If T holds something else than numbers of known shapes.
        TypeError: If the value is not at CLIENTS.
    """
    value = _placed(value, CLIENTS, "federated_sum", "value")
    _need_leaves(
        value,
        "federated_sum",
        "numbers at CLIENTS",
        _is_number,
        "Cast on the clients first, e.g. federated_map(to_int, value).",
        SumIncompatibleError,
    )
    return _call("federated_sum", [value], _at_server(value.type_signature.member))


@intrinsic(body=lambda *arguments: _mean_body(*arguments))
def federated_mean(value: Any, weight: Any = None) -> Value:
    """Averages clients' values at the server: Σ wᵢ xᵢ / Σ wᵢ.

    Args:
        value: `{T}@CLIENTS`, T a structure of floats of known shapes.
        weight: `{W}@CLIENTS`, W a scalar number; every client counts 1 if None.

    Returns:
        `T@SERVER`. With a total weight of 0 it is NaN; over no clients the call is an
        error when it runs.

    Raises:
        TypeError: If T holds something else than floats, or W is not a scalar number.
    """
    uri = "federated_mean"
    value = _placed(value, CLIENTS, uri, "value")
    _need_leaves(
        value,
        uri,
        "floats at CLIENTS",
        lambda dtype: dtype.is_floating or dtype.is_complex,
        "Cast on the clients first, e.g. federated_map(to_float, value), or use "
        "federated_sum.",
    )
    result = _at_server(value.type_signature.member)
    if weight is None:
        return _call(uri, [value], result)
    weight = _placed(weight, CLIENTS, uri, "weight")
    kind = weight.type_signature.member
    if not (
        isinstance(kind, TensorType)
        and kind.shape.rank == 0
        and (kind.dtype.is_floating or kind.dtype.is_integer)
    ):
        raise TypeError(
            f"`{uri}` needs `weight` to be a scalar number for each client, found "
            f"`{weight.type_signature}`."
        )
    return _call(uri, [value, weight], result)


def _need_ordered(value: Value, uri: str) -> None:
    _need_leaves(
        value,
        uri,
        "real numbers at CLIENTS",
        lambda dtype: dtype.is_floating or dtype.is_integer,
        "Cast on the clients first, e.g. federated_map(to_int, value).",
    )


@intrinsic(body=lambda value: _reduce(value, arithmetic.lowest, arithmetic.maximum))
def federated_max(value: Any) -> Value:
    """The greatest of the clients' values, element by element.

    Args:
        value: `{T}@CLIENTS`, T a structure of real numbers of known shapes.

    Returns:
        `T@SERVER`; over no clients the least value of each dtype.

    Raises:
        TypeError: If T holds something else than real numbers.
    """
    value = _placed(value, CLIENTS, "federated_max", "value")
    _need_ordered(value, "federated_max")
    return _call("federated_max", [value], _at_server(value.type_signature.member))


@intrinsic(body=lambda value: _reduce(value, arithmetic.highest, arithmetic.minimum))
def federated_min(value: Any) -> Value:
    """The least of the clients' values, element by element.

    Args:
        value: `{T}@CLIENTS`, T a structure of real numbers of known shapes.

    Returns:
        `T@SERVER`; over no clients the greatest value of each dtype.

    Raises:
        TypeError: If T holds something else than real numbers.
    """
    value = _placed(value, CLIENTS, "federated_min", "value")
    _need_ordered(value, "federated_min")
    return _call("federated_min", [value], _at_server(value.type_signature.member))


def _integers(value: Any, uri: str) -> Value:
    value = _placed(value, CLIENTS, uri, "value")
    _need_leaves(
        value,
        uri,
        "integers at CLIENTS",
        lambda dtype: dtype.is_integer,
        "Quantise on the clients first, e.g. with "
        "fedcore.aggregators.secure_quantized_sum.",
    )
    return value


def _secure(uri: str, value: Any, bound: Any, name: str) -> Value:
    value = _integers(value, uri)
    member = value.type_signature.member
    bound = _bound(bound, member, uri, name)
    return _call(uri, [value, bound], _at_server(member))


def _bound(bound: Any, member: Type, uri: str, name: str) -> Value:
    """A scalar integer bound, or a structure of such like the value."""
    bound = to_value(bound)
    type_ = bound.type_signature

    def is_integer(t: Type) -> bool:
        return isinstance(t, TensorType) and t.dtype.is_integer and t.shape.rank == 0

    if is_integer(type_):
        return bound
    leaves, wanted = _federated_leaves(type_), _federated_leaves(member)
    if len(leaves) != len(wanted) or not all(map(is_integer, leaves)):
        raise TypeError(
            f"`{uri}` needs `{name}` to be an integer, or a structure of integers like "
            f"`{member}`, found `{type_}`."
        )
    return bound


@intrinsic(body=lambda value, max_input: federated_sum(value))
def federated_secure_sum(value: Any, max_input: Any) -> Value:
    """Sums clients' integers so that the server learns the sum alone.

    In simulation the result is that of `federated_sum`.

    Args:
        value: `{T}@CLIENTS`, T a structure of integers in [0, max_input].
        max_input: The greatest value a client may hold: an integer, or one for each
            tensor of T.

    Returns:
        `T@SERVER`.

    Raises:
        TypeError: If T holds something else than integers.
    """
    return _secure("federated_secure_sum", value, max_input, "max_input")


@intrinsic(body=lambda value, bitwidth: federated_sum(value))
def federated_secure_sum_bitwidth(value: Any, bitwidth: Any) -> Value:
    """As `federated_secure_sum`, for values in [0, 2**bitwidth).

    Args:
        value: `{T}@CLIENTS`, T a structure of integers.
        bitwidth: Bits of a client's value: an integer, or one for each tensor of T.

    Returns:
        `T@SERVER`.

    Raises:
        TypeError: If T holds something else than integers.
    """
    return _secure("federated_secure_sum_bitwidth", value, bitwidth, "bitwidth")


@intrinsic(body=lambda value, modulus: _modular_body(value, modulus))
def federated_secure_modular_sum(value: Any, modulus: Any) -> Value:
    """Sums clients' integers modulo `modulus`, the server learning the result alone.

    Args:
        value: `{T}@CLIENTS`, T a structure of integers in [0, modulus).
        modulus: An integer > 0, or one for each tensor of T.

    Returns:
        `T@SERVER`, in [0, modulus).

    Raises:
        TypeError: If T holds something else than integers.
    """
    return _secure("federated_secure_modular_sum", value, modulus, "modulus")


# --- Sequences ----------------------------------------------------------------------


def _sequence(value: Any, uri: str) -> Value:
    current_trace(uri)
    value = to_value(value)
    type_ = value.type_signature
    member = type_.member if isinstance(type_, FederatedType) else type_
    if not isinstance(member, SequenceType):
        raise TypeError(f"`{uri}` needs a sequence, found `{type_}`.")
    return value


@intrinsic()
def sequence_map(fn: Any, arg: Any) -> Value:
    """Applies a function to each element of a sequence.

    Args:
        fn: `(T -> U)`.
        arg: `T*`, also inside a placement.

    Returns:
        `U*`, where `arg` is.

    Raises:
        TypeError: If `arg` is not a sequence, or `fn` does not take its element.
    """
    arg = _sequence(arg, "sequence_map")
    if isinstance(arg.type_signature, FederatedType):
        return federated_map(lambda sequence: sequence_map(fn, sequence), arg)
    fn = _function(fn, arg.type_signature.element, "sequence_map", "fn")
    return _call("sequence_map", [fn, arg], SequenceType(fn.type_signature.result))


@intrinsic()
def sequence_reduce(value: Any, zero: Any, op: Any) -> Value:
    """Folds a sequence, in its order, with an operator.

    Args:
        value: `T*`, also inside a placement.
        zero: `U`, placed as `value` is.
        op: `(<U,T> -> U)`.

    Returns:
        `U`, where `value` is; `zero` for an empty sequence.

    Raises:
        TypeError: If the types do not fit together.
    """
    uri = "sequence_reduce"
    value = _sequence(value, uri)
    if isinstance(value.type_signature, FederatedType):
        zero = to_value(zero)
        if not contains(zero.type_signature, lambda t: t.is_federated()):
            zero = federated_value(zero, value.type_signature.placement)
        return federated_map(
            lambda pair: sequence_reduce(pair[0], pair[1], op), [value, zero]
        )
    zero = to_value(zero)
    argument = StructType([zero.type_signature, value.type_signature.element])
    op = _function(op, argument, uri, "op")
    result = op.type_signature.result
    if not zero.type_signature.is_assignable_from(result):
        raise TypeError(
            f"`{uri}` needs `op` to return what `zero` is, `{zero.type_signature}`, "
            f"found `{result}`."
        )
    return _call(uri, [value, zero, op], result)


@intrinsic(body=lambda value: _sequence_sum_body(value))
def sequence_sum(value: Any) -> Value:
    """Sums the elements of a sequence.

    Args:
        value: `T*`, T a structure of numbers, also inside a placement.

    Returns:
        `T`, where `value` is; zero for an empty sequence.

    Raises:
        TypeError: If T holds something else than numbers.
    """
    value = _sequence(value, "sequence_sum")
    if isinstance(value.type_signature, FederatedType):
        return federated_map(sequence_sum, value)
    _need_leaves(
        value,
        "sequence_sum",
        "numbers",
        _is_number,
        "Cast first, e.g. with sequence_map(to_int, value).",
        SumIncompatibleError,
    )
    return _call("sequence_sum", [value], value.type_signature.element)


def _check_placement(placement: Any, uri: str) -> None:
    if not isinstance(placement, PlacementLiteral):
        raise TypeError(
            f"`{uri}` needs a placement, fedcore.CLIENTS or fedcore.SERVER, found "
            f"`{placement!r}`."
        )


# --- Bodies -------------------------------------------------------------------------


def _reduce(value: Value, zero: Any, combine: Any) -> Value:
    """Sum, maximum and minimum: an aggregation by an operator with a neutral element."""
    member = value.type_signature.member
    operator = combine(member)
    report = arithmetic.identity(member)
    return federated_aggregate(value, zero(member)(), operator, operator, report)


def _value_at_clients(value: Value) -> Value:
    return federated_broadcast(federated_value(value, SERVER))


def _mean_body(value: Value, weight: Value | None = None) -> Value:
    if weight is None:
        weight = federated_value(np.float32(1), CLIENTS)
    member, kind = value.type_signature.member, weight.type_signature.member
    products = federated_map(arithmetic.multiply(member, kind), [value, weight])
    totals = federated_sum([products, weight])
    return federated_map(arithmetic.divide(member, kind), totals)


def _modular_body(value: Value, modulus: Value) -> Value:
    member = value.type_signature.member
    total = federated_sum(value)
    modulus = federated_value(modulus, SERVER)
    remainder = arithmetic.floor_mod(member, modulus.type_signature.member)
    return federated_map(remainder, [total, modulus])


def _sequence_sum_body(value: Value) -> Value:
    element = value.type_signature.element
    return sequence_reduce(value, arithmetic.zeros(element)(), arithmetic.plus(element))


def body_of(intrinsic_node: ir.Intrinsic) -> ir.Lambda | None:
    """The function that says an intrinsic in others, at its type; None if primitive."""
    operator = INTRINSICS.get(intrinsic_node.uri)
    if operator is None or operator.body is None:
        return None
    body, type_ = operator.body, intrinsic_node.type
    if operator.function is federated_value:
        # At the server it is primitive; its one argument may itself be a structure.
        if type_.result.placement is SERVER:
            return None
    elif isinstance(type_.parameter, StructType):
        return trace_call(lambda packed: body(*packed), type_.parameter, None, None)
    return trace_call(body, type_.parameter, None, None)


def data(uri: str, type_spec: Any) -> Value:
    """Data that is held elsewhere, named by a URI and of a declared type.

    Args:
        uri: The name under which a runtime finds the data.
        type_spec: Its type.

    Returns:
        A value of that type.

    Raises:
        ContextError: If no federated computation is being traced.
    """
    trace = current_trace("data")
    return Value(ir.Data(uri, to_type(type_spec)), trace)
