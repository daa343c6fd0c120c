"""Choosing the context of this machine by the names that TFF's users know."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from fedcore.backends._mergeable import MergeableCompExecutionContext
from fedcore.compiler import desugar
from fedcore.computation import Computation, ConcreteComputation
from fedcore.context import AsyncContext, SyncContext, set_default_context
from fedcore.framework import (
    AsyncExecutionContext,
    ExecutionContext,
    sizing_executor_factory,
)


def create_local_python_execution_context(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
    server_tf_device: Any = None,
    client_tf_devices: Sequence[Any] = (),
    reference_resolving_clients: bool = False,
    *,
    seed: int | None = None,
    workers: int | None = None,
    xla: bool | None = None,
) -> SyncContext:
    """A context that runs computations on this machine.

    Args:
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.
        max_fanout: Accepted for TFF's scripts; our runtime has no tree of executors.
        clients_per_thread: As `max_fanout`.
        server_tf_device: As `max_fanout`.
        client_tf_devices: As `max_fanout`.
        reference_resolving_clients: As `max_fanout`.
        seed: The root of unseeded draws; drawn afresh if None.
        workers: How many tasks of clients run at once; as many as there are processors
            if None. The result does not depend on it.
        xla: Whether client steps are compiled by XLA; decided for each if None.

    Returns:
        The context.
    """
    del max_fanout, clients_per_thread, server_tf_device, client_tf_devices
    del reference_resolving_clients
    # The seam that looks up: the runtime stands floors above, and is loaded by name.
    runtime = importlib.import_module("fedsim.runtime")
    return runtime.local_context(
        default_num_clients=default_num_clients, seed=seed, workers=workers, xla=xla
    )


def set_local_python_execution_context(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
    server_tf_device: Any = None,
    client_tf_devices: Sequence[Any] = (),
    reference_resolving_clients: bool = False,
    *,
    seed: int | None = None,
    workers: int | None = None,
    xla: bool | None = None,
) -> None:
    """Makes `create_local_python_execution_context(...)` the default context.

    Args:
        default_num_clients: See there, as for all others.
        max_fanout: Accepted, without effect.
        clients_per_thread: Accepted, without effect.
        server_tf_device: Accepted, without effect.
        client_tf_devices: Accepted, without effect.
        reference_resolving_clients: Accepted, without effect.
        seed: The root of unseeded draws; drawn afresh if None.
        workers: How many tasks of clients run at once; as many as there are processors
            if None. The result does not depend on it.
        xla: Whether client steps are compiled by XLA; decided for each if None.
    """
    set_default_context(
        create_local_python_execution_context(
            default_num_clients,
            max_fanout,
            clients_per_thread,
            server_tf_device,
            client_tf_devices,
            reference_resolving_clients,
            seed=seed,
            workers=workers,
            xla=xla,
        )
    )


def create_local_async_python_execution_context(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
    server_tf_device: Any = None,
    client_tf_devices: Sequence[Any] = (),
    reference_resolving_clients: bool = False,
    *,
    seed: int | None = None,
    workers: int | None = None,
    xla: bool | None = None,
) -> AsyncContext:
    """As `create_local_python_execution_context`, but a call is awaited.

    Args:
        default_num_clients: See there, as for all others.
        max_fanout: Accepted, without effect.
        clients_per_thread: Accepted, without effect.
        server_tf_device: Accepted, without effect.
        client_tf_devices: Accepted, without effect.
        reference_resolving_clients: Accepted, without effect.
        seed: The root of unseeded draws; drawn afresh if None.
        workers: How many tasks of clients run at once in a call.
        xla: Whether client steps are compiled by XLA; decided for each if None.

    Returns:
        The context: under it, `await computation(...)` gives the result.
    """
    context = create_local_python_execution_context(
        default_num_clients,
        max_fanout,
        clients_per_thread,
        server_tf_device,
        client_tf_devices,
        reference_resolving_clients,
        seed=seed,
        workers=workers,
        xla=xla,
    )
    return AsyncExecutionContext(context)


def set_local_async_python_execution_context(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
    server_tf_device: Any = None,
    client_tf_devices: Sequence[Any] = (),
    reference_resolving_clients: bool = False,
    *,
    seed: int | None = None,
    workers: int | None = None,
    xla: bool | None = None,
) -> None:
    """Makes `create_local_async_python_execution_context(...)` the default context.

    Args:
        default_num_clients: See there, as for all others.
        max_fanout: Accepted, without effect.
        clients_per_thread: Accepted, without effect.
        server_tf_device: Accepted, without effect.
        client_tf_devices: Accepted, without effect.
        reference_resolving_clients: Accepted, without effect.
        seed: The root of unseeded draws; drawn afresh if None.
        workers: How many tasks of clients run at once in a call.
        xla: Whether client steps are compiled by XLA; decided for each if None.
    """
    set_default_context(
        create_local_async_python_execution_context(
            default_num_clients,
            max_fanout,
            clients_per_thread,
            server_tf_device,
            client_tf_devices,
            reference_resolving_clients,
            seed=seed,
            workers=workers,
            xla=xla,
        )
    )


def create_sizing_execution_context(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
) -> ExecutionContext:
    """A context that counts what server and clients send each other.

    Args:
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.
        max_fanout: Accepted for TFF's scripts, without effect.
        clients_per_thread: As `max_fanout`.

    Returns:
        The context; `context.executor_factory.get_size_info()` gives the counts.
    """
    factory = sizing_executor_factory(
        default_num_clients, max_fanout, clients_per_thread
    )
    return ExecutionContext(factory)


def create_mergeable_comp_execution_context(
    async_contexts: Sequence[AsyncContext], num_subrounds: int | None = None
) -> SyncContext:
    """A context that runs a call's clients in several contexts, and merges.

    Args:
        async_contexts: The contexts; they take turns.
        num_subrounds: Into how many parts the clients are cut; one for each context if
            None.

    Returns:
        The context. It runs computations whose aggregations do not depend on each
        other; a part has at least one client.

    Raises:
        ValueError: If there is no context, or `num_subrounds` is not positive.
    """
    return MergeableCompExecutionContext(async_contexts, num_subrounds)


def set_mergeable_comp_execution_context(
    async_contexts: Sequence[AsyncContext], num_subrounds: int | None = None
) -> None:
    """Makes `create_mergeable_comp_execution_context(...)` the default context.

    Args:
        async_contexts: See there.
        num_subrounds: See there.
    """
    set_default_context(
        create_mergeable_comp_execution_context(async_contexts, num_subrounds)
    )


def transform_to_native_form(
    comp: Computation,
    transform_math_to_tf: bool = False,
    grappler_config: Any = None,
) -> Computation:
    """The computation said in primitive intrinsics alone.

    The contexts of this machine compile by themselves; nothing needs to be transformed
    before it is run.

    Args:
        comp: A traced computation.
        transform_math_to_tf: Accepted for TFF's scripts, without effect.
        grappler_config: As `transform_math_to_tf`.

    Returns:
        A computation of the same type and meaning.

    Raises:
        TypeError: If `comp` is not a traced computation.
    """
    del transform_math_to_tf, grappler_config
    if not isinstance(comp, ConcreteComputation):
        raise TypeError(
            "`transform_to_native_form` needs a traced computation, found "
            f"`{type(comp).__name__}`.\n"
            "Declare the types of its parameters in the decorator."
        )
    return ConcreteComputation(desugar(comp.node), comp.__name__, comp.source)


__all__ = [
    "create_local_async_python_execution_context",
    "create_local_python_execution_context",
    "create_mergeable_comp_execution_context",
    "create_sizing_execution_context",
    "set_local_async_python_execution_context",
    "set_local_python_execution_context",
    "set_mergeable_comp_execution_context",
    "transform_to_native_form",
]
