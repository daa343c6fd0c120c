"""Columns on disk: a directory of raw arrays and a JSON manifest.

    manifest.json   {"checksum": sha256 of "body" as written, "body": {...}}
    0.bin, 1.bin    the features' rows, in C order; "body" has dtype, shape, crc32
    offsets.bin     int64[clients + 1]

The body holds the format's version, the byte order, the fingerprint of the source, the
client ids and the structure of the features, in which a leaf is its file's number.
"""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

try:
    import fcntl
except ImportError:  # Windows: two builders both build, the first one's result stays
    fcntl = None

VERSION = 1
_CHUNK = 1 << 24


class DamagedColumnsError(ValueError):
    """Saved columns that cannot be used: damaged, or made of another source."""


def read(
    directory: str | os.PathLike, fingerprint: str | None, verify: bool
) -> tuple[Any, np.ndarray, list[str]]:
    """The features, offsets and client ids saved in a directory."""
    directory = pathlib.Path(directory)
    try:
        text = (directory / "manifest.json").read_bytes()
    except NotADirectoryError as e:
        raise _damaged(directory, "a directory", "a file") from e
    try:
        manifest = json.loads(text)
        body = manifest["body"]
        if manifest["checksum"] != _checksum(body):
            raise _damaged(directory, "a manifest that agrees with its checksum")
        if body["version"] != VERSION:
            raise _damaged(
                directory, f"format version {VERSION}", f"version {body['version']}"
            )
        if body["byteorder"] != sys.byteorder:
            raise _damaged(
                directory, f"{sys.byteorder}-endian arrays", body["byteorder"]
            )
        if fingerprint is not None and body["fingerprint"] != fingerprint:
            raise _damaged(
                directory,
                f"columns made of the source `{fingerprint}`",
                f"`{body['fingerprint']}`",
            )
        arrays = [_mapped(directory, entry, verify) for entry in body["arrays"]]
        offsets = np.array(_mapped(directory, body["offsets"], True))
        features = _structure(body["features"], arrays)
        return features, offsets, body["clients"]
    except DamagedColumnsError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise _damaged(directory, "a whole manifest", f"{type(e).__name__}") from e


