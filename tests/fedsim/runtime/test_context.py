"""The contexts of this machine: how many clients a call has, seeds, what they refuse."""

import collections

import pytest
import tensorflow as tf

import fedcore
from fedcore import context
from fedcore.types import CLIENTS, SequenceType, at_clients, at_server
from fedsim.runtime import CardinalityError, local_context, reference_context

INTS = at_clients(tf.int32)


@pytest.fixture(params=[reference_context, local_context])
def make(request):
    return request.param


@fedcore.tf_computation
def one():
    return 1


@fedcore.federated_computation
def count():
    return fedcore.federated_sum(fedcore.federated_eval(one, CLIENTS))


@fedcore.federated_computation
def shared():
    return fedcore.federated_eval(one, CLIENTS), fedcore.federated_value(7, CLIENTS)


@pytest.mark.parametrize("clients", [0, 1, 5])
def test_default_num_clients(make, clients):
    with context.use(make(default_num_clients=clients)):
        assert count() == clients
        assert shared() == ([1] * clients, 7)


def test_there_are_no_clients_unless_it_is_said(make):
    with context.use(make()):
        assert count() == 0


def test_arguments_say_how_many_clients_there_are(make):
    @fedcore.federated_computation(INTS)
    def fn(x):
        ones = fedcore.federated_eval(one, CLIENTS)
        return fedcore.federated_sum(ones), fedcore.federated_sum(x)

    with context.use(make(default_num_clients=5)):
        assert fn([3, 4]) == (2, 7)
        assert fn([]) == (0, 0)


def test_all_equal_arguments_do_not_say_it(make):
    @fedcore.federated_computation(at_clients(tf.int32, all_equal=True))
    def fn(x):
        return fedcore.federated_sum(x)

    with context.use(make(default_num_clients=3)):
        assert fn(4) == 12


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (
            (INTS, INTS),
            ([1, 2], [1]),
            r"found 2 in `argument\[0\]`, 1 in `argument\[1\]`",
        ),
        (
            collections.OrderedDict(x=INTS, y=(at_server(tf.int32), INTS)),
            collections.OrderedDict(x=[1], y=(5, [])),
            r"found 1 in `argument.x`, 0 in `argument.y\[1\]`",
        ),
        (
            (INTS, at_clients(SequenceType(tf.int32))),
            ([1], [[1], [2]]),
            "All lists of client values in one call need the same length",
        ),
    ],
)
def test_lists_of_different_lengths_are_refused(make, type_, value, message):
    fn = fedcore.federated_computation(lambda x: x, type_)
    with context.use(make()), pytest.raises(CardinalityError, match=message) as caught:
        fn(value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("number", [-1])
def test_a_number_of_clients_is_not_negative(make, number):
    with pytest.raises(
        ValueError, match=r"`default_num_clients` needs to be >= 0, found"
    ):
        make(default_num_clients=number)


def test_the_native_backend_takes_the_names_of_tff():
    create = fedcore.backends.native.create_local_python_execution_context
    with context.use(create(default_num_clients=4)):
        assert count() == 4
