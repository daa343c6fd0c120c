"""A corpus of computations with arguments, for tests that compare ways of running them.

Every intrinsic, in every position that makes a difference to a compiler: nested structs,
strings, sequences in and out, two round trips, values kept at clients.
"""

import collections

import numpy as np
import tensorflow as tf

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
    federated_secure_modular_sum,
    federated_secure_select,
    federated_secure_sum,
    federated_secure_sum_bitwidth,
    federated_select,
    federated_sum,
    federated_value,
    federated_zip,
    sequence_map,
    sequence_reduce,
    sequence_sum,
    tf_computation,
)
from fedcore.types import (
    CLIENTS,
    SERVER,
    SequenceType,
    TensorType,
    at_clients,
    at_server,
    to_type,
)

COUNT = 21  # clients: more than one leaf, and leaves of more than one client


def _floats(shape=(), count=COUNT):
    rng = np.random.default_rng(7)
    return list(rng.normal(size=(count, *shape)).astype(np.float32))


def _ints(count=COUNT):
    return [(7 * i) % 23 for i in range(count)]


@tf_computation(tf.float32, tf.float32)
def _subtract(a, b):
    return a - b


@tf_computation(tf.int32, tf.int32)
def _add(a, b):
    return a + b


@tf_computation(tf.int32)
def _double(x):
    return 2 * x


@tf_computation(tf.float32)
def _square(x):
    return x * x


def server_only():
    @federated_computation(at_server(tf.float32), at_server(tf.float32))
    def fn(a, b):
        return federated_map(_subtract, (a, b)), federated_zip((a, b))

    return fn, (3.0, 1.0)


def no_placement():
    @tf_computation(tf.int32, tf.string)
    def fn(n, text):
        return collections.OrderedDict(n=n + 1, text=text + "!")

    return fn, (1, "ab")


def no_argument():
    @federated_computation
    def fn():
        return federated_value(5, SERVER), federated_value("x", SERVER)

    return fn, ()


def local_lambda():
    @federated_computation(tf.int32)
    def fn(x):
        return _double(_double(x)), x, (x, (10, [x]))

    return fn, (4,)


def several_aggregates():
    @federated_computation(
        at_clients(tf.float32), at_clients(tf.float32), at_clients(tf.int32)
    )
    def fn(x, w, k):
        return (
            federated_mean(x, w),
            federated_mean(x),
            federated_mean(x, k),
            federated_sum(k),
            federated_max(x),
            federated_min((x, k)),
        )

    return fn, (_floats(), [abs(x) + 1 for x in _floats()], [i + 1 for i in _ints()])


def two_round_trips():
    @federated_computation(at_clients(tf.float32))
    def fn(x):
        mean = federated_mean(x)
        difference = federated_map(_subtract, (x, federated_broadcast(mean)))
        spread = federated_sum(federated_map(_square, difference))
        return mean, difference, spread

    return fn, (_floats(),)


def nested_structures():
    type_ = to_type(
        collections.OrderedDict(
            z=TensorType(tf.float32, [2]),
            b=(tf.int32, collections.OrderedDict(c=tf.int64)),
        )
    )

    @federated_computation(at_clients(type_), at_server(type_))
    def fn(x, y):
        total = federated_sum(x)
        return (
            total,
            federated_zip(collections.OrderedDict(t=total, y=y)),
            x.b[1].c,
            y.z,
        )

    def value(i):
        return collections.OrderedDict(
            z=np.float32([i, -i]), b=(i, collections.OrderedDict(c=10 * i))
        )

    return fn, ([value(i) for i in range(COUNT)], value(3))


def all_equal_values():
    @federated_computation(
        at_server(tf.int32), fedcore.FederatedType(tf.int32, CLIENTS, True)
    )
    def fn(x, y):
        sent = federated_broadcast(x)
        both = federated_map(_add, (sent, y))
        passed = federated_map(lambda v: v, y)
        return sent, y, both, passed, federated_sum(passed), federated_sum(sent)

    return fn, (5, 7)


def constants_at_clients():
    @federated_computation(at_clients(tf.int32))
    def fn(x):
        one = federated_map(lambda v: 1, x)
        return one, federated_sum(one), federated_sum(federated_value(2, CLIENTS))

    return fn, (_ints(),)


def strings():
    @tf_computation(tf.string, tf.string)
    def join(a, b):
        return a + b

    @federated_computation(at_clients(tf.string), at_server(tf.string))
    def fn(x, y):
        joined = federated_map(join, (x, federated_broadcast(y)))
        longest = federated_max(
            federated_map(tf_computation(tf.strings.length, tf.string), joined)
        )
        return joined, longest

    return fn, (["a" * (i % 5) for i in range(COUNT)], "-end")


