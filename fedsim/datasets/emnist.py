"""Handwritten characters by writer (Federated EMNIST), and generated digits like them."""

from __future__ import annotations

import collections
import functools

import attrs
import numpy as np
import tensorflow as tf

from fedsim.datasets import _handwriting
from fedsim.datasets._embedded import embedded_dataset_fn
from fedsim.datasets.client_data import ClientData
from fedsim.datasets.columnar import Columns, aligned
from fedsim.datasets.download import DownloadError, get_compressed_file
from fedsim.datasets.sql import load_and_parse_sql_client_data
from fedsim.datasets.test_client_data import TestClientData

FILENAME = "emnist_all.sqlite.lzma"
SHA256 = "c3aaf91b4cf4e69d53d81627ad119eccdc878ff906f68e66063ff10f67faad48"

_ELEMENT_SPEC = collections.OrderedDict(
    label=tf.TensorSpec([], tf.int32), pixels=tf.TensorSpec([28, 28], tf.float32)
)
_CACHED_WRITERS = 256


def load_data(
    only_digits: bool = True,
    cache_dir: str | None = None,
    *,
    base_url: str | None = None,
    offline: bool | None = None,
    timeout: float = 30.0,
) -> tuple[ClientData, ClientData]:
    """Loads Federated EMNIST: handwritten characters, one client per writer.

    The published file (TFF's, 3,400 writers) is `emnist_all.sqlite.lzma`: 170 MB, and
    4.7 GB when unpacked. A file `emnist_all.sqlite` or `emnist_all.sqlite.lzma` that
    is in `cache_dir` already is used as it is. Each writer has data in both sets;
    1.0 is paper and 0.0 is ink. `load_synthetic` needs no download.

    Args:
        only_digits: Gives the ten digits; else all 62 classes, digits, capitals and
            small letters.
        cache_dir: Where to look for the file and keep it; `FEDSIM_CACHE_DIR`, else
            `~/.cache/fedsim`, if None.
        base_url: The address of a mirror (`https://`, `http://`, `file://`);
            `FEDSIM_DATA_URL`, else TFF's own, if None.
        offline: Forbids downloads; `FEDSIM_OFFLINE` if None.
        timeout: Seconds without an answer after which a download attempt has failed.

    Returns:
        `(train, test)`, `ClientData` with elements
        `<label=int32,pixels=float32[28,28]>`.

    Raises:
        fedsim.datasets.download.DownloadError: If the file cannot be had.

    References:
        G. Cohen et al., EMNIST: an extension of MNIST to handwritten letters, 2017.
        arXiv:1702.05373. S. Caldas et al., LEAF: A Benchmark for Federated
        Settings, 2018. arXiv:1812.01097.
    """
    path = get_compressed_file(
        FILENAME,
        cache_dir,
        base_url=base_url,
        sha256=SHA256,
        offline=offline,
        timeout=timeout,
    )
    characters = "digits_only" if only_digits else "all"
    train, test = (
        load_and_parse_sql_client_data(path, _ELEMENT_SPEC, f"{characters}_{part}")
        for part in ("train", "test")
    )
    return train, test


def get_synthetic() -> ClientData:
    """Gives two clients with ten fixed examples each, one of each digit, for tests.

    Returns:
        A `ClientData` with elements `<label=int32,pixels=float32[28,28]>`.
    """
    labels = np.arange(10, dtype=np.int32)
    clients = {}
    for number in (1, 2):
        rng = np.random.default_rng([2017, number])
        pictures = _handwriting.write(_handwriting.new_writer(rng), labels, rng)
        clients[f"synthetic{number}"] = _element(labels, pictures)
    return TestClientData(clients)


def load_synthetic(
    num_writers: int = 100, seed: int = 0
) -> tuple[ClientData, ClientData]:
    """Generates handwritten digits, one client per writer, in the form of EMNIST.

    Each digit is drawn with strokes. A writer has a slant, width, size, pen and
    jitter and favourite forms of digits, and an uneven number and mix of digits (20
    to 300, about 100; a tenth of them are held out). Writer k is the same for each
    `num_writers`. Writers are drawn when they are first asked for; a graph of
    `serializable_dataset_fn` holds the digits of all writers.

    Args:
        num_writers: The number of writers.
        seed: Another seed gives other writers.

    Returns:
        `(train, test)`, `ClientData` over the same writers with elements
        `<label=int32,pixels=float32[28,28]>`; 1.0 is paper and 0.0 is ink.

    Raises:
        ValueError: If `num_writers` or `seed` is out of range.
    """
    if num_writers < 1:
        raise ValueError(
            f"`load_synthetic` needs `num_writers` >= 1, found {num_writers}."
        )
    if seed < 0:
        raise ValueError(f"`load_synthetic` needs `seed` >= 0, found {seed}.")
    return (
        _GeneratedDigits(num_writers, seed, held_out=False),
        _GeneratedDigits(num_writers, seed, held_out=True),
    )


