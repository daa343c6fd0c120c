"""`TransformingClientData`: pseudo-clients from clients."""

import pytest
import tensorflow as tf

from fedsim.datasets.test_client_data import TestClientData
from fedsim.datasets.transforming import TransformingClientData


@pytest.fixture
def base() -> TestClientData:
    return TestClientData({"a": [1, 2], "b": [3]})


def add_number_of_id(client_id):
    number = tf.strings.to_number(tf.strings.substr(client_id, 2, 1), tf.int32)
    return lambda x: x + 10 * number


def expand(client_id):
    return [f"{client_id}-{k}" for k in range(3)]


def reduce(client_id):
    return tf.strings.substr(client_id, 0, 1)


def test_expands_clients(base):
    data = TransformingClientData(base, add_number_of_id, expand, reduce)
    assert data.client_ids == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert data.element_type_structure == tf.TensorSpec([], tf.int32)
    for make in (data.create_tf_dataset_for_client, data.serializable_dataset_fn):
        assert list(make("a-2").as_numpy_iterator()) == [21, 22]
        assert list(make("b-0").as_numpy_iterator()) == [3]
    joined = data.create_tf_dataset_from_all_clients(seed=3).as_numpy_iterator()
    assert sorted(joined) == [1, 2, 3, 11, 12, 13, 21, 22, 23]


def test_keeps_ids_without_expansion(base):
    data = TransformingClientData(base, lambda client_id: lambda x: (x, client_id))
    assert data.client_ids == ["a", "b"]
    found = list(data.create_tf_dataset_for_client("b").as_numpy_iterator())
    assert found == [(3, b"b")]


def test_unknown_id(base):
    data = TransformingClientData(base, add_number_of_id, expand, reduce)
    with pytest.raises(ValueError, match="needs one of the 6 client ids, found 'a'"):
        data.create_tf_dataset_for_client("a")


@pytest.mark.parametrize(
    ("given", "functions"),
    [("expand_client_id", (expand, None)), ("reduce_client_id", (None, reduce))],
)
def test_both_or_neither_function(base, given, functions):
    with pytest.raises(ValueError, match=f"needs both or neither .*\n?.*`{given}`"):
        TransformingClientData(base, add_number_of_id, *functions)


def test_expanded_ids_differ(base):
    with pytest.raises(ValueError, match="found 'same' more than once"):
        TransformingClientData(base, add_number_of_id, lambda _: ["same"], reduce)
