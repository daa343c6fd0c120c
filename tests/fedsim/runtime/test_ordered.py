"""The order of shuffles follows from the call's seed wherever tf.data runs them."""

import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedsim
from fedsim.datasets import emnist

SEQUENCE = fedcore.SequenceType(fedcore.TensorType(tf.int32, [None]))


def vectors(batch):
    return tf.cast(tf.reshape(batch["label"], [-1]), tf.int32)


@pytest.fixture(scope="module")
def clients():
    train, _ = emnist.load_synthetic(num_writers=3)
    return [train.client(client_id) for client_id in train.client_ids]


def told(rows, batch):
    """A number in which the order shows."""
    return rows * 3 % 1009 + tf.reduce_sum(batch * tf.range(1, tf.size(batch) + 1))


def order_of(fn):
    """Each client's order as a call with `fn` sees it."""

    @fedcore.federated_computation(fedcore.type_at_clients(SEQUENCE))
    def orders(data):
        return fedcore.federated_map(fn, data)

    return orders


@fedcore.tf_computation(SEQUENCE)
def by_reduce(dataset):
    return dataset.reduce(tf.constant(0), told)


@fedcore.tf_computation(SEQUENCE)
def by_listing(dataset):
    """No road but the general one: how many elements come is not known to it."""
    batches = tf.TensorArray(tf.int32, 0, dynamic_size=True, infer_shape=False)
    for batch in dataset:
        batches = batches.write(batches.size(), batch)
    return batches.concat()


@fedcore.tf_computation(SEQUENCE)
def by_two_passes(dataset):
    return dataset.reduce(tf.constant(0), told), dataset.reduce(tf.constant(0), told)


CONTEXTS = {
    "fused": fedsim.local_context,
    "reference": fedsim.reference_context,
}


def run(context, seed, computation, data):
    with fedcore.context.use(CONTEXTS[context](seed=seed)):
        return np.asarray(computation(data)), np.asarray(computation(data))


@pytest.mark.parametrize("fn", [by_reduce, by_two_passes])
@pytest.mark.parametrize("context", CONTEXTS)
def test_one_seed_gives_one_order(clients, context, fn):
    data = [c.shuffle(50).batch(4).map(vectors) for c in clients]
    orders = order_of(fn)
    first, second = run(context, 7, orders, data)
    np.testing.assert_array_equal(run(context, 7, orders, data), [first, second])
    assert (first != second).any()
    assert (first != run(context, 8, orders, data)[0]).any()


@pytest.mark.parametrize("fn", [by_reduce, by_two_passes])
def test_the_reference_takes_the_order_of_the_columnar_road(clients, fn):
    data = [c.shuffle(50).repeat(2).batch(4).map(vectors) for c in clients]
    orders = order_of(fn)
    np.testing.assert_array_equal(
        run("fused", 7, orders, data), run("reference", 7, orders, data)
    )


@pytest.mark.parametrize("context", CONTEXTS)
def test_passes_in_one_graph_have_orders_of_their_own(clients, context):
    data = [c.shuffle(50).batch(4).map(vectors) for c in clients]
    found, _ = run(context, 7, order_of(by_two_passes), data)
    assert (found[:, 0] != found[:, 1]).all()


def test_a_pass_on_the_general_road_has_the_order_of_the_columnar_road(clients):
    data = [c.shuffle(50).batch(4).map(vectors) for c in clients]
    listing = order_of(by_listing)
    with fedcore.context.use(fedsim.local_context()):
        assert fedsim.explain(listing, data).steps[0].road.startswith("general")
    for context in CONTEXTS:
        with fedcore.context.use(CONTEXTS[context](seed=7)):
            listed = listing(data)
        with fedcore.context.use(fedsim.local_context(seed=7)):
            numbers = order_of(by_reduce)(data)
        for row, number in zip(listed, numbers):
            batches = [row[i : i + 4] for i in range(0, len(row), 4)]
            again = 0
            for batch in batches:
                again = np.int32(told(np.int32(again), tf.constant(batch)))
            assert again == number


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(
    "preprocess",
    [
        lambda c: c.shuffle(50).batch(2).map(vectors).unbatch().batch(4),
        lambda c: c.shuffle(50).batch(2).map(vectors).cache().shuffle(9),
        lambda c: c.filter(lambda x: x["label"] < 3).shuffle(50).batch(4).map(vectors),
        lambda c: c.map(lambda x: x).shuffle(50).batch(4).map(vectors),
    ],
    ids=["left to tf.data", "cached", "filtered", "mapped by row"],
)
def test_recorded_pipelines_of_all_kinds(clients, context, preprocess):
    tf.random.set_seed(5)
    data = [preprocess(c) for c in clients]
    orders = order_of(by_listing)
    with fedcore.context.use(CONTEXTS[context](seed=7)):
        once = orders(data)
    for rows, client in zip(once, clients):
        wanted = np.concatenate(
            [np.ravel(x["label"]) for x in client.as_numpy_iterator()]
        )
        assert np.isin(rows, wanted).all()
    if isinstance(data[0], tf.data.Dataset):
        return  # whose own shuffles follow TensorFlow's seed
    with fedcore.context.use(CONTEXTS[context](seed=7)):
        again = orders(data)
    for a, b in zip(once, again):
        np.testing.assert_array_equal(a, b)


def test_what_has_no_plan_follows_the_seed_too(clients):
    data = [
        c.shuffle(50).map(lambda x: x["label"]).batch(2, True).batch(2).map(flat)
        for c in clients
    ]
    assert data[0].no_plan_reason
    orders = order_of(by_listing)
    for context in CONTEXTS:
        found = []
        for seed in (7, 7, 8):
            with fedcore.context.use(CONTEXTS[context](seed=seed)):
                found.append(np.concatenate(orders(data)))
        np.testing.assert_array_equal(found[0], found[1])
        assert (found[0] != found[2]).any()


def flat(batch):
    return tf.cast(tf.reshape(batch, [-1]), tf.int32)


def test_nothing_shuffled_is_left_as_it_is(clients):
    from fedsim.runtime._ordered import ordered_member

    data = clients[0].batch(4).map(vectors)
    assert ordered_member(data, SEQUENCE, 7) is data
    assert ordered_member(data.shuffle(3), SEQUENCE, 7) is not data
