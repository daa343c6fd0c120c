import collections
import concurrent.futures
import functools

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from fedsim.datasets.client_dataset import NoColumnarPlanError, same_pipeline
from fedsim.datasets.columnar import Columns


@functools.cache
def columns():
    """Clients "0", "1", "7", "30" have that many examples, numbered from 0."""
    sizes = [0, 1, 7, 30]
    number = np.concatenate([np.arange(n) for n in sizes]).astype(np.int64)
    return Columns(
        collections.OrderedDict(number=number, image=np.stack([number] * 3, 1) * 0.5),
        np.cumsum([0, *sizes]),
        map(str, sizes),
    )


def add_one(e):
    return collections.OrderedDict(number=e["number"] + 1, image=e["image"] - 1.0)


def odd(e):
    return e["number"] % 2 == 1


def never(e):
    return e["number"] < 0


COUNTS = st.sampled_from([-1, 0, 1, 2, 3, 5, 8, 40])
UNORDERED = {
    "repeat": st.tuples(st.sampled_from([0, 1, 2, 3])),
    "take": st.tuples(COUNTS),
    "skip": st.tuples(COUNTS),
    "batch": st.tuples(st.integers(1, 9), st.booleans()),
    "map": st.just((add_one,)),
    "filter": st.sampled_from([(odd,), (odd,), (never,)]),
    "prefetch": st.just((2,)),
    "cache": st.just(()),
    "endless": st.just(()),
}
SHUFFLED = UNORDERED | {
    "repeat": st.tuples(st.sampled_from([1, 2, 3])),
    "shuffle": st.tuples(
        st.sampled_from([1, 2, 5, 100, -2]),
        st.sampled_from([None, 3]),
        st.sampled_from([None, True, False]),
    ),
}


def chains(table):
    step = st.sampled_from(sorted(table)).flatmap(
        lambda name: st.tuples(st.just(name), table[name])
    )
    return st.lists(step, max_size=5)


def record(dataset, chain):
    for name, arguments in chain:
        # An endless repeat always comes with an end.
        if name == "endless":
            dataset = dataset.repeat().take(17)
        else:
            dataset = getattr(dataset, name)(*arguments)
    return dataset


def runs_on_tf_data(chain):
    """Whether `odd` gets rows, and a batch equal shapes."""
    names = [name for name, _ in chain]
    batches = [arguments for name, arguments in chain if name == "batch"]
    filtered = "batch" in names and "filter" in names[names.index("batch") :]
    return not filtered and all(drop for _, drop in batches[:-1])


def values(dataset):
    return [
        tf.nest.map_structure(lambda a: np.asarray(a).tolist(), element)
        for element in dataset.as_numpy_iterator()
    ]


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(chains(UNORDERED), st.sampled_from(["0", "1", "7", "30"]))
def test_unshuffled_chains_are_what_tf_data_makes(chain, client):
    hypothesis.assume(runs_on_tf_data(chain))
    source = columns().dataset(client)
    dataset = record(source, chain)
    expected = record(tf.data.Dataset.from_tensor_slices(source._rows()), chain)
    assert dataset.element_spec == expected.element_spec
    assert dataset.cardinality() == expected.cardinality()
    assert values(dataset) == values(expected)
    if dataset.no_plan_reason is None:
        assert_plan_is(dataset, expected)


def assert_plan_is(dataset, expected):
    plan = dataset.plan(0)
    assert plan.rows.dtype == plan.counts.dtype == plan.starts.dtype == np.int32
    assert plan.starts.tolist() == [0, len(plan.rows)]
    read = np.arange(plan.rows.shape[1]) < plan.counts[:, None]
    assert (plan.rows[~read] == -1).all()
    assert ((plan.rows[read] >= dataset.start) & (plan.rows[read] < dataset.stop)).all()
    added = len(dataset.form.row_maps) + len(dataset.form.batch_maps)
    found = [
        (dataset.columns.features["number"][rows[:count]] + added).tolist()
        for rows, count in zip(plan.rows, plan.counts)
    ]
    wanted = [np.atleast_1d(e["number"]).tolist() for e in expected.as_numpy_iterator()]
    assert found == wanted


