"""What every intrinsic computes, by hand; and the reference runtime's own promises."""

import asyncio
import collections
import concurrent.futures

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
from fedcore import context
from fedcore.types import CLIENTS, SERVER, SequenceType, at_clients, at_server
from fedsim.runtime import (
    ClientError,
    EmptyMeanError,
    local_context,
    reference_context,
)

OD = collections.OrderedDict
PAIR = OD(a=tf.int32, b=(tf.float32, [2]))


@pytest.fixture(autouse=True, params=[reference_context, local_context])
def runtime(request):
    with context.use(request.param(seed=1)) as ctx:
        yield ctx


def run(fn, types, *args):
    return fedcore.federated_computation(fn, *types)(*args)


@fedcore.tf_computation(tf.int32, tf.int32)
def add(a, b):
    return a + b


@fedcore.tf_computation(tf.int32)
def double(x):
    return 2 * x


@fedcore.tf_computation
def gather(value, key):
    return tf.gather(value, key)


# --- Moving and mapping --------------------------------------------------------------


def test_value_and_broadcast():
    assert run(lambda: fedcore.federated_value("x", SERVER), ()) == b"x"
    assert run(lambda: fedcore.federated_value((), SERVER), ()) == ()
    assert run(fedcore.federated_broadcast, (at_server(tf.int32),), 5) == 5


@pytest.mark.parametrize("values", [[], [3], [1, 2, 3]])
def test_map(values):
    mapped = run(
        lambda x: fedcore.federated_map(double, x), (at_clients(tf.int32),), values
    )
    assert mapped == [2 * v for v in values]


def test_map_at_the_server_and_of_shared_values():
    assert (
        run(lambda x: fedcore.federated_map(double, x), (at_server(tf.int32),), 3) == 6
    )
    fn = fedcore.federated_computation(
        lambda x, y: fedcore.federated_map(add, (fedcore.federated_broadcast(x), y)),
        at_server(tf.int32),
        at_clients(tf.int32),
    )
    assert fn(10, [1, 2]) == [11, 12]
    assert fn(10, []) == []


def test_map_keeps_strings_and_nested_structures():
    def swap(x):
        return OD(inner=[x.b, OD(text=x.a)], empty=())

    type_ = at_clients(OD(a=tf.string, b=(tf.float64, [2])))
    [result] = run(
        lambda x: fedcore.federated_map(swap, x), (type_,), [OD(a="t", b=[1, 2])]
    )
    assert result["inner"][0].tolist() == [1, 2]
    assert result["inner"][1] == OD(text=b"t")
    assert result["empty"] == ()


def test_zip_and_selection():
    types = at_clients(tf.int32), at_clients(tf.int32, all_equal=True)
    zipped = run(lambda x, y: fedcore.federated_zip(OD(x=x, y=[y])), types, [1, 2], 5)
    assert zipped == [OD(x=1, y=[5]), OD(x=2, y=[5])]
    shared = at_clients(OD(a=tf.int32, b=tf.bool), all_equal=True)
    assert run(lambda x: (x.a, x[1:]), (shared,), OD(a=1, b=True)) == (1, [True])


@pytest.mark.parametrize(
    "select", [fedcore.federated_select, fedcore.federated_secure_select]
)
def test_select_by_keys_of_each_client(select):
    fn = fedcore.federated_computation(
        lambda keys, limit, value: select(keys, limit, value, gather),
        at_clients((tf.int32, [2])),
        at_server(tf.int32),
        at_server((tf.string, [3])),
    )
    result = fn([[2, 0], [1, 1]], 3, ["a", "b", "c"])
    assert [list(d.as_numpy_iterator()) for d in result] == [[b"c", b"a"], [b"b", b"b"]]
    assert fn([], 3, ["a", "b", "c"]) == []
    with pytest.raises(ClientError, match=r"keys in \[0, 3\), found 3") as caught:
        [list(d) for d in fn([[0, 1], [1, 3]], 3, ["a", "b", "c"])]
    assert caught.value.client == 1


