"""The store of clients' states, in memory and on disk."""

import collections
import pathlib

import attrs
import numpy as np
import pytest

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
