"""Client data that travel inside a graph, as constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def embedded_dataset_fn(
    client_ids: Sequence[str], columns_of_clients: Sequence[Any]
) -> Callable[[Any], tf.data.Dataset]:
    """A serializable dataset function over in-memory arrays.

    `columns_of_clients` has one nest of arrays per client, all of one structure,
    with one row per example. The nests are joined here, once; each trace gets
    them as constants.
    """
    sizes = [len(tf.nest.flatten(columns)[0]) for columns in columns_of_clients]
    bounds = np.cumsum([0, *sizes])
    joined = tf.nest.map_structure(
        lambda *columns: np.concatenate(columns), *columns_of_clients
    )

    def dataset_of_client(client_id) -> tf.data.Dataset:
        index = client_index(client_ids, client_id)
        start, stop = tf.constant(bounds)[index], tf.constant(bounds)[index + 1]
        return tf.data.Dataset.from_tensor_slices(
            tf.nest.map_structure(lambda c: tf.constant(c)[start:stop], joined)
        )

    return dataset_of_client


def client_index(client_ids: Sequence[str], client_id: Any) -> tf.Tensor:
    """Where an id stands in the list, `int64`; an error when run if nowhere."""
    is_client = tf.equal(tf.constant(list(client_ids), tf.string), client_id)
    known = tf.debugging.Assert(
        tf.reduce_any(is_client), ["Unknown client id:", client_id]
    )
    # Eagerly an assertion has no result: it has been checked by now.
    with tf.control_dependencies([] if known is None else [known]):
        return tf.argmax(is_client)