def aggregate_with_own_operators():
    @tf_computation
    def zero():
        return tf.constant(0), tf.constant("")

    @tf_computation((tf.int32, tf.string), tf.int32)
    def accumulate(state, x):
        return state[0] + x, state[1]

    @tf_computation((tf.int32, tf.string), (tf.int32, tf.string))
    def merge(a, b):
        return a[0] + b[0], a[1]

    @tf_computation((tf.int32, tf.string))
    def report(state):
        return collections.OrderedDict(half=state[0] / 2, text=state[1])

    @federated_computation(at_clients(tf.int32))
    def fn(x):
        return federated_aggregate(x, zero(), accumulate, merge, report)

    return fn, (_ints(),)


def zero_from_an_aggregate():
    @federated_computation(at_clients(tf.int32))
    def fn(x):
        most = federated_max(x)
        scaled = federated_map(_add, (x, federated_broadcast(most)))
        zero = federated_map(lambda v: v, most)
        maximum = tf_computation(tf.maximum, tf.int32, tf.int32)
        return federated_aggregate(
            scaled, zero, maximum, maximum, tf_computation(lambda v: v, tf.int32)
        )

    return fn, (_ints(),)


def secure_sums():
    @federated_computation(at_clients(tf.int32), at_clients((tf.int32, tf.int64)))
    def fn(x, pair):
        return (
            federated_secure_sum(x, 100),
            federated_secure_sum_bitwidth(x, 8),
            federated_secure_modular_sum(x, 11),
            federated_secure_sum(pair, (50, 60)),
            federated_secure_modular_sum(pair, (5, 6)),
        )

    return fn, (_ints(), [(i, 2 * i) for i in _ints()])


def select_with_keys_from_clients():
    @tf_computation(TensorType(tf.float32, [23, 2]), tf.int32)
    def pick(table, key):
        return tf.gather(table, key)

    @tf_computation(TensorType(tf.float32, [2]), TensorType(tf.float32, [2]))
    def add(a, b):
        return a + b

    @tf_computation
    def zero():
        return tf.zeros([2])

    def build(select):
        @federated_computation(
            at_clients(
                tf.int32,
            ),
            at_server(TensorType(tf.float32, [23, 2])),
        )
        def fn(x, table):
            keys = federated_map(
                tf_computation(lambda k: tf.stack([k, (k + 3) % 23]), tf.int32), x
            )
            slices = select(keys, federated_value(23, SERVER), table, pick)
            sums = federated_map(lambda s: sequence_reduce(s, zero(), add), slices)
            return federated_sum(sums), sums, slices

        return fn

    return build, (_ints(), np.arange(46, dtype=np.float32).reshape(23, 2))


def select():
    build, arguments = select_with_keys_from_clients()
    return build(federated_select), arguments


def secure_select():
    build, arguments = select_with_keys_from_clients()
    return build(federated_secure_select), arguments


def sequences():
    @federated_computation(at_clients(SequenceType(tf.int32)))
    def fn(data):
        doubled = federated_map(lambda s: sequence_map(_double, s), data)
        total = federated_map(sequence_sum, doubled)
        folded = federated_map(lambda s: sequence_reduce(s, 1, _add), data)
        return federated_sum(total), folded, doubled, data

    return fn, ([list(range(i % 4)) for i in range(COUNT)],)


def _batches(i):
    x = np.arange(5 * (i % 3 + 1), dtype=np.float32) + i
    spec = collections.OrderedDict(x=x, y=x.astype(np.int32))
    return tf.data.Dataset.from_tensor_slices(spec).batch(2)


def _batch_type():
    return SequenceType(
        collections.OrderedDict(
            x=TensorType(tf.float32, [None]), y=TensorType(tf.int32, [None])
        )
    )


def datasets():
    element = _batch_type().element

    @tf_computation(tf.float32, element)
    def step(state, batch):
        # The last, smaller batch counts as it is.
        return (
            state * 0.5
            + tf.reduce_mean(batch["x"])
            + tf.cast(batch["y"][-1], tf.float32)
        )

    @federated_computation(at_clients(_batch_type()), at_server(tf.float32))
    def fn(data, start):
        worked = federated_map(
            lambda p: sequence_reduce(p[0], p[1], step),
            (data, federated_broadcast(start)),
        )
        return federated_mean(worked), worked

    return fn, ([_batches(i) for i in range(COUNT)], 1.0)


