"""Finds, downloads and unpacks published data files.

Environment variables: `FEDSIM_CACHE_DIR` is where files are kept (else
`$XDG_CACHE_HOME/fedsim`, else `~/.cache/fedsim`), `FEDSIM_DATA_URL` the address of a
mirror, `FEDSIM_OFFLINE=1` forbids downloads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import lzma
import os
import pathlib
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

from absl import logging

from fedsim.datasets._places import is_writable, path_key, progress_bar

try:
    import fcntl
except ImportError:  # Windows: two processes then do the same work twice.
    fcntl = None

PUBLISHED_URL = "https://storage.googleapis.com/tff-datasets-public/"
_CHUNK = 1 << 20
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(OSError):
    """A data file could not be had; the message says what to do."""


class _Interrupted(Exception):
    """A download stopped in the middle, and may go on from there."""


def default_cache_dir() -> pathlib.Path:
    """The directory for data files when no `cache_dir` is given."""
    if directory := os.environ.get("FEDSIM_CACHE_DIR"):
        return pathlib.Path(directory).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "fedsim"


def get_compressed_file(
    filename: str,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    base_url: str | None = None,
    sha256: str | None = None,
    offline: bool | None = None,
    timeout: float = 30.0,
    retries: int = 4,
) -> str:
    """Gives the path of an unpacked data file.

    Looks in `cache_dir` for the unpacked file, then for the packed one, then
    downloads. A packed file is unpacked beside itself, or below
    `default_cache_dir()` when its directory is read-only. Several processes may
    ask at once: one works, the others wait.

    Args:
        filename: Name of the packed file, ending in `.lzma` or `.xz`.
        cache_dir: Where to look and keep; `default_cache_dir()` if None.
        base_url: Where to download from (`https://`, `http://` or `file://`);
            `FEDSIM_DATA_URL`, else TFF's published files, if None.
        sha256: Hexadecimal digest that the packed file from TFF must have. Files
            from a mirror, or found in `cache_dir`, are taken as they are.
        offline: Forbids downloads; `FEDSIM_OFFLINE` if None.
        timeout: Seconds without an answer after which an attempt counts as failed.
        retries: Attempts in a row that may fail without any progress.

    Returns:
        The path of the unpacked file.

    Raises:
        DownloadError: If the file cannot be had or unpacked.
        ValueError: If `base_url` is of another kind.
    """
    directory = pathlib.Path(cache_dir or default_cache_dir()).expanduser()
    unpacked, packed = directory / pathlib.Path(filename).stem, directory / filename
    if unpacked.is_file():
        return str(unpacked)
    if not packed.is_file():
        base = base_url or os.environ.get("FEDSIM_DATA_URL") or PUBLISHED_URL
        url = base.rstrip("/") + "/" + filename
        if _is_offline(offline) and not url.startswith("file:"):
            raise DownloadError(
                f"`{filename}` is not in `{directory}` and downloads are switched off "
                f"(offline=True or FEDSIM_OFFLINE).\nPut the file there from {url}, or "
                "give the directory that has it as `cache_dir`."
            )
        if directory.is_dir() and not is_writable(directory):
            raise DownloadError(
                f"`{filename}` is not in `{directory}`, which is read-only.\n"
                "Give the directory that has the file, or one that can be written, as "
                "`cache_dir`."
            )
        published = base.rstrip("/") == PUBLISHED_URL.rstrip("/")
        download(
            url,
            packed,
            sha256=sha256 if published else None,
            timeout=timeout,
            retries=retries,
        )
    if not is_writable(directory):
        unpacked = _elsewhere(packed)
    return str(unpack(packed, unpacked))


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    timeout: float = 30.0,
    retries: int = 4,
    wait: Callable[[float], None] = time.sleep,
) -> pathlib.Path:
    """Downloads a file; it appears under its name only when it is complete.

    What has come so far stays in `path` + ".part": a later attempt, also of another
    process, goes on from there if the file at `url` is still the same.

    Args:
        url: `https://`, `http://` or `file://`.
        path: Where the file goes.
        sha256: Hexadecimal digest that the file must have.
        timeout: Seconds without an answer after which an attempt counts as failed.
        retries: Attempts in a row that may fail without any progress.
        wait: Called with the seconds to wait before the next attempt.

    Returns:
        `path`.

    Raises:
        DownloadError: If the file cannot be had, or its digest is another.
        ValueError: If `url` is of another kind.
    """
    path = pathlib.Path(path)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https", "file"):
        raise ValueError(
            "`download` needs an address that starts with https://, http:// or "
            f"file://, found {url!r}."
        )
    _make_directory(path.parent)
    part = path.with_name(path.name + ".part")
    with _locked(path):
        if path.is_file():
            return path
        _fetch(url, part, timeout, retries, wait)
        found = _digest(part) if sha256 else None
        if found != sha256:
            _forget(part)
            raise DownloadError(
                f"`{path.name}` needs SHA-256 {sha256}, found {found} after the "
                f"download from {url}.\nThe file was removed. Load it again; if it "
                "happens again, the server has another file."
            )
        os.replace(part, path)
        _forget(part)
    return path


def unpack(
    packed: str | os.PathLike[str], unpacked: str | os.PathLike[str]
) -> pathlib.Path:
    """Unpacks an LZMA file (`.lzma` or `.xz`), unless that has been done.

    Args:
        packed: The packed file.
        unpacked: Where the result goes, in one step, when it is complete.

    Returns:
        `unpacked`.

    Raises:
        DownloadError: If the packed file is damaged or the disk is full.
    """
    packed, unpacked = pathlib.Path(packed), pathlib.Path(unpacked)
    _make_directory(unpacked.parent)
    with _locked(unpacked):
        if unpacked.is_file():
            return unpacked
        handle, temporary = tempfile.mkstemp(
            prefix=f".{unpacked.name}.", dir=unpacked.parent
        )
        try:
            with open(packed, "rb") as source, open(handle, "wb") as target:
                _decompress(source, target, packed)
                _flush(target)
            os.chmod(temporary, 0o644)
            os.replace(temporary, unpacked)
        except (EOFError, lzma.LZMAError) as error:
            raise DownloadError(
                f"`{packed}` is damaged or not complete: {error}.\n"
                "Delete it and load the data again."
            ) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DownloadError(
                f"There is no room to unpack `{packed}` in `{unpacked.parent}`.\n"
                "Make room, or give another directory as `cache_dir`."
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return unpacked


def _decompress(source, target, packed: pathlib.Path) -> None:
    # The bar counts packed bytes: the size of the result is often not recorded.
    with (
        progress_bar(packed.stat().st_size, f"Unpacking {packed.name}") as bar,
        lzma.open(source) as data,
    ):
        while chunk := data.read(_CHUNK):
            target.write(chunk)
            bar.update(source.tell() - bar.n)


def _fetch(url: str, part: pathlib.Path, timeout, retries, wait) -> None:
    """Brings `part` to completion, in as many attempts as it takes."""
    failed = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part, timeout)
        except (OSError, http.client.HTTPException, _Interrupted) as error:
            cause = error
        if reason := _hopeless(cause):
            raise _failure(url, part, reason) from cause
        after = _size(part)
        failed = 0 if after > before else failed + 1
        # Without an answer at all there is probably no network: do not wait long.
        unreachable = type(cause) is urllib.error.URLError and not after
        if failed > (min(retries, 1) if unreachable else retries):
            text = str(cause) or type(cause).__name__
            raise _failure(url, part, f"{text} ({failed} attempts)") from cause
        logging.warning("Download of %s stopped (%s): trying again.", url, cause)
        wait(min(2.0**failed, 30.0) / 2)


def _hopeless(error: Exception) -> str | None:
    """Why another attempt would end the same way, or None."""
    match error:
        case urllib.error.HTTPError() if error.code not in _TEMPORARY_STATUS:
            return f"HTTP {error.code} {error.reason}"
        case urllib.error.URLError(reason=FileNotFoundError()):
            return "there is no such file"
        case OSError(errno=errno.ENOSPC):
            return "the disk is full"
        case PermissionError():
            return f"`{error.filename}` cannot be written"
    return None


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, part: pathlib.Path, timeout: float) -> None:
    """One request: writes to `part`, from where an earlier one stopped."""
    start, version = _resumable(url, part)
    request = urllib.request.Request(url, headers={"User-Agent": "fedsim"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # Nothing after what is there: begin anew.
            _forget(part)
            raise _Interrupted("the server has no more bytes") from None
        raise
    with response:
        if response.status != 206:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        ):
            _forget(part)
            raise _Interrupted("the server sent another range")
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        _source(part).write_text(f"{url}\n{version or ''}", encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _receive(response, part, start, total)


def _receive(response, part: pathlib.Path, start: int, total: int | None) -> None:
    name = f"Downloading {part.name.removesuffix('.part')}"
    with (
        open(part, "ab" if start else "wb") as target,
        progress_bar(total, name, start) as bar,
    ):
        while chunk := response.read(_CHUNK):
            target.write(chunk)
            bar.update(len(chunk))
        _flush(target)
        size = target.tell()
    if total is not None and size != total:
        raise _Interrupted(f"the connection ended after {size} of {total} bytes")


def _resumable(url: str, part: pathlib.Path) -> tuple[int, str]:
    """How many bytes are there already, and of which version of the file."""
    try:
        source, version = _source(part).read_text(encoding="utf-8").split("\n", 1)
        size = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    # A weak ETag does not promise the same bytes.
    same = source == url and version and not version.startswith("W/")
    return (size, version) if same else (0, "")


def _source(part: pathlib.Path) -> pathlib.Path:
    return part.with_name(part.name + ".source")


def _forget(part: pathlib.Path) -> None:
    for path in (part, _source(part)):
        path.unlink(missing_ok=True)


def _failure(url: str, part: pathlib.Path, reason: str) -> DownloadError:
    target = part.with_name(part.name.removesuffix(".part"))
    return DownloadError(
        f"`{target.name}` could not be downloaded from {url}: {reason}.\n"
        f"Check the connection or the address; or put the file at `{target}` "
        "yourself; or name a mirror with `base_url=` or FEDSIM_DATA_URL."
    )


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock of `path`, against other processes and threads."""
    if fcntl is None:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("Waiting for another process to make %s.", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _is_offline(offline: bool | None) -> bool:
    if offline is not None:
        return offline
    return os.environ.get("FEDSIM_OFFLINE", "").lower() not in ("", "0", "false")


def _make_directory(directory: pathlib.Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"The directory `{directory}` cannot be made: {error}.\n"
            "Give another one as `cache_dir`, or set FEDSIM_CACHE_DIR."
        ) from error


def _elsewhere(packed: pathlib.Path) -> pathlib.Path:
    """Where a packed file of a read-only directory is unpacked."""
    return default_cache_dir() / "unpacked" / path_key(packed) / packed.stem
