"""Coroutines from sync code, shared and in order."""

import asyncio

import pytest

from fedcore import async_utils


async def three():
    return 3


def test_runner_runs_coroutines_from_sync_and_async_code():
    runner = async_utils.AsyncThreadRunner()
    assert runner.run_coro_and_return_result(three()) == 3

    async def main():
        # Under a running loop the sync call works too, in the runner's own thread.
        sync = runner.run_coro_and_return_result(three())
        return sync, await runner.await_coro_and_return_result(three())

    assert asyncio.run(main()) == (3, 3)


def test_runner_raises_what_the_coroutine_raises():
    async def fails():
        raise KeyError("x")

    with pytest.raises(KeyError):
        async_utils.AsyncThreadRunner().run_coro_and_return_result(fails())


def test_shared_awaitable_runs_once():
    calls = []

    async def count():
        calls.append(1)
        return len(calls)

    async def main():
        shared = async_utils.SharedAwaitable(count())

        async def wait():
            return await shared

        return await asyncio.gather(wait(), wait()), await shared

    assert asyncio.run(main()) == ([1, 1], 1)


def test_ordered_tasks_run_in_order_and_go_on_after_a_failure():
    done = []

    async def add(number, *, fail=False):
        await asyncio.sleep(0)
        if fail:
            raise ValueError(number)
        done.append(number)

    async def main():
        async with async_utils.ordered_tasks() as tasks:
            tasks.add(add(1))
            tasks.add(add(2, fail=True))
            tasks.add_all(add(3), add(4))
            tasks.add_callable(lambda: done.append(5))
        assert done == [1, 3, 4, 5]
        tasks = async_utils.OrderedTasks()
        tasks.add(add(6))
        await tasks.wait()
        await tasks.aclose()

    asyncio.run(main())
    assert done == [1, 3, 4, 5, 6]


def test_ordered_tasks_are_done_when_the_block_raises():
    done = []

    async def add():
        await asyncio.sleep(0)
        done.append(1)

    async def main():
        async with async_utils.ordered_tasks() as tasks:
            tasks.add(add())
            raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert done == [1]
