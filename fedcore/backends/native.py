"""Choosing the context of this machine by the names that TFF's users know."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from fedcore.context import SyncContext, set_default_context


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
