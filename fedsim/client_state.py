"""What clients keep from round to round, by client id, in memory or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["ClientStateStore"]


class ClientStateStore:
    """The states of clients, each with the round that it was written in.

    A process with stateful clients (`fedlearn.algorithms.build_scaffold`) takes the states
    of a round's clients and returns them changed; the store keeps them by client id. A
    state written in round r is seen by later rounds only, so that a run that is killed and
    repeats a round reads what it read before.

    On disk a state is a file of its own, written under another name and renamed: a reader
    sees an old state or a new one, never a part. Old states are kept until `prune`. One
    run at a time writes to a directory.

        kept = fedsim.ClientStateStore(process.initialize_client(weights), directory)
        output = process.next(state, kept.select(ids, round_num), data)
        kept.update(ids, output.client_states, round_num)

    Args:
        initial_state: The state of a client that has none yet: a structure of arrays.
        directory: Where the states are kept, made if it is not there; in memory if None.

    Raises:
        TypeError: If `initial_state` holds something else than numbers.
        FileExistsError: If `directory` is a file.
    """

    def __init__(
        self, initial_state: Any, directory: str | os.PathLike[str] | None = None
    ):
        self._initial_state = initial_state
        self._initial = _arrays(initial_state, initial_state)
        self._kept: _Memory | _Folder = (
            _Memory() if directory is None else _Folder(directory)
        )

    @property
    def client_ids(self) -> list[str]:
        """The clients that have a state, sorted."""
        return sorted(self._kept.clients())

    def select(
        self, client_ids: Sequence[str], round_num: int | None = None
    ) -> list[Any]:
        """The states with which clients begin a round.

        Args:
            client_ids: The clients, in the order of their data.
            round_num: States of this round and later ones are not seen; all are if None.

        Returns:
            A list with a state for each client: its newest, or the initial one.

        Raises:
            TypeError: If a client id is not a str.
            ValueError: If what is on disk is damaged, or not like the initial state.
        """
        states = []
        for client_id in client_ids:
            rounds = self._kept.rounds(_checked(client_id))
            before = [r for r in rounds if round_num is None or r < round_num]
            if before:
                arrays = self._kept.read(client_id, max(before), self._initial)
                states.append(tf.nest.pack_sequence_as(self._initial_state, arrays))
            else:
                states.append(self._initial_state)
        return states

    def update(
        self, client_ids: Sequence[str], client_states: Sequence[Any], round_num: int
    ) -> None:
        """Keeps the states that a round has come to.

        Args:
            client_ids: The clients, as they were given to `select`.
            client_states: A state for each of them.
            round_num: The number of the round, ≥ 0.

        Raises:
            TypeError: If a client id is not a str, or a state holds no numbers.
            ValueError: If there are not as many states as clients, a client comes twice,
                or a state is not like the initial one.
        """
        client_ids = [_checked(client_id) for client_id in client_ids]
        if len(client_ids) != len(client_states):
            raise ValueError(
                f"`update` needs a state for each of {len(client_ids)} clients, found "
                f"{len(client_states)}."
            )
        if len(set(client_ids)) != len(client_ids):
            raise ValueError(
                "`update` needs every client once, found one twice among "
                f"{client_ids}.\nDraw the clients of a round without replacement."
            )
        if round_num < 0:
            raise ValueError(f"`round_num` needs to be ≥ 0, found {round_num}.")
        of_all = [_arrays(state, self._initial_state) for state in client_states]
        for client_id, arrays in zip(client_ids, of_all):
            self._kept.write(client_id, round_num, arrays)

    def prune(self, round_num: int) -> None:
        """Forgets what a run that goes on at `round_num` or later does not read.

        Args:
            round_num: The first round that may be run again, as that of a checkpoint.
        """
        for client_id in self.client_ids:
            old = sorted(r for r in self._kept.rounds(client_id) if r < round_num)
            for written in old[:-1]:
                self._kept.forget(client_id, written)

    def rewind(self, round_num: int) -> None:
        """Forgets the states of this round and of all later ones.

        Rounds that are run again overwrite their states; this is for a run that goes on
        from a checkpoint and draws other clients than before.

        Args:
            round_num: The first round that will be run again.
        """
        for client_id in self.client_ids:
            for written in self._kept.rounds(client_id):
                if written >= round_num:
                    self._kept.forget(client_id, written)

    def __repr__(self) -> str:
        return f"ClientStateStore({self._kept}, {len(self.client_ids)} clients)"


class _Memory:
    def __init__(self):
        self._states: dict[str, dict[int, list[np.ndarray]]] = {}

    def clients(self) -> list[str]:
        return [client_id for client_id, rounds in self._states.items() if rounds]

    def rounds(self, client_id: str) -> list[int]:
        return list(self._states.get(client_id, ()))

    def read(self, client_id: str, round_num: int, like: Any) -> list[np.ndarray]:
        return self._states[client_id][round_num]

    def write(self, client_id: str, round_num: int, arrays: list[np.ndarray]) -> None:
        # Copies that nobody can write to: what was kept does not change.
        copies = [array.copy() for array in arrays]
        for copy in copies:
            copy.setflags(write=False)
        self._states.setdefault(client_id, {})[round_num] = copies

    def forget(self, client_id: str, round_num: int) -> None:
        del self._states[client_id][round_num]

    def __str__(self) -> str:
        return "in memory"


class _Folder:
    """A folder for each client, in it a file for each round."""

    def __init__(self, directory: str | os.PathLike[str]):
        self._path = pathlib.Path(directory)
        self._path.mkdir(parents=True, exist_ok=True)

    def clients(self) -> list[str]:
        return [
            (folder / "id").read_text(encoding="utf-8")
            for folder in self._path.glob("client-*")
            if (folder / "id").exists() and _rounds(folder)
        ]

    def rounds(self, client_id: str) -> list[int]:
        return _rounds(self._of(client_id))

    def read(self, client_id: str, round_num: int, like: Any) -> list[np.ndarray]:
        path = self._file(client_id, round_num)
        try:
            with np.load(path, allow_pickle=False) as file:
                found = [file[str(index)] for index in range(len(file.files))]
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as e:
            raise ValueError(
                f"`select` needs states that `update` has written, found a damaged file "
                f"{path}: {e}\nDelete it: its client goes on from the state before."
            ) from e
        if not (len(found) == len(like) and all(map(_is_like, found, like))):
            raise ValueError(
                f"`select` needs states like the initial one, {_listed(like)}, found "
                f"{_listed(found)} in {path}.\n"
                "Keep the states of another model in another directory."
            )
        # NumPy's files do not know the names of dtypes such as bfloat16.
        return [array.view(one.dtype) for array, one in zip(found, like)]

    def write(self, client_id: str, round_num: int, arrays: list[np.ndarray]) -> None:
        folder = self._of(client_id)
        folder.mkdir(exist_ok=True, parents=True)
        if not (folder / "id").exists():
            with _atomic(folder / "id") as file:
                file.write(client_id.encode("utf-8"))
        with _atomic(self._file(client_id, round_num)) as file:
            np.savez(file, **{str(i): array for i, array in enumerate(arrays)})

    def forget(self, client_id: str, round_num: int) -> None:
        self._file(client_id, round_num).unlink()

    def _of(self, client_id: str) -> pathlib.Path:
        # Readable, and of its own on file systems that do not tell `A` from `a`.
        readable = urllib.parse.quote(client_id, safe="")[:60]
        digest = hashlib.sha256(client_id.encode("utf-8")).hexdigest()[:16]
        return self._path / f"client-{readable}-{digest}"

    def _file(self, client_id: str, round_num: int) -> pathlib.Path:
        return self._of(client_id) / f"{round_num:08d}.npz"

    def __str__(self) -> str:
        return f"in {self._path}"


def _rounds(folder: pathlib.Path) -> list[int]:
    return [int(f.stem) for f in folder.glob("*.npz") if f.stem.isdecimal()]


def _is_like(found: np.ndarray, wanted: np.ndarray) -> bool:
    without_name = found.dtype.kind == wanted.dtype.kind == "V"
    same = found.dtype.itemsize == wanted.dtype.itemsize
    return found.shape == wanted.shape and (
        found.dtype == wanted.dtype or (without_name and same)
    )


def _listed(arrays: list[np.ndarray]) -> str:
    return f"[{', '.join(f'{a.dtype}{list(a.shape)}' for a in arrays)}]"


@contextlib.contextmanager
def _atomic(path: pathlib.Path):
    """A file that stands under its name only when it is whole and on the disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _sync_directory(path: pathlib.Path) -> None:
    """Makes a rename last over a loss of power, where the system can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _arrays(state: Any, like: Any) -> list[np.ndarray]:
    """The leaves of a state, which needs to be like another one."""
    try:
        tf.nest.assert_same_structure(like, state)
    except (ValueError, TypeError) as e:
        raise ValueError(
            "`update` needs states of the structure of the initial one, found another: "
            f"{e}"
        ) from e
    arrays = [np.asarray(leaf) for leaf in tf.nest.flatten(state)]
    for array, wanted in zip(arrays, map(np.asarray, tf.nest.flatten(like))):
        if array.dtype.kind in "OSUmM":
            raise TypeError(
                f"`ClientStateStore` needs states of numbers, found `{array.dtype}`."
            )
        if (array.dtype, array.shape) != (wanted.dtype, wanted.shape):
            raise ValueError(
                f"`update` needs states like the initial one, found {array.dtype}"
                f"{list(array.shape)} for {wanted.dtype}{list(wanted.shape)}."
            )
    return arrays


def _checked(client_id: Any) -> str:
    if not isinstance(client_id, str):
        raise TypeError(f"A client id needs to be a str, found `{client_id!r}`.")
    return client_id
