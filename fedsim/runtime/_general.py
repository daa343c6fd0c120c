"""The general road of client work: line by line, one client after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from fedcore.compiler import ClientStep
from fedsim.runtime._errors import ClientError
from fedsim.runtime._lines import Draws, LineError, call, run_lines
from fedsim.runtime._ordered import ordered_member
from fedsim.runtime._seeds import fold
from fedsim.runtime._workers import Clients, leaves


@attrs.frozen(eq=False)
class TaskResult:
    """What a task of clients gives: an accumulator for each leaf, and kept values."""

    accumulators: list[list[Any]]
    kept: dict[str, list[Any]]


def run_task(
    step: ClientStep,
    shared: dict[str, Any],
    clients: Clients,
    task: range,
    check: Callable[[], None],
) -> TaskResult:
    """Runs the clients of a task; `check` is called before each and may raise."""
    kept: dict[str, list[Any]] = {name: [] for name in step.keep}
    accumulators = []
    for leaf in leaves(task, clients.count):
        total = [shared[name] for name in step.zero]
        for client in leaf:
            check()
            env = _work(step, shared, clients, client)
            total = call(step.accumulate, total, env, step.types, Draws(clients.seed))
            for name in step.keep:
                kept[name].append(env[name])
        accumulators.append(total)
    return TaskResult(accumulators, kept)


def _work(
    step: ClientStep, shared: dict[str, Any], clients: Clients, client: int
) -> dict[str, Any]:
    env = dict(shared)
    seed = fold(clients.seed, client)
    for name in step.inputs:
        value = clients.values[name][client]
        env[name] = ordered_member(value, step.types[name], seed)
    try:
        run_lines(step.work, env, step.types, Draws(clients.seed, client))
    except LineError as failed:
        error = failed.__cause__
        raise ClientError(
            clients.computation, failed.operator, client, clients.count, error
        ) from error
    return env
