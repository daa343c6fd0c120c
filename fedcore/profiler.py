"""Spans of time with names, told to providers: which part of a program takes how long.

A provider is a generator for each span: what it runs before its `yield` is the span's
begin; what is sent back to it is how the span ended.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import contextvars
import functools
import inspect
import random
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, TypeVar

import attrs
from absl import logging

T = TypeVar("T")

SpanYields = list[Any]


class TracedSpan:
    """A span ended that is not a function's."""


@attrs.frozen
class TracedFunctionReturned:
    """A function's span ended: it returned `value`."""

    value: Any


@attrs.frozen
class TracedFunctionThrew:
    """A function's span ended: it raised."""

    error_type: Any
    error_value: Any
    traceback: Any


TraceResult = TracedSpan | TracedFunctionReturned | TracedFunctionThrew


class TracingProvider(abc.ABC, Generic[T]):
    """Is told of spans."""

    @abc.abstractmethod
    def span(
        self,
        scope: str,
        sub_scope: str,
        nonce: int,
        parent_span_yield: T | None,
        fn_args: tuple[Any, ...] | None,
        fn_kwargs: dict[str, Any] | None,
        trace_opts: dict[str, Any],
    ) -> Generator[T, TraceResult, None]:
        """Yields once: before it the span begins, after it the span has ended.

        Args:
            scope: The module of a function, or what `span` was given.
            sub_scope: The function's name, or what `span` was given.
            nonce: A number that tells spans of one name apart.
            parent_span_yield: What this provider yielded for the span around this one.
            fn_args: The function's arguments; None for a span that is no function's.
            fn_kwargs: The function's keyword arguments; None as above.
            trace_opts: The options of `trace` or `span`.

        Yields:
            What spans inside get as `parent_span_yield`; the result of the `yield` says
            how the span ended.
        """

    def wrap_rpc(
        self, parent_span_yield: T | None
    ) -> contextlib.AbstractContextManager[None]:
        """A scope for a call to another process, which may pass the span on.

        Args:
            parent_span_yield: What this provider yielded for the span around the call.
        """
        del parent_span_yield
        return contextlib.nullcontext()

    def receive_rpc(self) -> T | None:
        """What a span that another process passed on is to be the parent with."""
        return None


class LoggingTracingProvider(TracingProvider[None]):
    """Logs the begin and the end of each span, with the time it took, at level debug."""

    def span(
        self,
        scope: str,
        sub_scope: str,
        nonce: int,
        parent_span_yield: None,
        fn_args: tuple[Any, ...] | None,
        fn_kwargs: dict[str, Any] | None,
        trace_opts: dict[str, Any],
    ) -> Generator[None, TraceResult, None]:
        """See `TracingProvider.span`.

        Args:
            scope: See there, as for all others.
            sub_scope: See there.
            nonce: See there.
            parent_span_yield: See there.
            fn_args: See there.
            fn_kwargs: See there.
            trace_opts: See there.
        """
        del parent_span_yield, fn_args, fn_kwargs, trace_opts
        logging.debug("(%s) Entering %s.%s", nonce, scope, sub_scope)
        begin = time.monotonic()
        result = yield None
        how = "Error in" if isinstance(result, TracedFunctionThrew) else "Exiting"
        took = time.monotonic() - begin
        logging.debug("(%s) %s %s.%s after %f s", nonce, how, scope, sub_scope, took)


class ThreadLocalSpanYields(threading.local):
    """What the providers yielded for the innermost span of this thread."""

    def __init__(self) -> None:
        self._yields: SpanYields | None = None

    def set(self, span_yields: SpanYields | None) -> None:
        """Sets it; None outside of all spans."""
        self._yields = span_yields

    def get(self) -> SpanYields | None:
        """What was set last."""
        return self._yields


_providers: tuple[TracingProvider[Any], ...] = (LoggingTracingProvider(),)
# For each provider of the span around this point, what it yielded.
_around: contextvars.ContextVar[dict[TracingProvider[Any], Any]] = (
    contextvars.ContextVar("fedcore_spans")
)


