"""How much each client counts in an average."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import tensorflow as tf


class ClientWeighting(enum.Enum):
    """Ready-made weights of clients."""

    UNIFORM = 1
    NUM_EXAMPLES = 2


Weighting = ClientWeighting | Callable[[Any], tf.Tensor]


def check_weighting(client_weighting: Any) -> None:
    """Raises TypeError unless it is a `ClientWeighting` or a function."""
    known = isinstance(client_weighting, ClientWeighting) or callable(client_weighting)
    if not known:
        raise TypeError(
            "`client_weighting` needs to be a `ClientWeighting` or a function of the "
            f"client's unfinalized metrics, found `{client_weighting!r}`."
        )


def weight_of(
    client_weighting: Weighting, num_examples: tf.Tensor, metrics: Any
) -> tf.Tensor:
    """A client's weight: float32[]."""
    # Plain ifs: AutoGraph, which converts this, does not know `match`.
    if client_weighting is ClientWeighting.UNIFORM:
        return tf.constant(1.0)
    if client_weighting is ClientWeighting.NUM_EXAMPLES:
        return tf.cast(num_examples, tf.float32)
    return tf.cast(client_weighting(metrics), tf.float32)
