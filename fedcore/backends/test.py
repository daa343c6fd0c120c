"""Contexts for tests: all intrinsics run, the secure ones as plain sums."""

from __future__ import annotations

import importlib

from fedcore.context import SyncContext, set_default_context


def create_test_python_execution_context(
    default_num_clients: int = 0, clients_per_thread: int = 1
) -> SyncContext:
    """A context that interprets computations, one client at a time.

    Secure aggregations give what they would give, without their protection, as they do
    in every context of this machine.

    Args:
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.
        clients_per_thread: Accepted for TFF's scripts, without effect.

    Returns:
        The context.
    """
    del clients_per_thread
    runtime = importlib.import_module("fedsim.runtime")
    return runtime.reference_context(default_num_clients=default_num_clients)


def set_test_python_execution_context(
    default_num_clients: int = 0, clients_per_thread: int = 1
) -> None:
    """Makes `create_test_python_execution_context(...)` the default context.

    Args:
        default_num_clients: See there.
        clients_per_thread: Accepted, without effect.
    """
    set_default_context(
        create_test_python_execution_context(default_num_clients, clients_per_thread)
    )


__all__ = [
    "create_test_python_execution_context",
    "set_test_python_execution_context",
]
