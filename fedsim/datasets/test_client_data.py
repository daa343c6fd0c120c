"""Client data given as a dictionary, for tests."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fedsim.datasets._embedded import embedded_dataset_fn
from fedsim.datasets.client_data import ClientData, checked_ids, spec_text
from fedsim.datasets.columnar import Columns


class TestClientData(ClientData):
    """Client data held in memory, for tests and small experiments.

    `serializable_dataset_fn` puts the data of all clients into the graph.
    """

    # Keeps pytest from collecting this class as a test.
    __test__ = False

    def __init__(self, tensor_slices_dict: Mapping[str, Any]):
        """Makes client data of in-memory values.

        Args:
            tensor_slices_dict: For each client id a list or array, or a tuple or
                dict of them, with one entry per example, as
                `tf.data.Dataset.from_tensor_slices` takes it. The keys of a plain
                dict are sorted; an `OrderedDict` keeps its order.

        Raises:
            TypeError: If it is not a dict, holds a `tf.Tensor`, a namedtuple or
                something else than lists, tuples, dicts and arrays, or the element
                types of two clients differ.
            ValueError: If there is no client, one has no example, or the lengths
                of one client's features differ.
        """
        if not isinstance(tensor_slices_dict, Mapping):
            raise TypeError(
                "`TestClientData` needs a dict from client id to data, found "
                f"{type(tensor_slices_dict).__name__}."
            )
        self._ids = checked_ids(tensor_slices_dict, "TestClientData")
        self._columns = {
            i: _columns(value, i) for i, value in tensor_slices_dict.items()
        }
        specs = {i: _element_spec(columns, i) for i, columns in self._columns.items()}
        self._spec = specs[self._ids[0]]
        for client_id, spec in specs.items():
            if type(spec) is not type(self._spec) or spec != self._spec:
                raise TypeError(
                    "`TestClientData` needs one element type for all clients, found\n"
                    f"  {spec_text(spec)} for {client_id!r}, but\n"
                    f"  {spec_text(self._spec)} for {self._ids[0]!r}."
                )

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @functools.cached_property
    def _embedded(self):
        return embedded_dataset_fn(self._ids, [self._columns[i] for i in self._ids])

    @property
    def serializable_dataset_fn(self):
        return self._embedded

    @property
    def element_type_structure(self):
        return self._spec

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        self._check_client_id(client_id)
        return tf.data.Dataset.from_tensor_slices(self._columns[client_id])

    def client_columns(self, client_id: str) -> Any:
        """One client's examples as one array per feature."""
        self._check_client_id(client_id)
        return self._columns[client_id]

    def _make_columns(self) -> Columns:
        return Columns.from_clients(self._columns.items())


def _columns(value: Any, client_id: str) -> Any:
    """The client's value with arrays for leaves and ordered dicts for dicts."""
    match value:
        case collections.OrderedDict():
            return collections.OrderedDict(
                (name, _columns(part, client_id)) for name, part in value.items()
            )
        case dict():
            return collections.OrderedDict(
                (name, _columns(value[name], client_id)) for name in sorted(value)
            )
        case tuple() if type(value) is tuple:
            return tuple(_columns(part, client_id) for part in value)
        case list() | np.ndarray():
            return _array(value, client_id)
    raise TypeError(
        "`TestClientData` needs lists, arrays, and tuples or dicts of them, found "
        f"{type(value).__name__} for client {client_id!r}.\n"
        + (
            "Give its `.numpy()`: an eager tensor cannot enter a graph."
            if tf.is_tensor(value)
            else "Turn it into an OrderedDict of lists first."
        )
    )


def _array(value: list | np.ndarray, client_id: str) -> np.ndarray:
    if isinstance(value, list) and any(tf.is_tensor(entry) for entry in value):
        raise TypeError(
            "`TestClientData` needs lists and arrays, found a list of tensors for "
            f"client {client_id!r}.\nGive their `.numpy()`: an eager tensor cannot "
            "enter a graph."
        )
    try:
        # TensorFlow's own conversion: a list of Python ints is int32.
        array = tf.convert_to_tensor(value).numpy()
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`TestClientData` needs lists that form one tensor per feature, found "
            f"entries of different shapes or types for client {client_id!r}: {error}"
        ) from error
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(
            "`TestClientData` needs at least one example per client, found none for "
            f"{client_id!r}."
        )
    return array


def _element_spec(columns: Any, client_id: str) -> Any:
    lengths = {len(column) for column in tf.nest.flatten(columns)}
    if len(lengths) != 1:
        raise ValueError(
            "`TestClientData` needs the same number of entries in all features of a "
            f"client, found {sorted(lengths)} for {client_id!r}."
        )
    return tf.nest.map_structure(
        lambda c: tf.TensorSpec(c.shape[1:], tf.as_dtype(c.dtype)), columns
    )
