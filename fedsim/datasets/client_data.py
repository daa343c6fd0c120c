"""`ClientData`: a set of clients, each with a data set of its own."""

from __future__ import annotations

import abc
import collections
import difflib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from fedsim.datasets import _client_columns
from fedsim.datasets.client_dataset import ClientDataset
from fedsim.datasets.columnar import Columns

Seed = int | Sequence[int] | None
_making_columns = threading.RLock()


class ClientData(abc.ABC):
    """A federated data set: a list of client ids, and how to get each client's data.

    A subclass gives `client_ids`, `serializable_dataset_fn` and
    `element_type_structure`; the rest follows. It may give a quicker
    `create_tf_dataset_for_client` too, if order and values stay the same.

    Client ids exist in simulations only: they select and prepare data. No
    federated computation ever sees one.
    """

    @property
    @abc.abstractmethod
    def client_ids(self) -> list[str]:
        """The ids of all clients, as a new list."""

    @property
    @abc.abstractmethod
    def serializable_dataset_fn(self) -> Callable[[Any], tf.data.Dataset]:
        """Maps a client id (`string`, a Python string or a tensor) to its data set.

        It consists of TensorFlow operations alone, so it can be traced into a
        graph. What it gives for an unknown id is up to the subclass.
        """

    @property
    @abc.abstractmethod
    def element_type_structure(self) -> Any:
        """The nest of `tf.TensorSpec` of one element of a client's data set."""

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        """Makes the data set of one client.

        Args:
            client_id: One of `client_ids`.

        Returns:
            A `tf.data.Dataset` with elements of `element_type_structure`.

        Raises:
            ValueError: If `client_id` is not one of `client_ids`.
        """
        self._check_client_id(client_id)
        return self.serializable_dataset_fn(client_id)

    def client(self, client_id: str) -> ClientDataset:
        """Gives one client's examples in columns, much faster to train on.

        The examples of all clients lie in one array per feature, made by the first
        call: read from memory; from an SQLite file, into memory-mapped files beside
        it; or from each client's `tf.data.Dataset`, which is run once, into memory.
        What such a data set draws at random is then drawn once, too.

        Args:
            client_id: One of `client_ids`.

        Returns:
            A `ClientDataset` with elements of `element_type_structure`. It has the
            methods of `tf.data.Dataset` and can stand wherever one can.

        Raises:
            TypeError: If elements are not numbers of fixed shape.
            ValueError: If `client_id` is not one of `client_ids`, or the data have no
                end.
        """
        self._check_client_id(client_id, "client")
        return self._columns_of_all().dataset(client_id)

    def clients(self, client_ids: Iterable[str]) -> list[ClientDataset]:
        """Gives some clients' examples as `client` does, for a round.

        Args:
            client_ids: Some of `client_ids`.

        Returns:
            A list with a `ClientDataset` for each, all on the same columns.

        Raises:
            TypeError: As `client`.
            ValueError: As `client`.
        """
        if isinstance(client_ids, str):
            raise TypeError(
                f"`clients` needs a list of client ids, found the string "
                f"{client_ids!r}.\nPut it into a list, or use `client`."
            )
        return [self.client(client_id) for client_id in client_ids]

    def _columns_of_all(self) -> Columns:
        """The columns with all clients' examples, made once."""
        # A subclass need not call `__init__`, so nothing is kept that it would set.
        found = self.__dict__.get("_columns_made")
        if found is None:
            with _making_columns:
                found = self.__dict__.get("_columns_made")
                if found is None:
                    spec = self.element_type_structure
                    _client_columns.check_columnar(spec, spec_text(spec))
                    found = self.__dict__["_columns_made"] = self._make_columns()
        return found

    def _make_columns(self) -> Columns:
        return _client_columns.drained(
            self.client_ids,
            self.element_type_structure,
            self.create_tf_dataset_for_client,
        )

    @functools.cached_property
    def dataset_computation(self):
        """A computation from a client id to that client's data: `(string -> T*)`."""
        # The data sets need TensorFlow alone until somebody asks for this.
        from fedcore.tensorflow import tf_computation

        @tf_computation(tf.string)
        def dataset_computation(client_id):
            return self.serializable_dataset_fn(client_id)

        return dataset_computation

    def datasets(
        self, limit_count: int | None = None, seed: Seed = None
    ) -> Iterable[tf.data.Dataset]:
        """Yields the clients' data sets one by one, in a random order.

        Args:
            limit_count: Stops after so many clients; all of them if None.
            seed: Of the order, for `numpy.random.RandomState`; a new order on
                each call if None.

        Yields:
            A `tf.data.Dataset` for each client.

        Raises:
            ValueError: If `limit_count` is negative.
        """
        if limit_count is not None and limit_count < 0:
            raise ValueError(
                f"`datasets` needs `limit_count` >= 0, found {limit_count}.\n"
                "Give None for all clients."
            )
        order = shuffled(self.client_ids, seed)
        return map(
            self.create_tf_dataset_for_client, itertools.islice(order, limit_count)
        )

    def create_tf_dataset_from_all_clients(self, seed: Seed = None) -> tf.data.Dataset:
        """Joins all clients' data to one data set, client after client.

        Args:
            seed: Of the order of the clients, for `numpy.random.RandomState`; a
                new order on each call if None.

        Returns:
            A `tf.data.Dataset`: the clients are in random order, each one's
            examples stay together and in order.
        """
        ids = tf.data.Dataset.from_tensor_slices(shuffled(self.client_ids, seed))
        return ids.flat_map(self.serializable_dataset_fn)

    def preprocess(
        self, preprocess_fn: Callable[[tf.data.Dataset], tf.data.Dataset]
    ) -> ClientData:
        """Applies a function to each client's data set.

        Args:
            preprocess_fn: Maps a `tf.data.Dataset` to a `tf.data.Dataset`, with
                TensorFlow operations alone. `client` gives it a `ClientDataset`.

        Returns:
            A `ClientData` with the same clients, whose data sets are made anew
            by `preprocess_fn` each time.

        Raises:
            TypeError: If `preprocess_fn` is a federated computation, cannot be
                called or does not give a data set.
        """
        return _Preprocessed(self, preprocess_fn)

    @classmethod
    def from_clients_and_tf_fn(
        cls,
        client_ids: Iterable[str],
        serializable_dataset_fn: Callable[[Any], tf.data.Dataset],
    ) -> ClientData:
        """Makes a `ClientData` of ids and a function.

        Args:
            client_ids: The ids, at least one, all different.
            serializable_dataset_fn: Maps an id (`string`) to a `tf.data.Dataset`
                with TensorFlow operations alone; the element type must be the
                same for all clients.

        Returns:
            A `ClientData`.

        Raises:
            TypeError: If an id is not a string or the function gives no data set.
            ValueError: If there is no id or one comes twice.
        """
        return _FromTfFn(client_ids, serializable_dataset_fn)

    @classmethod
    def train_test_client_split(
        cls, client_data: ClientData, num_test_clients: int, seed: Seed = None
    ) -> tuple[ClientData, ClientData]:
        """Splits the clients at random into two groups that share no client.

        A client without examples is never chosen for the test: it goes to the
        training clients, with a warning.

        Args:
            client_data: What is split.
            num_test_clients: How many clients to hold out, at least one; at
                least one client must be left.
            seed: Of the choice, for `numpy.random.RandomState`.

        Returns:
            `(train, test)`, two `ClientData`.

        Raises:
            ValueError: If there are not enough clients, or too many have no data.
        """
        total = len(client_data.client_ids)
        if not 0 < num_test_clients < total:
            raise ValueError(
                "`train_test_client_split` needs `num_test_clients` from 1 to "
                f"{total - 1}, found {num_test_clients}: the data set has {total} "
                f"client{'' if total == 1 else 's'} and neither side may be empty."
            )
        train_ids = shuffled(client_data.client_ids, seed)
        test_ids: list[str] = []
        empty_ids: list[str] = []
        while train_ids and len(test_ids) < num_test_clients:
            client_id = train_ids.pop()
            dataset = client_data.create_tf_dataset_for_client(client_id)
            if next(iter(dataset), None) is None:
                logging.warning("Client %s has no data: not held out.", client_id)
                empty_ids.append(client_id)
            else:
                test_ids.append(client_id)
        train_ids += empty_ids
        if len(test_ids) < num_test_clients or not train_ids:
            raise ValueError(
                f"`train_test_client_split` needs {num_test_clients} test clients "
                f"with data, found {len(test_ids)}: {len(empty_ids)} of {total} "
                "clients have none.\nAsk for fewer test clients."
            )
        return _Selected(client_data, train_ids), _Selected(client_data, test_ids)

    @functools.cached_property
    def _known_ids(self) -> frozenset[str]:
        return frozenset(self.client_ids)

    def _check_client_id(
        self, client_id: str, function: str = "create_tf_dataset_for_client"
    ) -> None:
        if client_id in self._known_ids:
            return
        close = difflib.get_close_matches(str(client_id), self.client_ids, n=3)
        ids = self.client_ids
        raise ValueError(
            f"`{function}` needs one of the {len(ids)} client ids, "
            f"found {client_id!r}.\n"
            + (
                f"Close ids: {', '.join(map(repr, close))}."
                if close
                else f"See `client_ids`: {_shorten(ids)}."
            )
        )

    def __repr__(self) -> str:
        ids = self.client_ids
        name = type(self).__name__.lstrip("_")
        plural = "" if len(ids) == 1 else "s"
        return (
            f"<{name}: {len(ids)} client{plural} ({_shorten(ids)}), element "
            f"{spec_text(self.element_type_structure)}>"
        )


