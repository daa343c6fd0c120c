"""Contexts give calling a computation its meaning: trace it, or run it."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import contextvars
import importlib
import threading
from collections.abc import Generator
from typing import Any

_NO_CONTEXT = (
    "No context is set in which computations can run.\n"
    "Set one with `fedcore.backends.native.set_local_python_execution_context()`, or "
    "for a block of code:\n"
    "    with fedcore.context.use(fedsim.local_context()):\n"
    "        ..."
)


class ContextError(RuntimeError):
    """What was called does not mean anything in the context it was called in."""


class SyncContext(abc.ABC):
    """Gives a computation's call a meaning; the result is there on return."""

    @abc.abstractmethod
    def invoke(self, comp: Any, arg: Any) -> Any:
        """Calls `comp`.

        Args:
            comp: The computation (`fedcore.Computation`).
            arg: Its argument as packed by the call: one value of
                `comp.type_signature.parameter`, or None where that is None.

        Returns:
            The result, in the form this context gives results.
        """


class AsyncContext(abc.ABC):
    """As `SyncContext`, but `invoke` is a coroutine and a call is awaited."""

    @abc.abstractmethod
    async def invoke(self, comp: Any, arg: Any) -> Any:
        """Calls `comp`; see `SyncContext.invoke`."""


Context = SyncContext | AsyncContext


class _NoContext(SyncContext):
    def invoke(self, comp: Any, arg: Any) -> Any:
        raise ContextError(_NO_CONTEXT)


class ContextStack:
    """The contexts installed with `install`, over the process-wide default.

    What is installed is seen by the thread or asyncio task that installed it, and by
    tasks started from there; the default is seen everywhere.
    """

    def __init__(self) -> None:
        self._installed: contextvars.ContextVar[tuple[Context, ...]] = (
            contextvars.ContextVar("fedcore_contexts", default=())
        )
        self._default: Context | None = None
        self._lock = threading.Lock()

    @property
    def current(self) -> Context:
        """The context in which a call made now has its meaning."""
        installed = self._installed.get()
        if installed:
            return installed[-1]
        return self._default or self._make_default()

    def _make_default(self) -> Context:
        with self._lock:
            default = self._default
            if default is None:
                # The one seam that looks up: fedcore alone is enough to run.
                runtime = importlib.import_module("fedsim.runtime")
                default = self._default = runtime.local_context()
            return default

    def current_or_none(self) -> Context | None:
        """As `current`, but never makes the default context."""
        installed = self._installed.get()
        return installed[-1] if installed else self._default

    @contextlib.contextmanager
    def install(self, ctx: Context) -> Generator[Context, None, None]:
        """Makes `ctx` current for the `with` block; it never leaks out of it."""
        _check_context("install", ctx)
        before = self._installed.get()
        self._installed.set((*before, ctx))
        try:
            yield ctx
        finally:
            self._installed.set(before)

    def set_default(self, ctx: Context | None) -> None:
        self._default = ctx


_STACK = ContextStack()


def get_context_stack() -> ContextStack:
    """The stack of contexts of this process."""
    return _STACK


def use(ctx: Context) -> contextlib.AbstractContextManager[Context]:
    """Calls inside the `with` block are given their meaning by `ctx`.

    Args:
        ctx: For example `fedsim.local_context(seed=1)`.

    Returns:
        A context manager; the context ends with the block, also when that raises.

    Raises:
        TypeError: If `ctx` is not a context.
    """
    return _STACK.install(ctx)


def set_default_context(ctx: Context) -> None:
    """Makes `ctx` the context of every call outside a `use` block, in all threads.

    Args:
        ctx: The context.

    Raises:
        TypeError: If `ctx` is not a context.
    """
    _check_context("set_default_context", ctx)
    _STACK.set_default(ctx)


def set_no_default_context() -> None:
    """Leaves the process without a context: a call outside `use` is a `ContextError`."""
    _STACK.set_default(_NoContext())


def _check_context(function: str, ctx: Any) -> None:
    if not isinstance(ctx, SyncContext | AsyncContext):
        raise TypeError(
            f"`{function}` needs a context, found `{type(ctx).__name__}`.\n"
            "Make one, for example with `fedsim.local_context()`."
        )


def run_coroutine(coroutine: Any) -> Any:
    """Runs a coroutine to its end from sync code, also under a running event loop.

    A running loop (Jupyter's, or a server's) cannot be entered twice, so the coroutine
    gets a loop and a thread of its own there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[Any] = []
    scope = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append((scope.run(asyncio.run, coroutine), None))
        except BaseException as error:  # handed to the caller's thread below
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="fedcore-coroutine")
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result
