"""Client data made of other client data by a function of client and example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedsim.datasets.client_data import ClientData, checked_ids, first_id


class TransformingClientData(ClientData):
    """Each client of a base set becomes one or more pseudo-clients.

    A pseudo-client has the examples of its base client, each changed by a function
    that may depend on the pseudo-client's id, such as a rotation by an angle that is
    a hash of the id.
    """

    def __init__(
        self,
        base_client_data: ClientData,
        make_transform_fn: Callable[[str], Callable[[Any], Any]],
        expand_client_id: Callable[[str], list[str]] | None = None,
        reduce_client_id: Callable[[str], str] | None = None,
    ):
        """Describes the pseudo-clients.

        Args:
            base_client_data: The clients to expand.
            make_transform_fn: Maps an expanded id (`string`, a Python string or a
                tensor) to a function from example to example, both of TensorFlow
                operations.
            expand_client_id: Maps a base id to the list of its expanded ids; the
                ids stay as they are if None.
            reduce_client_id: Maps an expanded id back to its base id, with
                TensorFlow operations. Needed if and only if `expand_client_id` is
                given.

        Raises:
            ValueError: If only one of `expand_client_id` and `reduce_client_id` is
                given, or the expanded ids are not all different.
        """
        if (expand_client_id is None) != (reduce_client_id is None):
            given = "expand" if reduce_client_id is None else "reduce"
            raise ValueError(
                "`TransformingClientData` needs both or neither of "
                "`expand_client_id` and `reduce_client_id`, found "
                f"`{given}_client_id` alone."
            )
        self._base = base_client_data
        self._make_transform = make_transform_fn
        self._reduce = reduce_client_id or (lambda client_id: client_id)
        expand = expand_client_id or (lambda client_id: [client_id])
        self._ids = checked_ids(
            (new for old in base_client_data.client_ids for new in expand(old)),
            "TransformingClientData",
        )
        example = self.create_tf_dataset_for_client(first_id(self._ids))
        self._spec = example.element_spec

    @property
    def client_ids(self) -> list[str]:
        return list(self._ids)

    @property
    def serializable_dataset_fn(self):
        make_base, reduce_id = self._base.serializable_dataset_fn, self._reduce

        def dataset_of_client(client_id):
            transform = self._make_transform(client_id)
            return make_base(reduce_id(client_id)).map(transform)

        return dataset_of_client

    @property
    def element_type_structure(self):
        return self._spec

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        self._check_client_id(client_id)
        if not tf.executing_eagerly():
            return self.serializable_dataset_fn(client_id)
        base_id = self._reduce(client_id)
        if tf.is_tensor(base_id):
            base_id = base_id.numpy().decode()
        base = self._base.create_tf_dataset_for_client(base_id)
        return base.map(self._make_transform(client_id))
