"""Client data in TFF's SQLite files."""

from __future__ import annotations

import array
import collections
import contextlib
import hashlib
import math
import os
import pathlib
import re
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fedsim.datasets._client_columns import file_fingerprint, saved_beside
from fedsim.datasets._places import progress_bar
from fedsim.datasets.client_data import ClientData, checked_ids, spec_text
from fedsim.datasets.columnar import Columns

_MAGIC = b"SQLite format 3\x00"
_CONVERSION = 1  # another number when the same file would give other columns
_NO_SPLIT = "default_split"
_SCHEMA = """
CREATE TABLE examples (
    split_name TEXT NOT NULL,
    client_id TEXT NOT NULL,
    serialized_example_proto BLOB NOT NULL);
CREATE INDEX idx_examples_client_id_split ON examples (split_name, client_id);
CREATE TABLE client_metadata (
    client_id TEXT NOT NULL,
    split_name TEXT NOT NULL,
    num_examples INTEGER NOT NULL);
CREATE INDEX idx_metadata_client_id ON client_metadata (client_id);
"""


class SqlClientData(ClientData):
    """Client data in an SQLite file, as serialized `tf.train.Example` protos.

    The file holds the tables
    `examples(split_name, client_id, serialized_example_proto)`, one example a
    row, and `client_metadata(client_id, split_name, num_examples)`. An element is
    a `string` scalar; a client's examples come in the order of insertion.
    """

    def __init__(self, database_filepath: str, split_name: str | None = None):
        """Opens one split of a file.

        Args:
            database_filepath: Path of the SQLite file.
            split_name: Which split to read; all rows of a client if None.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not such a file or has no such split.
        """
        self._path = os.path.abspath(os.fspath(database_filepath))
        self._split_name = split_name
        self._ids = self._read_client_ids()

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self):
        path, split_name = self._path, self._split_name

        def dataset_of_client(client_id):
            query = tf.strings.join(
                [_query(split_name, "'"), _quoted(client_id), "' ORDER BY rowid;"]
            )
            rows = tf.data.experimental.SqlDataset("sqlite", path, query, (tf.string,))
            return rows.map(lambda row: row)

        return dataset_of_client

    @property
    def element_type_structure(self) -> tf.TensorSpec:
        return tf.TensorSpec([], tf.string)

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        self._check_client_id(client_id)
        if not tf.executing_eagerly():
            return self.serializable_dataset_fn(client_id)
        return tf.data.Dataset.from_tensor_slices(
            tf.constant(self.serialized_examples(client_id), tf.string, name="rows")
        )

    def serialized_examples(self, client_id: str) -> list[bytes]:
        """One client's rows, in the order of insertion."""
        query = _query(self._split_name, "?") + " ORDER BY rowid;"
        with self._connect() as connection:
            return [row[0] for row in connection.execute(query, (client_id,))]

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self._path)

    def all_serialized_examples(self) -> Iterator[tuple[str, list[bytes]]]:
        """Each client's rows, client after client as `client_ids` has them."""
        where = "" if self._split_name is None else "WHERE split_name = ?"
        split = () if self._split_name is None else (self._split_name,)
        with self._connect() as connection:
            # Row numbers alone are sorted: the rows themselves may be gigabytes.
            places = {client_id: array.array("q") for client_id in self._ids}
            for client_id, row in connection.execute(
                f"SELECT client_id, rowid FROM examples {where};", split
            ):
                if client_id in places:
                    places[client_id].append(row)
            one = "SELECT serialized_example_proto FROM examples WHERE rowid = ?;"
            for client_id in self._ids:
                rows = sorted(places.pop(client_id))
                yield (
                    client_id,
                    [connection.execute(one, (row,)).fetchone()[0] for row in rows],
                )

    @property
    def split_name(self) -> str | None:
        return self._split_name

    def _read_client_ids(self) -> list[str]:
        with self._connect() as connection:
            splits = collections.defaultdict(set)
            for client_id, split in connection.execute(
                "SELECT client_id, split_name FROM client_metadata;"
            ):
                splits[split].add(client_id)
        if self._split_name is None:
            return sorted(set().union(*splits.values()))
        if self._split_name not in splits:
            raise ValueError(
                f"`SqlClientData` needs a split that `{self._path}` has, found "
                f"{self._split_name!r}.\n"
                f"It has: {', '.join(map(repr, sorted(splits))) or 'none'}."
            )
        return sorted(splits[self._split_name])

    @contextlib.contextmanager
    def _connect(self):
        _check_is_sqlite(self._path)
        uri = f"file:{urllib.parse.quote(self._path)}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise ValueError(
                "`SqlClientData` needs an SQLite file with the tables `examples` and "
                f"`client_metadata`, found `{self._path}`, which SQLite cannot read: "
                f"{error}.\nIf it was downloaded, delete it and load it again."
            ) from error


