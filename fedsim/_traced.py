"""What `explain` and `record` take: a traced computation, or what has one to offer."""

from __future__ import annotations

from typing import Any

from fedcore.computation import ConcreteComputation, PolymorphicComputation


def traced(function: str, value: Any) -> ConcreteComputation:
    """`value`, after checking that it is a traced computation.

    Raises:
        TypeError: If it is not, with what to pass in its place.
    """
    if isinstance(value, ConcreteComputation):
        return value
    found, to_do = f"`{type(value).__name__}`", ""
    if isinstance(value, PolymorphicComputation):
        found = f"`{value.__name__}`, whose parameters have no types"
        to_do = (
            "Declare them in the decorator, or take the computation of one type: "
            f"`{value.__name__}.fn_for_argument_type(type)`."
        )
    elif isinstance(getattr(value, "next", None), ConcreteComputation):
        to_do = "Pass one of its computations: `process.next` or `process.initialize`."
    elif callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        found = f"the Python function `{name}`" if hasattr(value, "__code__") else found
        to_do = (
            "Decorate it with `fedcore.federated_computation` or "
            "`fedcore.tf_computation`, and declare the types of its parameters."
        )
    else:
        to_do = "Pass what `fedcore.federated_computation` or `tf_computation` makes."
    raise TypeError(f"`{function}` needs a traced computation, found {found}.\n{to_do}")
