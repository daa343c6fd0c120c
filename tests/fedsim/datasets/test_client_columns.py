"""`client` and `clients`: every kind of client data in columns."""

import collections
import os
import shutil
import sqlite3

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets import (
    ClientData,
    ClientDataset,
    FilePerUserClientData,
    SqlClientData,
    TestClientData,
    TransformingClientData,
    _client_columns,
    emnist,
    load_and_parse_sql_client_data,
    save_to_sql_client_data,
)

SIZES = {"b": 3, "a": 1, "it's c": 5}
SPEC = collections.OrderedDict(
    y=tf.TensorSpec([], tf.int32),
    x=tf.TensorSpec([2, 2], tf.float32),
    ok=tf.TensorSpec([], tf.bool),
)


def columns_of(client_id):
    n = SIZES[client_id]
    start = 10 * sorted(SIZES).index(client_id)
    return collections.OrderedDict(
        y=np.arange(start, start + n, dtype=np.int32),
        x=np.arange(4 * n, dtype=np.float32).reshape(n, 2, 2) + start / 8,
        ok=np.arange(n) % 2 == 0,
    )


def in_memory():
    return TestClientData({i: columns_of(i) for i in SIZES})


def write_sql(path, splits=None):
    save_to_sql_client_data(
        list(SIZES),
        in_memory().create_tf_dataset_for_client,
        str(path),
        allow_overwrite=True,
        split_names_by_client_id=splits,
    )
    return str(path)


def of_sql(tmp_path):
    return load_and_parse_sql_client_data(write_sql(tmp_path / "d.sqlite"), SPEC)


def of_function(tmp_path):
    return ClientData.from_clients_and_tf_fn(
        list(SIZES), in_memory().serializable_dataset_fn
    )


def of_files(tmp_path):
    paths = {}
    for client_id in SIZES:
        paths[client_id] = str(tmp_path / client_id)
        np.savetxt(paths[client_id], columns_of(client_id)["y"], "%d")

    def read(path):
        return tf.data.TextLineDataset(path).map(
            lambda line: {"y": tf.strings.to_number(line, tf.int32)}
        )

    return FilePerUserClientData(paths, read)


def transformed(tmp_path):
    def transform(client_id):
        more = tf.strings.length(client_id)

        def add(element):
            return {"y": element["y"] + more, "x": element["x"]}

        return add

    return TransformingClientData(
        in_memory(),
        transform,
        lambda i: [f"{i}_1", f"{i}_22"],
        lambda i: tf.strings.regex_replace(i, "_[0-9]*$", ""),
    )


def selected(tmp_path):
    return ClientData.train_test_client_split(in_memory(), 1, seed=0)[0]


def preprocessed(tmp_path):
    return in_memory().preprocess(
        lambda dataset: dataset.repeat(2).batch(2).map(lambda b: (b["x"], b["y"] + 1))
    )


KINDS = [
    lambda tmp_path: in_memory(),
    of_sql,
    of_function,
    of_files,
    transformed,
    selected,
    preprocessed,
    lambda tmp_path: selected(tmp_path).preprocess(lambda d: d.batch(3)),
    lambda tmp_path: emnist.get_synthetic(),
    lambda tmp_path: emnist.load_synthetic(3)[0],
    lambda tmp_path: emnist.load_synthetic(3)[1],
]


def same(one, other):
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        tf.nest.assert_same_structure(a, b)
        for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_client_means_what_the_tf_dataset_means(kind, tmp_path):
    data = kind(tmp_path)
    clients = data.clients(data.client_ids)
    assert len({id(client.columns) for client in clients}) == 1
    for client_id, client in zip(data.client_ids, clients, strict=True):
        assert isinstance(client, ClientDataset)
        assert client.client_id is not None
        expected = data.create_tf_dataset_for_client(client_id)
        assert client.element_spec == data.element_type_structure
        same(client.as_numpy_iterator(), expected.as_numpy_iterator())
        same(client.to_tf().as_numpy_iterator(), expected.as_numpy_iterator())
    assert data.client(data.client_ids[0]).columns is clients[0].columns


@pytest.mark.parametrize("kind", KINDS)
def test_client_takes_a_known_id_alone(kind, tmp_path):
    data = kind(tmp_path)
    with pytest.raises(ValueError, match=r"`client` needs one of the \d+ client ids"):
        data.client("somebody else")