# --- Aggregating ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [tf.uint8, tf.int32, tf.int64, tf.float16, tf.float32, tf.float64, tf.complex64],
)
def test_sum_of_every_dtype(dtype):
    total = run(fedcore.federated_sum, (at_clients(dtype),), [1, 2, 3])
    assert total == 6
    assert total.dtype == dtype.as_numpy_dtype


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        (fedcore.federated_sum, [], (0, [0, 0])),
        (fedcore.federated_sum, [(1, [1, 2])], (1, [1, 2])),
        (fedcore.federated_sum, [(1, [1, 2]), (5, [3, -4])], (6, [4, -2])),
        (fedcore.federated_max, [(1, [1, 2]), (5, [3, -4])], (5, [3, 2])),
        (fedcore.federated_min, [(1, [1, 2]), (5, [3, -4])], (1, [1, -4])),
        (
            fedcore.federated_max,
            [],
            (np.iinfo(np.int32).min, [np.finfo(np.float32).min] * 2),
        ),
        (
            fedcore.federated_min,
            [],
            (np.iinfo(np.int32).max, [np.finfo(np.float32).max] * 2),
        ),
    ],
)
def test_reductions_of_structures(operator, values, expected):
    values = [OD(a=a, b=b) for a, b in values]
    result = run(operator, (at_clients(PAIR),), values)
    assert (result["a"], result["b"].tolist()) == expected


def test_sum_of_shared_values_counts_the_clients():
    types = at_clients(tf.int32), at_clients(tf.int32, all_equal=True)
    fn = fedcore.federated_computation(
        lambda x, y: (fedcore.federated_sum(y), fedcore.federated_sum((x, y))), *types
    )
    assert fn([1, 2, 3], 5) == (15, (6, 15))


def test_sum_of_empty_structures():
    assert run(fedcore.federated_sum, (at_clients(()),), [(), ()]) == ()


@pytest.mark.parametrize("weights", [None, [1, 2, 3], [0.5, 0.0, 1.5], [2, -1, 1]])
def test_mean_is_that_of_numpy(weights):
    rng = np.random.default_rng(0)
    values = list(rng.normal(size=(3, 2, 2)).astype(np.float32))
    type_ = at_clients((tf.float32, [2, 2]))
    if weights is None:
        result = run(fedcore.federated_mean, (type_,), values)
    else:
        kind = tf.as_dtype(np.asarray(weights).dtype)
        result = run(
            lambda x, w: fedcore.federated_mean(x, w),
            (type_, at_clients(kind)),
            values,
            weights,
        )
    np.testing.assert_allclose(
        result, np.average(values, axis=0, weights=weights), rtol=1e-5
    )


def test_mean_of_structures_keeps_dtypes():
    type_ = at_clients(OD(a=tf.float64, b=[tf.float32]))
    result = run(fedcore.federated_mean, (type_,), [OD(a=1, b=[2]), OD(a=2, b=[4])])
    assert result == OD(a=1.5, b=[3.0])
    assert (result["a"].dtype, result["b"][0].dtype) == (np.float64, np.float32)


def test_mean_with_a_total_weight_of_zero_is_nan():
    types = at_clients(tf.float32), at_clients(tf.float32)
    assert np.isnan(
        run(lambda x, w: fedcore.federated_mean(x, w), types, [1.0, 2.0], [0.0, 0.0])
    )


def test_mean_of_one_client_is_its_value():
    assert run(fedcore.federated_mean, (at_clients(tf.float32),), [0.25]) == 0.25


def test_mean_over_no_clients_is_an_error_of_the_call():
    mean = fedcore.federated_computation(fedcore.federated_mean, at_clients(tf.float32))
    with pytest.raises(
        EmptyMeanError, match="`federated_mean` needs at least one client"
    ):
        mean([])


@pytest.mark.parametrize("values", [[], [3], [3, 4, 4, 7]])
def test_secure_sums_are_plain_sums(values):
    type_ = at_clients([tf.int32, (tf.int64, [2])])
    pairs = [[v, [v, 2 * v]] for v in values]
    plain = run(fedcore.federated_sum, (type_,), pairs)
    for operator, bound in (
        (fedcore.federated_secure_sum, [7, 14]),
        (fedcore.federated_secure_sum_bitwidth, 4),
        (fedcore.federated_secure_modular_sum, 1000),
    ):
        secure = run(lambda x, op=operator, b=bound: op(x, b), (type_,), pairs)
        assert secure[0] == plain[0]
        assert secure[1].tolist() == plain[1].tolist()


