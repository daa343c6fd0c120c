"""Client data with one file per client."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from fedsim.datasets._embedded import client_index
from fedsim.datasets.client_data import ClientData, checked_ids, first_id


class FilePerUserClientData(ClientData):
    """Client data with one file per client."""

    def __init__(
        self,
        client_ids_to_files: Mapping[str, str],
        dataset_fn: Callable[[Any], tf.data.Dataset],
    ):
        """Names the files.

        Args:
            client_ids_to_files: The path of each client's file.
            dataset_fn: Maps a path (`string`, a Python string or a tensor) to a
                `tf.data.Dataset`, with TensorFlow operations alone.

        Raises:
            TypeError: If `client_ids_to_files` is not a mapping.
            ValueError: If it is empty.
        """
        if not isinstance(client_ids_to_files, Mapping):
            raise TypeError(
                "`FilePerUserClientData` needs a mapping from client id to path, "
                f"found {type(client_ids_to_files).__name__}."
            )
        self._ids = sorted(checked_ids(client_ids_to_files, "FilePerUserClientData"))
        self._paths = {i: os.fspath(client_ids_to_files[i]) for i in self._ids}
        self._dataset_fn = dataset_fn
        example = self.create_tf_dataset_for_client(first_id(self._ids))
        self._spec = example.element_spec

    @classmethod
    def create_from_dir(
        cls,
        path: str,
        create_tf_dataset_fn: Callable[[Any], tf.data.Dataset] = (
            tf.data.TFRecordDataset
        ),
    ) -> FilePerUserClientData:
        """Takes each file of a directory as one client, whose id is the file's name.

        Args:
            path: The directory; directories in it are left out.
            create_tf_dataset_fn: Maps a path to a `tf.data.Dataset`, with TensorFlow
                operations alone.

        Returns:
            A `FilePerUserClientData`.

        Raises:
            FileNotFoundError: If there is no such directory.
            ValueError: If it holds no file.
        """
        files = {e.name: e.path for e in os.scandir(path) if e.is_file()}
        if not files:
            raise ValueError(
                "`FilePerUserClientData.create_from_dir` needs a directory with one "
                f"file per client, found no file in `{path}`."
            )
        return cls(files, create_tf_dataset_fn)

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self):
        paths = [self._paths[client_id] for client_id in self._ids]

        def dataset_of_client(client_id):
            index = client_index(self._ids, client_id)
            path = tf.constant(paths, tf.string)[index]
            return self._dataset_fn(path)

        return dataset_of_client

    @property
    def element_type_structure(self):
        return self._spec

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        self._check_client_id(client_id)
        return self._dataset_fn(self._paths[client_id])
