"""tf.data datasets stacked for one program: exact, whatever their elements are."""

import collections

import numpy as np
import pytest
import rounds
import tensorflow as tf

import fedcore
from fedcore import (
    federated_computation,
    federated_map,
    federated_mean,
    sequence_reduce,
)
from fedcore.types import SequenceType, TensorType, at_clients, to_type
from fedsim import runtime
from fedsim.runtime import _extents, _roads, _stacks
from fedsim.runtime._plan import plan_of

ROWS = to_type(tf.TensorSpec([None, 3], tf.float32))


def chained(element=ROWS, value=lambda x: x):
    """A computation whose result shows every element, its size and their order."""

    @fedcore.tf_computation(TensorType(tf.float32, [2]), element)
    def step(state, x):
        x = value(x)
        size = tf.cast(tf.size(x), tf.float32)
        mixed = state[0] * 0.5 + tf.reduce_sum(tf.cast(x, tf.float32)) + size
        return tf.stack([mixed, state[1] + 1.0])

    @fedcore.tf_computation
    def zero():
        return tf.zeros([2])

    @federated_computation(at_clients(SequenceType(element)))
    def fn(data):
        found = federated_map(lambda d: sequence_reduce(d, zero(), step), data)
        return found, federated_mean(found)

    return fn


def run(fn, data, **options):
    context = runtime.local_context(seed=1, **options)
    with fedcore.context.use(context):
        result = fn(data)
    roads = context._workers.roads
    (road,) = [roads[step] for step in plan_of(fn).steps if step in roads]
    return result, road


def assert_exact(fn, make, name, **options):
    with fedcore.context.use(runtime.reference_context(seed=1)):
        each, mean = fn(make())
    (found, found_mean), road = run(fn, make(), **options)
    np.testing.assert_allclose(found, each, 1e-5, 1e-5)
    np.testing.assert_allclose(found_mean, mean, 1e-5, 1e-5)
    assert road.name == name
    return road


def rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


def slices(n):
    return tf.data.Dataset.from_tensor_slices(rows(n, n))


SIZES = [7, 0, 12, 3, 5]
FORMS = {
    "last is smaller": lambda d: d.batch(4),
    "smaller in between": lambda d: d.batch(4).repeat(2),
    "no remainder": lambda d: d.batch(4, drop_remainder=True).map(
        lambda x: tf.ensure_shape(x, [None, 3])
    ),
    "mapped, taken, prefetched": lambda d: (
        d.batch(3).map(lambda x: x * 2.0).take(2).prefetch(1)
    ),
    "more rows than a batch": lambda d: d.batch(4).map(lambda x: tf.repeat(x, 3, 0)),
    "fewer rows than a batch": lambda d: d.batch(4).map(lambda x: x[1:]),
    "all at once": lambda d: d.batch(10_000),
    "cached": lambda d: d.cache().batch(2),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_elements_come_in_order_with_their_sizes(form):
    road = assert_exact(
        chained(), lambda: [form(slices(n)) for n in SIZES], _roads.TF_DATA
    )
    assert not road.compiled
    assert "takes no mask" in road.reason


def test_datasets_of_unknown_length_run_client_by_client():
    def form(dataset):
        return dataset.filter(lambda x: x[0] > -9.0).batch(4)

    road = assert_exact(
        chained(), lambda: [form(slices(n)) for n in SIZES], _roads.STREAMED
    )
    assert "does not know how many elements" in road.reason


def test_datasets_that_do_not_say_their_batches_run_client_by_client():
    spec = tf.TensorSpec([None, 3], tf.float32)

    def make():
        made = [
            tf.data.Dataset.from_generator(
                lambda n=n: iter([rows(n), rows(2)]), output_signature=spec
            ).apply(tf.data.experimental.assert_cardinality(2))
            for n in SIZES
        ]
        return made

    road = assert_exact(chained(), make, _roads.STREAMED)
    assert "does not know the size of its batches" in road.reason


def test_big_clients_run_client_by_client(monkeypatch):
    monkeypatch.setattr(_extents, "_LEAF_BYTES", 100)
    road = assert_exact(
        chained(), lambda: [slices(n).batch(4) for n in SIZES], _roads.STREAMED
    )
    assert "too much data" in road.reason


def test_other_clients_may_have_other_batches():
    def make():
        return [slices(n).batch(b) for n, b in zip(SIZES, (1, 2, 5, 3, 4))]

    assert_exact(chained(), make, _roads.TF_DATA)


@pytest.mark.parametrize("shape", [[], [3]])
def test_elements_that_are_no_batches(shape):
    element = to_type(tf.TensorSpec(shape, tf.int32))

    def make():
        size = int(np.prod(shape, dtype=int))
        return [
            tf.data.Dataset.from_tensor_slices(
                np.arange(n * size, dtype=np.int32).reshape([n, *shape])
            )
            for n in SIZES
        ]

    assert_exact(chained(element), make, _roads.TF_DATA)


def test_structures_of_tensors_of_several_lengths():
    spec = collections.OrderedDict(
        a=tf.TensorSpec([None], tf.float32),
        b=(tf.TensorSpec([], tf.int64), tf.TensorSpec([2], tf.bool)),
    )

    def form(dataset):
        return dataset.batch(4).map(
            lambda x: collections.OrderedDict(
                a=tf.reshape(x, [-1]), b=(tf.constant(3, tf.int64), [True, False])
            )
        )

    def value(element):
        one, two = element["b"]
        return tf.concat(
            [element["a"], [tf.cast(one, tf.float32)], tf.cast(two, tf.float32)], 0
        )

    assert_exact(
        chained(to_type(spec), value),
        lambda: [form(slices(n)) for n in SIZES],
        _roads.TF_DATA,
    )


def test_datasets_with_another_number_of_elements_than_they_say(monkeypatch):
    monkeypatch.setattr(_extents, "_known", lambda dataset: (3, 4))
    for more in (slices(8).batch(4), slices(40).batch(4)):
        data = [more, slices(12).batch(4)]
        with pytest.raises(ValueError, match="as many elements as their `cardinality"):
            run(chained(), data)


def test_reshuffling_goes_on_from_round_to_round():
    def make():
        return [slices(n).shuffle(20, seed=n).batch(4) for n in SIZES]

    fn = chained()
    wanted, found = make(), make()
    context = runtime.local_context(seed=1)
    for _ in range(3):
        with fedcore.context.use(runtime.reference_context(seed=1)):
            each, _ = fn(wanted)
        with fedcore.context.use(context):
            same, _ = fn(found)
        np.testing.assert_allclose(same, each, 1e-5)


def test_bits_do_not_depend_on_workers_or_on_how_much_is_stacked(monkeypatch):
    def make():
        return [slices(n % 23).batch(4) for n in range(70)]

    fn = chained()
    wanted, _ = run(fn, make(), workers=1)
    for options in ({"workers": 2}, {"workers": 8}):
        found, _ = run(fn, make(), **options)
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])
    monkeypatch.setattr(_stacks, "_GROUP_BYTES", 200)
    found, _ = run(fn, make())
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


