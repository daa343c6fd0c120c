"""Rounds over every kind of client data and pipeline, with and without XLA."""

import collections

import pytest
from rounds import (
    ROADS,
    SIZES,
    activity_regularizer,
    against_last,
    assert_same,
    averaging,
    centred,
    columnar,
    convolution,
    dense,
    examples,
    loss_of,
    model_fn,
    rounds,
    sgd,
    tf_data,
    two_epochs,
    unseeded_dropout,
)

import fedcore
from fedlearn.algorithms import build_weighted_fed_avg
from fedsim import runtime
from fedsim.datasets import TestClientData


def halved(batch):
    return collections.OrderedDict(x=batch["x"] / 2, y=batch["y"])


FORMS = {
    "batch": lambda d: d.batch(4),
    "batch, repeat": lambda d: d.batch(4).repeat(2),
    "batch of one": lambda d: d.batch(1),
    "batch of all": lambda d: d.batch(100),
    "repeat, batch, take": lambda d: d.repeat(3).batch(5).take(3),
    "forever, take": lambda d: d.repeat().batch(4).take(3),
    "take, batch": lambda d: d.take(5).batch(2),
    "skip, batch": lambda d: d.skip(4).batch(3),
    "skip of batches": lambda d: d.batch(3).skip(1),
    "filter, batch": lambda d: d.filter(lambda row: row["y"] > 0).batch(4),
    "nothing is left": lambda d: d.filter(lambda row: row["y"] > 9).batch(4),
    "drop the remainder": lambda d: d.batch(4, drop_remainder=True),
    "map of batches": lambda d: d.batch(4).map(halved),
    "map of rows": lambda d: d.map(halved).batch(4),
    "map of both": lambda d: d.map(halved).repeat(2).batch(4).map(halved).prefetch(1),
    "cache": lambda d: d.cache().repeat(2).batch(4),
}


@pytest.mark.parametrize("form", FORMS)
def test_pipelines(form):
    # Without clients' examples the mean divides by zero: then only the losses are nan.
    process = averaging(dense)
    wanted = rounds(
        process, tf_data(FORMS[form]), runtime.reference_context(seed=5), number=1
    )
    for road in ROADS.values():
        data = road(FORMS[form])
        found = rounds(process, data, runtime.local_context(seed=5), number=1)
        assert_same(found, wanted)


@pytest.mark.parametrize("form", ["shuffle", "window", "no reshuffle"])
def test_shuffled_rounds_see_every_example(form):
    forms = {
        "shuffle": lambda d: d.shuffle(100).batch(4),
        "window": lambda d: d.repeat(2).shuffle(3, seed=1).batch(4),
        "no reshuffle": lambda d: (
            d.shuffle(9, reshuffle_each_iteration=False).repeat(2).batch(4)
        ),
    }
    process = averaging(dense)
    epochs = 1 if form == "shuffle" else 2
    with fedcore.context.use(runtime.local_context(seed=5)):
        metrics = process.next(process.initialize(), columnar(forms[form])).metrics
    train = metrics["client_work"]["train"]
    assert train["num_examples"] == epochs * sum(SIZES)
    assert train["num_batches"] == sum(-(-epochs * n // 4) for n in SIZES)


def test_client_data_by_name():
    full = {str(i): examples(i, n) for i, n in enumerate(SIZES) if n}
    data = TestClientData(full)
    process = averaging(dense)
    wanted = rounds(
        process,
        [two_epochs(data.create_tf_dataset_for_client(i)) for i in data.client_ids],
        runtime.reference_context(seed=5),
    )
    for chosen in (
        [two_epochs(data.client(i)) for i in data.client_ids],
        [two_epochs(d) for d in data.clients(data.client_ids)],
    ):
        found = rounds(process, chosen, runtime.local_context(seed=5))
        assert_same(found, wanted)


def test_client_datasets_on_the_reference():
    process = averaging(dense)
    wanted = rounds(process, tf_data(two_epochs), runtime.reference_context(seed=5))
    found = rounds(process, columnar(two_epochs), runtime.reference_context(seed=5))
    assert_same(found, wanted, tolerance=0)


def test_two_kinds_of_data_in_one_round():
    process = averaging(dense)
    wanted = rounds(process, tf_data(two_epochs), runtime.reference_context(seed=5))
    mixed = [*columnar(two_epochs)[:2], *tf_data(two_epochs)[2:]]
    assert_same(rounds(process, mixed, runtime.local_context(seed=5)), wanted)


def test_clients_with_pipelines_of_their_own():
    process = averaging(dense)

    def form(i, dataset):
        return dataset.repeat(i + 1).batch(2 + i)

    wanted = rounds(
        process,
        [form(i, d) for i, d in enumerate(tf_data(lambda d: d))],
        runtime.reference_context(seed=5),
    )
    data = [form(i, d) for i, d in enumerate(columnar(lambda d: d))]
    assert_same(rounds(process, data, runtime.local_context(seed=5)), wanted)


# --- XLA and workers ----------------------------------------------------------------


@pytest.mark.parametrize("xla", [True, False])
@pytest.mark.parametrize(
    "layers", [dense, activity_regularizer, convolution], ids=lambda f: f.__name__
)
def test_xla_can_be_chosen(layers, xla):
    process = averaging(layers)
    wanted = rounds(process, tf_data(two_epochs), runtime.reference_context(seed=5))
    context = runtime.local_context(seed=5, xla=xla)
    assert_same(rounds(process, columnar(two_epochs), context), wanted)


@pytest.mark.parametrize("per_batch", [against_last, centred], ids=lambda f: f.__name__)
def test_asking_for_xla_changes_no_result(per_batch):
    fn = model_fn(dense, loss_of(per_batch), metrics=False)
    process = build_weighted_fed_avg(fn, sgd)
    wanted = rounds(process, tf_data(two_epochs), runtime.reference_context(seed=5))
    context = runtime.local_context(seed=5, xla=True)
    assert_same(rounds(process, columnar(two_epochs), context), wanted)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    "layers", [dense, convolution, unseeded_dropout], ids=lambda f: f.__name__
)
def test_bits_do_not_depend_on_workers(layers, road):
    # More clients than leaves of one, so that accumulators are merged in a tree.
    data = 4 * ROADS[road](two_epochs)
    one, two, eight = (
        rounds(averaging(layers), data, runtime.local_context(seed=5, workers=n))
        for n in (1, 2, 8)
    )
    assert_same(two, one, tolerance=0)
    assert_same(eight, one, tolerance=0)
