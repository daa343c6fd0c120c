"""`TestClientData`: client data from a dictionary."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets.test_client_data import TestClientData


def elements(dataset):
    return list(dataset.as_numpy_iterator())


def both_roads(data, client_id):
    """The client's data read eagerly and inside a graph."""
    in_graph = tf.function(
        lambda i: data.serializable_dataset_fn(i).batch(100).get_single_element()
    )(tf.constant(client_id))
    eager = data.create_tf_dataset_for_client(client_id).batch(100)
    return eager.get_single_element(), in_graph


def test_lists_have_tensorflow_dtypes():
    data = TestClientData({"a": [[1, 2], [3, 4]], "b": [[5, 6]]})
    assert data.client_ids == ["a", "b"]
    assert data.element_type_structure == tf.TensorSpec([2], tf.int32)
    assert [e.tolist() for e in elements(data.create_tf_dataset_for_client("a"))] == [
        [1, 2],
        [3, 4],
    ]


def test_dict_keys_are_sorted_and_ordered_dict_is_kept():
    plain = TestClientData({"a": {"y": [1.0], "x": ["s"]}})
    assert list(plain.element_type_structure.items()) == [
        ("x", tf.TensorSpec([], tf.string)),
        ("y", tf.TensorSpec([], tf.float32)),
    ]
    assert isinstance(plain.element_type_structure, collections.OrderedDict)
    ordered = TestClientData({"a": collections.OrderedDict(y=[1.0], x=[2])})
    assert list(ordered.element_type_structure) == ["y", "x"]


def test_tuples_and_arrays_nest():
    data = TestClientData({"a": (np.zeros((3, 2), np.int64), {"t": [True] * 3})})
    assert data.element_type_structure == (
        tf.TensorSpec([2], tf.int64),
        collections.OrderedDict(t=tf.TensorSpec([], tf.bool)),
    )


@pytest.mark.parametrize("client_id", ["a", "b", "c"])
def test_both_roads_agree(client_id):
    def client(n):
        return {"x": np.arange(n * 2.0).reshape(n, 2) + n, "s": [f"é{n}\0"] * n}

    data = TestClientData({"a": client(1), "b": client(4), "c": client(2)})
    eager, in_graph = both_roads(data, client_id)
    tf.nest.map_structure(np.testing.assert_array_equal, eager, in_graph)
    spec = data.serializable_dataset_fn(client_id).element_spec
    assert spec == data.element_type_structure


def test_unknown_id_in_a_graph():
    data = TestClientData({"a": [1]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown client id"):
        both = tf.function(lambda i: data.serializable_dataset_fn(i).cardinality())
        both(tf.constant("b"))


def test_dataset_from_all_clients():
    data = TestClientData({"a": [1, 2], "b": [3]})
    found = elements(data.create_tf_dataset_from_all_clients(seed=0))
    assert found in ([1, 2, 3], [3, 1, 2])


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("slices", "kind", "message"),
    [
        ([1, 2], TypeError, "needs a dict from client id to data, found list"),
        ({}, ValueError, "needs at least one client"),
        ({1: [1]}, TypeError, "needs strings as client ids"),
        ({"a": []}, ValueError, "needs at least one example per client"),
        ({"a": tf.constant([1])}, TypeError, "an eager tensor cannot enter a graph"),
        ({"a": [tf.constant(1)]}, TypeError, "an eager tensor cannot enter a graph"),
        ({"a": Point([1], [2])}, TypeError, "found Point for client 'a'"),
        ({"a": 5}, TypeError, "found int for client 'a'"),
        ({"a": [[1, 2], [3]]}, ValueError, "found entries of different shapes"),
        ({"a": ([1, 2], [3])}, ValueError, r"same number of entries .* \[1, 2\]"),
        ({"a": [1], "b": [1.0]}, TypeError, "needs one element type for all clients"),
        ({"a": [1], "b": ([1],)}, TypeError, "needs one element type for all clients"),
        ({"a": [[1]], "b": [[1, 2]]}, TypeError, "needs one element type"),
    ],
)
def test_errors(slices, kind, message):
    with pytest.raises(kind, match=message):
        TestClientData(slices)
