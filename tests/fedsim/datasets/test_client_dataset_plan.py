import collections
import math

import numpy as np
import pytest

from fedsim.datasets import _client_dataset_plan
from fedsim.datasets._client_dataset_plan import windowed_order
from fedsim.datasets.client_dataset import NoColumnarPlanError, plan_many
from fedsim.datasets.columnar import Columns


def clients(sizes):
    offsets = np.cumsum([0, *sizes])
    return Columns(np.arange(offsets[-1]), offsets)


def buffered(n, buffer_size, draws):
    """A shuffle buffer as it is told: take from a slot, put the next item there."""
    buffer, out = list(range(min(n, buffer_size))), []
    for p in range(n - len(buffer)):
        slot = (draws[p] * buffer_size) >> 32
        out.append(buffer[slot])
        buffer[slot] = p + len(buffer)
    rest = sorted(range(len(buffer)), key=lambda s: draws[len(out) + s])
    return out + [buffer[s] for s in rest]


@pytest.mark.parametrize("buffer_size", [1, 2, 7, 50, 99, 100, 1000])
def test_windowed_order_is_a_shuffle_buffer(buffer_size):
    lengths = np.array([0, 1, 100, 3, 0, 57])
    keys = np.arange(6, dtype=np.uint64) + np.uint64(11)
    found = windowed_order(lengths, buffer_size, keys)
    start = 0
    for n, key in zip(lengths.tolist(), keys.tolist()):
        draws = [splitmix(key + (p + 1) * 0x9E3779B97F4A7C15) >> 32 for p in range(n)]
        wanted = [start + item for item in buffered(n, buffer_size, draws)]
        assert found[start : start + n].tolist() == wanted
        start += n


def splitmix(x):
    x %= 1 << 64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % (1 << 64)
    return x ^ (x >> 31)


def test_windowed_order_of_many_segments_is_that_of_each():
    # So many that the sort's keys have not enough bits for all at once.
    lengths = np.full(1 << 13, 3)
    lengths[5] = 1 << 20
    keys = np.arange(len(lengths), dtype=np.uint64)
    found = windowed_order(lengths, 1000, keys)
    assert (1 << 13).bit_length() + 20 + 32 > 64
    starts = np.cumsum(lengths) - lengths
    for i in (0, 4, 5, 6, len(lengths) - 1):
        alone = windowed_order(lengths[i : i + 1], 1000, keys[i : i + 1]) + starts[i]
        np.testing.assert_array_equal(found[starts[i] :][: lengths[i]], alone)


def test_shuffles_are_uniform():
    # 24 orders of 4 rows, each drawn 6000 / 24 times but for chance.
    dataset = clients([4]).dataset("0").shuffle(4)
    plan = plan_many([dataset] * 6000, range(6000))
    drawn = collections.Counter(map(tuple, plan.rows.reshape(-1, 4).tolist()))
    assert len(drawn) == math.factorial(4)
    chi_square = sum((n - 250) ** 2 / 250 for n in drawn.values())
    assert chi_square < 49.7  # 0.999 quantile for 23 degrees of freedom


def test_windowed_shuffles_draw_slots_uniformly():
    dataset = clients([50]).dataset("0").shuffle(5)
    plan = plan_many([dataset] * 2000, range(2000))
    first = np.bincount(plan.rows.reshape(-1, 50)[:, 0], minlength=5)
    assert len(first) == 5
    assert ((first - 400) ** 2 / 400).sum() < 18.5  # 4 degrees of freedom


PREPROCESSES = [
    lambda d: d.shuffle(100).batch(20),
    lambda d: d.repeat(5).shuffle(30).batch(20),
    lambda d: d.shuffle(30).repeat(3).take(50).batch(7, drop_remainder=True).repeat(2),
    lambda d: d.shuffle(30, seed=3).batch(8).shuffle(4).cache().repeat(2).skip(1),
    lambda d: d.repeat().shuffle(9, reshuffle_each_iteration=False).batch(4).take(6),
    lambda d: d.shuffle(9).filter(lambda n: n % 3 != 1).repeat().take(12),
    lambda d: d.repeat().filter(lambda n: n % 3 != 1).take(12).batch(5),
]


