"""The store of clients' states, in memory and on disk."""

import collections
import pathlib

import attrs
import numpy as np
import pytest
import tensorflow as tf

import fedsim
from fedsim.client_state import ClientStateStore

IDS = ["a", "b/../c", "..", "ü" * 200]


def state(value):
    return collections.OrderedDict(
        control=[np.full([2, 3], value, np.float32), np.float32(value)],
        steps=np.int64(value),
    )


def values(states):
    return [int(s["steps"]) for s in states]


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return ClientStateStore(
        state(0), tmp_path / "states" if request.param == "disk" else None
    )


def test_clients_begin_with_the_initial_state(store):
    assert values(store.select(IDS)) == [0] * 4
    assert store.client_ids == []


def test_states_come_back_by_client_as_they_were(store):
    store.update(IDS, [state(1), state(2), state(3), state(4)], 0)
    found = store.select(reversed(IDS))
    assert values(found) == [4, 3, 2, 1]
    assert isinstance(found[0], collections.OrderedDict)
    assert found[0]["control"][0].dtype == np.float32
    np.testing.assert_array_equal(found[0]["control"][0], np.full([2, 3], 4))
    assert store.client_ids == sorted(IDS)


def test_a_round_that_is_repeated_reads_what_it_read_before(store):
    store.update(["a"], [state(1)], 3)
    store.update(["a"], [state(2)], 5)
    assert values(store.select(["a"], 3)) == [0]
    assert values(store.select(["a"], 5)) == [1]
    assert values(store.select(["a"], 6)) == [2]
    store.update(["a"], [state(7)], 5)  # again
    assert values(store.select(["a"], 6)) == [7]


def test_pruning_keeps_what_later_rounds_read(store):
    for written in range(4):
        store.update(["a"], [state(written + 1)], written)
    store.prune(3)
    assert values(store.select(["a"], 3)) == [3]
    assert values(store.select(["a"])) == [4]
    assert values(store.select(["a"], 2)) == [0]


def test_states_outlive_the_store_on_disk(tmp_path):
    ClientStateStore(state(0), tmp_path).update(IDS[:2], [state(1), state(2)], 0)
    again = ClientStateStore(state(0), tmp_path)
    assert again.client_ids == sorted(IDS[:2])
    assert values(again.select(IDS[:2])) == [1, 2]
    other = ClientStateStore([np.zeros(2, np.float32)], tmp_path)
    with pytest.raises(ValueError, match="`select` needs states like the initial one"):
        other.select(["a"])


def test_a_write_that_fails_leaves_the_old_state(tmp_path, monkeypatch):
    store = ClientStateStore(state(0), tmp_path)
    store.update(["a"], [state(1)], 0)

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        store.update(["a"], [state(2)], 1)
    monkeypatch.undo()
    assert values(ClientStateStore(state(0), tmp_path).select(["a"])) == [1]
    assert not list(pathlib.Path(tmp_path).rglob("*.part"))


def test_structures_of_attrs_classes_are_kept(store, tmp_path):
    @attrs.frozen
    class Pair:
        first: np.ndarray
        second: np.ndarray

    pairs = ClientStateStore(Pair(np.zeros(2), np.zeros(1)), tmp_path / "pairs")
    pairs.update(["a"], [Pair(np.ones(2), np.ones(1))], 0)
    found = pairs.select(["a"])[0]
    assert isinstance(found, Pair)
    np.testing.assert_array_equal(found.first, np.ones(2))


def test_rewinding_forgets_rounds_that_will_be_run_again(store):
    store.update(["a", "b"], [state(1), state(2)], 0)
    store.update(["a", "c"], [state(3), state(4)], 1)
    store.rewind(1)
    assert store.client_ids == ["a", "b"]
    assert values(store.select(["a", "b", "c"])) == [1, 2, 0]


def test_what_is_kept_does_not_change_with_the_callers_arrays(store):
    mine = [np.ones([2, 3], np.float32), np.float32(1)]
    store.update(["a"], [collections.OrderedDict(control=mine, steps=np.int64(1))], 0)
    mine[0][:] = 7.0
    np.testing.assert_array_equal(store.select(["a"])[0]["control"][0], np.ones([2, 3]))


def test_ids_that_differ_in_case_or_length_are_different_clients(tmp_path):
    ids = ["client", "Client", "x" * 300, "x" * 301]
    store = ClientStateStore(state(0), tmp_path)
    store.update(ids, [state(n) for n in range(4)], 0)
    folders = {p.name.lower() for p in tmp_path.iterdir()}
    assert len(folders) == 4
    assert values(store.select(ids)) == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04half", None])
def test_a_damaged_file_is_named_and_the_state_before_is_still_there(tmp_path, damage):
    store = ClientStateStore(state(0), tmp_path)
    store.update(["a"], [state(1)], 0)
    store.update(["a"], [state(2)], 1)
    (path,) = tmp_path.rglob("00000001.npz")
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(ValueError, match=r"found a damaged file .*00000001\.npz"):
        store.select(["a"])
    path.unlink()
    assert values(store.select(["a"])) == [1]


def test_another_dtype_of_the_same_size_is_not_taken_for_the_same(tmp_path):
    ClientStateStore([np.float32(0)], tmp_path).update(["a"], [[np.float32(1)]], 0)
    with pytest.raises(ValueError, match=r"\[int32\[\]\], found \[float32\[\]\]"):
        ClientStateStore([np.int32(0)], tmp_path).select(["a"])


def test_bfloat16_is_kept(store, tmp_path):
    zero = np.zeros(3, tf.bfloat16.as_numpy_dtype)
    for directory in (None, tmp_path / "small"):
        small = ClientStateStore([zero], directory)
        small.update(["a"], [[zero + 1]], 0)
        (found,) = small.select(["a"])[0]
        assert found.dtype == zero.dtype
        np.testing.assert_array_equal(found, zero + 1)


def test_files_of_others_in_the_folder_are_left_alone(tmp_path):
    store = ClientStateStore(state(0), tmp_path)
    store.update(["a"], [state(1)], 0)
    (folder,) = tmp_path.iterdir()
    (folder / "notes.npz").write_text("mine")
    (tmp_path / "client-without-id").mkdir()
    assert store.client_ids == ["a"]
    assert values(store.select(["a"])) == [1]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        ClientStateStore(state(0), tmp_path / "file")


@pytest.mark.parametrize(
    ("ids", "states", "round_num", "message"),
    [
        (["a", "b"], [state(1)], 0, "needs a state for each of 2 clients, found 1"),
        (["a", "a"], [state(1), state(2)], 0, "needs every client once"),
        (["a"], [state(1)], -1, "`round_num` needs to be ≥ 0"),
        (["a"], [[np.zeros(2)]], 0, "of the structure of the initial one"),
        (
            ["a"],
            [collections.OrderedDict(state(1), steps=np.int32(1))],
            0,
            "found int32",
        ),
    ],
)
def test_update_refuses(store, ids, states, round_num, message):
    with pytest.raises(ValueError, match=message):
        store.update(ids, states, round_num)
    assert store.client_ids == []


def test_what_is_no_number_and_no_id_is_refused(store):
    with pytest.raises(TypeError, match="needs states of numbers"):
        ClientStateStore([np.array("text")])
    with pytest.raises(TypeError, match="A client id needs to be a str"):
        store.select([3])


def test_the_store_is_said_by_its_repr(store):
    assert "0 clients" in repr(store)
    assert fedsim.ClientStateStore is ClientStateStore
