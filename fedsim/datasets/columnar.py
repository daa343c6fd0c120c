"""Columnar client data: one array per feature, a client is a range of rows."""

import collections
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedsim.datasets import _columnar_files
from fedsim.datasets._client_dataset_ops import Pipeline
from fedsim.datasets._columnar_files import DamagedColumnsError
from fedsim.datasets.client_dataset import ClientDataset

__all__ = ["Columns", "DamagedColumnsError", "open_or_build"]

_ALIGNMENT = 64


def _frozen_features(features: Any) -> Any:
    """The same nest of arrays, read-only, plain dicts in sorted order."""
    if isinstance(features, dict):
        if type(features) is dict:
            features = collections.OrderedDict(sorted(features.items()))
        return collections.OrderedDict(
            (name, _frozen_features(value)) for name, value in features.items()
        )
    if isinstance(features, tuple):
        return (
            type(features)(*map(_frozen_features, features))
            if hasattr(features, "_fields")
            else tuple(map(_frozen_features, features))
        )
    # A view of np.ndarray: rows of a np.memmap would be np.memmap objects.
    array = np.asarray(features).view(np.ndarray)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim == 0 or array.dtype.kind in "OSU":
        raise TypeError(
            "`Columns` needs arrays of numbers with one row per example, found "
            f"dtype {array.dtype}, shape {array.shape}.\n"
            "Keep strings and ragged features in a `tf.data.Dataset`."
        )
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def _row_count(features: Any) -> int:
    lengths = {len(array) for array in tf.nest.flatten(features)}
    if len(lengths) != 1:
        raise ValueError(
            "`Columns` needs features with the same number of rows, found "
            f"{sorted(lengths)}.\nGive every example a row in every feature."
        )
    return lengths.pop()


