"""Spans are told to providers, with what is around them and how they ended."""

import asyncio

import pytest

from fedcore import profiler


class Told(profiler.TracingProvider):
    def __init__(self):
        self.begun, self.ended = [], []

    def span(
        self, scope, sub_scope, nonce, parent_span_yield, fn_args, fn_kwargs, trace_opts
    ):
        self.begun.append((sub_scope, parent_span_yield, fn_args, trace_opts))
        self.ended.append((sub_scope, (yield sub_scope)))


@pytest.fixture
def told():
    provider = Told()
    profiler.set_tracing_providers([provider])
    yield provider
    profiler.set_tracing_providers([profiler.LoggingTracingProvider()])


@profiler.trace
def double(x):
    return 2 * x


@profiler.trace(kind="outer")
async def outer(x):
    return double(x)


def test_functions_and_coroutines_are_spans_inside_each_other(told):
    assert asyncio.run(outer(4)) == 8
    assert told.begun == [
        ("outer", None, (4,), {"kind": "outer"}),
        ("double", "outer", (4,), {}),
    ]
    assert [name for name, _ in told.ended] == ["double", "outer"]
    assert told.ended[0][1] == profiler.TracedFunctionReturned(8)


def test_a_block_is_a_span(told):
    with profiler.span("scope", "block", size=3):
        double(1)
    assert told.begun[0] == ("block", None, None, {"size": 3})
    assert told.begun[1][1] == "block"
    assert isinstance(told.ended[1][1], profiler.TracedSpan)


def test_an_error_ends_a_span(told):
    @profiler.trace
    def fails():
        raise KeyError("x")

    with pytest.raises(KeyError):
        fails()
    result = told.ended[0][1]
    assert isinstance(result, profiler.TracedFunctionThrew)
    assert result.error_type is KeyError
    double(1)
    assert told.begun[-1][1] is None  # nothing leaks out of a span that failed


def test_a_coroutine_keeps_the_span_it_was_wrapped_in(told):
    async def work():
        return double(1)

    async def main():
        with profiler.span("scope", "around"):
            wrapped = profiler.wrap_coroutine_in_current_trace_context(work())
        return await wrapped

    assert asyncio.run(main()) == 2
    assert told.begun[-1][1] == "around"


def test_providers_are_added_and_logging_is_one(told):
    other = Told()
    profiler.add_tracing_provider(other)
    profiler.add_tracing_provider(profiler.LoggingTracingProvider())
    assert double(3) == 6
    assert len(told.begun) == len(other.begun) == 1


def test_span_yields_are_kept():
    kept = profiler.ThreadLocalSpanYields()
    assert kept.get() is None
    kept.set([1])
    assert kept.get() == [1]
