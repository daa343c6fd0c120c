"""Hyperparameters in the state of a process: how they are read and set."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from fedcore.computation import Computation
from fedcore.tensorflow import tf_computation
from fedcore.types import StructType, Type, to_type


def checked_hparams(
    get_hparams_fn: Computation | None,
    set_hparams_fn: Computation | None,
    state_type: Type,
) -> tuple[Computation, Computation]:
    """`(S -> H)` and `(<S,H> -> S)`, as given; H is `<>` if they are None.

    Raises:
        TypeError: If a computation is of another type.
    """
    for name, fn in [
        ("get_hparams_fn", get_hparams_fn),
        ("set_hparams_fn", set_hparams_fn),
    ]:
        if fn is not None:
            check_computation(name, fn)
    get = get_hparams_fn or _no_hparams(state_type)
    set_ = set_hparams_fn or _state_without_hparams(state_type)
    taken = get.type_signature.parameter
    if taken is None or not taken.is_assignable_from(state_type):
        raise TypeError(
            f"`get_hparams_fn` needs to take the state\n    {state_type}\nfound "
            f"`{get.type_signature}`."
        )
    taken = set_.type_signature.parameter
    if not (
        isinstance(taken, StructType)
        and len(taken) == 2
        and taken[0].is_assignable_from(state_type)
        and taken[1].is_assignable_from(get.type_signature.result)
        and state_type.is_assignable_from(set_.type_signature.result)
    ):
        raise TypeError(
            "`set_hparams_fn` needs to go from state and hyperparameters to state, found "
            f"`{set_.type_signature}`."
        )
    return get, set_


def check_computation(name: str, value: Any) -> None:
    """Raises TypeError unless this is a traced computation."""
    if not isinstance(value, Computation):
        raise TypeError(
            f"`{name}` needs to be a computation, found `{type(value).__name__}`.\n"
            "Decorate it with @fedcore.tf_computation(types)."
        )


def _no_hparams(state_type: Type) -> Computation:
    return tf_computation(lambda state: OrderedDict(), state_type)


def _state_without_hparams(state_type: Type) -> Computation:
    return tf_computation(
        lambda state, hparams: state, [state_type, to_type(OrderedDict())]
    )