def write(directory: str | os.PathLike, fingerprint: str, columns: Any) -> None:
    """Saves `Columns`, or `(client_id, features)` pairs one by one, all or nothing."""
    directory = pathlib.Path(directory).absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(
        tempfile.mkdtemp(prefix=f"{directory.name}.tmp-", dir=directory.parent)
    )
    try:
        os.chmod(temporary, 0o755)
        if hasattr(columns, "features"):
            clients, offsets = columns.client_ids, columns.offsets
            parts: Iterable[tuple[str, Any]] = [("", columns.features)]
            body = _write_arrays(temporary, parts)
        else:
            body = _write_arrays(temporary, columns)
            clients, offsets = body.pop("clients"), body.pop("lengths")
            offsets = np.cumsum([0, *offsets])
        body.pop("lengths", None)
        body["clients"] = list(clients)
        body["offsets"] = _write_offsets(temporary, offsets)
        body |= {
            "version": VERSION,
            "byteorder": sys.byteorder,
            "fingerprint": fingerprint,
        }
        manifest = {"checksum": _checksum(body), "body": body}
        with open(temporary / "manifest.json", "w", encoding="utf-8") as file:
            json.dump(manifest, file)
            _flush(file)
        _sync_directory(temporary)
        _put_in_place(temporary, directory, fingerprint)
        _sync_directory(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(directory: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of a directory's builders, where the file system has locks."""
    directory = pathlib.Path(directory).absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{directory}.lock", "a+b") as file:
        held = False
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
                held = True
        if held:  # what a killed builder left; no builder is alive now
            for left in directory.parent.glob(f"{directory.name}.tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
        yield


def _write_arrays(directory: pathlib.Path, parts: Iterable[tuple[str, Any]]) -> dict:
    """Appends the parts' features to one file each; what to say of them."""
    clients, lengths, structure, first = [], [], None, []
    with contextlib.ExitStack() as stack:
        for client_id, features in parts:
            leaves: list[np.ndarray] = []
            found = _described(features, leaves)
            if structure is None:
                structure = found
                first = [
                    {
                        "file": f"{i}.bin",
                        "dtype": leaf.dtype.name,
                        "shape": [0, *leaf.shape[1:]],
                        "crc32": 0,
                    }
                    for i, leaf in enumerate(leaves)
                ]
                files = [
                    stack.enter_context(open(directory / entry["file"], "wb"))
                    for entry in first
                ]
            rows = {len(leaf) for leaf in leaves}
            if (
                found != structure
                or len(rows) != 1
                or any(
                    leaf.dtype.name != entry["dtype"]
                    or list(leaf.shape[1:]) != entry["shape"][1:]
                    for leaf, entry in zip(leaves, first)
                )
            ):
                raise ValueError(
                    "`open_or_build` needs the same features, dtypes and shapes from "
                    f"every client, found another at client {client_id!r}."
                )
            for leaf, entry, file in zip(leaves, first, files):
                entry["shape"][0] += len(leaf)
                entry["crc32"] = _append(file, leaf, entry["crc32"])
            clients.append(str(client_id))
            lengths.append(rows.pop())
        if structure is None:
            raise ValueError("`open_or_build` needs at least one client, found none.")
        for file in files:
            _flush(file)
    return {
        "clients": clients,
        "lengths": lengths,
        "features": structure,
        "arrays": first,
    }


def _append(file: Any, array: np.ndarray, crc: int) -> int:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    data = memoryview(flat) if flat.size else b""
    for i in range(0, len(data), _CHUNK):
        piece = data[i : i + _CHUNK]
        file.write(piece)
        crc = zlib.crc32(piece, crc)
    return crc


def _write_offsets(directory: pathlib.Path, offsets: Any) -> dict:
    offsets = np.asarray(offsets, np.int64)
    with open(directory / "offsets.bin", "wb") as file:
        crc = _append(file, offsets, 0)
        _flush(file)
    return {
        "file": "offsets.bin",
        "dtype": "int64",
        "shape": [len(offsets)],
        "crc32": crc,
    }


def _mapped(directory: pathlib.Path, entry: dict, verify: bool) -> np.ndarray:
    # A dtype of TensorFlow's own (bfloat16) has a name NumPy alone does not know.
    dtype = np.dtype(tf.as_dtype(entry["dtype"]).as_numpy_dtype)
    shape = tuple(entry["shape"])
    path = directory / pathlib.PurePath(entry["file"]).name
    wanted = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise _damaged(directory, f"the file {path.name}") from None
    if found != wanted:
        raise _damaged(directory, f"{wanted} bytes in {path.name}", f"{found}")
    if wanted == 0:  # nothing can be mapped
        return np.zeros(shape, dtype)
    array = np.memmap(path, np.uint8, "r").view(np.ndarray)
    if verify and _crc(array) != entry["crc32"]:
        raise _damaged(directory, f"data in {path.name} that agree with their checksum")
    return array.view(dtype).reshape(shape)


def _crc(data: np.ndarray) -> int:
    crc = 0
    for i in range(0, len(data), _CHUNK):
        crc = zlib.crc32(data[i : i + _CHUNK], crc)
    return crc


def _described(features: Any, leaves: list[np.ndarray]) -> Any:
    """The structure of a nest of arrays as JSON; appends its arrays to `leaves`."""
    if isinstance(features, dict):
        return {"dict": [[k, _described(v, leaves)] for k, v in features.items()]}
    if isinstance(features, tuple):
        return {"tuple": [_described(v, leaves) for v in features]}
    leaves.append(features)
    return len(leaves) - 1


def _structure(described: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(described, int):
        return arrays[described]
    if "dict" in described:
        return collections.OrderedDict(
            (name, _structure(value, arrays)) for name, value in described["dict"]
        )
    return tuple(_structure(value, arrays) for value in described["tuple"])


def _checksum(body: dict) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _put_in_place(
    temporary: pathlib.Path, directory: pathlib.Path, fingerprint: str
) -> None:
    """Renames `temporary` to `directory`, whatever others do at the same time."""
    old = pathlib.Path(f"{temporary}.old")
    while True:
        # A directory that holds files cannot be replaced in one step: between the two
        # renames a reader finds none, and builds or waits for the lock.
        with contextlib.suppress(FileNotFoundError):
            os.rename(directory, old)
        try:
            os.rename(temporary, directory)
            return
        except OSError:
            if not directory.is_dir():
                raise
            # Another builder was quicker: its columns serve, unless of another source.
            with contextlib.suppress(FileNotFoundError, DamagedColumnsError):
                read(directory, fingerprint, False)
                return
        finally:
            shutil.rmtree(old, ignore_errors=True)
            if old.is_file():
                old.unlink()


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: pathlib.Path) -> None:
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _damaged(
    directory: pathlib.Path, wanted: str, found: str | None = None
) -> DamagedColumnsError:
    found = f", found {found}" if found else ""
    return DamagedColumnsError(
        f"`Columns.open` needs {wanted}{found}, at {directory}.\n"
        "Delete the directory, or let `open_or_build` build it again."
    )