def test_a_client_whose_dataset_fails_is_named():
    def check(x):
        tf.debugging.assert_less(x, 10.0)
        return x

    data = [slices(n).batch(4) for n in SIZES]
    bad = tf.data.Dataset.from_tensor_slices(rows(5) + 100.0).map(check).batch(4)
    with pytest.raises(runtime.ClientError, match="Client 3 of 6"):
        run(chained(), [*data[:3], bad, *data[3:]])


# --- Training -----------------------------------------------------------------------


def road_of_training(process, data, **options):
    context = runtime.local_context(seed=5, **options)
    with fedcore.context.use(context):
        output = process.next(process.initialize(), data)
    (road,) = context._workers.roads.values()
    return output, road


def test_a_dense_model_is_masked_under_xla():
    process = rounds.averaging(rounds.dense)
    _, road = road_of_training(process, rounds.tf_data(rounds.two_epochs))
    assert str(road).startswith("tf.data, XLA (masked)")
    _, road = road_of_training(process, rounds.tf_data(rounds.two_epochs), xla=False)
    assert str(road).startswith("tf.data, graph")


def test_a_convolution_is_left_to_tensorflow():
    process = rounds.averaging(rounds.convolution)
    _, road = road_of_training(process, rounds.tf_data(rounds.two_epochs))
    assert str(road).startswith("tf.data, graph")
    assert "Conv2D" in road.reason


@pytest.mark.parametrize(
    "form",
    [
        lambda d: d.batch(4).repeat(2),
        lambda d: d.batch(2).map(lambda e: tf.nest.map_structure(_three_times, e)),
        lambda d: d.batch(1000),
    ],
    ids=["batches repeated", "more rows than a batch", "one batch"],
)
def test_masked_training_is_the_references(form):
    process = rounds.averaging(rounds.dense)
    wanted = rounds.rounds(
        process, rounds.tf_data(form), runtime.reference_context(seed=5)
    )
    bits = []
    for workers in (1, 3):
        context = runtime.local_context(seed=5, workers=workers)
        found = rounds.rounds(process, rounds.tf_data(form), context)
        rounds.assert_same(found, wanted)
        bits.append(found)
    rounds.assert_same(*bits, tolerance=0)


def _three_times(tensor):
    return tf.repeat(tensor, 3, 0)


def test_padding_is_never_the_models_input():
    """Zeros would give NaN here, and NaN times a mask of 0 is NaN."""

    def examples(seed, n):
        made = rounds.examples(seed, n)
        made["x"] = np.abs(made["x"]) + 1.0
        return made

    def form(dataset):
        return rounds.two_epochs(dataset).map(
            lambda e: collections.OrderedDict(x=1.0 / e["x"], y=e["y"])
        )

    rounds.assert_rounds_are_one(rounds.averaging(rounds.dense), form, examples)
