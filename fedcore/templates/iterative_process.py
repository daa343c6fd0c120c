"""A process that goes from state to state: `initialize`, then `next` again and again."""

from __future__ import annotations

from typing import Any

from fedcore.computation import Computation, PolymorphicComputation
from fedcore.templates._errors import (
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateStateNotAssignableError,
)
from fedcore.types import (
    StructType,
    Type,
    TypeRelation,
    type_mismatch_error_message,
)


class IterativeProcess:
    """Two computations: `initialize` makes the first state, `next` goes from one on.

    Args:
        initialize_fn: `( -> S)`, S any type, placed or not.
        next_fn: `(<S,...> -> <S,...>)` or `(S -> S)`: takes a state first and returns the
            next one, alone or as the first element of a structure.
        next_is_multi_arg: Whether `next_fn`'s parameter is a structure with the state
            first (True) or is the state (False); found out from the types if None.

    Raises:
        TypeError: If either is not a traced computation.
        TemplateInitFnParamNotEmptyError: If `initialize_fn` takes an argument.
        TemplateNextFnNumArgsError: If `next_fn` takes none, or its parameter is not the
            structure that `next_is_multi_arg` says.
        TemplateStateNotAssignableError: If the states do not fit.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        next_is_multi_arg: bool | None = None,
    ):
        check_computation(initialize_fn, "initialize_fn")
        check_computation(next_fn, "next_fn")
        self._initialize_fn = initialize_fn
        self._next_fn = next_fn
        if initialize_fn.type_signature.parameter is not None:
            raise TemplateInitFnParamNotEmptyError(
                "`initialize_fn` needs to take no argument, found "
                f"`{initialize_fn.type_signature}`."
            )
        self._next_is_multi_arg = self._takes_several(next_is_multi_arg)
        parameter = next_fn.type_signature.parameter
        self._state_type: Type = parameter[0] if self._next_is_multi_arg else parameter
        self._check_states()

    def _takes_several(self, several: bool | None) -> bool:
        """Whether `next_fn` takes the state among other arguments, as it was said."""
        parameter = self._next_fn.type_signature.parameter
        if parameter is None:
            raise TemplateNextFnNumArgsError(
                "`next_fn` needs to take the state, found no parameter in "
                f"`{self._next_fn.type_signature}`."
            )
        if several is None:
            several = isinstance(parameter, StructType) and not (
                parameter.is_assignable_from(self._initialize_fn.type_signature.result)
            )
        if several and not (isinstance(parameter, StructType) and len(parameter)):
            raise TemplateNextFnNumArgsError(
                "`next_fn` needs to take several arguments, the state first, found "
                f"`{parameter}`."
            )
        return several

    def _check_states(self) -> None:
        taken = self._state_type
        check_state_fits(
            taken, self._initialize_fn.type_signature.result, "initialize_fn"
        )
        result = self._next_fn.type_signature.result
        if taken.is_assignable_from(result):
            return
        if isinstance(result, StructType) and len(result):
            result = result[0]
        check_state_fits(taken, result, "next_fn")

    @property
    def initialize(self) -> Computation:
        """The computation `( -> S)` that makes the first state."""
        return self._initialize_fn

    @property
    def next(self) -> Computation:
        """The computation that goes one step on; its first argument is the state."""
        return self._next_fn

    @property
    def state_type(self) -> Type:
        """The type S of the state, as `next` takes it."""
        return self._state_type

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}\n"
            f"  initialize: {self._initialize_fn.type_signature}\n"
            f"  next: {self._next_fn.type_signature}>"
        )


def check_computation(value: Any, name: str) -> None:
    """Raises TypeError unless `value` is a traced computation."""
    if isinstance(value, Computation):
        return
    remedy = "Decorate it with `fedcore.tf_computation` or `federated_computation`."
    if isinstance(value, PolymorphicComputation):
        remedy = "Declare the types of its parameters in the decorator."
    raise TypeError(
        f"`{name}` needs to be a traced computation, found `{type(value).__name__}`.\n"
        + remedy
    )


def check_state_fits(taken: Type, given: Type, source: str) -> None:
    """Raises `TemplateStateNotAssignableError` unless `next_fn` can take the state."""
    check_fits(
        taken,
        given,
        f"`next_fn` needs to take the state that `{source}` returns, found another type.",
        TemplateStateNotAssignableError,
    )


def check_fits(
    taken: Type | None, given: Type, message: str, error: type[TypeError]
) -> None:
    """Raises `error` unless a parameter of type `taken` can be given a `given`."""
    if taken is None:
        raise error(f"{message}\nIt takes no argument, and is given `{given}`.")
    if not taken.is_assignable_from(given):
        mismatch = type_mismatch_error_message(
            given, taken, TypeRelation.ASSIGNABLE, second_is_expected=True
        )
        raise error(f"{message}\n{mismatch}")