def sizes(dataset):
    return [np.size(e["number"]) for e in dataset.as_numpy_iterator()]


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(chains(SHUFFLED), st.sampled_from(["0", "1", "7", "30"]))
def test_shuffled_chains_have_the_elements_of_tf_data(chain, client):
    hypothesis.assume(runs_on_tf_data(chain))
    source = columns().dataset(client)
    dataset = record(source, chain)
    expected = record(tf.data.Dataset.from_tensor_slices(source._rows()), chain)
    names = [name for name, _ in chain]
    after = names[names.index("shuffle") :] if "shuffle" in names else []
    # Which elements are left depends on the order, where some are dropped after it.
    dropped = set(after) & {"take", "skip", "filter", "endless"} or any(
        name == "batch" and arguments[1] for name, arguments in chain
    )
    assert dataset.cardinality() == expected.cardinality()
    if "filter" not in names and not ("batch" in names and after):
        assert sizes(dataset) == sizes(expected)
    if not dropped:
        assert numbers(dataset) == numbers(expected)
        assert sum(sizes(dataset)) == sum(sizes(dataset.to_tf()))
    if dataset.no_plan_reason is None:
        a, b = dataset.plan(5), dataset.plan(5)
        np.testing.assert_array_equal(a.rows, b.rows)
        # tf.data, too, counts an endless repeat of nothing as endless.
        if dataset.cardinality() >= 0 and "endless" not in names:
            assert len(a.rows) == dataset.cardinality()


def numbers(dataset):
    return sorted(
        n for e in dataset.as_numpy_iterator() for n in np.atleast_1d(e["number"])
    )


def order(dataset):
    return [int(n) for e in dataset for n in np.atleast_1d(e["number"].numpy())]


@pytest.mark.parametrize("buffer_size", [1, 2, 5, 29, 30, 100, -2])
@pytest.mark.parametrize("seed", range(5))
def test_shuffle_keeps_the_window(buffer_size, seed):
    found = order(columns().dataset("30").shuffle(buffer_size, seed=seed))
    assert sorted(found) == list(range(30))
    window = 30 if buffer_size < 0 else buffer_size
    assert all(n < p + window for p, n in enumerate(found))
    if buffer_size == 1:
        assert found == list(range(30))


def test_shuffle_after_repeat_mixes_epochs_within_the_window():
    dataset = columns().dataset("7").repeat(4).shuffle(10)
    rows = dataset.plan(1).rows[:, 0] - dataset.start
    assert np.bincount(rows).tolist() == [4] * 7
    assert sorted(rows[:7]) != list(range(7))
    # The k-th time an example leaves, its k-th epoch has entered.
    seen = collections.Counter()
    for p, row in enumerate(rows):
        assert 7 * seen[row] + row < p + 10
        seen[row] += 1


def test_repeat_after_shuffle_keeps_epochs_apart_and_differs():
    dataset = columns().dataset("30").shuffle(30).repeat(3)
    epochs = (dataset.plan(2).rows[:, 0] - dataset.start).reshape(3, 30)
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    still = columns().dataset("30").shuffle(30, reshuffle_each_iteration=False)
    epochs = still.repeat(3).plan(2).rows.reshape(3, 30)
    assert len({tuple(epoch) for epoch in epochs}) == 1


def test_batch_before_repeat_ends_each_epoch_with_its_short_batch():
    dataset = columns().dataset("7").batch(4).repeat(2)
    plan = dataset.plan(0)
    assert plan.counts.tolist() == [4, 3, 4, 3]
    assert (plan.rows - dataset.start)[0].tolist() == [0, 1, 2, 3]
    assert plan.rows[1, 3] == plan.rows[3, 3] == -1