class _ParsedSqlClientData(ClientData):
    """Parsed examples of an SQLite file."""

    def __init__(self, serialized: SqlClientData, element_spec: Mapping[str, Any]):
        self._serialized = serialized
        self._spec = collections.OrderedDict(element_spec)

    @property
    def client_ids(self) -> list[str]:
        return self._serialized.client_ids

    @property
    def serializable_dataset_fn(self):
        make, spec = self._serialized.serializable_dataset_fn, self._spec

        def dataset_of_client(client_id):
            return make(client_id).map(lambda row: _parse(row, spec))

        return dataset_of_client

    @property
    def element_type_structure(self):
        return self._spec

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        self._check_client_id(client_id)
        if not tf.executing_eagerly():
            return self.serializable_dataset_fn(client_id)
        return tf.data.Dataset.from_tensor_slices(self._columns(client_id))

    def client_columns(
        self, client_id: str
    ) -> collections.OrderedDict[str, np.ndarray]:
        """One client's examples as one array per feature."""
        self._check_client_id(client_id)
        return collections.OrderedDict(
            (name, column.numpy()) for name, column in self._columns(client_id).items()
        )

    def _columns(self, client_id: str) -> collections.OrderedDict[str, tf.Tensor]:
        return self._parsed(self._serialized.serialized_examples(client_id))

    def _parsed(self, rows: list[bytes]) -> collections.OrderedDict[str, tf.Tensor]:
        return _parse(tf.constant(rows, tf.string, shape=[len(rows)]), self._spec)

    def _make_columns(self) -> Columns:
        source = self._serialized
        what = f"{source.split_name!r} {_CONVERSION} {spec_text(self._spec)}"
        digest = hashlib.sha256(what.encode()).hexdigest()[:12]
        name = re.sub(r"\W", "_", source.split_name or "all_splits")[:64]
        return saved_beside(
            source.path,
            f"{name}-{digest}",
            f"{file_fingerprint(source.path)} {what}",
            self._all_clients,
        )

    def _all_clients(self) -> Iterator[tuple[str, Any]]:
        total = len(self.client_ids)
        name = f"Converting {self._serialized.path.name} (once)"
        with progress_bar(total, name, unit="client") as bar:
            for client_id, rows in self._serialized.all_serialized_examples():
                columns = self._parsed(rows)
                yield client_id, tf.nest.map_structure(lambda c: c.numpy(), columns)
                bar.update(1)


