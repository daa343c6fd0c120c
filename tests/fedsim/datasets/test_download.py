"""Downloading, caching and unpacking, against a server of our own."""

import fcntl
import hashlib
import http.server
import lzma
import os
import pathlib
import re
import threading

import pytest

from fedsim.datasets import download as downloads
from fedsim.datasets.download import (
    DownloadError,
    default_cache_dir,
    download,
    get_compressed_file,
    unpack,
)

CONTENT = bytes(range(256)) * 2000


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; `faults` says what goes wrong with each request in turn."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"1"'
        self.faults = []
        self.ranges = []
        self.release = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if fault == "silence":
            server.release.wait(30)
            return
        whole = server.content
        start = 0
        if asked and self.headers.get("If-Range") == server.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(whole):
                self.send_error(416)
                return
        body = whole[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            shown = 1 if fault == "wrong range" else start
            last = f"{len(whole) - 1}/{len(whole)}"
            self.send_header("Content-Range", f"bytes {shown}-{last}")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def log_message(self, *args):
        del args


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def get(server, tmp_path, waits):
    def get(name="file", **kwargs):
        kwargs = {"wait": waits.append, **kwargs}
        return download(server.url + name, tmp_path / "got" / name, **kwargs)

    return get


def names(directory):
    """The files in a directory, without locks."""
    return sorted(n for n in os.listdir(directory) if not n.endswith(".lock"))


def test_download(get, server):
    path = get()
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file"]
    assert server.ranges == [None]


def test_a_file_that_is_there_is_not_asked_for(get, server):
    get()
    assert get().read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_a_cut_download_goes_on_where_it_stopped(get, server, waits):
    server.faults = ["cut", "cut"]
    assert get().read_bytes() == CONTENT
    assert server.ranges == [
        None,
        f"bytes={len(CONTENT) // 2}-",
        f"bytes={len(CONTENT) * 3 // 4}-",
    ]
    # Each attempt brought something: none counts as failed.
    assert waits == [0.5, 0.5]


def test_a_later_call_goes_on_too(get, server):
    server.faults = ["cut", 404]
    with pytest.raises(DownloadError):
        get()
    assert get().read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(CONTENT) // 2}-"


def test_a_file_that_changed_meanwhile_is_begun_anew(get, server):
    server.faults = ["cut", 404]
    with pytest.raises(DownloadError):
        get()
    server.etag, server.content = '"2"', CONTENT[::-1]
    assert get().read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_strong_version_nothing_is_resumed(get, server, etag):
    server.etag = etag
    server.faults = ["cut"]
    assert get().read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_another_range_than_asked_for_is_not_taken(get, server):
    server.faults = ["cut", "wrong range"]
    assert get().read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_a_part_with_nothing_after_it_is_begun_anew(get, server, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "file.part").write_bytes(CONTENT + b"more")
    (tmp_path / "got" / "file.part.source").write_text(f'{server.url}file\n"1"')
    assert get().read_bytes() == CONTENT


def test_a_server_that_is_busy_is_asked_again(get, server, waits):
    server.faults = [503, 429]
    assert get().read_bytes() == CONTENT
    assert waits == [1.0, 2.0]


def test_it_gives_up_in_the_end(get, server, waits):
    server.faults = [500] * 10
    with pytest.raises(DownloadError, match=r"HTTP Error 500.*\(3 attempts\)"):
        get(retries=2)
    assert len(server.ranges) == 3
    assert len(waits) == 2


def test_a_missing_file_is_not_asked_for_again(get, server):
    server.faults = [404]
    with pytest.raises(DownloadError, match="HTTP 404 Not Found") as error:
        get()
    assert len(server.ranges) == 1
    assert "put the file at" in str(error.value)
    assert "base_url=" in str(error.value)


def test_a_silent_server_times_out(get, server):
    server.faults = ["silence"]
    with pytest.raises(DownloadError, match="timed out"):
        get(timeout=0.05, retries=0)


def test_a_server_that_is_not_there(tmp_path, waits):
    with Server() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match=r"\(2 attempts\)"):
        download(url + "file", tmp_path / "file", timeout=5, wait=waits.append)


