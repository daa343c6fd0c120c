"""The fused local runtime: threads of this process over tasks of whole leaves."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import threading
from typing import Any

from fedcore.compiler import ClientStep
from fedsim.runtime._general import TaskResult, run_task
from fedsim.runtime._lines import Draws, LineError, call
from fedsim.runtime._workers import Clients, StepResult, tasks

_TASKS_AHEAD = 2  # for each worker; what bounds memory


class Stopped(Exception):
    """A task was told to stop: another failed, or the user interrupted."""


class FusedWorkers:
    """Runs clients in threads; graph calls release Python's lock.

    Args:
        workers: How many threads; as many as there are processors if None.
    """

    def __init__(self, workers: int | None = None):
        self.workers = workers or os.cpu_count() or 1
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
            for task in tasks(clients.count, self.workers):
                if len(waiting) >= _TASKS_AHEAD * self.workers:
                    gathered.add(waiting.popleft().result())
                waiting.append(self._submit(step, shared, clients, task, stop))
            while waiting:
                gathered.add(waiting.popleft().result())
        except LineError as failed:  # in `accumulate` or `merge`, which are no client's
            raise failed.__cause__ from None
        finally:
            # An error or Ctrl-C: what has not begun never does, what runs stops soon.
            stop.set()
            for future in waiting:
                future.cancel()
        return gathered.result()

    def _submit(self, step, shared, clients, task, stop) -> concurrent.futures.Future:
        def check() -> None:
            if stop.is_set():
                raise Stopped

        def work() -> TaskResult:
            return run_task(step, shared, clients, task, check)

        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self.workers, "fedsim"
                )
            return self._pool.submit(work)


class _Gathered:
    """The results of tasks, merged in the order of the leaves as they come in."""

    def __init__(self, step: ClientStep, shared: dict[str, Any], clients: Clients):
        self._step = step
        self._shared = shared
        self._draws = Draws(clients.seed)
        self._total: list[Any] | None = None
        self._kept: dict[str, list[Any]] = {name: [] for name in step.keep}

    def add(self, result: TaskResult) -> None:
        for accumulator in result.accumulators:
            if self._total is None:
                self._total = accumulator
            else:
                both = [*self._total, *accumulator]
                step = self._step
                self._total = call(
                    step.merge, both, self._shared, step.types, self._draws
                )
        for name, values in result.kept.items():
            self._kept[name] += values

    def result(self) -> StepResult:
        total = self._total
        if total is None:
            total = [self._shared[name] for name in self._step.zero]
        return StepResult(dict(zip(self._step.totals, total)), self._kept)
