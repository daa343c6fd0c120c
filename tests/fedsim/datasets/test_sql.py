"""SQLite-backed client data."""

import collections
import contextlib
import os
import sqlite3

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets.sql import (
    SqlClientData,
    load_and_parse_sql_client_data,
    save_to_sql_client_data,
)

SPEC = collections.OrderedDict(
    text=tf.TensorSpec([], tf.string),
    words=tf.TensorSpec([2], tf.string),
    image=tf.TensorSpec([2, 3], tf.float32),
    half=tf.TensorSpec([], tf.float16),
    double=tf.TensorSpec([1], tf.float64),
    label=tf.TensorSpec([], tf.int32),
    byte=tf.TensorSpec([], tf.uint8),
    big=tf.TensorSpec([], tf.int64),
    flag=tf.TensorSpec([2], tf.bool),
    none=tf.TensorSpec([0], tf.float32),
)
SIZES = {"ann": 3, "o'hara": 2, "bob": 0, "élan": 1}


def dataset_of_client(client_id):
    def examples():
        for k in range(SIZES[client_id]):
            yield collections.OrderedDict(
                text=f"{client_id} {k}\0",
                words=["", "w\xff"],
                image=np.arange(6, dtype=np.float32).reshape(2, 3) / 3 + k,
                half=np.float16(k / 2),
                double=[k / 4],
                label=-k,
                byte=255 - k,
                big=2**62 + k,
                flag=[True, False],
                none=[],
            )

    return tf.data.Dataset.from_generator(examples, output_signature=SPEC)


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "data.sqlite")
    save_to_sql_client_data(list(SIZES), dataset_of_client, path)
    return path


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_ids_are_sorted_and_element_is_the_spec(path):
    data = load_and_parse_sql_client_data(path, SPEC)
    assert data.client_ids == ["ann", "bob", "o'hara", "élan"]
    assert data.element_type_structure == SPEC
    assert list(data.element_type_structure) == list(SPEC)


@pytest.mark.parametrize("client_id", SIZES)
def test_what_is_saved_is_loaded_on_both_roads(path, client_id):
    data = load_and_parse_sql_client_data(path, SPEC)
    expected = dataset_of_client(client_id).as_numpy_iterator()
    eager = data.create_tf_dataset_for_client(client_id)
    graph = data.serializable_dataset_fn(tf.constant(client_id))
    assert eager.element_spec == graph.element_spec == SPEC
    eager = list(eager.as_numpy_iterator())
    assert_same(eager, expected)
    assert_same(graph.as_numpy_iterator(), eager)


def test_works_in_a_graph(path):
    data = load_and_parse_sql_client_data(path, SPEC)

    @tf.function
    def total(client_id):
        dataset = data.serializable_dataset_fn(client_id)
        return dataset.reduce(0, lambda s, element: s + element["label"])

    assert int(total(tf.constant("ann"))) == -3
    assert int(total(tf.constant("o'hara"))) == -1
    assert int(total(tf.constant("nobody"))) == 0

    @tf.function
    def total_of_ann():
        dataset = data.create_tf_dataset_for_client("ann")
        return dataset.reduce(0, lambda s, element: s + element["label"])

    assert int(total_of_ann()) == -3


def test_dataset_from_all_clients(path):
    data = load_and_parse_sql_client_data(path, SPEC)
    found = data.create_tf_dataset_from_all_clients(seed=5).as_numpy_iterator()
    texts = [element["text"].decode() for element in found]
    assert len(texts) == 6
    assert [t for t in texts if t.startswith("ann")] == [f"ann {k}\0" for k in range(3)]


def test_client_columns(path):
    data = load_and_parse_sql_client_data(path, SPEC)
    columns = data.client_columns("ann")
    assert columns["label"].tolist() == [0, -1, -2]
    assert columns["image"].shape == (3, 2, 3)
    assert data.client_columns("bob")["none"].shape == (0, 0)


def test_raw_rows_are_serialized_examples(path):
    data = SqlClientData(path)
    assert data.element_type_structure == tf.TensorSpec([], tf.string)
    eager = list(data.create_tf_dataset_for_client("ann").as_numpy_iterator())
    graph = list(data.serializable_dataset_fn("ann").as_numpy_iterator())
    assert eager == graph == data.serialized_examples("ann")
    example = tf.train.Example.FromString(eager[1])
    assert example.features.feature["label"].int64_list.value == [-1]
    empty = data.create_tf_dataset_for_client("bob")
    assert list(empty) == []
    assert empty.element_spec == data.element_type_structure


