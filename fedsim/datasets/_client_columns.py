"""Columns made of client data: what can be held in them, and reading it in."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from fedsim.datasets._places import is_writable, path_key, progress_bar
from fedsim.datasets.columnar import Columns, open_or_build
from fedsim.datasets.download import default_cache_dir

_DRAINED_AT_ONCE = 1024
_MOST_CLIENTS = 20_000
_ROAD = "Use `create_tf_dataset_for_client`, which takes any data."


def check_columnar(spec: Any, text: str) -> None:
    """A `TypeError` if elements of this spec cannot be rows of columns."""
    for leaf in tf.nest.flatten(spec):
        if not isinstance(leaf, tf.TensorSpec) or leaf.dtype in (
            tf.string,
            tf.variant,
            tf.resource,
        ):
            what = "only numbers can be held in columns"
        elif not leaf.shape.is_fully_defined():
            what = "columns need shapes that are fully known"
        else:
            continue
        raise TypeError(
            f"`client` needs elements of numbers, found `{text}`: {what}.\n{_ROAD}"
        )


def drained(
    client_ids: Sequence[str],
    spec: Any,
    dataset_of: Callable[[str], tf.data.Dataset],
) -> Columns:
    """Reads each client's `tf.data.Dataset` once, into memory."""
    if len(client_ids) > _MOST_CLIENTS:
        raise ValueError(
            f"`client` needs at most {_MOST_CLIENTS} clients where a function makes "
            f"their data, found {len(client_ids)}: all are read into memory.\n{_ROAD}"
        )
    parts = (_rows(i, spec, dataset_of(i)) for i in client_ids)
    with progress_bar(len(client_ids), "Reading clients", unit="client") as bar:
        return Columns.from_clients(_counted(zip(client_ids, parts), bar))


def _counted(items: Iterator[Any], bar: Any) -> Iterator[Any]:
    for item in items:
        yield item
        bar.update(1)


def _rows(client_id: str, spec: Any, dataset: tf.data.Dataset) -> Any:
    """All elements of a data set, as one array per feature."""
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`client` needs data with an end, found an infinite data set for "
            f"{client_id!r}.\nLeave out `repeat()` and give it to the result, or use "
            "`create_tf_dataset_for_client`."
        )
    none = tf.nest.map_structure(
        lambda s: np.zeros([0, *s.shape], s.dtype.as_numpy_dtype), spec
    )
    batches = [none, *dataset.batch(_DRAINED_AT_ONCE).as_numpy_iterator()]
    return tf.nest.map_structure(lambda *pieces: np.concatenate(pieces), *batches)


def saved_beside(
    source: pathlib.Path,
    name: str,
    fingerprint: str,
    build: Callable[[], Iterator[tuple[str, Any]]],
) -> Columns:
    """Memory-mapped columns of a file, in `source.columns/name`; built if need be.

    Where the file's directory cannot be written they are below `default_cache_dir()`,
    and in memory if that cannot be written either.
    """
    beside = pathlib.Path(f"{source}.columns")
    places = [beside, default_cache_dir() / "columns" / path_key(source)]
    for place in places:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return Columns.open(place / name, fingerprint)
    if not is_writable(beside.parent):
        del places[0]
    for place in places:
        try:
            return open_or_build(place / name, fingerprint, build)
        except OSError as error:
            # A full disk or a read-only one; the source's own errors are others.
            logging.warning(
                "Columns of %s cannot be kept in %s: %s", source, place, error
            )
    return Columns.from_clients(build())


def file_fingerprint(path: str) -> str:
    """Changes whenever an SQLite file does: sizes, times, and its change counter."""
    with open(path, "rb") as file:
        header = file.read(100).hex()
    status = [os.stat(p) for p in (path, f"{path}-wal") if os.path.exists(p)]
    return f"{[(s.st_size, s.st_mtime_ns) for s in status]} {header}"