@pytest.mark.parametrize(
    ("values", "modulus", "expected"), [([3, 4, 4], 5, 1), ([-3, 1], 5, 3), ([], 5, 0)]
)
def test_modular_sum(values, modulus, expected):
    result = run(
        lambda x: fedcore.federated_secure_modular_sum(x, modulus),
        (at_clients(tf.int32),),
        values,
    )
    assert result == expected


def test_modular_sum_with_a_modulus_for_each_tensor():
    result = run(
        lambda x: fedcore.federated_secure_modular_sum(x, OD(a=5, b=7)),
        (at_clients(OD(a=tf.int32, b=tf.int64)),),
        [OD(a=4, b=6), OD(a=4, b=6)],
    )
    assert result == OD(a=3, b=5)


@pytest.mark.parametrize("values", [[], [5], [1, 2, 3, 4, 5]])
def test_aggregate(values):
    @fedcore.tf_computation
    def accumulate(state, value):
        return OD(n=state["n"] + 1, squares=state["squares"] + value * value)

    @fedcore.tf_computation
    def merge(a, b):
        return OD(n=a["n"] + b["n"], squares=a["squares"] + b["squares"])

    @fedcore.tf_computation
    def report(state):
        return state["n"], state["squares"]

    zero = OD(n=0, squares=0)
    result = run(
        lambda x: fedcore.federated_aggregate(x, zero, accumulate, merge, report),
        (at_clients(tf.int32),),
        values,
    )
    assert result == (len(values), sum(v * v for v in values))


def test_aggregate_from_a_zero_at_the_server():
    @fedcore.tf_computation(tf.int32, tf.int32)
    def greatest(a, b):
        return tf.maximum(a, b)

    fn = fedcore.federated_computation(
        lambda x, zero: fedcore.federated_aggregate(
            x, zero, greatest, greatest, double
        ),
        at_clients(tf.int32),
        at_server(tf.int32),
    )
    assert fn([1, 2, 3], 2) == 6
    assert fn([1, 2, 3], 50) == 100
    assert fn([], 4) == 8


# --- Sequences -----------------------------------------------------------------------


@pytest.mark.parametrize("values", [[], [4], [1, 2, 3]])
def test_sequence_operators(values):
    ints = SequenceType(tf.int32)
    assert run(fedcore.sequence_sum, (ints,), values) == sum(values)
    mapped = run(lambda x: fedcore.sequence_map(double, x), (ints,), values)
    assert list(mapped.as_numpy_iterator()) == [2 * v for v in values]

    @fedcore.tf_computation(tf.int32, tf.int32)
    def digits(total, value):
        return 10 * total + value

    folded = run(lambda x: fedcore.sequence_reduce(x, 9, digits), (ints,), values)
    assert folded == int("".join(map(str, [9, *values])))


def test_sequence_operators_inside_placements():
    ints = at_clients(SequenceType(tf.int32))
    data = [[1, 2], [], [5]]
    assert run(fedcore.sequence_sum, (ints,), data) == [3, 0, 5]
    result = run(
        lambda x, zero: fedcore.sequence_reduce(
            fedcore.sequence_map(double, x), fedcore.federated_broadcast(zero), add
        ),
        (ints, at_server(tf.int32)),
        data,
        100,
    )
    assert result == [106, 100, 110]
    assert run(fedcore.sequence_sum, (at_server(SequenceType(tf.int32)),), [1, 2]) == 3


def test_sequence_sum_of_structures():
    type_ = SequenceType(OD(a=tf.int64, b=(tf.float32, [2])))
    data = tf.data.Dataset.range(3).map(
        lambda i: {"a": i, "b": tf.fill([2], tf.cast(i, tf.float32))}
    )
    result = run(fedcore.sequence_sum, (type_,), data)
    assert (result["a"], result["b"].tolist()) == (3, [3.0, 3.0])


# --- Errors of clients ---------------------------------------------------------------


@fedcore.tf_computation(tf.int32)
def needs_positive(x):
    tf.debugging.assert_positive(x, "it is not positive")
    return x