class _Preprocessed(ClientData):
    """Another `ClientData` with a function applied to each data set."""

    def __init__(self, base: ClientData, preprocess_fn):
        if not callable(preprocess_fn):
            raise TypeError(
                "`preprocess` needs a function from a data set to a data set, found "
                f"{type(preprocess_fn).__name__}."
            )
        if hasattr(preprocess_fn, "type_signature"):
            raise TypeError(
                "`preprocess` needs a Python function of TensorFlow operations, "
                f"found a computation of type `{preprocess_fn.type_signature}`.\n"
                "Give the undecorated function."
            )
        self._base = base
        self._preprocess_fn: Callable[[Any], Any] = preprocess_fn
        first = base.create_tf_dataset_for_client(first_id(base.client_ids))
        self._spec = _element_spec(preprocess_fn(first), "preprocess", "preprocess_fn")

    @property
    def client_ids(self) -> list[str]:
        return self._base.client_ids

    @property
    def serializable_dataset_fn(self):
        make, preprocess = self._base.serializable_dataset_fn, self._preprocess_fn
        return lambda client_id: preprocess(make(client_id))

    @property
    def element_type_structure(self):
        return self._spec

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        return self._preprocess_fn(self._base.create_tf_dataset_for_client(client_id))

    def client(self, client_id: str) -> ClientDataset:
        return self._preprocess_fn(self._base.client(client_id))