def test_both_halves_of_a_split_share_columns():
    data = in_memory()
    train, test = ClientData.train_test_client_split(data, 1, seed=0)
    held_out = test.client_ids[0]
    assert test.client(held_out).columns is train.clients(train.client_ids)[0].columns
    with pytest.raises(ValueError, match="`client` needs one of the 2 client ids"):
        train.client(held_out)


def test_clients_of_one_preprocessing_share_a_pipeline():
    def preprocess(dataset):
        def flat(batch):
            return tf.reshape(batch["x"], [-1, 4])

        return dataset.shuffle(10).batch(2).map(flat)

    data = in_memory().preprocess(preprocess)
    assert len({id(c.pipeline) for c in data.clients(data.client_ids)}) == 1


def test_clients_wants_a_list():
    with pytest.raises(TypeError, match="`clients` needs a list of client ids"):
        in_memory().clients("a")


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (lambda i: tf.data.Dataset.from_tensors(i), "only numbers"),
        (lambda i: tf.data.Dataset.range(3).batch(2), "shapes that are fully known"),
        (
            lambda i: tf.data.Dataset.from_tensors(tf.ragged.constant([[1], [1, 2]])),
            "only numbers",
        ),
    ],
)
def test_client_needs_numbers_of_fixed_shape(dataset, why):
    data = ClientData.from_clients_and_tf_fn(["a"], dataset)
    with pytest.raises(TypeError, match=f"`client` needs elements of numbers.*{why}"):
        data.client("a")


def test_serialized_examples_have_no_columns(tmp_path):
    data = SqlClientData(write_sql(tmp_path / "d.sqlite"))
    with pytest.raises(TypeError, match="`client` needs elements of numbers"):
        data.client("a")


def test_client_needs_an_end():
    data = ClientData.from_clients_and_tf_fn(
        ["a"], lambda i: tf.data.Dataset.range(3).repeat()
    )
    with pytest.raises(ValueError, match="`client` needs data with an end"):
        data.client("a")


def test_client_reads_only_so_many_from_a_function(monkeypatch):
    monkeypatch.setattr(_client_columns, "_MOST_CLIENTS", 2)
    with pytest.raises(ValueError, match="at most 2 clients where a function makes"):
        of_function(None).client("a")


def test_client_of_a_function_may_be_empty():
    data = ClientData.from_clients_and_tf_fn(
        ["a", "bb"],
        lambda i: tf.data.Dataset.range(tf.cast(tf.strings.length(i), tf.int64) - 1),
    )
    assert list(data.client("a").as_numpy_iterator()) == []
    assert list(data.client("bb").as_numpy_iterator()) == [0]


# SQLite files: converted once.


def opened(path, split=None):
    return load_and_parse_sql_client_data(str(path), SPEC, split)


@pytest.fixture
def conversions(monkeypatch):
    """The splits that were converted."""
    done = []
    original = SqlClientData.all_serialized_examples

    def counted(self):
        done.append(self.split_name)
        return original(self)

    monkeypatch.setattr(SqlClientData, "all_serialized_examples", counted)
    return done


def test_conversion_happens_once_and_not_before_it_is_needed(tmp_path, conversions):
    path = write_sql(tmp_path / "d.sqlite")
    data = opened(path)
    list(data.create_tf_dataset_for_client("a"))
    list(data.create_tf_dataset_from_all_clients())
    assert conversions == []
    assert os.listdir(tmp_path) == ["d.sqlite"]
    data.client("a")
    data.client("b")
    assert conversions == [None]
    again = opened(path).client("b")
    assert conversions == [None]
    same(again.as_numpy_iterator(), data.client("b").as_numpy_iterator())
    assert sorted(os.listdir(tmp_path)) == ["d.sqlite", "d.sqlite.columns"]


def test_each_split_has_columns_of_its_own(tmp_path, conversions):
    path = write_sql(tmp_path / "d.sqlite", {"a": "one", "b": "two/é", "it's c": "one"})
    assert [c.client_id for c in opened(path, "one").clients(["it's c", "a"])] == [
        "it's c",
        "a",
    ]
    other = opened(path, "two/é").client("b")
    assert other.columns.client_ids == ("b",)
    assert opened(path).client("b").columns.num_rows == 9
    assert conversions == ["one", "two/é", None]


def test_a_changed_file_is_converted_again(tmp_path, conversions):
    path = write_sql(tmp_path / "d.sqlite")
    opened(path).client("a")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM examples WHERE client_id = 'a';")
    connection.close()
    client = opened(path).client("a")
    assert len(conversions) == 2
    assert list(client.as_numpy_iterator()) == []