def test_shuffle_of_batches_keeps_batches_whole():
    dataset = columns().dataset("30").batch(5).shuffle(6)
    rows = dataset.plan(3).rows - dataset.start
    assert sorted(rows[:, 0]) == [0, 5, 10, 15, 20, 25]
    assert (rows[:, 0] != [0, 5, 10, 15, 20, 25]).any()
    assert (np.diff(rows, axis=1) == 1).all()


def test_cache_keeps_the_order_of_earlier_shuffles():
    dataset = columns().dataset("30").shuffle(30).cache()
    assert order(dataset) == order(dataset)
    assert order(dataset.take(9)) == order(dataset)[:9]
    assert order(dataset) != order(columns().dataset("30").shuffle(30).cache())
    epochs = dataset.repeat(2).plan(1).rows.reshape(2, 30)
    assert (epochs[0] == epochs[1]).all()
    after = dataset.shuffle(30).repeat(2).plan(1).rows.reshape(2, 30)
    assert (after[0] != after[1]).any()


def test_iterations_are_shuffled_anew():
    dataset = columns().dataset("30").shuffle(30)
    assert order(dataset) != order(dataset)
    still = columns().dataset("30").shuffle(30, reshuffle_each_iteration=False)
    assert order(still) == order(still)


def test_a_seed_fixes_the_orders_of_the_iterations():
    def orders():
        dataset = columns().dataset("30").shuffle(30, seed=4)
        return [order(dataset), order(dataset)]

    first, second = orders()
    assert orders() == [first, second]
    assert first != second
    dataset = columns().dataset("30").shuffle(30, seed=4)
    assert (dataset.plan(1).rows == dataset.plan(2).rows).all()
    assert (dataset.plan(1).rows[:, 0] - dataset.start).tolist() == first
    assert (dataset.plan(1, 1).rows[:, 0] - dataset.start).tolist() == second
    assert first != order(columns().dataset("30").shuffle(30, seed=5))


def test_the_global_seed_repeats_python_iteration():
    def orders():
        tf.random.set_seed(7)
        dataset = columns().dataset("30").shuffle(30)
        return [order(dataset), order(dataset)]

    try:
        first, second = orders()
        assert orders() == [first, second]
        assert first != second
    finally:
        tf.random.set_seed(None)


def test_iteration_gives_eager_tensors_in_the_structure_of_the_spec():
    dataset = columns().dataset("7").map(lambda e: (e["number"], {"b": e["image"]}))
    for element in dataset.batch(3, drop_remainder=True):
        number, rest = element
        assert isinstance(number, tf.Tensor)
        assert number.shape == [3]
        assert rest["b"].shape == [3, 3]
    assert dataset.element_spec == dataset.to_tf().element_spec
    (first, *_) = columns().dataset("7").as_numpy_iterator()
    assert isinstance(first["number"], np.int64)
    assert isinstance(first, collections.OrderedDict)


def test_maps_before_and_after_batch():
    def before(e):
        return e["number"] * 2, tf.reduce_sum(e["image"])

    def after(number, total):
        return tf.stack([tf.cast(number, tf.float64), total], 1)

    def preprocess(dataset):
        return dataset.repeat(2).map(before).batch(4).map(after).prefetch(1)

    dataset = preprocess(columns().dataset("7"))
    expected = list(preprocess(columns().dataset("7").to_tf()))
    assert [len(f) for f in (dataset.form.row_maps, dataset.form.batch_maps)] == [1, 1]
    assert (dataset.form.batch_size, dataset.form.drop_remainder) == (4, False)
    for found, wanted in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("preprocess", "reason"),
    [
        (lambda d: d.batch(2, True).batch(2), "it is batched twice"),
        (lambda d: d.batch(2).filter(lambda e: tf.size(e["number"]) > 1), "after `bat"),
        (lambda d: d.repeat(), "`repeat\\(\\)` has no end"),
        (lambda d: d.repeat().batch(2).skip(3), "`repeat\\(\\)` has no end"),
        (
            lambda d: d.map(lambda e: tf.random.uniform([])).cache().batch(2),
            "`cache` keeps what `<lambda>` drew once",
        ),
        (
            lambda d: d.filter(lambda e: tf.random.uniform([]) < 0.5).batch(2),
            "may change from one time to the next",
        ),
    ],
)
def test_what_has_no_plan_says_why_and_runs_on_tf_data(preprocess, reason):
    dataset = preprocess(columns().dataset("7"))
    with pytest.raises(NoColumnarPlanError, match=reason):
        dataset.plan(0)
    with pytest.raises(NoColumnarPlanError, match=reason):
        _ = dataset.form
    expected = preprocess(columns().dataset("7").to_tf())
    assert dataset.element_spec == expected.element_spec
    assert dataset.cardinality() == expected.cardinality()
    found = iter(dataset)
    for wanted in expected.take(3):
        try:
            tf.nest.assert_same_structure(next(found), wanted)
        except StopIteration:
            assert "uniform" in reason or "change" in reason


