"""Which context gives a call its meaning."""

import asyncio
import threading

import pytest
import tensorflow as tf

import fedcore
from fedcore import context
from fedcore.context import AsyncContext, ContextError, ContextStack, SyncContext


class Named(SyncContext):
    def __init__(self, name):
        self.name = name

    def invoke(self, comp, arg):
        return self.name, comp.__name__, arg


class Later(AsyncContext):
    async def invoke(self, comp, arg):
        await asyncio.sleep(0)
        return "later", arg


@fedcore.tf_computation(tf.int32)
def same(x):
    return x


def test_a_call_has_the_meaning_of_the_innermost_context():
    with context.use(Named("outer")):
        with context.use(Named("inner")):
            assert same(1) == ("inner", "same", 1)
        assert same(2) == ("outer", "same", 2)
    assert same(3) == 3


def test_use_gives_its_context():
    outer = Named("outer")
    with context.use(outer) as found:
        assert found is outer
        assert context.get_context_stack().current is outer


def test_a_context_ends_when_the_body_raises():
    with context.use(Named("outer")):
        with pytest.raises(ZeroDivisionError), context.use(Named("inner")):
            raise ZeroDivisionError
        assert same(1)[0] == "outer"
    assert same(1) == 1


def test_a_context_ends_when_a_trace_raises():
    def fails(x):
        raise ZeroDivisionError

    for decorator in (fedcore.tf_computation, fedcore.federated_computation):
        with pytest.raises(ZeroDivisionError):
            decorator(fails, tf.int32)
    assert same(1) == 1


def test_other_threads_see_the_default_only():
    stack, seen = ContextStack(), []
    stack.set_default(Named("default"))
    with stack.install(Named("here")):
        thread = threading.Thread(target=lambda: seen.append(stack.current.name))
        thread.start()
        thread.join()
        assert stack.current.name == "here"
    assert seen == ["default"]


def test_a_task_sees_the_context_it_was_started_in():
    async def name():
        return context.get_context_stack().current.name

    async def both():
        with context.use(Named("a")):
            first = asyncio.ensure_future(name())
        with context.use(Named("b")):
            second = asyncio.ensure_future(name())
        return await first, await second

    assert asyncio.run(both()) == ("a", "b")


def test_current_or_none_makes_no_context():
    stack = ContextStack()
    assert stack.current_or_none() is None


def test_an_async_context_is_awaited():
    async def call():
        return await same(1)

    with context.use(Later()):
        assert asyncio.run(call()) == ("later", 1)


@pytest.mark.parametrize("function", [context.use, context.set_default_context])
def test_what_is_no_context_is_refused(function):
    with pytest.raises(TypeError, match="needs a context, found `str`"):
        function("local").__enter__()


def test_no_context_says_how_to_set_one():
    before = context.get_context_stack().current
    try:
        context.set_no_default_context()
        with pytest.raises(ContextError, match="No context is set") as caught:
            same(1)
        assert "with fedcore.context.use(fedsim.local_context()):" in str(caught.value)
    finally:
        context.set_default_context(before)
    assert same(1) == 1


def test_a_call_works_under_a_running_event_loop():
    async def cell():  # as a notebook runs one
        await asyncio.sleep(0)
        return same(4)

    assert asyncio.run(cell()) == 4


async def _answer():
    await asyncio.sleep(0)
    return 42


async def _fails():
    raise ZeroDivisionError


def test_run_coroutine_with_and_without_a_running_loop():
    async def cell():
        return context.run_coroutine(_answer())

    assert context.run_coroutine(_answer()) == 42
    assert asyncio.run(cell()) == 42


def test_run_coroutine_raises_what_the_coroutine_raises():
    async def cell():
        return context.run_coroutine(_fails())

    with pytest.raises(ZeroDivisionError):
        context.run_coroutine(_fails())
    with pytest.raises(ZeroDivisionError):
        asyncio.run(cell())


def test_run_coroutine_keeps_the_context():
    async def name():
        return context.get_context_stack().current.name

    async def cell():
        with context.use(Named("here")):
            return context.run_coroutine(name())

    assert asyncio.run(cell()) == "here"