def load(
    source: str = "auto", *, cache_dir: str | None = None, seed: int = 0
) -> tuple[ClientData, ClientData]:
    """Loads digits by writer, real ones or generated ones, and prints which.

    Args:
        source: `"emnist"` for `load_data`, `"synthetic"` for `load_synthetic`, `"auto"`
            for the real set if it is in the cache or can be downloaded, else generated.
        cache_dir: As for `load_data`.
        seed: As for `load_synthetic`.

    Returns:
        `(train, test)`, as `load_data` and `load_synthetic` return them.

    Raises:
        ValueError: If `source` is another word.
        fedsim.datasets.download.DownloadError: If the real set was asked for and cannot
            be had.
    """
    if source not in ("auto", "emnist", "synthetic"):
        raise ValueError(
            f"`load` needs `source` to be auto, emnist or synthetic, found {source!r}."
        )
    reason = ""
    if source != "synthetic":
        try:
            train, test = load_data(cache_dir=cache_dir, timeout=10.0)
            print(f"Data: real EMNIST digits of {len(train.client_ids)} writers.")
            return train, test
        except DownloadError as error:
            if source == "emnist":
                raise
            reason = f" (the real set cannot be had: {str(error).splitlines()[0]})"
    train, test = load_synthetic(seed=seed)
    print(f"Data: generated digits of {len(train.client_ids)} writers{reason}.")
    return train, test


class _GeneratedDigits(ClientData):
    """One half, train or test, of the digits of generated writers."""

    def __init__(self, num_writers: int, seed: int, held_out: bool):
        self._num_writers = num_writers
        self._seed = seed
        self._held_out = held_out

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {f"writer_{k:05d}": k for k in range(self._num_writers)}

    @property
    def client_ids(self) -> list[str]:
        return list(self._numbers)

    @functools.cached_property
    def _embedded(self):
        clients = [self._bytes(client_id) for client_id in self._numbers]
        return embedded_dataset_fn(self.client_ids, clients)

    @property
    def serializable_dataset_fn(self):
        return lambda client_id: self._embedded(client_id).map(_pixels_to_float)

    @property
    def element_type_structure(self):
        return _ELEMENT_SPEC

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        if not tf.executing_eagerly():
            self._check_client_id(client_id)
            return self.serializable_dataset_fn(client_id)
        return tf.data.Dataset.from_tensor_slices(self.client_columns(client_id))

    def client_columns(
        self, client_id: str
    ) -> collections.OrderedDict[str, np.ndarray]:
        """One writer's digits as one array per feature."""
        self._check_client_id(client_id)
        columns = self._bytes(client_id)
        return _element(columns["label"], columns["pixels"])

    def _make_columns(self) -> Columns:
        clients = [self._bytes(client_id) for client_id in self._numbers]
        offsets = np.cumsum([0, *(len(c["label"]) for c in clients)])
        labels = np.concatenate([c["label"] for c in clients])
        # Floats take four times the room: they are made in place, client by client.
        pixels = aligned([len(labels), 28, 28], np.float32)
        for client, start, stop in zip(clients, offsets, offsets[1:]):
            pixels[start:stop] = client["pixels"]
            pixels[start:stop] /= np.float32(255)
        features = collections.OrderedDict(label=labels, pixels=pixels)
        return Columns(features, offsets, self._numbers)

    def _bytes(self, client_id: str) -> collections.OrderedDict[str, np.ndarray]:
        digits = _digits_of_writer(self._seed, self._numbers[client_id])
        part = (
            slice(None, digits.held_out)
            if self._held_out
            else slice(digits.held_out, None)
        )
        return collections.OrderedDict(
            label=digits.labels[part], pixels=digits.pictures[part]
        )


@attrs.frozen(eq=False)
class _Digits:
    labels: np.ndarray
    pictures: np.ndarray
    held_out: int


@functools.lru_cache(_CACHED_WRITERS)
def _digits_of_writer(seed: int, number: int) -> _Digits:
    rng = np.random.default_rng([seed, number])
    writer = _handwriting.new_writer(rng)
    count = int(np.clip(rng.lognormal(np.log(100), 0.5), 20, 300))
    mix = rng.dirichlet(np.full(10, 4.0))
    labels = rng.choice(10, size=count, p=mix).astype(np.int32)
    pictures = _handwriting.write(writer, labels, rng)
    return _Digits(labels, pictures, held_out=max(2, count // 10))


def _element(
    labels: np.ndarray, pictures: np.ndarray
) -> collections.OrderedDict[str, np.ndarray]:
    return collections.OrderedDict(
        label=labels, pixels=pictures.astype(np.float32) / np.float32(255)
    )


def _pixels_to_float(
    element: collections.OrderedDict[str, tf.Tensor],
) -> collections.OrderedDict[str, tf.Tensor]:
    return collections.OrderedDict(
        label=element["label"], pixels=tf.cast(element["pixels"], tf.float32) / 255.0
    )
