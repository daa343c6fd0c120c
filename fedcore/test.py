"""What tests of federated code need: assertions on computations and types, contexts."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

from absl.testing import parameterized

from fedcore import context, ir
from fedcore.computation import ConcreteComputation
from fedcore.context import (
    AsyncContext,
    ContextError,
    SyncContext,
    set_no_default_context,
    use,
)
from fedcore.types import (
    Type,
    TypeRelation,
    to_type,
    type_mismatch_error_message,
)

_SECURE = frozenset(
    {
        "federated_secure_modular_sum",
        "federated_secure_sum",
        "federated_secure_sum_bitwidth",
    }
)
_UNSECURE = frozenset(
    {
        "federated_aggregate",
        "federated_max",
        "federated_mean",
        "federated_min",
        "federated_sum",
    }
)


def assert_contains_secure_aggregation(comp: Any) -> None:
    """Asserts that a computation aggregates securely somewhere.

    Args:
        comp: A traced computation.

    Raises:
        AssertionError: If it does not.
    """
    if not _aggregations(comp, _SECURE):
        raise AssertionError(
            f"A secure aggregation is needed, found none in: {comp.to_building_block()}"
        )


def assert_not_contains_secure_aggregation(comp: Any) -> None:
    """Asserts that a computation aggregates securely nowhere.

    Args:
        comp: A traced computation.

    Raises:
        AssertionError: If it does.
    """
    _refuse("secure", _aggregations(comp, _SECURE))


def assert_contains_unsecure_aggregation(comp: Any) -> None:
    """Asserts that a computation aggregates in the clear somewhere.

    Args:
        comp: A traced computation.

    Raises:
        AssertionError: If it does not.
    """
    if not _aggregations(comp, _UNSECURE):
        raise AssertionError(
            "An unsecure aggregation is needed, found none in: "
            f"{comp.to_building_block()}"
        )


def assert_not_contains_unsecure_aggregation(comp: Any) -> None:
    """Asserts that nothing is aggregated in the clear.

    Args:
        comp: A traced computation.

    Raises:
        AssertionError: If it is.
    """
    _refuse("unsecure", _aggregations(comp, _UNSECURE))


def _refuse(kind: str, found: list[ir.Node]) -> None:
    if found:
        lines = "".join(f"\n    {call}" for call in found)
        raise AssertionError(f"No {kind} aggregation is wanted, found:{lines}")


def _aggregations(comp: Any, uris: frozenset[str]) -> list[ir.Node]:
    if not isinstance(comp, ConcreteComputation):
        raise TypeError(
            f"A traced computation is needed, found `{type(comp).__name__}`.\n"
            "Declare the types of its parameters in the decorator."
        )
    found: list[ir.Node] = []

    def look(node: ir.Node) -> ir.Node:
        match node:
            case ir.Call(ir.Intrinsic(uri), argument) if uri in uris:
                # What carries no tensor tells nothing, however it is summed.
                if argument is None or _carries_tensors(node.type):
                    found.append(node)
        return node

    ir.rewrite(comp.node, look)
    return found


def _carries_tensors(type_: Type) -> bool:
    return type_.is_tensor() or any(map(_carries_tensors, type_.children()))


def assert_types_identical(first_type: Any, second_type: Any) -> None:
    """Asserts that two types are the same.

    Args:
        first_type: A type, or what `to_type` takes.
        second_type: The other.

    Raises:
        AssertionError: Says where they differ.
    """
    first, second = to_type(first_type), to_type(second_type)
    _assert(first.is_identical_to(second), first, second, TypeRelation.IDENTICAL)


def assert_types_equivalent(first_type: Any, second_type: Any) -> None:
    """Asserts that two types can stand for each other.

    Args:
        first_type: A type, or what `to_type` takes.
        second_type: The other.

    Raises:
        AssertionError: Says where they differ.
    """
    first, second = to_type(first_type), to_type(second_type)
    _assert(first.is_equivalent_to(second), first, second, TypeRelation.EQUIVALENT)


def assert_type_assignable_from(target_type: Any, source_type: Any) -> None:
    """Asserts that a value of one type can be used where another is wanted.

    Args:
        target_type: The type that is wanted, or what `to_type` takes.
        source_type: The type of the value.

    Raises:
        AssertionError: Says where they differ.
    """
    target, source = to_type(target_type), to_type(source_type)
    fits = target.is_assignable_from(source)
    _assert(fits, source, target, TypeRelation.ASSIGNABLE)


def _assert(holds: bool, first: Type, second: Type, relation: TypeRelation) -> None:
    if not holds:
        raise AssertionError(type_mismatch_error_message(first, second, relation))


class RuntimeErrorContext(SyncContext):
    """A context in which nothing can be called."""

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Raises.

        Args:
            comp: The computation.
            arg: Its argument.

        Raises:
            ContextError: Always.
        """
        raise ContextError(
            f"`{getattr(comp, '__name__', comp)}` is called in a context that runs "
            "nothing.\nInstall another: `with fedcore.context.use(context):`"
        )


