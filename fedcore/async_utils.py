"""Running coroutines: from sync code, several times awaited, in order."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

from absl import logging


class AsyncThreadRunner:
    """Runs coroutines in an event loop of its own, in a thread of its own.

    Sync code can wait for a coroutine in this way even under a running event loop, as
    that of a notebook.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run_until_stopped, args=(self._loop,), daemon=True
        )
        self._thread.start()

    def run_coro_and_return_result(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Waits until `coro` is done.

        Args:
            coro: The coroutine.

        Returns:
            Its result; what it raises is raised here.
        """
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result()

    async def await_coro_and_return_result(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """As `run_coro_and_return_result`, but the caller's event loop goes on.

        Args:
            coro: The coroutine.

        Returns:
            Its result.
        """
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(coro, self._loop)
        )

    def __del__(self) -> None:
        # Absent if the interpreter failed to make the loop or the thread.
        loop = getattr(self, "_loop", None)
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(loop.stop)


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


class SharedAwaitable:
    """An awaitable that may be awaited many times; it runs once.

    Args:
        awaitable: What is awaited, for example a coroutine.
    """

    def __init__(self, awaitable: Awaitable[Any]):
        self._awaitable = awaitable
        self._future: asyncio.Future[Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        if self._future is None:
            self._future = asyncio.ensure_future(self._awaitable)
        # Who stops waiting does not stop it for the others.
        return asyncio.shield(self._future).__await__()


class OrderedTasks:
    """Tasks that run one after another, in the order in which they were added.

    As in TFF, what a task raises is logged, and those after it run nevertheless.
    """

    def __init__(self) -> None:
        self._last: asyncio.Task[None] | None = None

    def add(self, awaitable: Awaitable[Any]) -> None:
        """Adds a task, to begin when all before it are done.

        Args:
            awaitable: The task, for example a coroutine.
        """
        self._last = asyncio.ensure_future(_after(self._last, awaitable))

    def add_all(self, *awaitables: Awaitable[Any]) -> None:
        """Adds tasks that may run at once, to begin when all before them are done.

        Args:
            *awaitables: The tasks.
        """
        self.add(_together(awaitables))

    def add_callable(self, function: Callable[[], None]) -> None:
        """Adds a function, to be called when all tasks before it are done.

        Args:
            function: The function.
        """

        async def call() -> None:
            function()

        self.add(call())

    async def wait(self) -> None:
        """Waits until all tasks are done."""
        last, self._last = self._last, None
        if last is not None:
            await last

    async def aclose(self) -> None:
        """As `wait`."""
        await self.wait()


async def _after(before: asyncio.Task[None] | None, awaitable: Awaitable[Any]) -> None:
    if before is not None:
        await before
    try:
        await awaitable
    except Exception:
        logging.exception("A task of `OrderedTasks` failed.")


async def _together(awaitables: tuple[Awaitable[Any], ...]) -> None:
    await asyncio.gather(*awaitables)


@contextlib.asynccontextmanager
async def ordered_tasks() -> AsyncIterator[OrderedTasks]:
    """Tasks that are all done at the end of the `async with` block.

    Yields:
        The `OrderedTasks`.
    """
    tasks = OrderedTasks()
    try:
        yield tasks
    finally:
        await tasks.wait()


__all__ = ["AsyncThreadRunner", "OrderedTasks", "SharedAwaitable", "ordered_tasks"]
