"""The fused runtime's threads: order of completion, interruption, calls at once."""

import concurrent.futures
import gc
import signal
import threading
import weakref

import computations
import numpy as np
import pytest

import fedcore
from fedsim import runtime
from fedsim.runtime import _fused, _plan


def run(context, fn, arguments):
    with fedcore.context.use(context):
        return fn(*arguments)


class LastFirst(concurrent.futures.Executor):
    """A pool in which, of the tasks that wait together, the last is done first."""

    def __init__(self, together):
        self.waiting, self.together = [], together

    def submit(self, task):
        future = concurrent.futures.Future()
        self.waiting.append((future, task))
        if len(self.waiting) == self.together:
            while self.waiting:
                late, task = self.waiting.pop()
                late.set_result(task())
        return future


@pytest.mark.parametrize(
    "build", [computations.several_aggregates, computations.datasets]
)
def test_bits_do_not_depend_on_the_order_of_completion(build):
    fn, arguments = build()
    context = runtime.LocalContext(seed=3, workers=4)
    wanted = run(context, fn, arguments)
    context._workers._pool = LastFirst(together=4)
    computations.assert_same(run(context, fn, arguments), wanted, tolerance=0)


def test_an_interrupt_stops_the_round_and_leaves_the_context_usable(monkeypatch):
    fn, arguments = computations.two_round_trips()
    context = runtime.LocalContext(seed=3, workers=2)
    wanted = run(context, fn, arguments)
    released, begun = threading.Event(), []
    run_task = _fused.general.run_task

    def interrupted(step, shared, clients, task, check):
        begun.append(task)
        if task.start == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        released.wait()
        check()  # as before each client
        return run_task(step, shared, clients, task, check)

    with monkeypatch.context() as patched:
        patched.setattr(_fused.general, "run_task", interrupted)
        try:
            with pytest.raises(KeyboardInterrupt):
                run(context, fn, arguments)
        finally:
            released.set()
    computations.assert_same(run(context, fn, arguments), wanted, tolerance=0)
    assert len(begun) <= 2 * 2


def test_a_computation_is_compiled_once_by_calls_at_once():
    fn, arguments = computations.several_aggregates()
    context = runtime.LocalContext(seed=3)
    before = _plan.plans_made.count
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(context, fn, arguments), range(8)))
    assert _plan.plans_made.count == before + 1
    for result in results:
        computations.assert_same(result, results[0], tolerance=0)


def test_a_plan_goes_with_its_computation():
    fn, arguments = computations.several_aggregates()
    run(runtime.LocalContext(seed=3), fn, arguments)
    plan = weakref.ref(_plan._plans[fn])
    del fn
    gc.collect()
    assert plan() is None


def test_no_more_tasks_are_under_way_than_memory_allows():
    context = runtime.LocalContext(seed=3, workers=2)
    most, now, lock = [0], [0], threading.Lock()
    submit = context._workers._submit

    def counted(task):
        with lock:
            now[0] += 1
            most[0] = max(most)
        most.append(now[0])
        future = submit(task)
        future.add_done_callback(lambda _: now.__setitem__(0, now[0] - 1))
        return future

    context._workers._submit = counted
    fn, _ = computations.two_round_trips()
    run(context, fn, ([np.float32(i) for i in range(2000)],))
    assert max(most) <= 2 * 2


def test_a_context_needs_at_least_one_worker():
    with pytest.raises(ValueError, match="`workers` needs to be >= 1, found 0"):
        runtime.local_context(workers=0)