def test_a_client_that_fails_is_named():
    @fedcore.federated_computation(at_clients(tf.int32))
    def my_round(x):
        return fedcore.federated_sum(fedcore.federated_map(needs_positive, x))

    assert my_round([1, 2, 3]) == 6
    with pytest.raises(
        ClientError, match=r"Client 1 of 3 failed in .* of `my_round`"
    ) as (caught):
        my_round([1, -1, 3])
    assert caught.value.client == 1
    assert caught.value.computation == "my_round"
    assert caught.value.__cause__ is not None
    assert "it is not positive" in str(caught.value)
    assert my_round([1, 2, 3]) == 6


def test_a_dataset_that_fails_names_its_client():
    def explode(i):
        with tf.control_dependencies([tf.debugging.assert_less(i, np.int64(2))]):
            return i

    ints = at_clients(SequenceType(tf.int64))
    fn = fedcore.federated_computation(
        lambda x: fedcore.federated_sum(fedcore.sequence_sum(x)), ints
    )
    good, bad = tf.data.Dataset.range(2), tf.data.Dataset.range(4).map(explode)
    assert fn([good, good]) == 2
    with pytest.raises(ClientError) as caught:
        fn([good, good, bad])
    assert caught.value.client == 2


# --- Draws ---------------------------------------------------------------------------


def _draws():
    @fedcore.tf_computation
    def draw():
        return keras.initializers.RandomNormal()([3])

    @fedcore.federated_computation
    def fn():
        return (
            fedcore.federated_eval(draw, SERVER),
            fedcore.federated_eval(draw, CLIENTS),
            draw(),
        )

    return fn


@pytest.mark.parametrize("make", [reference_context, local_context])
def test_the_same_seed_draws_the_same_bits(make):
    fn = _draws()

    def calls(seed):
        with context.use(make(default_num_clients=3, seed=seed)):
            return [fn(), fn()]

    def flat(results):
        return [np.ravel(part).tolist() for result in results for part in result]

    assert flat(calls(7)) == flat(calls(7))
    assert flat(calls(7)) != flat(calls(8))


@pytest.mark.parametrize("make", [reference_context, local_context])
def test_clients_and_calls_draw_differently(make):
    fn = _draws()
    with context.use(make(default_num_clients=3, seed=7)):
        first, second = fn(), fn()
    rows = [first[0], *first[1], second[0], *second[1]]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_a_computation_with_fresh_weights_draws_them_in_each_call():
    @fedcore.tf_computation
    def weights():
        return keras.layers.Dense(2).kernel_initializer([3, 2])

    with context.use(reference_context(seed=3)):
        first, second = weights(), weights()
    with context.use(reference_context(seed=3)):
        again = weights()
    assert first.tolist() == again.tolist()
    assert first.tolist() != second.tolist()


# --- Where a call may come from ------------------------------------------------------


def test_calls_from_many_threads(runtime):
    fn = fedcore.federated_computation(
        lambda x: fedcore.federated_sum(fedcore.federated_map(double, x)),
        at_clients(tf.int32),
    )

    def call(n):
        with context.use(runtime):
            return fn(list(range(n)))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(12)))
    assert results == [n * (n - 1) for n in range(12)]


def test_calls_under_a_running_event_loop():
    mean = fedcore.federated_computation(fedcore.federated_mean, at_clients(tf.float32))

    async def cell():
        await asyncio.sleep(0)
        return mean([1.0, 2.0])

    async def cells():
        return await asyncio.gather(cell(), cell())

    assert asyncio.run(cells()) == [1.5, 1.5]
    loop = asyncio.new_event_loop()  # as a notebook keeps one for all cells
    try:
        assert [loop.run_until_complete(cell()) for _ in range(2)] == [1.5, 1.5]
    finally:
        loop.close()


def test_a_failed_call_leaves_the_context_as_it_was(runtime):
    failing = fedcore.federated_computation(
        lambda x: fedcore.federated_map(needs_positive, x), at_clients(tf.int32)
    )
    with pytest.raises(ClientError):
        failing([-1])
    assert context.get_context_stack().current is runtime
    assert failing([1]) == [1]
