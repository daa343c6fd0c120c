"""Contexts by the names of TFF: sync, async, counting, merging."""

import asyncio

import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore.backends import native
from fedcore.backends import test as test_backend

CLIENTS = fedcore.type_at_clients(tf.float32)
total = fedcore.federated_computation(fedcore.federated_sum, CLIENTS)


@fedcore.tf_computation(tf.float32, tf.float32)
def times(x, y):
    return x * y


@fedcore.federated_computation(fedcore.type_at_server(tf.float32), CLIENTS)
def scaled_mean(scale, data):
    sent = fedcore.federated_broadcast(scale)
    scaled = fedcore.federated_map(times, (data, sent))
    return fedcore.federated_mean(scaled), scaled


def test_async_context_is_awaited():
    context = native.create_local_async_python_execution_context()

    async def two_at_once():
        return await asyncio.gather(total([1.0, 2.0]), total([3.0]))

    with fedcore.context.use(context):
        assert asyncio.run(two_at_once()) == [3.0, 3.0]


def test_setting_a_context_makes_it_the_default():
    try:
        native.set_local_async_python_execution_context()
        assert asyncio.run(total([1.0, 2.0])) == 3.0
        test_backend.set_test_python_execution_context(default_num_clients=2)
        assert total([1.0, 2.0]) == 3.0
        context = native.create_local_async_python_execution_context()
        native.set_mergeable_comp_execution_context([context])
        assert total([1.0, 2.0]) == 3.0
    finally:
        native.set_local_python_execution_context()
    assert total([1.0, 2.0]) == 3.0


def test_sizing_counts_what_is_sent_and_not_what_clients_have():
    context = native.create_sizing_execution_context()
    with fedcore.context.use(context):
        scaled_mean(2.0, [1.0, 2.0, 3.0])
        total([1.0, 2.0])
        total([1.0, 2.0])
    info = context.executor_factory.get_size_info()
    three, two = (("CLIENTS", 3),), (("CLIENTS", 2),)
    assert info.broadcast_history[three] == [[1, tf.float32]] * 3
    assert info.aggregate_history[two] == [[1, tf.float32]] * 4
    assert info.broadcast_bits == [96, 0]
    assert info.aggregate_bits == [96, 128]


def test_sizing_counts_tensors_of_unknown_size():
    @fedcore.tf_computation(tf.int32)
    def ones(n):
        return tf.reduce_sum(tf.ones([n])), tf.ones([n], tf.float64)

    last = fedcore.tf_computation(
        lambda a, v: tf.reduce_sum(v[1]) + a, tf.float64, ones.type_signature.result
    )
    add = fedcore.tf_computation(lambda a, b: a + b, tf.float64, tf.float64)
    same = fedcore.tf_computation(lambda a: a, tf.float64)

    @fedcore.federated_computation(fedcore.type_at_clients(tf.int32))
    def run(n):
        made = fedcore.federated_map(ones, n)
        zero = fedcore.tf_computation(lambda: tf.constant(0.0, tf.float64))
        return fedcore.federated_aggregate(made, zero(), last, add, same)

    context = native.create_sizing_execution_context()
    with fedcore.context.use(context):
        assert run([2, 5]) == 7.0
    info = context.executor_factory.get_size_info()
    assert [2, tf.float64] in info.aggregate_history[(("CLIENTS", 2),)]
    assert [5, tf.float64] in info.aggregate_history[(("CLIENTS", 2),)]


@pytest.mark.parametrize("parts", [None, 1, 3, 10])
def test_merging_gives_what_one_context_gives(parts):
    one = native.create_local_async_python_execution_context()
    context = native.create_mergeable_comp_execution_context([one, one], parts)
    data = [1.0, 2.0, 3.0, 4.0]
    with fedcore.context.use(context):
        mean, scaled = scaled_mean(2.0, data)
        assert total([]) == 0.0
        assert times(2.0, 3.0) == 6.0
    np.testing.assert_allclose(mean, 5.0)
    assert scaled == [2.0, 4.0, 6.0, 8.0]


def test_merging_refuses_what_cannot_be_merged():
    @fedcore.federated_computation(CLIENTS)
    def centred(data):
        mean = fedcore.federated_broadcast(fedcore.federated_mean(data))
        return fedcore.federated_map(times, (data, mean))

    one = native.create_local_async_python_execution_context()
    context = native.create_mergeable_comp_execution_context([one])
    refused = pytest.raises(ValueError, match="only if none needs the result of an agg")
    with fedcore.context.use(context), refused:
        centred([1.0])
    with pytest.raises(ValueError, match="at least one context"):
        native.create_mergeable_comp_execution_context([])
    with pytest.raises(ValueError, match="`num_subrounds` needs to be >= 1"):
        native.create_mergeable_comp_execution_context([one], 0)


def test_native_form_is_said_in_primitive_intrinsics():
    native_total = native.transform_to_native_form(total)
    assert native_total.type_signature == total.type_signature
    assert "federated_sum" not in str(native_total.to_building_block())
    assert native_total([1.0, 2.0]) == 3.0
    with pytest.raises(TypeError, match="needs a traced computation"):
        native.transform_to_native_form(3)
