"""Random federated programs give one result on every runtime."""

import collections
import functools

import attrs
import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedcore
from fedcore import (
    federated_aggregate,
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_max,
    federated_mean,
    federated_min,
    federated_secure_sum_bitwidth,
    federated_select,
    federated_sum,
    federated_value,
    federated_zip,
    sequence_reduce,
    structure,
    tf_computation,
)
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructType,
    TensorType,
    to_type,
)
from fedsim import runtime

_MEMBERS = (
    to_type(tf.int32),
    to_type(tf.float32),
    TensorType(tf.float32, [3]),
    to_type((tf.int32, TensorType(tf.float32, [2]))),
    to_type(collections.OrderedDict(a=tf.float32, b=(tf.int32, tf.float32))),
)
_MODULUS = 97  # keeps integers small, so that floats made of them stay exact


@attrs.frozen
class Recipe:
    """A program: its parameters, what is done with them, what it returns.

    Each step is an operator and two numbers that choose among the values so far.
    """

    parameters: tuple
    steps: tuple
    results: tuple


_numbers = st.integers(0, 99)


def recipes(operators):
    parameters = st.tuples(
        st.sampled_from((CLIENTS, SERVER)), st.sampled_from(_MEMBERS)
    )
    return st.builds(
        lambda first, rest, steps, results: Recipe(
            ((CLIENTS, first), *rest), tuple(steps), tuple(results)
        ),
        st.sampled_from(_MEMBERS),
        st.lists(parameters, max_size=2),
        st.lists(
            st.tuples(st.sampled_from(operators), _numbers, _numbers),
            min_size=2,
            max_size=7,
        ),
        st.lists(_numbers, max_size=2),
    )


def built(recipe):
    """The computation of a recipe."""
    types = [FederatedType(m, p, p is SERVER) for p, m in recipe.parameters]

    @federated_computation(to_type(types))
    def fn(arguments):
        values = [arguments[i] for i in range(len(types))]
        for operator, i, j in recipe.steps:
            new = operator(values, i, j)
            if new is not None:
                values.append(new)
        chosen = [values[i % len(values)] for i in recipe.results]
        return [*chosen, *values[-2:]]

    return fn


def arguments(recipe, clients):
    """Values for the parameters, the same for the same recipe."""
    rng = np.random.default_rng(len(recipe.steps))

    def value(type_):
        if isinstance(type_, TensorType):
            shape = type_.shape.as_list()
            if type_.dtype == tf.int32:
                return rng.integers(-50, 50, shape).astype(np.int32)
            return rng.uniform(-1, 1, shape).astype(np.float32)
        items = [(n, value(t)) for n, t in structure.iter_elements(type_)]
        if items[0][0] is None:
            return tuple(item for _, item in items)
        return collections.OrderedDict(items)

    return [
        [value(m) for _ in range(clients)] if p is CLIENTS else value(m)
        for p, m in recipe.parameters
    ]


# --- Values to choose from ----------------------------------------------------------


def _of(values, i, fits):
    found = [value for value in values if fits(value.type_signature)]
    return found[i % len(found)] if found else None


def _at(place):
    return lambda type_: type_.placement is place


def _leaves(type_):
    if isinstance(type_, TensorType):
        return [type_]
    return [leaf for element in type_ for leaf in _leaves(element)]


def _floats_at_clients(type_):
    floats = all(t.dtype == tf.float32 for t in _leaves(type_.member))
    return type_.placement is CLIENTS and floats


def _scalar(dtype, place):
    return lambda t: t.placement is place and t.member == to_type(dtype)


# --- Work at one place, traced once for each type -----------------------------------


@functools.cache
def _changed(type_):
    def change(x):
        if x.dtype == tf.int32:
            return tf.math.floormod(3 * x + 5, _MODULUS)
        return tf.tanh(x * 0.5) + 0.25

    return tf_computation(lambda x: tf.nest.map_structure(change, x), type_)


@functools.cache
def _total(type_):
    @tf_computation(type_)
    def total(x):
        parts = [tf.reduce_sum(tf.cast(t, tf.float32)) for t in tf.nest.flatten(x)]
        return tf.tanh(tf.add_n(parts) / 100.0)

    return total


@functools.cache
def _mixed(a, b):
    @tf_computation(a, b)
    def mix(x, y):
        # Of the integers alone: rounding must not decide what is added.
        whole = [tf.reduce_sum(t) for t in tf.nest.flatten(y) if t.dtype == tf.int32]
        share = tf.math.floormod(tf.add_n([*whole, tf.constant(1)]), 7)
        return tf.nest.map_structure(lambda t: t + tf.cast(share, t.dtype), x)

    return mix


@functools.cache
def _weight():
    return tf_computation(lambda x: tf.abs(x) + 1, tf.int32)


@functools.cache
def _keys():
    return tf_computation(lambda x: tf.math.floormod(tf.stack([x, x + 1]), 4), tf.int32)


@functools.cache
def _row(type_):
    @tf_computation(type_, tf.int32)
    def row(x, key):
        def pick(t):
            return tf.cast(key, t.dtype) - t

        return tf.nest.map_structure(pick, x)

    return row


@functools.cache
def _zero(type_):
    def zeros(t):
        if isinstance(t, TensorType):
            return tf.zeros(t.shape, t.dtype)
        items = [(n, zeros(e)) for n, e in structure.iter_elements(t)]
        if items[0][0] is None:
            return tuple(item for _, item in items)
        return collections.OrderedDict(items)

    return tf_computation(lambda: zeros(type_))


