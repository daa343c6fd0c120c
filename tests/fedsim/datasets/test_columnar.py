import collections
import json
import multiprocessing
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from fedsim.datasets.columnar import Columns, DamagedColumnsError, open_or_build


def example_clients(sizes=(3, 0, 5)):
    for i, n in enumerate(sizes):
        yield (
            f"client_{i}",
            collections.OrderedDict(
                label=np.arange(n, dtype=np.int64) + 10 * i,
                pixels=np.full((n, 2, 2), i, np.float32),
            ),
        )


def example_columns(sizes=(3, 0, 5)):
    return Columns.from_clients(example_clients(sizes))


def assert_same_columns(a, b):
    assert a.client_ids == b.client_ids
    np.testing.assert_array_equal(a.offsets, b.offsets)
    tf.nest.assert_same_structure(a.features, b.features)
    for x, y in zip(tf.nest.flatten(a.features), tf.nest.flatten(b.features)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_columns_gather_clients():
    columns = example_columns()
    assert columns.client_ids == ("client_0", "client_1", "client_2")
    assert columns.offsets.tolist() == [0, 3, 3, 8]
    assert columns.features["label"].tolist() == [0, 1, 2, 20, 21, 22, 23, 24]
    assert columns.features["pixels"].shape == (8, 2, 2)
    assert len(columns) == 3
    assert columns.num_rows == 8
    assert columns.element_spec == collections.OrderedDict(
        label=tf.TensorSpec([], tf.int64), pixels=tf.TensorSpec([2, 2], tf.float32)
    )
    assert "3 clients, 8 examples" in repr(columns)


@pytest.mark.parametrize(
    "features",
    [
        np.arange(4),
        (np.arange(4), np.zeros([4, 2])),
        collections.OrderedDict(b=np.arange(4), a=(np.zeros(4, bool), np.ones(4))),
        tf.zeros([4, 3], tf.bfloat16).numpy(),
        np.arange(4).astype(">i4"),
    ],
)
def test_columns_take_and_save_every_structure(features, tmp_path):
    columns = Columns(features, [0, 1, 4])
    columns.save(tmp_path / "cache")
    assert_same_columns(columns, Columns.open(tmp_path / "cache"))
    assert len(list(columns.dataset("1"))) == 3


def test_columns_sort_a_plain_dict():
    columns = Columns({"b": np.arange(2), "a": np.arange(2)}, [0, 2])
    assert list(columns.features) == ["a", "b"]


def test_columns_are_read_only():
    columns = example_columns()
    with pytest.raises(ValueError, match="read-only"):
        columns.features["label"][0] = 7
    with pytest.raises(ValueError, match="read-only"):
        columns.offsets[0] = 7


def test_columns_datasets_are_ranges_of_rows():
    columns = example_columns()
    assert columns.dataset("client_2").num_examples == 5
    assert columns.dataset("client_1").num_examples == 0
    assert columns.rows(2, 5).num_examples == 3
    with pytest.raises(KeyError, match="`client_id` needs one of 3 clients"):
        columns.dataset("nobody")
    with pytest.raises(ValueError, match="`rows` needs 0 <= start <= stop <= 8"):
        columns.rows(5, 9)


def test_columns_refuse_strings():
    with pytest.raises(TypeError, match="`Columns` needs arrays of numbers"):
        Columns(np.array(["a", "b"]), [0, 2])
    with pytest.raises(TypeError, match="`Columns` needs arrays of numbers"):
        Columns(np.array([[1], [1, 2]], object), [0, 2])


@pytest.mark.parametrize("offsets", [[0, 3], [1, 4], [0, 3, 2, 4], [], [[0, 4]]])
def test_columns_refuse_offsets_that_do_not_fit(offsets):
    with pytest.raises(ValueError, match="`offsets` needs to rise from 0"):
        Columns(np.arange(4), offsets)


def test_columns_refuse_wrong_ids_and_lengths():
    with pytest.raises(ValueError, match="`client_ids` needs 2 different ids"):
        Columns(np.arange(4), [0, 1, 4], ["a", "a"])
    with pytest.raises(ValueError, match="same number of rows"):
        Columns((np.arange(4), np.arange(3)), [0, 4])
    with pytest.raises(ValueError, match="at least one client"):
        Columns.from_clients([])


def test_saved_columns_come_back_memory_mapped(tmp_path):
    columns = example_columns()
    columns.save(tmp_path / "cache", "abc")
    opened = Columns.open(tmp_path / "cache", "abc", verify=True)
    assert_same_columns(columns, opened)
    base = opened.features["pixels"]
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {
        "manifest.json",
        "offsets.bin",
        "0.bin",
        "1.bin",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_columns_without_rows_are_saved(tmp_path):
    columns = Columns(np.zeros([0, 3], np.float32), [0, 0])
    columns.save(tmp_path / "cache")
    assert_same_columns(columns, Columns.open(tmp_path / "cache"))


def test_saving_replaces_what_was_saved(tmp_path):
    example_columns((9,)).save(tmp_path / "cache")
    opened = Columns.open(tmp_path / "cache")
    example_columns((2, 2)).save(tmp_path / "cache")
    assert_same_columns(Columns.open(tmp_path / "cache"), example_columns((2, 2)))
    assert opened.features["label"].tolist() == list(range(9))  # still mapped


def test_open_finds_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Columns.open(tmp_path / "cache")


def truncate_array(cache):
    data = (cache / "1.bin").read_bytes()
    (cache / "1.bin").write_bytes(data[:-1])


def remove_array(cache):
    (cache / "0.bin").unlink()


def flip_offsets(cache):
    data = bytearray((cache / "offsets.bin").read_bytes())
    data[8] ^= 1
    (cache / "offsets.bin").write_bytes(data)


def cut_manifest(cache):
    text = (cache / "manifest.json").read_text()
    (cache / "manifest.json").write_text(text[: len(text) // 2])


def change_manifest(cache):
    text = (cache / "manifest.json").read_text()
    (cache / "manifest.json").write_text(text.replace("client_2", "client_3"))


def garble_manifest(cache):
    (cache / "manifest.json").write_bytes(b"\xff\xfe\x00")


def empty_manifest(cache):
    (cache / "manifest.json").write_text("{}")


def list_manifest(cache):
    (cache / "manifest.json").write_text("[1]")


def remove_manifest(cache):
    (cache / "manifest.json").unlink()


def older_version(cache):
    from fedsim.datasets import _columnar_files

    manifest = json.loads((cache / "manifest.json").read_text())
    manifest["body"]["version"] = 0
    manifest["checksum"] = _columnar_files._checksum(manifest["body"])
    (cache / "manifest.json").write_text(json.dumps(manifest))


def make_file(cache):
    shutil.rmtree(cache)
    cache.write_text("not a directory")


DAMAGES = [
    truncate_array,
    remove_array,
    flip_offsets,
    cut_manifest,
    change_manifest,
    garble_manifest,
    empty_manifest,
    list_manifest,
    remove_manifest,
    older_version,
    make_file,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_and_mended(damage, tmp_path):
    cache = tmp_path / "cache"
    example_columns().save(cache, "abc")
    damage(cache)
    with pytest.raises((DamagedColumnsError, OSError)):
        Columns.open(cache, "abc")
    assert_same_columns(open_or_build(cache, "abc", example_clients), example_columns())
    assert_same_columns(Columns.open(cache, "abc", verify=True), example_columns())


def test_verify_sees_changed_data(tmp_path):
    cache = tmp_path / "cache"
    example_columns().save(cache)
    data = bytearray((cache / "1.bin").read_bytes())
    data[3] ^= 1
    (cache / "1.bin").write_bytes(data)
    Columns.open(cache)
    with pytest.raises(DamagedColumnsError, match="agree with their checksum"):
        Columns.open(cache, verify=True)


def test_open_or_build_builds_once_per_fingerprint(tmp_path):
    built = []

    def build(sizes):
        built.append(sizes)
        return example_clients(sizes)

    for fingerprint, sizes in [("a", (1, 2)), ("a", (9,)), ("b", (4,)), ("b", (9,))]:
        columns = open_or_build(tmp_path / "c", fingerprint, lambda s=sizes: build(s))
    assert built == [(1, 2), (4,)]
    assert_same_columns(columns, example_columns((4,)))


def test_open_or_build_takes_columns(tmp_path):
    built = open_or_build(tmp_path / "deep" / "cache", "a", example_columns)
    assert_same_columns(built, example_columns())


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def build():
        yield from example_clients()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        open_or_build(tmp_path / "cache", "a", build)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.lock"]
    with pytest.raises(FileNotFoundError):
        Columns.open(tmp_path / "cache")


def test_a_killed_build_is_cleaned_up(tmp_path):
    left = tmp_path / "cache.tmp-left"
    left.mkdir()
    (left / "0.bin").write_text("half")
    open_or_build(tmp_path / "cache", "a", example_clients)
    assert not left.exists()


def test_clients_must_agree(tmp_path):
    def build():
        yield "a", (np.arange(3), np.zeros([3, 2]))
        yield "b", (np.arange(3), np.zeros([3, 4]))

    with pytest.raises(ValueError, match="found another at client 'b'"):
        open_or_build(tmp_path / "cache", "a", build)
    with pytest.raises(ValueError, match="at least one client"):
        open_or_build(tmp_path / "cache", "a", list)


def _build_in_process(directory, barrier, results):
    barrier.wait()

    def build():
        (
            pathlib.Path(directory) / f"built_{multiprocessing.current_process().pid}"
        ).touch()
        return example_clients((5, 6))

    columns = open_or_build(pathlib.Path(directory) / "cache", "a", build)
    results.put(columns.features["label"].tolist())


def test_processes_at_once_build_once(tmp_path):
    spawn = multiprocessing.get_context("fork")
    barrier, results = spawn.Barrier(4), spawn.Queue()
    processes = [
        spawn.Process(target=_build_in_process, args=(str(tmp_path), barrier, results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert found == [example_columns((5, 6)).features["label"].tolist()] * 4
    assert len(list(tmp_path.glob("built_*"))) == 1


@pytest.mark.parametrize("rival_fingerprint", ["a", "stale"])
def test_a_rival_between_the_renames(rival_fingerprint, tmp_path, monkeypatch):
    # Without locks (Windows, some network file systems) another builder's columns may
    # appear between moving the old ones away and putting the new ones there.
    cache, rival = tmp_path / "cache", tmp_path / "rival"
    example_columns((7,)).save(rival, rival_fingerprint)
    example_columns((1,)).save(cache, "old")
    rename, calls = os.rename, []

    def interrupted_rename(source, target):
        rename(source, target)
        calls.append(source)
        if len(calls) == 1:
            shutil.copytree(rival, cache)

    monkeypatch.setattr(os, "rename", interrupted_rename)
    example_columns((5, 6)).save(cache, "a")
    kept = (7,) if rival_fingerprint == "a" else (5, 6)
    assert_same_columns(Columns.open(cache, "a", verify=True), example_columns(kept))
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "rival"}


def test_tensors_are_made_once_and_hold_the_features():
    columns = Columns.from_clients(
        [
            ("a", (np.arange(3.0), np.ones([3, 2], np.int8))),
            ("b", (np.zeros(0), np.ones([0, 2], np.int8))),
        ]
    )
    tensors = columns.tensors()
    assert columns.tensors() is tensors
    for tensor, array in zip(tensors, columns.features, strict=True):
        assert tensor.dtype == array.dtype
        np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize("saved", [False, True])
def test_tensors_share_memory(saved, tmp_path):
    columns = Columns.from_clients([("a", np.arange(1000)), ("b", np.arange(24))])
    if saved:
        columns.save(tmp_path / "columns")
        columns = Columns.open(tmp_path / "columns")
    (tensor,) = columns.tensors()
    address = columns.features.ctypes.data
    assert address % 64 == 0
    assert np.asarray(memoryview(tensor)).ctypes.data == address


def test_tensors_made_inside_a_graph_are_eager():
    columns = Columns.from_clients([("a", np.arange(3))])

    @tf.function
    def total():
        return tf.reduce_sum(columns.tensors()[0])

    assert total() == 3
    assert columns.tensors()[0].numpy().tolist() == [0, 1, 2]