def test_another_element_spec_has_columns_of_its_own(tmp_path):
    path = write_sql(tmp_path / "d.sqlite")
    labels = collections.OrderedDict(y=tf.TensorSpec([], tf.int64))
    client = load_and_parse_sql_client_data(path, labels).client("b")
    assert [e["y"] for e in client.as_numpy_iterator()] == [10, 11, 12]
    assert opened(path).client("b").element_spec == SPEC


@pytest.mark.parametrize("damage", ["truncate", "remove", "garble"])
def test_damaged_columns_are_made_again(tmp_path, conversions, damage):
    path = write_sql(tmp_path / "d.sqlite")
    opened(path).client("a")
    (saved,) = [p for p in (tmp_path / "d.sqlite.columns").iterdir() if p.is_dir()]
    match damage:
        case "truncate":
            os.truncate(saved / "1.bin", 3)
        case "remove":
            os.unlink(saved / "offsets.bin")
        case "garble":
            text = (saved / "manifest.json").read_text()
            (saved / "manifest.json").write_text(text.replace("float32", "float64"))
    client = opened(path).client("b")
    assert len(conversions) == 2
    np.testing.assert_array_equal(
        [e["x"] for e in client.as_numpy_iterator()], columns_of("b")["x"]
    )


def test_columns_of_a_read_only_directory_are_kept_elsewhere(tmp_path, conversions):
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = write_sql(folder / "d.sqlite")
    folder.chmod(0o555)
    try:
        opened(path).client("a")
        opened(path).client("a")
        assert os.listdir(folder) == ["d.sqlite"]
        assert len(os.listdir(tmp_path / "default-cache" / "columns")) == 1
        assert len(conversions) == 1
    finally:
        folder.chmod(0o755)


def test_columns_brought_along_with_a_read_only_directory_are_used(
    tmp_path, conversions
):
    path = write_sql(tmp_path / "d.sqlite")
    opened(path).client("a")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy2(path, copy / "d.sqlite")
    shutil.copytree(f"{path}.columns", copy / "d.sqlite.columns")
    copy.chmod(0o555)
    try:
        opened(copy / "d.sqlite").client("a")
        assert len(conversions) == 1
    finally:
        copy.chmod(0o755)


def test_columns_that_can_be_kept_nowhere_are_in_memory(tmp_path, monkeypatch):
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = write_sql(folder / "d.sqlite")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDSIM_CACHE_DIR", str(tmp_path / "file" / "below"))
    folder.chmod(0o555)
    try:
        client = opened(path).client("b")
    finally:
        folder.chmod(0o755)
    assert [e["y"] for e in client.as_numpy_iterator()] == [10, 11, 12]


def test_a_client_with_no_rows_is_there(tmp_path):
    path = write_sql(tmp_path / "d.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM examples WHERE client_id = 'b';")
    connection.close()
    data = opened(path)
    assert [c.num_examples for c in data.clients(data.client_ids)] == [1, 0, 5]


def test_rows_come_in_the_order_of_insertion_without_an_index(tmp_path):
    """Writers may put clients' rows in turns."""
    path = write_sql(tmp_path / "d.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX idx_examples_client_id_split;")
        rows = connection.execute("SELECT * FROM examples;").fetchall()
        connection.execute("DELETE FROM examples;")
        turns = [*rows[::2], *rows[1::2]]
        connection.executemany("INSERT INTO examples VALUES (?, ?, ?);", turns)
    connection.close()
    data = opened(path)
    for client_id in data.client_ids:
        same(
            data.client(client_id).as_numpy_iterator(),
            data.create_tf_dataset_for_client(client_id).as_numpy_iterator(),
        )


def test_real_emnist_in_columns(emnist_cache):
    for only_digits, rows in ((True, 10_596), (False, 14_708)):
        train, _ = emnist.load_data(only_digits, emnist_cache)
        columns = train.client("f1501_00").columns
        assert columns.num_rows == rows
        assert columns.client_ids == tuple(train.client_ids)
        for client_id in train.client_ids[::10]:
            expected = train.client_columns(client_id)
            client = train.client(client_id)
            found = columns.gather(np.arange(client.start, client.stop))
            assert list(found) == ["label", "pixels"]
            for name in found:
                assert found[name].dtype == expected[name].dtype
                np.testing.assert_array_equal(found[name], expected[name])