@functools.cache
def _sum(type_):
    return tf_computation(
        lambda x, y: tf.nest.map_structure(tf.add, x, y), type_, type_
    )


# --- Operators ----------------------------------------------------------------------


def change(values, i, j):
    value = values[i % len(values)]
    return federated_map(_changed(value.type_signature.member), value)


def total(values, i, j):
    value = values[i % len(values)]
    return federated_map(_total(value.type_signature.member), value)


def mix(values, i, j):
    a = values[i % len(values)]
    b = _of(values, j, _at(a.type_signature.placement))
    fn = _mixed(a.type_signature.member, b.type_signature.member)
    return federated_map(fn, federated_zip((a, b)))


def pair(values, i, j):
    a = values[i % len(values)]
    b = _of(values, j, _at(a.type_signature.placement))
    if len(_leaves(a.type_signature.member)) > 6:
        return None
    return federated_zip(collections.OrderedDict(p=a, q=b))


def part(values, i, j):
    value = _of(values, i, lambda t: isinstance(t.member, StructType))
    if value is None:
        return None
    return value[j % len(value.type_signature.member)]


def swap(values, i, j):
    value = values[i % len(values)]
    return federated_map(lambda x: (x, [x]) if j % 2 else x, value)


def sum_(values, i, j):
    return federated_sum(_of(values, i, _at(CLIENTS)))


def least(values, i, j):
    return federated_min(_of(values, i, _at(CLIENTS)))


def most(values, i, j):
    return federated_max(_of(values, i, _at(CLIENTS)))


def secure_sum(values, i, j):
    value = _of(values, i, _scalar(tf.int32, CLIENTS))
    return None if value is None else federated_secure_sum_bitwidth(value, 20)


def mean(values, i, j):
    value = _of(values, i, _floats_at_clients)
    return None if value is None else federated_mean(value)


def weighted_mean(values, i, j):
    value = _of(values, i, _floats_at_clients)
    weight = _of(values, j, _scalar(tf.int32, CLIENTS))
    if value is None or weight is None:
        return None
    return federated_mean(value, federated_map(_weight(), weight))


def broadcast(values, i, j):
    value = _of(values, i, _at(SERVER))
    return None if value is None else federated_broadcast(value)


def constant(values, i, j):
    return federated_value(i if i % 2 else i / 10, SERVER if j % 2 else CLIENTS)


def evaluated(values, i, j):
    member = values[i % len(values)].type_signature.member
    return federated_eval(_zero(member), SERVER if j % 2 else CLIENTS)


def aggregate(values, i, j):
    value = _of(values, i, _at(CLIENTS))
    member = value.type_signature.member
    report = _changed(member)
    zero = _zero(member)()
    return federated_aggregate(value, zero, _sum(member), _sum(member), report)


def select(values, i, j):
    keys = _of(values, i, _scalar(tf.int32, CLIENTS))
    table = _of(values, j, _at(SERVER))
    if keys is None or table is None:
        return None
    member = table.type_signature.member
    slices = federated_select(
        federated_map(_keys(), keys), federated_value(4, SERVER), table, _row(member)
    )
    folded = functools.partial(sequence_reduce, zero=_zero(member)(), op=_sum(member))
    return federated_map(folded, slices)


OPERATORS = (
    aggregate,
    broadcast,
    change,
    constant,
    evaluated,
    least,
    mean,
    mix,
    most,
    pair,
    part,
    secure_sum,
    select,
    sum_,
    swap,
    total,
    weighted_mean,
)
NO_MEANS = tuple(op for op in OPERATORS if op not in (mean, weighted_mean))

SLOW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def run(context, fn, args):
    with fedcore.context.use(context):
        return fn(args)


def flat(result):
    if isinstance(result, dict):
        return [leaf for item in result.values() for leaf in flat(item)]
    if isinstance(result, list | tuple | structure.Struct):
        return [leaf for item in result for leaf in flat(item)]
    return [np.asarray(result)]


def assert_equal(found, wanted, exact):
    found, wanted = flat(found), flat(wanted)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if exact or b.dtype.kind != "f":
            assert a.tobytes() == b.tobytes()
        else:
            np.testing.assert_allclose(a, b, 1e-5, 1e-5)


@SLOW
@given(recipes(OPERATORS), st.sampled_from([1, 2, 3, 17, 40]))
def test_runtimes_agree(recipe, clients):
    fn, args = built(recipe), arguments(recipe, clients)
    options = {"seed": 1, "default_num_clients": clients}
    wanted = run(runtime.reference_context(**options), fn, args)
    one, two, eight = (
        run(runtime.local_context(workers=n, **options), fn, args) for n in (1, 2, 8)
    )
    assert_equal(one, wanted, exact=False)
    assert_equal(two, one, exact=True)
    assert_equal(eight, one, exact=True)


@settings(SLOW, max_examples=8)
@given(recipes(NO_MEANS))
def test_runtimes_agree_without_clients(recipe):
    fn, args = built(recipe), arguments(recipe, 0)
    wanted = run(runtime.reference_context(seed=1), fn, args)
    assert_equal(run(runtime.local_context(seed=1), fn, args), wanted, exact=False)