def load_and_parse_sql_client_data(
    database_filepath: str,
    element_spec: Mapping[str, tf.TensorSpec],
    split_name: str | None = None,
) -> ClientData:
    """Opens an SQLite file of `save_to_sql_client_data` and parses its examples.

    Args:
        database_filepath: Path of the SQLite file.
        element_spec: Name and `tf.TensorSpec` of each feature, in the order that
            elements have. Shapes must be known; integers and booleans are stored
            as int64, floats as float32 and are cast back.
        split_name: Which split to read; all rows of a client if None.

    Returns:
        A `ClientData` whose elements are an `OrderedDict` of `element_spec`.

    Raises:
        TypeError: If `element_spec` is not a mapping of names to tensor specs.
        FileNotFoundError: If there is no such file.
        ValueError: If a shape is not fully known, the file is none of this
            kind, or has no such split.
    """
    _check_spec(element_spec, "load_and_parse_sql_client_data", "element_spec")
    return _ParsedSqlClientData(
        SqlClientData(database_filepath, split_name), element_spec
    )


def save_to_sql_client_data(
    client_ids: Iterable[str],
    dataset_fn: Callable[[str], tf.data.Dataset],
    database_filepath: str,
    allow_overwrite: bool = False,
    split_names_by_client_id: Mapping[str, str] | None = None,
) -> None:
    """Writes client data to an SQLite file that `load_and_parse_sql_client_data` reads.

    The file appears under its name only when it is complete.

    Args:
        client_ids: The clients to write.
        dataset_fn: Maps a client id to a data set whose elements are a mapping
            of names to tensors with known shapes.
        database_filepath: Path of the file to write.
        allow_overwrite: Replaces a file that is there already.
        split_names_by_client_id: The split of each client; one split for all,
            named "default_split", if None.

    Raises:
        FileExistsError: If the file exists and `allow_overwrite` is False.
        TypeError: If an element is not a mapping of names to tensors.
        ValueError: If a client has no entry in `split_names_by_client_id`, a
            shape is not fully known or the element types of two clients differ.
    """
    ids = checked_ids(client_ids, "save_to_sql_client_data")
    splits = split_names_by_client_id
    missing = [] if splits is None else [i for i in ids if i not in splits]
    if missing:
        raise ValueError(
            "`save_to_sql_client_data` needs the split name of every client, found "
            f"none for {missing[0]!r} in `split_names_by_client_id`."
        )
    path = os.path.abspath(os.fspath(database_filepath))
    if os.path.exists(path) and not allow_overwrite:
        raise FileExistsError(
            f"`save_to_sql_client_data` needs a new file, found `{path}`.\n"
            "Give allow_overwrite=True to replace it."
        )
    handle, temporary = tempfile.mkstemp(suffix=".sqlite", dir=os.path.dirname(path))
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.executescript(_SCHEMA)
            first_spec = None
            for client_id in ids:
                dataset = dataset_fn(client_id)
                first_spec = _checked_against(first_spec, dataset, client_id)
                split = _NO_SPLIT if splits is None else splits[client_id]
                _write_client(connection, client_id, split, dataset)
            connection.commit()
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _write_client(connection, client_id: str, split: str, dataset) -> None:
    rows = [
        (split, client_id, _serialized(element, dataset.element_spec))
        for element in dataset.as_numpy_iterator()
    ]
    connection.executemany("INSERT INTO examples VALUES (?, ?, ?);", rows)
    connection.execute(
        "INSERT INTO client_metadata VALUES (?, ?, ?);", (client_id, split, len(rows))
    )


def _checked_against(first_spec, dataset, client_id: str):
    spec = dataset.element_spec
    if first_spec is None:
        _check_spec(spec, "save_to_sql_client_data", "dataset_fn")
        return spec
    if spec != first_spec:
        raise ValueError(
            "`save_to_sql_client_data` needs one element type for all clients, found\n"
            f"  {spec_text(spec)} for {client_id!r}, but\n"
            f"  {spec_text(first_spec)} for the clients before."
        )
    return first_spec


def _serialized(element: Mapping[str, Any], spec: Mapping[str, Any]) -> bytes:
    features = {name: _feature(element[name], spec[name].dtype) for name in spec}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Deterministic: map entries of a proto have no order of their own.
    return example.SerializeToString(deterministic=True)