def _checked_offsets(offsets: Any, rows: int) -> np.ndarray:
    offsets = np.array(offsets, np.int64)
    if (
        offsets.ndim != 1
        or len(offsets) == 0
        or offsets[0] != 0
        or offsets[-1] != rows
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError(
            f"`offsets` needs to rise from 0 to the number of rows, {rows}, found "
            f"{offsets}.\nClient i has the rows offsets[i] to offsets[i + 1]."
        )
    offsets.flags.writeable = False
    return offsets


def _checked_ids(client_ids: Any, clients: int) -> tuple[str, ...]:
    ids = tuple(
        map(str, range(clients)) if client_ids is None else map(str, client_ids)
    )
    if len(ids) != clients or len(set(ids)) != clients:
        raise ValueError(
            f"`client_ids` needs {clients} different ids, one per client, found "
            f"{len(ids)} ids, {len(set(ids))} of them different.\n"
            "Give one id for each range of rows in `offsets`."
        )
    return ids


@attrs.frozen(eq=False, repr=False, init=False)
class Columns:
    """All clients' examples in one array per feature; a client is a range of rows.

    Attributes:
        features: An array, or an OrderedDict or tuple of arrays (nested as needed), in
            memory or memory-mapped; axis 0 is the example. They become read-only.
        offsets: `int64[clients + 1]`; client i has the rows `offsets[i]` up to, not
            including, `offsets[i + 1]`.
        client_ids: One string per client; "0", "1", ... if None.

    Raises:
        TypeError: If a feature is not numeric.
        ValueError: If lengths, offsets and ids do not agree.
    """

    features: Any
    offsets: np.ndarray
    client_ids: tuple[str, ...]
    _memo: dict[str, Any] = attrs.field(factory=dict, init=False)

    def __init__(
        self, features: Any, offsets: Any, client_ids: Iterable[str] | None = None
    ):
        features = _frozen_features(features)
        offsets = _checked_offsets(offsets, _row_count(features))
        ids = _checked_ids(client_ids, len(offsets) - 1)
        self.__attrs_init__(features, offsets, ids)

    @classmethod
    def from_clients(cls, clients: Iterable[tuple[str, Any]]) -> "Columns":
        """Gathers `(client_id, features)` pairs into columns in memory.

        Args:
            clients: Pairs; `features` is a nest of arrays, axis 0 the example.

        Returns:
            The columns, clients in the order given.

        Raises:
            ValueError: If there is no client, or clients differ in structure.
        """
        ids, parts = [], []
        for client_id, features in clients:
            ids.append(client_id)
            parts.append(_frozen_features(features))
        if not parts:
            raise ValueError(
                "`Columns.from_clients` needs at least one client, found none.\n"
                "Make an empty `Columns(features, [0])` to fix the element type."
            )
        for part in parts[1:]:
            tf.nest.assert_same_structure(parts[0], part)
        offsets = np.cumsum([0, *map(_row_count, parts)])
        joined = tf.nest.map_structure(_joined, *parts)
        return cls(joined, offsets, ids)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike,
        fingerprint: str | None = None,
        *,
        verify: bool = False,
    ) -> "Columns":
        """Opens saved columns, memory-mapped, in milliseconds.

        Args:
            directory: Where `save` put them.
            fingerprint: Must equal the saved one, unless None.
            verify: Whether to read all data and compare its checksums.

        Returns:
            The columns.

        Raises:
            FileNotFoundError: If there are none.
            DamagedColumnsError: If they are damaged, of another version, or saved with
                another fingerprint.
        """
        features, offsets, ids = _columnar_files.read(directory, fingerprint, verify)
        return cls(features, offsets, ids)

    def save(self, directory: str | os.PathLike, fingerprint: str = "") -> None:
        """Writes the columns as raw files with a JSON manifest, all or nothing.

        Named tuples are saved as tuples.

        Args:
            directory: Created, or replaced if it holds saved columns.
            fingerprint: Says of what these columns were made; `open` compares it.
        """
        _columnar_files.write(directory, fingerprint, self)

    @property
    def num_rows(self) -> int:
        """How many examples there are in all."""
        return int(self.offsets[-1])

    @property
    def element_spec(self) -> Any:
        """A nest of `tf.TensorSpec`: one example."""
        return self._once(
            "spec",
            lambda: tf.nest.map_structure(
                lambda a: tf.TensorSpec(a.shape[1:], tf.as_dtype(a.dtype)),
                self.features,
            ),
        )

    def tensors(self) -> list[tf.Tensor]:
        """The features, flattened, as tensors that are made once.

        They share the memory of arrays at an address that TensorFlow can take over:
        memory-mapped ones, and those of `from_clients`. Others are copied.
        """

        def make() -> list[tf.Tensor]:
            with tf.init_scope():
                # `tf.constant` would copy in any case.
                return [
                    tf.raw_ops.Identity(input=a) for a in tf.nest.flatten(self.features)
                ]

        return self._once("tensors", make)

    def dataset(self, client_id: str) -> ClientDataset:
        """One client's examples.

        Args:
            client_id: One of `client_ids`.

        Returns:
            The client's rows, in order, with nothing recorded yet.

        Raises:
            KeyError: If there is no such client.
        """
        index = self._once(
            "index", lambda: {name: i for i, name in enumerate(self.client_ids)}
        )
        if client_id not in index:
            raise KeyError(
                f"`client_id` needs one of {len(self.client_ids)} clients, found "
                f"{client_id!r}."
            )
        i = index[client_id]
        return self.rows(self.offsets[i], self.offsets[i + 1], client_id)

    def rows(self, start: int, stop: int, name: str | None = None) -> ClientDataset:
        """The rows `start` up to, not including, `stop` as one dataset.

        Args:
            start: The first row.
            stop: One past the last row.
            name: What the dataset calls its client.

        Returns:
            A dataset of `stop - start` examples.

        Raises:
            ValueError: If the range is not inside the columns.
        """
        if not 0 <= start <= stop <= self.num_rows:
            raise ValueError(
                f"`rows` needs 0 <= start <= stop <= {self.num_rows}, found "
                f"start={start}, stop={stop}."
            )
        pipeline = self._once(
            "pipeline", lambda: Pipeline(None, None, self.element_spec)
        )
        return ClientDataset(self, int(start), int(stop), name, pipeline)

    def gather(self, rows: Any) -> Any:
        """Copies rows out of every feature.

        Args:
            rows: Row numbers, or one row number.

        Returns:
            A nest of arrays as `features`, axis 0 going over `rows`.
        """
        return tf.nest.map_structure(lambda a: a[rows].copy(), self.features)

    def __len__(self) -> int:
        return len(self.client_ids)

    def __repr__(self) -> str:
        return (
            f"Columns({len(self)} clients, {self.num_rows} examples; "
            f"element_spec={self.element_spec})"
        )

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        found = self._memo.get(name)
        # Of two threads that make it at once both get the first one's.
        return self._memo.setdefault(name, make()) if found is None else found


def aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array, not initialised, at an address that TensorFlow can take over."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _joined(*parts: np.ndarray) -> np.ndarray:
    dtype = np.result_type(*parts)
    rows = aligned([sum(map(len, parts)), *parts[0].shape[1:]], dtype)
    return np.concatenate(parts, out=rows)


def open_or_build(
    directory: str | os.PathLike,
    fingerprint: str,
    build: Callable[[], "Columns | Iterable[tuple[str, Any]]"],
) -> Columns:
    """Opens the columns cached in `directory`, or builds and saves them first.

    A cache that is absent, damaged, or of another fingerprint is built anew. When
    several processes call this at once, one builds and the others wait for it.

    Args:
        directory: The cache's own directory; what it held is replaced when stale.
        fingerprint: Changes whenever the source changes (its size, time, checksum).
        build: Gives the columns, or `(client_id, features)` pairs, which are written
            one by one and so need not fit in memory together.

    Returns:
        The columns, memory-mapped.
    """
    with contextlib.suppress(FileNotFoundError, DamagedColumnsError):
        return Columns.open(directory, fingerprint)
    with _columnar_files.locked(directory):
        # Another process may have built it while this one waited for the lock.
        with contextlib.suppress(FileNotFoundError, DamagedColumnsError):
            return Columns.open(directory, fingerprint)
        _columnar_files.write(directory, fingerprint, _frozen_parts(build()))
    return Columns.open(directory, fingerprint)


def _frozen_parts(built: Any) -> "Columns | Iterator[tuple[str, Any]]":
    if isinstance(built, Columns):
        return built
    return ((name, _frozen_features(features)) for name, features in built)