def test_an_end_makes_an_endless_repeat_plannable():
    dataset = columns().dataset("7").repeat().shuffle(20).batch(4).take(5)
    assert dataset.no_plan_reason is None
    assert dataset.plan(1).counts.tolist() == [4] * 5
    assert len(dataset) == 5
    empty = columns().dataset("0").repeat().shuffle(20).batch(4).take(5)
    assert empty.plan(1).rows.shape == (0, 4)


def test_a_filter_on_an_endless_repeat():
    odd_ones = columns().dataset("7").repeat().filter(odd).take(7)
    assert order(odd_ones) == [1, 3, 5, 1, 3, 5, 1]
    with pytest.raises(NoColumnarPlanError, match="keeps too few rows"):
        columns().dataset("7").repeat().filter(never).take(1).plan(0)


def test_repeat_zero_times_after_shuffle():
    dataset = columns().dataset("7").shuffle(3).repeat(0)
    assert list(dataset) == list(dataset.to_tf()) == []


def test_a_repeat_too_long_to_list_says_so():
    dataset = columns().dataset("7").repeat(10**9)
    with pytest.raises(NoColumnarPlanError, match="more elements than can be listed"):
        dataset.plan(0)
    assert int(next(iter(dataset))["number"]) == 0
    assert next(iter(dataset.as_numpy_iterator()))["number"] == 0
    assert len(columns().dataset("7").repeat(10**9).take(3).plan(0).rows) == 3


def test_lengths_follow_tf_data():
    dataset = columns().dataset("30")
    assert len(dataset) == 30
    assert len(dataset.repeat(2).batch(8)) == 8
    assert len(dataset.repeat(2).batch(8, drop_remainder=True)) == 7
    assert bool(columns().dataset("0"))
    with pytest.raises(TypeError, match="length is infinite"):
        len(dataset.repeat())
    with pytest.raises(TypeError, match="length is not known"):
        len(dataset.filter(odd))


def test_arguments_are_checked():
    dataset = columns().dataset("7")
    with pytest.raises(ValueError, match="`shuffle` needs a `buffer_size`"):
        dataset.shuffle(0)
    with pytest.raises(ValueError, match="`batch` needs a `batch_size`"):
        dataset.batch(0)
    with pytest.raises(
        TypeError, match="`filter` needs a `predicate` that gives a sca"
    ):
        dataset.filter(lambda e: e["number"])
    with pytest.raises(AttributeError, match="no attribute `shufle`"):
        dataset.shufle(3)


