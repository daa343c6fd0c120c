"""`federated_computation`: traces Python into a tree of the IR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedcore import ir
from fedcore.computation import ComputationDecorator, ConcreteComputation, Unpack
from fedcore.context import get_context_stack
from fedcore.federated._value import Trace, Value, node_of, trace_call
from fedcore.types import Type


class _Closure(ConcreteComputation):
    """A computation that uses values of the trace it was made in: it is only used there."""

    def __init__(self, node: ir.Node, name: str, trace: Trace):
        self._value = Value(node, trace)
        super().__init__(node, name)

    @property
    def node(self) -> ir.Node:
        return node_of(self._value)

    @node.setter
    def node(self, node: ir.Node) -> None:
        self._value = Value(node, self._value._trace)


def _trace(
    fn: Callable[..., Any], type_: Type | None, unpack: Unpack | None, name: str
) -> ConcreteComputation:
    around = get_context_stack().current_or_none()
    if not isinstance(around, Trace):
        return ConcreteComputation(trace_call(fn, type_, unpack, None), name)
    node = trace_call(fn, type_, unpack, around)
    if ir.free_names(node):
        return _Closure(node, name, around)
    return ConcreteComputation(node, name)


federated_computation = ComputationDecorator(
    "federated_computation",
    _trace,
    """Decorates a Python function as a federated computation.

    The function is run once with a `fedcore.Value` for each parameter and says, with the
    federated operators, what is computed and where; it holds no TensorFlow of its own.
    Use it with the parameter's types, `@federated_computation(T, ...)`, or bare.

    Args:
        *args: The types of the parameters (anything `fedcore.to_type` takes), after the
            function itself where this is called and not used as a decorator.

    Returns:
        A `fedcore.Computation`; for a function with parameters but without declared
        types, one that is traced for each type of argument.

    Raises:
        ComputationReturnedNoneError: If the function returns None.
        TypeError: If the function's parameters do not fit the types.
    """,
)