@pytest.mark.parametrize("preprocess", PREPROCESSES)
def test_plan_many_is_each_plan(preprocess):
    sizes = [3, 0, 40, 17, 1, 100]
    columns = clients(sizes)
    datasets = [preprocess(columns.dataset(c)) for c in columns.client_ids]
    for some in (datasets, datasets[::-1], datasets[2:3] * 2):
        seeds = [7 * d.start - 3 for d in some]
        plan = plan_many(some, seeds)
        assert len(plan.starts) == len(some) + 1
        for i, (dataset, seed) in enumerate(zip(some, seeds)):
            alone = dataset.plan(seed)
            mine = slice(plan.starts[i], plan.starts[i + 1])
            np.testing.assert_array_equal(plan.rows[mine], alone.rows)
            np.testing.assert_array_equal(plan.counts[mine], alone.counts)


def test_orders_differ_between_seeds_and_iterations():
    dataset = clients([30]).dataset("0").shuffle(30)
    orders = [dataset.plan(s, i).rows for s in (0, 1, -1, 2**63) for i in range(3)]
    assert len({rows.tobytes() for rows in orders}) == len(orders)


def test_two_shuffles_draw_differently():
    dataset = clients([30]).dataset("0")
    once, twice = dataset.shuffle(30), dataset.shuffle(30).shuffle(30)
    order = once.plan(1).rows[:, 0]
    assert (twice.plan(1).rows[:, 0] != order[order]).any()


def test_an_order_does_not_depend_on_maps_and_prefetch():
    dataset = clients([30]).dataset("0")
    plain = dataset.shuffle(30).batch(4).plan(1).rows
    mapped = dataset.map(lambda n: n + 1).prefetch(1).shuffle(30).batch(4).prefetch(2)
    np.testing.assert_array_equal(mapped.plan(1).rows, plain)


def test_take_reads_a_prefix_of_the_same_order():
    dataset = clients([30]).dataset("0").repeat(4).shuffle(11).batch(7)
    whole = dataset.plan(1)
    for count in (0, 1, 5, 17):
        part = dataset.take(count).plan(1)
        np.testing.assert_array_equal(part.rows, whole.rows[:count])


def test_rows_are_those_of_the_columns():
    columns = clients([3, 4])
    plan = columns.dataset("1").batch(3).plan(0)
    assert plan.rows.tolist() == [[3, 4, 5], [6, -1, -1]]
    assert plan.counts.tolist() == [3, 1]


def test_an_empty_client_has_an_empty_plan():
    columns = clients([0, 4])
    plan = columns.dataset("0").shuffle(3).repeat(2).batch(3).plan(0)
    assert plan.rows.shape == (0, 3)
    assert plan.starts.tolist() == [0, 0]
    both = [columns.dataset(c).batch(3) for c in "010"]
    assert plan_many(both, [0, 0, 0]).starts.tolist() == [0, 0, 2, 2]


def test_a_batch_far_beyond_any_client_is_not_padded_to_its_size():
    plan = clients([200]).dataset("0").batch(10**6).plan(0)
    assert plan.rows.shape == (1, 256)
    assert plan.counts.tolist() == [200]
    assert clients([9]).dataset("0").batch(128).plan(0).rows.shape == (1, 128)
    assert clients([9]).dataset("0").batch(300).plan(0).rows.shape == (1, 128)


def test_plan_many_needs_one_pipeline():
    columns = clients([3, 4])
    mixed = [columns.dataset("0").batch(3), columns.dataset("1").batch(4)]
    with pytest.raises(ValueError, match="`plan_many` needs datasets with the same"):
        plan_many(mixed, [0, 0])


def test_a_filter_looks_at_a_row_once(monkeypatch):
    columns, looked = clients([5, 6]), []
    by_row = _client_dataset_plan.by_row

    def counted(functions, rows):
        looked.extend(rows.tolist())
        return by_row(functions, rows)

    monkeypatch.setattr(_client_dataset_plan, "by_row", counted)

    def preprocess(dataset):
        return dataset.repeat(3).map(lambda n: 2 * n).filter(lambda n: n > 4).batch(2)

    datasets = [preprocess(columns.dataset(c)) for c in columns.client_ids]
    assert sorted(datasets[0].plan(0).rows.ravel().tolist()) == [3, 3, 3, 4, 4, 4]
    plan_many(datasets, [0, 1])
    assert sorted(looked) == list(range(11))


def test_more_rows_than_int32_can_number():
    columns = Columns(np.broadcast_to(np.int8(0), [2**31]), [0, 2**31])
    with pytest.raises(NoColumnarPlanError, match="more rows than int32 can number"):
        columns.dataset("0").take(3).plan(0)
