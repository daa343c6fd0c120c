"""`Value`: what stands for a value while a federated computation is traced."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore import ir, structure
from fedcore._users_line import users_line_told
from fedcore.computation import (
    ComputationReturnedNoneError,
    ConcreteComputation,
    PolymorphicComputation,
    call_shape,
    is_function,
    pack_args,
)
from fedcore.context import ContextError, SyncContext, get_context_stack
from fedcore.federated._arithmetic import on_pairs, on_tensors
from fedcore.types import (
    FederatedType,
    FunctionType,
    PlacementLiteral,
    StructType,
    Type,
    TypedObject,
    TypeRelation,
    infer_unplaced_type,
    to_type,
    type_mismatch_error_message,
)

_LONG_TYPE = 80


class Trace(SyncContext):
    """The context of one traced function: calls become named locals of its body."""

    def __init__(self, parent: Trace | None = None):
        self.parent = parent
        self.fresh: Callable[[], str] = parent.fresh if parent else ir.fresh_names()
        self.locals: list[tuple[str, ir.Node]] = []

    def invoke(self, comp: ConcreteComputation, arg: Any) -> Value:
        """Makes the call a local of the body.

        Args:
            comp: The computation that is called.
            arg: Its argument, anything `to_value` takes; None if it has no parameter.

        Returns:
            The result as a `Value`.

        Raises:
            TypeError: If `arg` is not of the parameter's type.
        """
        parameter = comp.type_signature.parameter
        function = ir.renamed(comp.node, self.fresh)
        if parameter is None:
            return self.bind(ir.Call(function))
        try:
            argument = to_value(arg, parameter, zip_if_needed=True)
        except TypeError as error:
            wanted = f"type `{parameter}`"
            if len(wanted) > _LONG_TYPE:
                wanted = "its parameter's type"
            raise TypeError(
                f"`{comp.__name__}` needs an argument of {wanted}, found another.\n"
                f"{error}"
            ) from None
        return self.bind(ir.Call(function, node_of(argument)))

    def bind(self, node: ir.Node) -> Value:
        """Gives `node` a name in the body, so that it is computed once."""
        name = self.fresh()
        self.locals.append((name, node))
        return Value(ir.Reference(name, node.type), self)

    def block(self, result: ir.Node) -> ir.Node:
        """The body traced so far, with `result` at its end."""
        return ir.Block(tuple(self.locals), result) if self.locals else result

    def sees(self, other: Trace | None) -> bool:
        """Whether names bound in `other` are in scope here."""
        here: Trace | None = self
        while here is not None:
            if here is other:
                return True
            here = here.parent
        return other is None


def current_trace(function: str) -> Trace:
    """The trace under way.

    Raises:
        ContextError: If no federated computation is being traced.
    """
    context = get_context_stack().current_or_none()
    if not isinstance(context, Trace):
        raise ContextError(
            f"`{function}` has a meaning only inside a federated computation, found it "
            "called outside of one.\n"
            "Put the call in a function decorated with `fedcore.federated_computation`."
        )
    return context


class Value(TypedObject):
    """A typed value inside a federated computation that is being traced.

    Elements of structures are reached by name or index, also through a placement
    (`value.x` of `<x=float32>@SERVER` is `float32@SERVER`); `+ - * /` work element by
    element on unplaced values and on values of one placement; a function is called.
    """

    _node: ir.Node
    _trace: Trace | None

    # Makes NumPy leave `array + value` to `__radd__`.
    __array_ufunc__ = None

    def __init__(self, comp: ir.Node, trace: Trace | None = None):
        # Set through the dictionary: __getattr__ below serves the elements' names.
        self.__dict__["_node"] = comp
        self.__dict__["_trace"] = trace

    @property
    def type_signature(self) -> Type:
        """The type of the value."""
        return self._node.type

    @property
    def comp(self) -> ir.Node:
        """The tree that computes the value."""
        return self._node

    def __repr__(self) -> str:
        return f"Value({self._node}: {self.type_signature})"

    def __str__(self) -> str:
        return str(self._node)

    def _struct_type(self, wanted: str) -> StructType:
        member = _member(self.type_signature)
        if not isinstance(member, StructType):
            raise TypeError(
                f"{wanted} needs a structure, found a value of type "
                f"`{self.type_signature}`."
            )
        return member

    def __getattr__(self, name: str) -> Value:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # protocols of Python probe for these
        member = _member(self.type_signature)
        if not isinstance(member, StructType):
            raise AttributeError(
                f"A value of type `{self.type_signature}` has no elements, found "
                f"`.{name}`."
            )
        return self._named(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError(
            f"A value of a federated computation cannot be changed, found `.{name} = "
            "...`.\nMake a new structure, for example an OrderedDict of its elements."
        )

    def __getitem__(self, key: int | str | slice) -> Value:
        member = self._struct_type("An index")
        if isinstance(key, str):
            return self._named(key)
        if isinstance(key, slice):
            picked = range(len(member))[key]
            if not picked:
                raise IndexError(
                    f"A slice needs at least one element, found `{key}` of "
                    f"{len(member)}."
                )
            return self._selected(lambda value: [value[i] for i in picked])
        if not hasattr(type(key), "__index__"):
            raise TypeError(
                "An element of a structure needs an integer, a name or a slice, found "
                f"`{type(key).__name__}`: {key!r:.80}."
            )
        index = operator.index(key)
        if not -len(member) <= index < len(member):
            raise IndexError(
                f"An index needs to be below {len(member)}, found {index} into "
                f"`{self.type_signature}`."
            )
        return self._element(index % len(member))

    def __iter__(self) -> Iterator[Value]:
        member = self._struct_type("Iteration")
        return (self._element(i) for i in range(len(member)))

    def __len__(self) -> int:
        return len(self._struct_type("`len`"))

    def __bool__(self) -> bool:
        raise TypeError(
            "A value of a federated computation has no truth value while it is traced, "
            f"found one of type `{self.type_signature}` in a condition.\n"
            "Branch in a `tf_computation`, or on Python values."
        )

    def __dir__(self) -> list[str]:
        member = _member(self.type_signature)
        names = structure.name_list(member) if isinstance(member, StructType) else []
        return ["comp", "type_signature", *names]

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        """Refuses: TensorFlow asks for this when an operation is given the value."""
        raise TypeError(
            "TensorFlow needs tensors, found a value of a federated computation, of type "
            f"`{self.type_signature}`.\n"
            "Put the operation in a `tf_computation` and apply that: call it on an "
            "unplaced value, or use `federated_map(fn, value)`."
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Refuses: NumPy asks for this when it is given the value."""
        raise TypeError(
            "NumPy needs arrays, found a value of a federated computation, of type "
            f"`{self.type_signature}`.\nUse TensorFlow in a `tf_computation`."
        )

    def _named(self, name: str) -> Value:
        member = self._struct_type(f"The name `{name}`")
        if not structure.has_field(member, name):
            names = ", ".join(structure.name_list(member)) or "no names"
            raise AttributeError(
                f"The structure has no element `{name}`, it has {names}: "
                f"`{self.type_signature}`."
            )
        return self._element(structure.name_to_index_map(member)[name])

    def _element(self, index: int) -> Value:
        if isinstance(self.type_signature, FederatedType):
            return self._selected(lambda value: value[index])
        return Value(ir.select(node_of(self), index), self._trace)

    def _selected(self, select: Callable[[Value], Any]) -> Value:
        """`select` of the value; inside its placement if it has one, where what all
        clients share stays so."""
        if not isinstance(self.type_signature, FederatedType):
            return to_value(select(self))
        from fedcore.federated._intrinsics import map_selection

        return map_selection(select, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Value:
        type_ = self.type_signature
        if not isinstance(type_, FunctionType):
            raise TypeError(
                f"A call needs a function, found a value of type `{type_}`."
            )
        trace = current_trace("fedcore.Value")
        arg = pack_args(type_.parameter, args, kwargs, str(self))
        if type_.parameter is None:
            return trace.bind(ir.Call(node_of(self)))
        argument = to_value(arg, type_.parameter)
        return trace.bind(ir.Call(node_of(self), node_of(argument)))

    def __add__(self, other: Any) -> Value:
        return _arithmetic(operator.add, self, other)

    def __radd__(self, other: Any) -> Value:
        return _arithmetic(operator.add, other, self)

    def __sub__(self, other: Any) -> Value:
        return _arithmetic(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Value:
        return _arithmetic(operator.sub, other, self)

    def __mul__(self, other: Any) -> Value:
        return _arithmetic(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Value:
        return _arithmetic(operator.mul, other, self)

    def __truediv__(self, other: Any) -> Value:
        return _arithmetic(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return _arithmetic(operator.truediv, other, self)

    def __neg__(self) -> Value:
        return _arithmetic(operator.neg, self)

    def __eq__(self, other: Any) -> bool:
        if self is other or other is None:
            return self is other
        raise _not_compared("==", self)

    def __ne__(self, other: Any) -> bool:
        if self is other or other is None:
            return self is not other
        raise _not_compared("!=", self)

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> bool:
        raise _not_compared("<", self)

    def __le__(self, other: Any) -> bool:
        raise _not_compared("<=", self)

    def __gt__(self, other: Any) -> bool:
        raise _not_compared(">", self)

    def __ge__(self, other: Any) -> bool:
        raise _not_compared(">=", self)


def _not_compared(sign: str, value: Value) -> TypeError:
    return TypeError(
        "A value of a federated computation cannot be compared while it is traced, found "
        f"`{sign}` with one of type `{value.type_signature}`.\n"
        "Compare in a `tf_computation`."
    )


def _member(type_: Type) -> Type:
    return type_.member if isinstance(type_, FederatedType) else type_


def node_of(value: Value) -> ir.Node:
    """The tree that computes `value`.

    Raises:
        ContextError: If the value belongs to a trace that this one is not inside of.
    """
    here = get_context_stack().current_or_none()
    if not (isinstance(here, Trace) and here.sees(value._trace)):
        raise _out_of_scope(value)
    return value.comp


def _out_of_scope(value: Value) -> ContextError:
    return ContextError(
        f"A value of type `{value.type_signature}` is used outside of the federated "
        "computation in which it was made.\n"
        "Pass it as an argument, also to a `tf_computation`, or return it."
    )


def _arithmetic(op: Callable[..., Any], left: Any, right: Any = None) -> Value:
    """Applies `op` tensor by tensor; a Python number goes with every tensor."""
    from fedcore.federated._intrinsics import federated_map

    if not isinstance(get_context_stack().current_or_none(), Trace):
        raise _out_of_scope(left if isinstance(left, Value) else right)
    number = bool | int | float | complex | np.generic
    if right is None:
        function, operand = on_tensors(op), left
    elif isinstance(right, number):
        function, operand = on_tensors(lambda t: op(t, right)), left
    elif isinstance(left, number):
        function, operand = on_tensors(lambda t: op(left, t)), right
    else:
        function, operand = on_pairs(op), to_value([left, right])
        _check_operands(operand[0].type_signature, operand[1].type_signature)
    type_ = operand.type_signature
    if isinstance(type_, StructType) and len(type_):
        type_ = type_[0]
    if isinstance(type_, FederatedType):
        return federated_map(function, operand)
    return to_value(function(operand))


def _check_operands(left: Type, right: Type) -> None:
    """Refuses two operands that are not at one place."""

    def place(type_: Type) -> PlacementLiteral | None:
        return type_.placement if isinstance(type_, FederatedType) else None

    if place(left) is not place(right):
        raise TypeError(
            "Arithmetic needs both values at one place, found "
            f"`{left}` and `{right}`.\n"
            "Bring them together with `federated_value`, `federated_broadcast` or an "
            "aggregation."
        )


def to_value(
    arg: Any,
    type_spec: Any = None,
    *,
    parameter_type_hint: Any = None,
    zip_if_needed: bool = False,
) -> Value:
    """Turns what a Python programmer writes into a `Value` of the trace under way.

    Args:
        arg: A `Value`, a computation, a Python function (traced), a structure of any of
            these in a container of Python, a constant, or a placement.
        type_spec: The type wanted, or None for the type that `arg` has.
        parameter_type_hint: The parameter's type for a function without declared types.
        zip_if_needed: Whether a structure of federated values may be zipped into one
            federated value to fit `type_spec`.

    Returns:
        The `Value`, of a type assignable to `type_spec`.

    Raises:
        ContextError: If no federated computation is being traced.
        TypeError: If `arg` cannot be a value, or not one of `type_spec`.
    """
    trace = current_trace("fedcore.to_value")
    wanted = None if type_spec is None else to_type(type_spec)
    if isinstance(wanted, FunctionType) and parameter_type_hint is None:
        parameter_type_hint = wanted.parameter
    hint = None if parameter_type_hint is None else to_type(parameter_type_hint)
    value = Value(_to_node(arg, wanted, hint, trace), trace)
    if wanted is None or wanted.is_assignable_from(value.type_signature):
        return value
    if zip_if_needed:
        zipped = _zipped_to_fit(value, wanted)
        if zipped is not None:
            return zipped
    raise TypeError(
        type_mismatch_error_message(
            value.type_signature,
            wanted,
            TypeRelation.ASSIGNABLE,
            second_is_expected=True,
        )
    )


def _to_node(arg: Any, wanted: Type | None, hint: Type | None, trace: Trace) -> ir.Node:
    match arg:
        case Value():
            return node_of(arg)
        case ir.Node():
            return arg
        case PlacementLiteral():
            return ir.Placement(arg)
        case ConcreteComputation():
            return ir.renamed(arg.node, trace.fresh)
        case PolymorphicComputation():
            concrete = arg.fn_for_argument_type(_needed(arg, hint))
            return ir.renamed(concrete.node, trace.fresh)
    if isinstance(arg, type) or (callable(arg) and is_function(arg)):
        return trace_lambda(arg, hint, trace)
    if _is_container(arg):
        return _struct_node(arg, wanted, trace)
    return _constant(arg, wanted)


def trace_lambda(
    fn: Callable[..., Any], type_: Type | None, parent: Trace | None
) -> ir.Lambda:
    """Traces a Python function into a `Lambda`; `parent` is the trace around it, if any.

    Raises:
        ComputationReturnedNoneError: If the function returns None.
    """
    unpack = call_shape(fn, type_)
    return trace_call(fn, type_, unpack, parent)


def trace_call(
    fn: Callable[..., Any], type_: Type | None, unpack: Any, parent: Trace | None
) -> ir.Lambda:
    """As `trace_lambda`, where it is known how the parameter is unpacked."""
    trace = Trace(parent)
    name = None if type_ is None else trace.fresh()
    with get_context_stack().install(trace):
        with users_line_told():
            if name is None:
                result = fn()
            else:
                parameter = Value(ir.Reference(name, type_), trace)
                if unpack is None:
                    result = fn(parameter)
                else:
                    elements = [parameter[i] for i in range(len(type_))]
                    result = unpack.call(fn, elements)
        if result is None:
            raise ComputationReturnedNoneError(fn)
        body = trace.block(node_of(to_value(result)))
    return ir.Lambda(name, type_, body)


def _needed(function: Any, hint: Type | None) -> Type:
    if hint is None:
        raise TypeError(
            "A function without declared types needs a place that gives its argument's "
            f"type, found {function!r}.\n"
            "Declare its types in the decorator."
        )
    return hint


def _is_container(arg: Any) -> bool:
    return (
        isinstance(arg, structure.Struct | dict | list | tuple)
        or attrs.has(type(arg))
        or hasattr(type(arg), "__dataclass_fields__")
    )


def _struct_node(arg: Any, wanted: Type | None, trace: Trace) -> ir.Node:
    packed = structure.from_container(arg)
    elements = structure.to_elements(packed)
    types: list[Type | None] = [None] * len(elements)
    if isinstance(wanted, StructType) and len(wanted) == len(elements):
        types = list(wanted)
    nodes = [
        (name, _to_node(value, type_, None, trace))
        for (name, value), type_ in zip(elements, types)
    ]
    container = None if isinstance(arg, structure.Struct) else type(arg)
    return ir.Struct(tuple(nodes), container)


def _constant(arg: Any, wanted: Type | None) -> ir.Node:
    """A constant tensor; of the wanted dtype where Python leaves that open."""
    if isinstance(arg, tf.data.Dataset) or hasattr(arg, "to_tf"):
        raise TypeError(
            "A dataset cannot be a constant of a federated computation, found "
            f"{arg!r:.80}.\nPass it as an argument of sequence type."
        )
    if arg is None:
        raise TypeError(
            "A value is needed, found None. Is a `return` missing in a function?"
        )
    try:
        type_ = infer_unplaced_type(arg)
    except TypeError as error:
        raise TypeError(
            f"A value of a federated computation cannot be made of "
            f"`{type(arg).__name__}`: {arg!r:.80}."
        ) from error
    if (
        wanted is not None
        and wanted.is_tensor()
        and isinstance(arg, bool | int | float | complex | np.generic | np.ndarray)
        and np.can_cast(
            type_.dtype.as_numpy_dtype, wanted.dtype.as_numpy_dtype, "same_kind"
        )
    ):
        type_ = to_type((wanted.dtype, type_.shape))
    if not type_.is_tensor():
        raise TypeError(
            f"A constant of a federated computation needs to be a tensor, found "
            f"`{type_}`."
        )
    value = arg.numpy() if isinstance(arg, tf.Tensor | tf.Variable) else arg
    return ir.literal(value, type_)


def _zipped_to_fit(value: Value, wanted: Type) -> Value | None:
    """A federated value zipped from a structure of such, at the places `wanted` asks."""
    from fedcore.federated._intrinsics import federated_zip

    if isinstance(wanted, FederatedType) and value.type_signature.is_struct():
        try:
            zipped = federated_zip(value)
        except TypeError:
            return None
        return zipped if wanted.is_assignable_from(zipped.type_signature) else None
    if isinstance(wanted, StructType) and value.type_signature.is_struct():
        if len(wanted) != len(value.type_signature):
            return None
        elements = []
        given = structure.name_list_with_nones(value.type_signature)
        for (name, type_), of, element in zip(
            structure.iter_elements(wanted), given, value
        ):
            if of not in (None, name):
                return None
            if not type_.is_assignable_from(element.type_signature):
                element = _zipped_to_fit(element, type_)
                if element is None:
                    return None
            elements.append((name, element))
        return to_value(structure.Struct(elements))
    return None
