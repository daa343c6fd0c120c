"""The fused local runtime: threads of this process over tasks of whole leaves."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from fedcore.compiler import ClientStep
from fedsim.runtime import _general as general
from fedsim.runtime._columnar import EVEN, EXACT, MASKED, Kernel, Stacked
from fedsim.runtime._lines import Draws, LineError, call
from fedsim.runtime._merge import merge_of
from fedsim.runtime._roads import COLUMNAR, Road, road_of
from fedsim.runtime._workers import Clients, StepResult, leaves, tasks

_TASKS_AHEAD = 2  # for each worker; what bounds memory
_LOOK_UP_SECONDS = 0.5
_TOLERANCE = 1e-3  # between XLA and not: far above rounding, far below a wrong result


class Stopped(Exception):
    """A task was told to stop: another failed, or the user interrupted."""


class FusedWorkers:
    """Runs clients in threads; graph calls release Python's lock.

    Args:
        workers: How many threads; as many as there are processors if None.
        xla: Whether XLA may compile client work; by what it holds if None.
    """

    def __init__(self, workers: int | None = None, xla: bool | None = None):
        self.workers = workers or os.cpu_count() or 1
        self.xla = xla
        # The road each step took last, for people to look at.
        self.roads: weakref.WeakKeyDictionary[ClientStep, Road] = (
            weakref.WeakKeyDictionary()
        )
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(
        self, step: ClientStep, shared: dict[str, Any], clients: Clients
    ) -> StepResult:
        """See `Workers.run`."""
        gathered = _Gathered(step, shared, clients)
        stop = threading.Event()
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            runs = list(tasks(clients.count, self.workers))
            work = self._work(step, shared, clients, runs, stop) if runs else None
            for task in runs:
                if len(waiting) >= _TASKS_AHEAD * self.workers:
                    gathered.add(_awaited(waiting.popleft()))
                waiting.append(self._submit(work, task))
            while waiting:
                gathered.add(_awaited(waiting.popleft()))
        except LineError as failed:  # in `accumulate` or `merge`, which are no client's
            raise failed.__cause__ or failed from None
        except KeyboardInterrupt:
            self._leave_pool()
            raise
        finally:
            # An error or Ctrl-C: what has not begun never does, what runs stops soon.
            stop.set()
            for future in waiting:
                future.cancel()
        return gathered.result()

    def _leave_pool(self) -> None:
        """Takes new threads from now on: an interrupt may have hit the old ones' locks.

        What still runs there sees that it is to stop; nobody waits for it.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def _submit(self, work: Any, task: range) -> concurrent.futures.Future:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self.workers, "fedsim"
                )
            return self._pool.submit(work, task)

    def _work(
        self,
        step: ClientStep,
        shared: dict[str, Any],
        clients: Clients,
        runs: list[range],
        stop: threading.Event,
    ) -> Callable[[range], Any]:
        """What a task does, by the step's road."""

        def check() -> None:
            if stop.is_set():
                raise Stopped

        def line_by_line(task: range) -> general.TaskResult:
            return general.run_task(step, shared, clients, task, check)

        road = road_of(step, clients, self.xla)
        if road.name != COLUMNAR:
            self.roads[step] = road
            return line_by_line
        road, kernel = _kernels(step, road, shared, clients, runs)
        self.roads[step] = road

        def columnar(task: range) -> Stacked:
            check()
            try:
                return kernel(shared, clients, task)
            except Exception:
                line_by_line(task)  # names the client at fault
                raise

        return columnar


def _awaited(future: concurrent.futures.Future) -> Any:
    """A future's result. Looks up now and then: a signal may come just before a wait."""
    while True:
        concurrent.futures.wait([future], _LOOK_UP_SECONDS)
        if future.done():
            return future.result()


class _Kernels:
    """The programs of a step, each made once, and whether XLA has proved right."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: dict[Any, Kernel] = {}
        self.right: dict[Any, bool] = {}


_of_steps: weakref.WeakKeyDictionary[ClientStep, _Kernels] = weakref.WeakKeyDictionary()
_of_steps_lock = threading.Lock()


def _kernels(
    step: ClientStep,
    road: Road,
    shared: dict[str, Any],
    clients: Clients,
    runs: list[range],
) -> tuple[Road, Kernel]:
    """The program for a step's tasks, and the road, which a comparison may change."""
    with _of_steps_lock:
        kernels = _of_steps.setdefault(step, _Kernels())
    values = {name: clients.values[name][0] for name in step.inputs}
    kind = tuple(getattr(v, "pipeline", None) or str(v.shape) for v in values.values())
    most = _power_of_two(len(runs[0]))
    most_leaves = _power_of_two(sum(1 for _ in leaves(runs[0], clients.count)))

    def made(tail: str) -> Kernel:
        key = (kind, most, most_leaves, tail)
        if key not in kernels.made:
            kernels.made[key] = Kernel(step, values, most, most_leaves, tail)
        return kernels.made[key]

    with kernels.lock:
        if not road.compiled or road.tail == MASKED:
            return road, made(road.tail)
        if (kind, road.tail) not in kernels.right:
            fast = made(road.tail)
            client = _telling_client(fast, road, clients)
            if client is None:  # no batch of this call can be treated wrongly
                return road, fast
            kernels.right[kind, road.tail] = _agree(
                fast(shared, clients, client), made(EXACT)(shared, clients, client)
            )
        if kernels.right[kind, road.tail]:
            return road, made(road.tail)
        reason = "XLA gave another result than TensorFlow"
        return Road(COLUMNAR, EXACT, reason), made(EXACT)


def _telling_client(kernel: Kernel, road: Road, clients: Clients) -> range | None:
    """The first client on which a wrong treatment of smaller batches would show."""
    for client in range(clients.count):
        if road.tail == EVEN or kernel.has_smaller_batch(clients, client):
            return range(client, client + 1)
    return None


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _agree(a: Stacked, b: Stacked) -> bool:
    pairs = [(x[0], y[0]) for x, y in zip(a.buffers, b.buffers)]
    pairs += [(a.kept[name][0], b.kept[name][0]) for name in a.kept]
    return all(
        np.allclose(x, y, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
        for x, y in ((np.asarray(x), np.asarray(y)) for x, y in pairs)
    )


class _Gathered:
    """The results of tasks, merged in the order of the leaves as they come in."""

    def __init__(self, step: ClientStep, shared: dict[str, Any], clients: Clients):
        self._step = step
        self._shared = shared
        self._draws = Draws(clients.seed)
        self._total: list[Any] | None = None
        self._kept: dict[str, list[Any]] = {name: [] for name in step.keep}

    def add(self, result: general.TaskResult | Stacked) -> None:
        """Merges a task's accumulators in; tasks come in order."""
        for name, values in result.kept.items():
            self._kept[name] += values
        if not self._step.totals:
            return
        if isinstance(result, Stacked):
            self._total = merge_of(self._step)(
                self._total,
                result.buffers,
                result.leaves,
                self._shared,
                self._draws.pair(),
            )
            return
        for accumulator in result.accumulators:
            if self._total is None:
                self._total = accumulator
                continue
            both = [*self._total, *accumulator]
            step = self._step
            self._total = call(step.merge, both, self._shared, step.types, self._draws)

    def result(self) -> StepResult:
        """What the step gives: the zeros if there was no client."""
        total = self._total
        if total is None:
            total = [self._shared[name] for name in self._step.zero]
        return StepResult(dict(zip(self._step.totals, total)), self._kept)