def test_rows_come_in_the_order_of_insertion(tmp_path):
    path = str(tmp_path / "mixed.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE examples (split_name, client_id, "
            "serialized_example_proto BLOB)"
        )
        connection.execute("CREATE TABLE client_metadata (client_id, split_name, n)")
        rows = [
            ("s2", "a", b"9"),
            ("s1", "b", b"8"),
            ("s1", "a", b"7"),
            ("s2", "a", b"1"),
            ("s1", "a", b"5"),
        ]
        connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
        pairs = [("a", "s1", 2), ("a", "s2", 2), ("b", "s1", 1)]
        connection.executemany("INSERT INTO client_metadata VALUES (?, ?, ?)", pairs)
        connection.execute(
            "CREATE INDEX by_row ON examples (client_id, split_name, "
            "serialized_example_proto)"
        )
        connection.commit()
    for split, expected in ((None, b"9715"), ("s1", b"75"), ("s2", b"91")):
        data = SqlClientData(path, split)
        assert b"".join(data.serialized_examples("a")) == expected
        graph = data.serializable_dataset_fn("a").as_numpy_iterator()
        assert b"".join(graph) == expected
    assert SqlClientData(path).client_ids == ["a", "b"]
    assert SqlClientData(path, "s2").client_ids == ["a"]


def test_splits(tmp_path):
    path = str(tmp_path / "split.sqlite")
    splits = {"ann": "train", "o'hara": "test", "élan": "train"}
    save_to_sql_client_data(
        splits, dataset_of_client, path, split_names_by_client_id=splits
    )
    train = load_and_parse_sql_client_data(path, SPEC, "train")
    assert train.client_ids == ["ann", "élan"]
    assert SqlClientData(path, "test").client_ids == ["o'hara"]
    assert len(SqlClientData(path).client_ids) == 3
    with pytest.raises(ValueError, match=r"found 'dev'\.\nIt has: 'test', 'train'"):
        SqlClientData(path, "dev")
    with pytest.raises(ValueError, match="needs one of the 2 client ids"):
        train.create_tf_dataset_for_client("o'hara")


def test_one_split_without_names(path):
    assert (
        SqlClientData(path, "default_split").client_ids
        == SqlClientData(path).client_ids
    )


def test_overwrites_only_when_allowed(path):
    with pytest.raises(FileExistsError, match="Give allow_overwrite=True"):
        save_to_sql_client_data(["ann"], dataset_of_client, path)
    save_to_sql_client_data(["ann"], dataset_of_client, path, allow_overwrite=True)
    assert SqlClientData(path).client_ids == ["ann"]


def test_nothing_is_left_when_saving_fails(tmp_path):
    def broken(client_id):
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        save_to_sql_client_data(["a"], broken, str(tmp_path / "x.sqlite"))
    assert os.listdir(tmp_path) == []


def test_saving_is_deterministic(tmp_path):
    contents = []
    for name in ("one", "two"):
        file = str(tmp_path / name)
        save_to_sql_client_data(["ann"], dataset_of_client, file)
        contents.append(SqlClientData(file).serialized_examples("ann"))
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("dataset", "kind", "message"),
    [
        (tf.data.Dataset.range(2), TypeError, "needs elements with named features"),
        (
            tf.data.Dataset.from_tensors({"x": [1]}).padded_batch(2),
            ValueError,
            "needs shapes that are fully known",
        ),
        (
            tf.data.Dataset.from_tensors({"x": {"y": 1}}),
            TypeError,
            "needs a `tf.TensorSpec` for each feature",
        ),
        (
            tf.data.Dataset.from_tensors({"x": 1j}),
            TypeError,
            "needs integers, floats, booleans or strings",
        ),
    ],
)
def test_element_types_that_cannot_be_saved(tmp_path, dataset, kind, message):
    with pytest.raises(kind, match=message):
        save_to_sql_client_data(["a"], lambda _: dataset, str(tmp_path / "x"))


def test_clients_of_different_types_cannot_be_saved(tmp_path):
    def dataset(client_id):
        return tf.data.Dataset.from_tensors({"x": 1 if client_id == "a" else 1.0})

    with pytest.raises(ValueError, match="one element type for all clients, found"):
        save_to_sql_client_data(["a", "b"], dataset, str(tmp_path / "x"))


def test_each_client_needs_a_split(tmp_path):
    with pytest.raises(ValueError, match="needs the split name of every client"):
        save_to_sql_client_data(
            ["ann"],
            dataset_of_client,
            str(tmp_path / "x"),
            split_names_by_client_id={"bob": "train"},
        )


def test_files_that_are_no_client_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        SqlClientData(str(tmp_path / "none"))
    (tmp_path / "packed").write_bytes(b"]\0\0\x80")
    with pytest.raises(ValueError, match="must be unpacked first"):
        SqlClientData(str(tmp_path / "packed"))
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
    with pytest.raises(ValueError, match="no such table: client_metadata"):
        SqlClientData(str(tmp_path / "other"))


def test_a_path_with_special_characters(tmp_path):
    path = str(tmp_path / "a?b #%20 'c'.sqlite")
    save_to_sql_client_data(["ann"], dataset_of_client, path)
    data = load_and_parse_sql_client_data(path, SPEC)
    assert len(list(data.create_tf_dataset_for_client("ann"))) == 3
    assert len(list(data.serializable_dataset_fn("ann"))) == 3


def test_element_spec_must_name_features(path):
    with pytest.raises(TypeError, match="needs elements with named features from `el"):
        load_and_parse_sql_client_data(path, tf.TensorSpec([], tf.string))