def test_numbers_may_be_tensors_and_names_are_accepted():
    dataset = columns().dataset("7")
    dataset = dataset.shuffle(tf.constant(1, tf.int64), name="s").repeat(np.int64(2))
    dataset = dataset.batch(tf.constant(4), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.map(add_one, num_parallel_calls=2, deterministic=True)
    assert order(dataset.prefetch(tf.data.AUTOTUNE)) == [*range(1, 8)] * 2


def test_other_methods_lead_to_tf_data():
    dataset = columns().dataset("7").map(lambda e: e["number"])
    padded = dataset.padded_batch(4)
    assert isinstance(padded, tf.data.Dataset)
    assert [len(batch) for batch in padded] == [4, 3]
    assert dataset.batch(7).apply(lambda d: d.take(1)).pipeline.ops[-1].count == 1
    assert int(dataset.reduce(np.int64(0), lambda a, b: a + b)) == 21


def test_repr_tells_what_is_recorded():
    def preprocess(e):
        return e["number"]

    dataset = columns().dataset("30")
    assert repr(dataset).startswith("ClientDataset(client='30', 30 examples; element_s")
    dataset = dataset.repeat(5).shuffle(100).batch(20).map(preprocess).prefetch(2)
    assert repr(dataset) == (
        "ClientDataset(client='30', 30 examples: repeat(5), shuffle(100), batch(20), "
        "map(preprocess), prefetch(2); element_spec="
        "TensorSpec(shape=(None,), dtype=tf.int64, name=None))"
    )
    dataset = columns().rows(0, 3).shuffle(9, 3, False).batch(2, True).repeat()
    assert repr(dataset.take(3).skip(1).cache().filter(lambda e: True)).startswith(
        "ClientDataset(client=None, 3 examples: shuffle(9, seed=3, reshuffle_each_"
        "iteration=False), batch(2, drop_remainder=True), repeat(), take(3), skip(1), "
        "cache(), filter(<lambda>); "
    )


def test_same_pipeline_compares_all_but_the_client():
    def preprocess(dataset, n=20):
        return dataset.shuffle(9).batch(n).map(lambda e: e["number"] + n)

    a, b = (preprocess(columns().dataset(c)) for c in ("7", "30"))
    assert same_pipeline(a, b)
    assert same_pipeline(a.map(abs_value, num_parallel_calls=2), b.map(abs_value))
    assert not same_pipeline(a, columns().dataset("30").shuffle(9).batch(20))
    assert not same_pipeline(a, preprocess(columns().dataset("7"), 21))
    other = Columns(columns().features, columns().offsets)
    assert not same_pipeline(a, preprocess(other.dataset("0")))


def abs_value(number):
    return tf.abs(number)


def test_datasets_are_immutable():
    dataset = columns().dataset("7")
    dataset.shuffle(3)
    assert dataset.pipeline.ops == ()
    with pytest.raises(AttributeError, match="`ClientDataset` is immutable"):
        dataset.start = 3
    assert tf.nest.flatten([dataset]) == [dataset]
    for element in dataset.as_numpy_iterator():
        element["image"][0] = 99.0
    assert columns().features["image"].max() < 99


def test_threads_share_pipelines_and_traces():
    def preprocess(dataset):
        return dataset.map(lambda e: e["number"] * 3).shuffle(5).batch(4)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(preprocess, [columns().dataset("7")] * 64))
        orders = list(pool.map(lambda d: d.plan(1).rows.tobytes(), made))
        sums = list(pool.map(lambda d: sum(int(sum(b)) for b in d), made[:8]))
    assert len({d.pipeline for d in made}) == 1
    assert len(set(orders)) == 1
    assert sums == [63] * 8


def test_a_captured_variable_is_read_when_iterated():
    factor = tf.Variable(2, dtype=tf.int64)
    dataset = columns().dataset("7").map(lambda e: e["number"] * factor)
    assert order_of(dataset) == [0, 2, 4, 6, 8, 10, 12]
    factor.assign(1)
    assert order_of(dataset) == list(range(7))


def order_of(dataset):
    return [int(n) for n in dataset]


def test_a_filter_that_reads_a_variable_runs_on_tf_data():
    least = tf.Variable(5, dtype=tf.int64)
    dataset = columns().dataset("7").filter(lambda e: e["number"] >= least)
    assert "may change from one time to the next" in dataset.no_plan_reason
    assert len(list(dataset)) == 2
    least.assign(0)
    assert len(list(dataset)) == 7