class _FromTfFn(ClientData):
    """Ids and a function of TensorFlow operations."""

    def __init__(self, client_ids: Iterable[str], serializable_dataset_fn):
        self._ids = checked_ids(client_ids, "from_clients_and_tf_fn")
        if not callable(serializable_dataset_fn):
            raise TypeError(
                "`from_clients_and_tf_fn` needs a function as "
                "`serializable_dataset_fn`, found "
                f"{type(serializable_dataset_fn).__name__}."
            )
        self._make = serializable_dataset_fn
        self._spec = _element_spec(
            serializable_dataset_fn(first_id(self._ids)),
            "from_clients_and_tf_fn",
            "serializable_dataset_fn",
        )

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self):
        return self._make

    @property
    def element_type_structure(self):
        return self._spec


class _Selected(ClientData):
    """Some of the clients of another `ClientData`, with its way of reading them."""

    def __init__(self, base: ClientData, client_ids: Sequence[str]):
        self._base = base
        self._ids = list(client_ids)

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self):
        return self._base.serializable_dataset_fn

    @property
    def element_type_structure(self):
        return self._base.element_type_structure

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        self._check_client_id(client_id)
        return self._base.create_tf_dataset_for_client(client_id)

    def client(self, client_id: str) -> ClientDataset:
        self._check_client_id(client_id, "client")
        return self._base.client(client_id)


def shuffled(client_ids: Sequence[str], seed: Seed) -> list[str]:
    """The ids in the order that TFF gives for this seed."""
    order = list(client_ids)
    np.random.RandomState(seed).shuffle(order)
    return order


def checked_ids(client_ids: Iterable[str], function: str) -> list[str]:
    """The ids as a list: at least one, strings, no two the same."""
    if isinstance(client_ids, str):
        raise TypeError(
            f"`{function}` needs a list of client ids, found the string "
            f"{client_ids!r}.\nPut it into a list."
        )
    ids = list(client_ids)
    for client_id in ids:
        if not isinstance(client_id, str):
            raise TypeError(
                f"`{function}` needs strings as client ids, found {client_id!r} of "
                f"type {type(client_id).__name__}.\nTurn the ids into strings first."
            )
    first_id(ids, function)
    twice = [i for i, n in collections.Counter(ids).items() if n > 1]
    if twice:
        raise ValueError(
            f"`{function}` needs client ids that differ, found {_shorten(twice)} "
            "more than once."
        )
    return ids


def first_id(client_ids: Sequence[str], function: str = "preprocess") -> str:
    """The first id, or a `ValueError` if there is none."""
    if not client_ids:
        raise ValueError(f"`{function}` needs at least one client, found none.")
    return client_ids[0]


def spec_text(spec: Any) -> str:
    """An element spec in compact notation, e.g. `<label=int32,pixels=float32[28,28]>`."""
    match spec:
        case dict():
            return f"<{','.join(f'{k}={spec_text(v)}' for k, v in spec.items())}>"
        case tuple() | list():
            return f"<{','.join(map(spec_text, spec))}>"
        case tf.TensorSpec():
            if spec.shape.rank is None:
                return f"{spec.dtype.name}(unknown rank)"
            dims = ",".join("?" if d is None else str(d) for d in spec.shape)
            return spec.dtype.name + (f"[{dims}]" if dims else "")
    return str(spec)


def _element_spec(dataset: Any, function: str, argument: str) -> Any:
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"`{function}` needs `{argument}` to give a `tf.data.Dataset`, found "
            f"{type(dataset).__name__}."
        )
    return dataset.element_spec


def _shorten(ids: Iterator[str] | Sequence[str], limit: int = 3) -> str:
    ids = list(ids)
    shown = ", ".join(map(repr, ids[:limit]))
    return shown + (", …" if len(ids) > limit else "")
