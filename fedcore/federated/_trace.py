"""`federated_computation`: traces Python into a tree of the IR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedcore.computation import ComputationDecorator, ConcreteComputation, Unpack
from fedcore.federated._value import trace_call
from fedcore.types import Type


def _trace(
    fn: Callable[..., Any], type_: Type | None, unpack: Unpack | None, name: str
) -> ConcreteComputation:
    return ConcreteComputation(trace_call(fn, type_, unpack, None), name)


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
