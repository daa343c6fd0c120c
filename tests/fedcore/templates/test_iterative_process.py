"""`IterativeProcess`: what fits together, and a name for each breach."""

import collections

import pytest
import tensorflow as tf

import fedcore
from fedcore.templates import (
    IterativeProcess,
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateStateNotAssignableError,
)
from fedcore.types import at_clients, at_server, to_type

OD = collections.OrderedDict
AB = OD(a=tf.int32, b=tf.float32)


def tfc(fn, *types):
    return fedcore.tf_computation(fn, *types)


def fc(fn, *types):
    return fedcore.federated_computation(fn, *types)


def zero():
    return tfc(lambda: 0)


def pair():
    return tfc(lambda: (0, 1.0))


# --- Types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initialize", "next_fn", "several", "state_type"),
    [
        (zero(), tfc(lambda s: s + 1, tf.int32), None, tf.int32),
        (zero(), tfc(lambda s, x: (s + x, x), tf.int32, tf.int32), None, tf.int32),
        (zero(), tfc(lambda s, x: s + x, tf.int32, tf.int32), None, tf.int32),
        (zero(), tfc(lambda s, x: s + x, tf.int32, tf.int32), True, tf.int32),
        (zero(), tfc(lambda s: s[0], [tf.int32]), None, tf.int32),
        (tfc(lambda: OD(a=0, b=1.0)), tfc(lambda s: s, AB), None, AB),
        (tfc(lambda: OD(a=0, b=1.0)), tfc(lambda s, x: s, AB, tf.int32), None, AB),
        (
            pair(),
            tfc(lambda s: s, (tf.int32, tf.float32)),
            False,
            (tf.int32, tf.float32),
        ),
        (
            pair(),
            tfc(lambda s, x: s, (tf.int32, tf.float32), tf.int32),
            None,
            (tf.int32, tf.float32),
        ),
        # The state is what `next` takes: it may be more general than the first one.
        (
            tfc(lambda: tf.zeros([3])),
            tfc(lambda s: tf.concat([s, s], 0), (tf.float32, [None])),
            None,
            (tf.float32, [None]),
        ),
        (
            fc(lambda: fedcore.federated_value(0, fedcore.SERVER)),
            fc(lambda s, x: (s, x), at_server(tf.int32), at_clients(tf.int32)),
            None,
            at_server(tf.int32),
        ),
    ],
)
def test_processes_that_fit(initialize, next_fn, several, state_type):
    process = IterativeProcess(initialize, next_fn, several)
    assert process.state_type.is_equivalent_to(to_type(state_type))
    assert process.initialize is initialize
    assert process.next is next_fn


def test_repr_shows_both_types():
    process = IterativeProcess(zero(), tfc(lambda s: s + 1, tf.int32))
    assert repr(process) == (
        "<IterativeProcess\n  initialize: ( -> int32)\n  next: (int32 -> int32)>"
    )


# --- Values --------------------------------------------------------------------------


def test_state_goes_in_and_comes_out():
    @fedcore.tf_computation(tf.int32, tf.int32)
    def next_fn(state, value):
        return state + value, state

    process = IterativeProcess(zero(), next_fn)
    state = process.initialize()
    outputs = []
    for value in (1, 2, 3):
        state, output = process.next(state, value)
        outputs.append(output)
    assert (state, outputs) == (6, [0, 1, 3])


# --- Errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initialize", "next_fn", "message"),
    [
        (lambda: 0, tfc(lambda s: s, tf.int32), "`initialize_fn` needs to be a traced"),
        (
            zero(),
            lambda s: s,
            "`next_fn` needs to be a traced computation, found `function`",
        ),
        (
            zero(),
            tfc(lambda s: s),
            "Declare the types of its parameters in the decorator",
        ),
        (zero(), None, "`next_fn` needs to be a traced computation, found `NoneType`"),
    ],
)
def test_only_traced_computations_are_taken(initialize, next_fn, message):
    with pytest.raises(TypeError, match=message):
        IterativeProcess(initialize, next_fn)


def test_initialize_takes_no_argument():
    identity = tfc(lambda x: x, tf.int32)
    with pytest.raises(
        TemplateInitFnParamNotEmptyError, match="`initialize_fn` needs to"
    ):
        IterativeProcess(identity, identity)


@pytest.mark.parametrize(
    ("next_fn", "several", "message"),
    [
        (
            zero(),
            None,
            r"`next_fn` needs to take the state, found no parameter in `\( -> ",
        ),
        (
            tfc(lambda s: s, tf.int32),
            True,
            "needs to take several arguments, the state fi",
        ),
        (
            tfc(lambda s: 0, ()),
            True,
            "needs to take several arguments, the state first",
        ),
    ],
)
def test_next_takes_the_state(next_fn, several, message):
    with pytest.raises(TemplateNextFnNumArgsError, match=message):
        IterativeProcess(zero(), next_fn, several)


@pytest.mark.parametrize(
    ("initialize", "next_fn", "several", "source"),
    [
        (zero(), tfc(lambda s: s, tf.float32), None, "initialize_fn"),
        (zero(), tfc(lambda s, x: s, tf.float32, tf.int32), None, "initialize_fn"),
        (zero(), tfc(lambda s, x: s, tf.int32, tf.int32), False, "initialize_fn"),
        (pair(), tfc(lambda s: s, (tf.int32, tf.float32)), True, "initialize_fn"),
        (zero(), tfc(lambda s: tf.cast(s, tf.float32), tf.int32), None, "next_fn"),
        (zero(), tfc(lambda s, x: (1.0, s), tf.int32, tf.int32), None, "next_fn"),
        (
            tfc(lambda: tf.zeros([3])),
            tfc(lambda s: tf.zeros([4]), (tf.float32, [3])),
            None,
            "next_fn",
        ),
    ],
)
def test_states_that_do_not_fit(initialize, next_fn, several, source):
    message = f"`next_fn` needs to take the state that `{source}` returns"
    with pytest.raises(TemplateStateNotAssignableError, match=message):
        IterativeProcess(initialize, next_fn, several)
