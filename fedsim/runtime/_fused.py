"""The fused local runtime: threads of this process over tasks of whole leaves."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fedcore.compiler import ClientStep
from fedcore.types import SequenceType
from fedsim.runtime import _general as general
from fedsim.runtime._columnar import rows_passes
from fedsim.runtime._kernel import EVEN, EXACT, MASKED, Kernel, Stacked
from fedsim.runtime._lines import Draws, LineError, call
from fedsim.runtime._merge import merge_of
from fedsim.runtime._roads import COLUMNAR, Road, road_of
from fedsim.runtime._stacks import StackTasks, stack_passes
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
                waiting.append(self._submit(work(task)))
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

    def _submit(self, work: Callable[[], Any]) -> concurrent.futures.Future:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self.workers, "fedsim"
                )
            return self._pool.submit(work)

    def _work(
        self,
        step: ClientStep,
        shared: dict[str, Any],
        clients: Clients,
        runs: list[range],
        stop: threading.Event,
    ) -> Callable[[range], Callable[[], Any]]:
        """What prepares a task, by the step's road; what it gives is for a thread."""

        def check() -> None:
            if stop.is_set():
                raise Stopped

        def line_by_line(task: range) -> general.TaskResult:
            return general.run_task(step, shared, clients, task, check)

        road = road_of(step, clients, self.xla)
        if road.tail is None:
            self.roads[step] = road
            return lambda task: functools.partial(line_by_line, task)
        programs = _Programs(step, clients, runs)
        if road.name == COLUMNAR:
            road, program = programs.columnar(road, shared)
        else:
            program = programs.stacked(road)
        self.roads[step] = road

        def prepared(task: range) -> Callable[[], Stacked]:
            with _naming_the_client(line_by_line, task):
                run = program(shared, clients, task, check)

            def at_once() -> Stacked:
                check()
                with _naming_the_client(line_by_line, task):
                    return run()

            return at_once

        return prepared


@contextlib.contextmanager
def _naming_the_client(
    line_by_line: Callable[[range], Any], task: range
) -> Iterator[None]:
    """Where a whole task fails its clients are run one by one: one of them says why."""
    try:
        yield
    except Stopped:
        raise
    except Exception:
        line_by_line(task)
        raise


def _awaited(future: concurrent.futures.Future) -> Any:
    """A future's result. Looks up now and then: a signal may come just before a wait."""
    while True:
        concurrent.futures.wait([future], _LOOK_UP_SECONDS)
        if future.done():
            return future.result()


class _Made:
    """The programs of a step, each made once, and whether XLA has proved right."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: dict[Any, Kernel] = {}
        self.right: dict[Any, bool] = {}


_of_steps: weakref.WeakKeyDictionary[ClientStep, _Made] = weakref.WeakKeyDictionary()
_of_steps_lock = threading.Lock()


class _Programs:
    """The programs for the tasks of a call."""

    def __init__(self, step: ClientStep, clients: Clients, runs: list[range]):
        self._step = step
        self._clients = clients
        with _of_steps_lock:
            self._cache = _of_steps.setdefault(step, _Made())
        firsts = {name: clients.values[name][0] for name in step.inputs}
        self._sequences = {
            name: value
            for name, value in firsts.items()
            if isinstance(step.types[name], SequenceType)
        }
        self._tensors = {n: v for n, v in firsts.items() if n not in self._sequences}
        self._kind = tuple(str(value.shape) for value in self._tensors.values())
        most_leaves = sum(1 for _ in leaves(runs[0], clients.count))
        self._capacity = _power_of_two(len(runs[0])), _power_of_two(most_leaves)

    def _kernel(self, kind: Any, tail: str, passes: Callable[[], Any]) -> Kernel:
        key = (kind, self._kind, *self._capacity, tail)
        made = self._cache.made
        if key not in made:
            compiled = tail != EXACT
            made[key] = Kernel(
                self._step, self._tensors, passes(), *self._capacity, compiled
            )
        return made[key]

    def stacked(self, road: Road) -> Callable[..., Callable[[], Stacked]]:
        """The program for clients whose datasets are stacked."""
        extents, step = road.extents, self._step
        sizes = tuple((e.batch_size, e.by_row) for e in extents.values())

        def made(tail: str) -> Kernel:
            with self._cache.lock:
                return self._kernel(
                    sizes, tail, lambda: stack_passes(step, extents, tail == MASKED)
                )

        tasks = StackTasks(extents, made(road.tail), lambda: made(EXACT))
        # Its threads run tf.data first, and prepare what comes of it themselves.
        return functools.partial(functools.partial, tasks)

    def columnar(
        self, road: Road, shared: dict[str, Any]
    ) -> tuple[Road, Callable[..., Callable[[], Stacked]]]:
        """The program for columns, and the road, which a comparison may change."""
        pipelines = tuple(dataset.pipeline for dataset in self._sequences.values())
        right = self._cache.right

        def made(tail: str) -> Callable[..., Callable[[], Stacked]]:
            kernel = self._kernel(
                pipelines, tail, lambda: rows_passes(self._step, self._sequences, tail)
            )
            return functools.partial(_on_rows, kernel)

        with self._cache.lock:
            if not road.compiled or road.tail == MASKED:
                return road, made(road.tail)
            key = (pipelines, self._kind, road.tail)
            if key not in right:
                client = self._telling_client(road)
                if client is None:  # no batch of this call can be treated wrongly
                    return road, made(road.tail)
                right[key] = _agree(
                    made(road.tail)(shared, self._clients, client)(),
                    made(EXACT)(shared, self._clients, client)(),
                )
            if right[key]:
                return road, made(road.tail)
            reason = "XLA gave another result than TensorFlow"
            return Road(COLUMNAR, EXACT, reason), made(EXACT)

    def _telling_client(self, road: Road) -> range | None:
        """The first client on which a wrong treatment of smaller batches would show."""
        passes = rows_passes(self._step, self._sequences, road.tail)
        for client in range(self._clients.count):
            if road.tail == EVEN or any(
                one.has_smaller_batch(self._clients, client) for one in passes
            ):
                return range(client, client + 1)
        return None


def _on_rows(
    kernel: Kernel,
    shared: dict[str, Any],
    clients: Clients,
    task: range,
    check: Callable[[], None] | None = None,
) -> Callable[[], Stacked]:
    given = [one.given(clients, task, kernel.clients) for one in kernel.passes]
    return kernel.prepared(shared, clients, task, given)


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
