"""A context that counts what server and clients send each other."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import attrs

from fedcore.compiler import ClientStep
from fedcore.computation import ConcreteComputation
from fedsim._traffic import constants, down, elements_of, up, value_bytes
from fedsim.runtime import LocalContext
from fedsim.runtime._plan import plan_of
from fedsim.runtime._workers import Clients, StepResult, Workers

_Count = dict[tuple[tuple[str, int], ...], tuple[list[list[Any]], int]]


class SizingContext(LocalContext):
    """As `LocalContext`; `traffic()` tells what the calls so far have sent.

    Args:
        default_num_clients: How many clients a computation has whose arguments do not
            say it.
        seed: The root of unseeded draws; drawn afresh if None.
    """

    def __init__(self, *, default_num_clients: int = 0, seed: int | None = None):
        super().__init__(default_num_clients=default_num_clients, seed=seed)
        self._workers = _Measured(self._workers)

    def invoke(self, comp: ConcreteComputation, arg: Any) -> Any:
        """Runs `comp` on `arg`; see `fedcore.context.SyncContext.invoke`."""
        plan = plan_of(comp)
        known = constants(plan.program)
        for step in plan.steps:
            self._workers.known.setdefault(step, known)
        return super().invoke(comp, arg)

    def traffic(self) -> tuple[_Count, _Count]:
        """What was sent so far, by the number of clients of the calls.

        Returns:
            Down to the clients, and up to the server: for each cardinality, such as
            `(("CLIENTS", 10),)`, a list of `[elements, dtype]` for each tensor and
            client, and the bits in all.
        """
        return self._workers.sent()


class _Measured:
    """Workers that count; what is aggregated is kept to be counted, then forgotten."""

    def __init__(self, workers: Workers):
        self.workers = getattr(workers, "workers", 1)
        self.known: weakref.WeakKeyDictionary[Any, frozenset[str]] = (
            weakref.WeakKeyDictionary()
        )
        self._telling: weakref.WeakKeyDictionary[ClientStep, ClientStep] = (
            weakref.WeakKeyDictionary()
        )
        self._inner = workers
        self._lock = threading.Lock()
        self._down: _Count = {}
        self._up: _Count = {}

    def sent(self) -> tuple[_Count, _Count]:
        """What was counted so far, down and up."""
        with self._lock:
            return dict(self._down), dict(self._up)

    def run(
        self, step: ClientStep, shared: dict[str, Any], clients: Clients
    ) -> StepResult:
        """See `Workers.run`."""
        sent = up(step)
        with self._lock:
            # Kept: programs that runtimes make of a step belong to the step.
            telling = self._telling.setdefault(step, _keeping(step, sent))
        result = self._inner.run(telling, shared, clients)
        values = {**clients.values, **result.kept}
        broadcast = [shared[n] for n in down(step, self.known.get(step, frozenset()))]
        key = (("CLIENTS", clients.count),)
        with self._lock:
            for _ in range(clients.count):
                _count(self._down, key, broadcast)
            for client in range(clients.count):
                _count(self._up, key, [values[n][client] for n in sent])
        return StepResult(result.totals, {n: result.kept[n] for n in step.keep})


def _keeping(step: ClientStep, names: list[str]) -> ClientStep:
    made = [n for n in names if n not in step.inputs]
    return attrs.evolve(step, keep=tuple(dict.fromkeys((*step.keep, *made))))


def _count(counts: _Count, key: Any, tensors: list[Any]) -> None:
    entries, bits = counts.get(key, ([], 0))
    sizes = [(t, value_bytes(t)) for t in tensors]
    entries += [
        [elements_of(t), t.dtype] for t, size in sizes if hasattr(t, "dtype") and size
    ]
    counts[key] = entries, bits + 8 * sum(size or 0 for _, size in sizes)