def test_checksum(get):
    assert get(sha256=hashlib.sha256(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(get, tmp_path):
    with pytest.raises(DownloadError, match="`file` needs SHA-256 00, found"):
        get(sha256="00")
    assert names(tmp_path / "got") == []


def test_file_mirror(tmp_path):
    (tmp_path / "a b").write_bytes(CONTENT)
    path = download((tmp_path / "a b").as_uri(), tmp_path / "copy")
    assert path.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="there is no such file"):
        download((tmp_path / "none").as_uri(), tmp_path / "other")


def test_other_addresses(tmp_path):
    with pytest.raises(ValueError, match="starts with https://"):
        download("/data/file", tmp_path / "file")


def alone(data):
    return lzma.compress(data, format=lzma.FORMAT_ALONE)


@pytest.mark.parametrize("pack", [alone, lzma.compress])
def test_unpack(tmp_path, pack):
    (tmp_path / "x.lzma").write_bytes(pack(CONTENT * 8))
    assert unpack(tmp_path / "x.lzma", tmp_path / "x").read_bytes() == CONTENT * 8
    assert names(tmp_path) == ["x", "x.lzma"]


@pytest.mark.parametrize("damage", [lambda d: d[:-40], lambda d: b"\1\2" + d])
def test_unpack_a_damaged_file(tmp_path, damage):
    (tmp_path / "x.lzma").write_bytes(damage(alone(CONTENT)))
    with pytest.raises(DownloadError, match="is damaged or not complete"):
        unpack(tmp_path / "x.lzma", tmp_path / "x")
    assert names(tmp_path) == ["x.lzma"]


def test_unpack_waits_for_another_process(tmp_path):
    (tmp_path / "x.lzma").write_bytes(alone(CONTENT))
    with open(tmp_path / ".x.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=unpack, args=(tmp_path / "x.lzma", tmp_path / "x")
        )
        waiting.start()
        (tmp_path / "x").write_bytes(b"made by the other one")
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.join()
    assert (tmp_path / "x").read_bytes() == b"made by the other one"


def test_only_one_of_many_unpacks(tmp_path, monkeypatch):
    (tmp_path / "x.lzma").write_bytes(alone(CONTENT))
    calls = []
    decompress = downloads._decompress
    monkeypatch.setattr(
        downloads, "_decompress", lambda *args: (calls.append(1), decompress(*args))
    )
    threads = [
        threading.Thread(target=get_compressed_file, args=("x.lzma", tmp_path))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_get_takes_an_unpacked_file_as_it_is(tmp_path):
    (tmp_path / "x").write_bytes(b"mine")
    assert get_compressed_file("x.lzma", tmp_path) == str(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_get_takes_a_packed_file_as_it_is(tmp_path):
    (tmp_path / "x.lzma").write_bytes(alone(b"mine"))
    path = get_compressed_file("x.lzma", tmp_path, offline=True)
    assert path == str(tmp_path / "x")
    assert pathlib.Path(path).read_bytes() == b"mine"


def test_get_downloads_from_a_mirror(server, tmp_path, monkeypatch):
    server.content = alone(CONTENT)
    path = get_compressed_file("x.lzma", tmp_path / "a", base_url=server.url)
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert names(tmp_path / "a") == ["x", "x.lzma"]
    monkeypatch.setenv("FEDSIM_DATA_URL", server.url.rstrip("/"))
    get_compressed_file("x.lzma", tmp_path / "b")
    assert len(server.ranges) == 2


def test_the_checksum_is_that_of_the_published_file(server, tmp_path, monkeypatch):
    server.content = alone(CONTENT)
    get_compressed_file("x.lzma", tmp_path / "a", base_url=server.url, sha256="00")
    monkeypatch.setattr(downloads, "PUBLISHED_URL", server.url)
    with pytest.raises(DownloadError, match="needs SHA-256 00"):
        get_compressed_file("x.lzma", tmp_path / "b", sha256="00")


def test_default_cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIM_CACHE_DIR", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_bytes(b"")
    assert get_compressed_file("x.lzma") == str(tmp_path / "mine" / "x")
    monkeypatch.delenv("FEDSIM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "fedsim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == pathlib.Path("~/.cache/fedsim").expanduser()


@pytest.mark.parametrize("how", ["argument", "1", "true"])
def test_offline(server, tmp_path, monkeypatch, how):
    offline = True if how == "argument" else None
    monkeypatch.setenv("FEDSIM_OFFLINE", "0" if offline else how)
    with pytest.raises(DownloadError, match="downloads are switched off") as error:
        get_compressed_file("x.lzma", tmp_path, base_url=server.url, offline=offline)
    assert server.url + "x.lzma" in str(error.value)
    assert server.ranges == []


def test_offline_allows_file_mirrors(tmp_path):
    (tmp_path / "x.lzma").write_bytes(alone(CONTENT))
    path = get_compressed_file(
        "x.lzma", tmp_path / "cache", base_url=tmp_path.as_uri(), offline=True
    )
    assert path == str(tmp_path / "cache" / "x")


def test_a_packed_file_in_a_read_only_directory(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "x.lzma").write_bytes(alone(CONTENT))
    shared.chmod(0o555)
    try:
        path = pathlib.Path(get_compressed_file("x.lzma", shared))
        assert path.is_relative_to(default_cache_dir())
        assert path.read_bytes() == CONTENT
        assert get_compressed_file("x.lzma", shared) == str(path)
        assert os.listdir(shared) == ["x.lzma"]
        with pytest.raises(DownloadError, match="which is read-only"):
            get_compressed_file("y.lzma", shared)
    finally:
        shared.chmod(0o755)


def test_a_cache_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be made"):
        get_compressed_file(
            "x.lzma", tmp_path / "file" / "below", base_url=tmp_path.as_uri()
        )
