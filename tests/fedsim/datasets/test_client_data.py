"""`ClientData`: what follows from ids and a dataset function."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets.client_data import ClientData
from fedsim.datasets.test_client_data import TestClientData


def numbers_of_client(client_id):
    """`<x=int64>*`: 0, 1, … up to the number in the id."""
    count = tf.strings.to_number(client_id, tf.int64)
    return tf.data.Dataset.range(count).map(lambda x: collections.OrderedDict(x=x))


def values(dataset):
    return [int(element["x"]) for element in dataset]


@pytest.fixture
def numbers() -> ClientData:
    return ClientData.from_clients_and_tf_fn(["3", "1", "2"], numbers_of_client)


def test_element_type_structure_and_ids(numbers):
    spec = collections.OrderedDict(x=tf.TensorSpec([], tf.int64))
    assert numbers.element_type_structure == spec
    assert numbers.client_ids == ["3", "1", "2"]


def test_client_ids_is_a_copy(numbers):
    numbers.client_ids.append("9")
    assert numbers.client_ids == ["3", "1", "2"]


def test_dataset_for_client(numbers):
    assert values(numbers.create_tf_dataset_for_client("3")) == [0, 1, 2]


def test_serializable_dataset_fn_works_in_a_graph(numbers):
    @tf.function
    def total(client_id):
        dataset = numbers.serializable_dataset_fn(client_id)
        return dataset.reduce(np.int64(0), lambda s, element: s + element["x"])

    assert [int(total(tf.constant(i))) for i in "321"] == [3, 1, 0]


def test_dataset_computation(numbers):
    text = str(numbers.dataset_computation.type_signature)
    assert text == "(string -> <x=int64>*)"
    assert values(numbers.dataset_computation("2")) == [0, 1]
    assert numbers.dataset_computation is numbers.dataset_computation


def test_datasets_order_follows_the_seed(numbers):
    def lengths(**kwargs):
        return [len(values(dataset)) for dataset in numbers.datasets(**kwargs)]

    order = np.array([3, 1, 2])
    np.random.RandomState(7).shuffle(order)
    assert lengths(seed=7) == order.tolist()
    assert lengths(limit_count=2, seed=7) == order[:2].tolist()
    assert lengths(limit_count=0) == []
    assert sorted(lengths()) == [1, 2, 3]
    assert lengths(seed=[1, 2]) == lengths(seed=[1, 2])


def test_dataset_from_all_clients_keeps_clients_together(numbers):
    order = ["3", "1", "2"]
    np.random.RandomState(7).shuffle(order)
    expected = [x for client_id in order for x in range(int(client_id))]
    assert values(numbers.create_tf_dataset_from_all_clients(seed=7)) == expected


def test_preprocess(numbers):
    doubled = numbers.preprocess(
        lambda dataset: dataset.map(lambda e: e["x"] * 2).batch(2)
    )
    assert doubled.client_ids == numbers.client_ids
    assert doubled.element_type_structure == tf.TensorSpec([None], tf.int64)
    for dataset in (
        doubled.create_tf_dataset_for_client("3"),
        doubled.serializable_dataset_fn("3"),
    ):
        assert [batch.numpy().tolist() for batch in dataset] == [[0, 2], [4]]


def test_preprocess_twice_applies_in_order(numbers):
    data = numbers.preprocess(lambda d: d.take(2)).preprocess(lambda d: d.repeat(2))
    assert values(data.create_tf_dataset_for_client("3")) == [0, 1, 0, 1]


def test_repr_names_clients_and_element(numbers):
    assert repr(numbers) == "<FromTfFn: 3 clients ('3', '1', '2'), element <x=int64>>"


def test_split_shares_no_client_and_follows_the_seed():
    ids = [str(n) for n in range(1, 11)]
    data = ClientData.from_clients_and_tf_fn(ids, numbers_of_client)
    train, test = ClientData.train_test_client_split(data, 3, seed=1)
    assert len(train.client_ids) == 7
    assert len(test.client_ids) == 3
    assert sorted(train.client_ids + test.client_ids) == sorted(ids)
    again = ClientData.train_test_client_split(data, 3, seed=1)[1]
    assert again.client_ids == test.client_ids
    other = ClientData.train_test_client_split(data, 3, seed=2)[1]
    assert other.client_ids != test.client_ids
    held_out = test.client_ids[0]
    assert len(values(test.create_tf_dataset_for_client(held_out))) == int(held_out)
    assert test.element_type_structure == data.element_type_structure
    with pytest.raises(ValueError, match="needs one of the 7 client ids"):
        train.create_tf_dataset_for_client(held_out)


def test_split_never_holds_out_an_empty_client():
    data = ClientData.from_clients_and_tf_fn(["0", "1", "2", "3"], numbers_of_client)
    for seed in range(8):
        train, test = ClientData.train_test_client_split(data, 2, seed=seed)
        assert "0" not in test.client_ids
        assert "0" in train.client_ids
        assert len(test.client_ids) == 2


@pytest.mark.parametrize("count", [0, -1, 3, 4])
def test_split_needs_clients_on_both_sides(numbers, count):
    with pytest.raises(ValueError, match="needs `num_test_clients` from 1 to 2"):
        ClientData.train_test_client_split(numbers, count)


def test_split_needs_enough_clients_with_data():
    data = ClientData.from_clients_and_tf_fn(["0", "00", "3"], numbers_of_client)
    with pytest.raises(ValueError, match="needs 2 test clients with data, found 1"):
        ClientData.train_test_client_split(data, 2)


def test_unknown_client_names_close_ids():
    data = TestClientData({"writer_1": [1], "writer_2": [2], "other": [3]})
    with pytest.raises(ValueError, match="needs one of the 3 client ids, found 'writ"):
        data.create_tf_dataset_for_client("writer_")
    with pytest.raises(ValueError, match="Close ids: 'writer_"):
        data.create_tf_dataset_for_client("writer_")
    with pytest.raises(ValueError, match="See `client_ids`: 'writer_1'"):
        data.create_tf_dataset_for_client("zzzzzz")


def test_negative_limit_count(numbers):
    with pytest.raises(ValueError, match="`datasets` needs `limit_count` >= 0"):
        numbers.datasets(limit_count=-1)


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        ("abc", TypeError, "needs a list of client ids, found the string 'abc'"),
        ([1, 2], TypeError, "needs strings as client ids, found 1"),
        ([], ValueError, "needs at least one client"),
        (["1", "2", "1"], ValueError, "ids that differ, found '1' more than once"),
    ],
)
def test_bad_ids(ids, kind, message):
    with pytest.raises(kind, match=message):
        ClientData.from_clients_and_tf_fn(ids, numbers_of_client)


def test_bad_functions(numbers):
    with pytest.raises(TypeError, match="needs a function as `serializable_dataset"):
        ClientData.from_clients_and_tf_fn(["1"], 5)
    with pytest.raises(TypeError, match=r"to give a `tf\.data\.Dataset`, found list"):
        ClientData.from_clients_and_tf_fn(["1"], lambda _: [1])
    with pytest.raises(TypeError, match="needs a function from a data set"):
        numbers.preprocess(3)
    with pytest.raises(TypeError, match=r"`preprocess_fn` to give a `tf\.data\."):
        numbers.preprocess(lambda dataset: 1)

    def computation(dataset):
        return dataset

    computation.type_signature = "(int32* -> int32*)"
    with pytest.raises(TypeError, match="found a computation of type"):
        numbers.preprocess(computation)


def test_seeds_choose_the_clients_that_tff_chooses():
    """What TFF 0.40 gave for the same calls."""
    data = TestClientData({str(k): [k, k + 1] for k in range(8)})
    train, test = ClientData.train_test_client_split(data, 3, seed=1)
    assert "".join(train.client_ids) == "72160"
    assert "".join(test.client_ids) == "534"
    firsts = [int(next(iter(dataset))) for dataset in data.datasets(seed=7)]
    assert firsts == [2, 5, 0, 6, 3, 1, 4, 7]
    joined = data.create_tf_dataset_from_all_clients(seed=7).as_numpy_iterator()
    assert list(joined) == [2, 3, 5, 6, 0, 1, 6, 7, 3, 4, 1, 2, 4, 5, 7, 8]