def set_tracing_providers(tracing_providers: list[TracingProvider[Any]]) -> None:
    """Tells spans to these providers alone; a list without any turns tracing off.

    Args:
        tracing_providers: The providers.
    """
    global _providers
    _providers = tuple(tracing_providers)


def add_tracing_provider(tracing_provider: TracingProvider[Any]) -> None:
    """Tells spans to this provider too.

    Args:
        tracing_provider: The provider.
    """
    global _providers
    _providers = (*_providers, tracing_provider)


@contextlib.contextmanager
def span(scope: str, sub_scope: str, **trace_opts: Any) -> Iterator[None]:
    """Makes the `with` block a span.

    Args:
        scope: The part of the program.
        sub_scope: What it does.
        **trace_opts: Passed on to the providers.
    """
    with _span(scope, sub_scope, None, None, trace_opts):
        yield


def trace(fn: Callable[..., Any] | None = None, **trace_kwargs: Any) -> Any:
    """Makes every call of a function a span; also of a coroutine function.

    Args:
        fn: The function; or None, to be used as a decorator with options.
        **trace_kwargs: Passed on to the providers.

    Returns:
        A function that does the same and is traced.
    """
    if fn is None:
        return functools.partial(trace, **trace_kwargs)
    scope, sub_scope = _name_of(fn)

    @functools.wraps(fn)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with _span(scope, sub_scope, args, kwargs, trace_kwargs) as end:
            end.value = fn(*args, **kwargs)
        return end.value

    @functools.wraps(fn)
    async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
        with _span(scope, sub_scope, args, kwargs, trace_kwargs) as end:
            end.value = await fn(*args, **kwargs)
        return end.value

    return traced_coroutine if inspect.iscoroutinefunction(fn) else traced


def wrap_coroutine_in_current_trace_context(
    coro: Coroutine[Any, Any, Any],
) -> Coroutine[Any, Any, Any]:
    """A coroutine whose spans are inside the span of here and now.

    Args:
        coro: The coroutine; where it is awaited does not matter.

    Returns:
        A coroutine with the same result.
    """
    around = _around.get({})

    async def inside() -> Any:
        token = _around.set(around)
        try:
            return await coro
        finally:
            _around.reset(token)

    return inside()


class _End:
    """How a function's span ended, as far as is known."""

    value: Any = None


def _name_of(fn: Callable[..., Any]) -> tuple[str, str]:
    module = getattr(fn, "__module__", "") or ""
    name = getattr(fn, "__qualname__", type(fn).__name__)
    parts = name.split(".<locals>.")[-1].split(".")
    # As TFF: a method's scope is its class.
    return (".".join(parts[:-1]) or module), parts[-1]


@contextlib.contextmanager
def _span(
    scope: str,
    sub_scope: str,
    args: tuple[Any, ...] | None,
    kwargs: dict[str, Any] | None,
    options: dict[str, Any],
) -> Iterator[_End]:
    nonce = random.SystemRandom().getrandbits(30)
    outer, inner, open_spans = _around.get({}), {}, []
    for provider in _providers:
        generator = provider.span(
            scope, sub_scope, nonce, outer.get(provider), args, kwargs, options
        )
        inner[provider] = next(generator)
        open_spans.append(generator)
    token = _around.set(inner)
    end = _End()
    result: TraceResult = TracedSpan()
    try:
        yield end
        if args is not None:
            result = TracedFunctionReturned(end.value)
    except (Exception, asyncio.CancelledError, KeyboardInterrupt) as error:
        result = TracedFunctionThrew(type(error), error, error.__traceback__)
        raise
    finally:
        _around.reset(token)
        for generator in reversed(open_spans):
            _close(generator, result)


def _close(generator: Generator[Any, TraceResult, None], result: TraceResult) -> None:
    try:
        generator.send(result)
    except StopIteration:
        return
    raise RuntimeError("A provider's `span` needs to yield once, found more.")


__all__ = [
    "LoggingTracingProvider",
    "SpanYields",
    "ThreadLocalSpanYields",
    "TraceResult",
    "TracedFunctionReturned",
    "TracedFunctionThrew",
    "TracedSpan",
    "TracingProvider",
    "add_tracing_provider",
    "set_tracing_providers",
    "span",
    "trace",
    "wrap_coroutine_in_current_trace_context",
]