def create_runtime_error_context() -> RuntimeErrorContext:
    """A context in which every call is a `ContextError` (a RuntimeError).

    Returns:
        The context; under it code can be tested to trace without calling.
    """
    return RuntimeErrorContext()


def with_context(
    context_fn: Callable[[], SyncContext | AsyncContext],
    environment_fn: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Runs a test in a context of its own.

    Args:
        context_fn: Makes the context.
        environment_fn: Makes a context manager to be entered around it, if given.

    Returns:
        A decorator of test functions; a coroutine function is run to its end, in the
        same way.
    """

    def decorator(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            environment = environment_fn() if environment_fn else None
            with environment or contextlib.nullcontext(), use(context_fn()):
                return fn(*args, **kwargs)

        @functools.wraps(fn)
        async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
            environment = environment_fn() if environment_fn else None
            with environment or contextlib.nullcontext(), use(context_fn()):
                return await fn(*args, **kwargs)

        @functools.wraps(fn)
        def run_to_end(*args: Any, **kwargs: Any) -> Any:
            context.run_coroutine(run_coroutine(*args, **kwargs))

        return run_to_end if inspect.iscoroutinefunction(fn) else run

    return decorator


def with_contexts(
    *named_contexts: tuple[Any, ...],
) -> Callable[[Callable[..., Any]], Any]:
    """Runs a test of an absl `parameterized.TestCase` once in each of several contexts.

    Args:
        *named_contexts: `(name, context_fn)` or `(name, context_fn, environment_fn)`,
            each as for `with_context`; the name is added to that of the test.

    Returns:
        A decorator of test methods.

    Raises:
        TypeError: If something else is given.
    """
    for named in named_contexts:
        if not isinstance(named, tuple) or len(named) not in (2, 3):
            raise TypeError(
                "`with_contexts` needs tuples `(name, context_fn)` or `(name, "
                f"context_fn, environment_fn)`, found `{type(named).__name__}`."
            )

    def decorator(fn: Callable[..., Any]) -> Any:
        @functools.wraps(fn)
        def run(self: Any, context_fn: Any, environment_fn: Any = None) -> Any:
            return with_context(context_fn, environment_fn)(fn)(self)

        del run.__wrapped__  # absl would see the parameters of `fn`
        return parameterized.named_parameters(*named_contexts)(run)

    return decorator


__all__ = [
    "assert_contains_secure_aggregation",
    "assert_contains_unsecure_aggregation",
    "assert_not_contains_secure_aggregation",
    "assert_not_contains_unsecure_aggregation",
    "assert_type_assignable_from",
    "assert_types_equivalent",
    "assert_types_identical",
    "create_runtime_error_context",
    "set_no_default_context",
    "with_context",
    "with_contexts",
]
