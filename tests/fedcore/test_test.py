"""What tests are written with."""

import asyncio
import contextlib

import pytest
import tensorflow as tf
from absl.testing import parameterized

import fedcore
from fedcore.backends import native
from fedcore.backends import test as test_backend

INTS = fedcore.type_at_clients(tf.int32)
plain = fedcore.federated_computation(fedcore.federated_sum, INTS)
secure = fedcore.federated_computation(
    lambda x: fedcore.federated_secure_sum_bitwidth(x, 8), INTS
)


def test_aggregations_are_told_apart():
    fedcore.test.assert_contains_secure_aggregation(secure)
    fedcore.test.assert_not_contains_unsecure_aggregation(secure)
    fedcore.test.assert_contains_unsecure_aggregation(plain)
    fedcore.test.assert_not_contains_secure_aggregation(plain)
    with pytest.raises(AssertionError, match="A secure aggregation is needed"):
        fedcore.test.assert_contains_secure_aggregation(plain)
    with pytest.raises(AssertionError, match="No unsecure aggregation is wanted"):
        fedcore.test.assert_not_contains_unsecure_aggregation(plain)
    with pytest.raises(AssertionError, match="An unsecure aggregation is needed"):
        fedcore.test.assert_contains_unsecure_aggregation(secure)
    with pytest.raises(AssertionError, match="No secure aggregation is wanted"):
        fedcore.test.assert_not_contains_secure_aggregation(secure)
    with pytest.raises(TypeError, match="A traced computation is needed"):
        fedcore.test.assert_contains_secure_aggregation(3)


def test_types_are_compared():
    fedcore.test.assert_types_identical(tf.int32, tf.int32)
    fedcore.test.assert_types_equivalent(tf.int32, tf.int32)
    fedcore.test.assert_type_assignable_from((tf.int32, [None]), (tf.int32, [3]))
    for check, relation in (
        (fedcore.test.assert_types_identical, "identical"),
        (fedcore.test.assert_types_equivalent, "equivalent"),
        (fedcore.test.assert_type_assignable_from, "assignable"),
    ):
        with pytest.raises(AssertionError, match=f"is not {relation} to type"):
            check(tf.int32, tf.bool)


def test_nothing_runs_in_a_runtime_error_context():
    context = fedcore.test.create_runtime_error_context()
    refused = pytest.raises(RuntimeError, match="in a context that runs nothing")
    with fedcore.context.use(context), refused:
        plain([1, 2])


def test_with_context_runs_a_test_in_a_context_of_its_own():
    entered = []

    @contextlib.contextmanager
    def environment():
        entered.append(True)
        yield

    @fedcore.test.with_context(fedcore.test.create_runtime_error_context, environment)
    def refused():
        with pytest.raises(RuntimeError):
            plain([1, 2])

    @fedcore.test.with_context(native.create_local_async_python_execution_context)
    async def awaited():
        assert await plain([1, 2]) == 3

    refused()
    awaited()
    assert entered == [True]
    assert plain([1, 2]) == 3
    assert not asyncio.iscoroutinefunction(awaited)


def test_with_contexts_makes_a_test_for_each():
    ran = []

    class Tests(parameterized.TestCase):
        @fedcore.test.with_contexts(
            ("_local", native.create_local_python_execution_context),
            ("_test", test_backend.create_test_python_execution_context),
        )
        def test_sum(self):
            ran.append(self.id().rsplit(".", 1)[-1])
            assert plain([1, 2]) == 3

    for name in ("test_sum_local", "test_sum_test"):
        Tests(name).debug()
    assert ran == ["test_sum_local", "test_sum_test"]
    with pytest.raises(TypeError, match="`with_contexts` needs tuples"):
        fedcore.test.with_contexts(lambda: 3)