def _feature(value: Any, dtype: tf.DType) -> tf.train.Feature:
    match _stored_dtype(dtype):
        case tf.int64:
            # Protos take every NumPy integer, but no boolean.
            stored = np.int64 if dtype.is_bool else dtype.as_numpy_dtype
            numbers = tf.train.Int64List(value=np.ravel(value).astype(stored))
            return tf.train.Feature(int64_list=numbers)
        case tf.float32:
            numbers = tf.train.FloatList(value=np.ravel(value).astype(np.float32))
            return tf.train.Feature(float_list=numbers)
    # As objects: a NumPy bytes array would drop trailing zero bytes.
    strings = tf.train.BytesList(value=np.ravel(np.array(value, dtype=object)))
    return tf.train.Feature(bytes_list=strings)


def _stored_dtype(dtype: tf.DType) -> tf.DType | None:
    """The type in which a `tf.train.Example` holds this one."""
    if dtype.is_integer or dtype.is_bool:
        return tf.int64
    if dtype.is_floating:
        return tf.float32
    return tf.string if dtype == tf.string else None


def _parse(serialized: tf.Tensor, element_spec) -> collections.OrderedDict:
    """Parses one example (a scalar) or many (a vector) at once."""
    features = {
        name: tf.io.FixedLenFeature([math.prod(spec.shape)], _stored_dtype(spec.dtype))
        for name, spec in element_spec.items()
    }
    parsed = tf.io.parse_example(serialized, features)
    batch = [] if serialized.shape.rank == 0 else [-1]
    return collections.OrderedDict(
        (
            name,
            tf.cast(
                tf.reshape(parsed[name], _row_shape(batch, spec, serialized)),
                spec.dtype,
            ),
        )
        for name, spec in element_spec.items()
    )


def _check_spec(spec: Any, function: str, argument: str) -> None:
    if not isinstance(spec, Mapping):
        raise TypeError(
            f"`{function}` needs elements with named features from `{argument}`, "
            f"found `{spec_text(spec)}`.\n"
            "Map the elements to an OrderedDict of tensors first."
        )
    for name, feature in spec.items():
        if not isinstance(feature, tf.TensorSpec):
            raise TypeError(
                f"`{function}` needs a `tf.TensorSpec` for each feature, found "
                f"{type(feature).__name__} for {name!r}."
            )
        if not feature.shape.is_fully_defined():
            raise ValueError(
                f"`{function}` needs shapes that are fully known, found "
                f"`{spec_text(feature)}` for {name!r}.\n"
                "Save examples before they are batched; pad what varies in length."
            )
        if _stored_dtype(feature.dtype) is None:
            raise TypeError(
                f"`{function}` needs integers, floats, booleans or strings, found "
                f"`{spec_text(feature)}` for {name!r}."
            )


def _check_is_sqlite(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`SqlClientData` needs an SQLite file, found nothing at `{path}`."
        )
    with open(path, "rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise ValueError(
            f"`SqlClientData` needs an SQLite file, found `{path}`, which starts with "
            f"{start!r}.\nA `.lzma` file must be unpacked first: `load_data` does so."
        )


def _query(split_name: str | None, before_id: str) -> str:
    where = (
        ""
        if split_name is None
        else "split_name = '" + split_name.replace("'", "''") + "' AND "
    )
    # Rows come in the order of insertion, which is what TFF's unordered query
    # gives through its index; the clause makes it certain.
    return (
        "SELECT serialized_example_proto FROM examples WHERE "
        f"{where}client_id = {before_id}"
    )


def _quoted(client_id) -> tf.Tensor:
    return tf.strings.regex_replace(client_id, "'", "''")


def _row_shape(batch: list[Any], spec: tf.TensorSpec, serialized: tf.Tensor):
    # -1 cannot be inferred where a feature has no entries.
    if batch and 0 in spec.shape:
        batch = [tf.shape(serialized)[0]]
    return [*batch, *spec.shape]
