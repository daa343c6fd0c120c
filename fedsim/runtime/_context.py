"""Contexts that run computations on this machine."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

from fedcore import structure
from fedcore.computation import ConcreteComputation
from fedcore.context import SyncContext
from fedcore.framework.executors_errors import CardinalityError
from fedcore.types import CLIENTS, FederatedType, StructType, Type
from fedsim.runtime._fused import FusedWorkers
from fedsim.runtime._plan import plan_of, run_plan
from fedsim.runtime._reference import Reference
from fedsim.runtime._seeds import fold
from fedsim.runtime._values import Placed, from_python, to_python


class ReferenceContext(SyncContext):
    """Runs each call on the reference runtime.

    Args:
        default_num_clients: How many clients a computation has whose arguments do not
            say it.
        seed: The root of every draw that the user's code leaves unseeded (initial
            weights, dropout masks): the same seed and the same calls give the same bits.
            Drawn afresh if None.
    """

    def __init__(self, *, default_num_clients: int = 0, seed: int | None = None):
        _check_number("default_num_clients", default_num_clients, 0)
        self._default_num_clients = default_num_clients
        self._seed = secrets.randbits(62) if seed is None else seed
        self._calls = itertools.count()

    def invoke(self, comp: ConcreteComputation, arg: Any) -> Any:
        """Runs `comp` on `arg`; see `fedcore.context.SyncContext.invoke`."""
        type_ = comp.type_signature
        seed = fold(self._seed, next(self._calls))
        argument = None
        if type_.parameter is not None:
            argument = from_python(arg, type_.parameter)
        clients = number_of_clients(
            argument, type_.parameter, self._default_num_clients
        )
        reference = self._reference(comp.__name__, clients, seed)
        return to_python(reference.run(comp.node, argument), type_.result)

    def _reference(self, name: str, clients: int, seed: int) -> Reference:
        return Reference(name, clients, seed)

    def __repr__(self) -> str:
        return f"ReferenceContext(default_num_clients={self._default_num_clients})"


def number_of_clients(argument: Any, type_: Type | None, default: int) -> int:
    """How many clients a call has: as many as its lists of client values are long.

    Raises:
        CardinalityError: If two lists are of different lengths.
    """
    counts = dict(_counts(argument, type_, "argument"))
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{n} in `{path}`" for path, n in counts.items())
        raise CardinalityError(
            f"All lists of client values in one call need the same length, found {listed}."
        )
    return next(iter(counts.values()), default)


def _counts(value: Any, type_: Type | None, path: str) -> list[tuple[str, int]]:
    if isinstance(type_, FederatedType):
        if (
            type_.placement is CLIENTS
            and isinstance(value, Placed)
            and not value.all_equal
        ):
            return [(path, len(value.members))]
        return []
    if isinstance(type_, StructType):
        names = [
            name or f"[{i}]"
            for i, name in enumerate(structure.name_list_with_nones(type_))
        ]
        return [
            found
            for item, element, name in zip(value, type_, names)
            for found in _counts(item, element, f"{path}.{name}".replace(".[", "["))
        ]
    return []


class LocalContext(SyncContext):
    """Runs each call on the fused runtime: threads of this process.

    Args:
        workers: How many clients' tasks run at once; as many as there are processors if
            None. The result does not depend on it.
        seed: The root of every draw that the user's code leaves unseeded (initial
            weights, dropout masks, shuffles of client datasets): the same seed and the
            same calls give the same bits. Drawn afresh if None.
        default_num_clients: How many clients a computation has whose arguments do not
            say it.
        xla: Whether XLA may compile client work: where every operation is fit for it if
            None; True asks for it in any case, False never uses it.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        seed: int | None = None,
        default_num_clients: int = 0,
        xla: bool | None = None,
    ):
        _check_number("workers", workers, 1)
        _check_number("default_num_clients", default_num_clients, 0)
        self._default_num_clients = default_num_clients
        self._seed = secrets.randbits(62) if seed is None else seed
        self._calls = itertools.count()
        self._workers = FusedWorkers(workers, xla)

    def invoke(self, comp: ConcreteComputation, arg: Any) -> Any:
        """Runs `comp` on `arg`; see `fedcore.context.SyncContext.invoke`."""
        type_ = comp.type_signature
        seed = fold(self._seed, next(self._calls))
        argument = None
        if type_.parameter is not None:
            argument = from_python(arg, type_.parameter)
        clients = number_of_clients(
            argument, type_.parameter, self._default_num_clients
        )
        plan = plan_of(comp)
        result = run_plan(
            plan, self._workers, type_, argument, clients, seed, comp.__name__
        )
        return to_python(result, type_.result)

    def __repr__(self) -> str:
        return (
            f"LocalContext(workers={self._workers.workers}, "
            f"default_num_clients={self._default_num_clients})"
        )


def _check_number(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"`{name}` needs to be >= {least}, found {value}.")


def local_context(
    *,
    workers: int | None = None,
    seed: int | None = None,
    default_num_clients: int = 0,
    xla: bool | None = None,
) -> LocalContext:
    """A context that runs computations on this machine, in threads, as fast as it can.

    Args:
        workers: How many clients' tasks run at once; as many as there are processors if
            None. The result does not depend on it.
        seed: The root of unseeded draws; drawn afresh if None.
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.
        xla: Whether XLA may compile client work: where every operation is fit for it if
            None; True asks for it in any case, False never uses it.

    Returns:
        A context for `fedcore.context.use` or `fedcore.framework.set_default_context`.
    """
    return LocalContext(
        workers=workers, seed=seed, default_num_clients=default_num_clients, xla=xla
    )


def reference_context(
    *, seed: int | None = None, default_num_clients: int = 0
) -> ReferenceContext:
    """A context that interprets computations, one client at a time.

    Slow and simple: what every other context is compared with.

    Args:
        seed: The root of unseeded draws; drawn afresh if None.
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.

    Returns:
        A context for `fedcore.context.use`.
    """
    return ReferenceContext(seed=seed, default_num_clients=default_num_clients)