def datasets_in_a_graph():
    @tf_computation(_batch_type(), tf.float32)
    def work(data, start):
        total = data.reduce(start, lambda s, b: s + tf.reduce_sum(b["x"]))
        return collections.OrderedDict(total=total, data=data.map(lambda b: b["y"] + 1))

    @federated_computation(at_clients(_batch_type()), at_server(tf.float32))
    def fn(data, start):
        worked = federated_map(work, (data, federated_broadcast(start)))
        return federated_sum(worked.total), worked

    return fn, ([_batches(i) for i in range(COUNT)], 1.0)


def sequence_at_the_server():
    @federated_computation(at_server(SequenceType(tf.int32)))
    def fn(data):
        total = federated_map(sequence_sum, data)
        return total, federated_sum(federated_broadcast(total)), data

    return fn, (tf.data.Dataset.range(7).map(lambda x: tf.cast(x, tf.int32)),)


def loop_with_a_value_around():
    @tf_computation(tf.float32, tf.float32, tf.float32)
    def step(scale, state, x):
        return scale * state + x

    @federated_computation(at_clients(SequenceType(tf.float32)), at_server(tf.float32))
    def fn(data, scale):
        def work(data, scale):
            first = sequence_reduce(data, 0.0, lambda s, x: step(scale, s, x))
            return sequence_reduce(data, first, lambda s, x: step(first, s, x))

        worked = federated_map(
            lambda p: work(p[0], p[1]), (data, federated_broadcast(scale))
        )
        return federated_sum(worked), worked

    return fn, ([list(np.float32(np.arange(i % 5))) for i in range(COUNT)], 0.5)


def unseeded_draws():
    import keras

    @tf_computation
    def draw():
        return keras.random.uniform([3])

    @federated_computation
    def fn():
        at = federated_eval(draw, CLIENTS)
        return federated_eval(draw, SERVER), at, federated_sum(at)

    return fn, ()


def unseeded_draws_in_a_loop():
    import keras

    @tf_computation(tf.float32, tf.float32)
    def step(state, x):
        return state + x * keras.random.uniform([])

    @federated_computation(at_clients(SequenceType(tf.float32)))
    def fn(data):
        return federated_map(lambda s: sequence_reduce(s, 0.0, step), data)

    return fn, ([list(np.float32(np.arange(i % 4))) for i in range(COUNT)],)


def unknown_shapes():
    @tf_computation(TensorType(tf.int32, [None]))
    def sort(x):
        return tf.sort(x)

    @federated_computation(at_clients(TensorType(tf.int32, [None])))
    def fn(x):
        longest = federated_max(
            federated_map(tf_computation(tf.size, TensorType(tf.int32, [None])), x)
        )
        return federated_map(sort, x), longest

    return fn, ([list(range(i % 5, 0, -1)) for i in range(COUNT)],)


ALL = [
    aggregate_with_own_operators,
    all_equal_values,
    constants_at_clients,
    datasets,
    datasets_in_a_graph,
    local_lambda,
    loop_with_a_value_around,
    nested_structures,
    no_argument,
    no_placement,
    secure_select,
    secure_sums,
    select,
    sequence_at_the_server,
    sequences,
    server_only,
    several_aggregates,
    strings,
    two_round_trips,
    unknown_shapes,
    unseeded_draws,
    unseeded_draws_in_a_loop,
    zero_from_an_aggregate,
]


def assert_same(found, wanted, *, tolerance=1e-5, path="result"):
    """Integers and strings exactly, floats nearly, sequences by their elements."""
    assert type(found) is type(wanted) or isinstance(
        wanted, np.generic | np.ndarray | tf.data.Dataset
    ), path
    if isinstance(wanted, tf.data.Dataset):
        found, wanted = list(found), list(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), path
        for key in wanted:
            assert_same(
                found[key], wanted[key], tolerance=tolerance, path=f"{path}.{key}"
            )
    elif isinstance(wanted, list | tuple | fedcore.structure.Struct):
        assert len(found) == len(wanted), path
        for i, (a, b) in enumerate(zip(found, wanted)):
            assert_same(a, b, tolerance=tolerance, path=f"{path}[{i}]")
    else:
        a, b = np.asarray(found), np.asarray(wanted)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        if a.dtype.kind == "f" and tolerance:
            np.testing.assert_allclose(a, b, tolerance, tolerance, err_msg=path)
        else:
            assert (
                a.tobytes() == b.tobytes() if a.dtype != object else (a == b).all()
            ), path
