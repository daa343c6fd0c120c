"""The state and results of TFF's first learning processes."""

from __future__ import annotations

from typing import Any

import attrs

from fedcore.types import Type
from fedlearn.templates import DistributionProcess, build_broadcast_process


@attrs.define(eq=False)
class ServerState:
    """The server's state of `build_federated_averaging_process`.

    Attributes:
        model: The model's weights, a `ModelWeights`.
        optimizer_state: State of the server's optimizer.
        delta_aggregate_state: State of the aggregation of updates.
        model_broadcast_state: State of the broadcast of weights.
    """

    model: Any
    optimizer_state: Any
    delta_aggregate_state: Any
    model_broadcast_state: Any


@attrs.define(eq=False)
class ClientOutput:
    """What a client of an algorithm of one's own may return.

    Attributes:
        weights_delta: The update of the trainable weights.
        weights_delta_weight: How much it counts.
        model_output: The client's metrics.
        optimizer_output: What its optimizer has to say.
    """

    weights_delta: Any
    weights_delta_weight: Any
    model_output: Any
    optimizer_output: Any = None


def build_stateless_broadcaster(*, model_weights_type: Type) -> DistributionProcess:
    """Sends a model's weights to all clients as they are.

    Args:
        model_weights_type: The type W of the weights, unplaced.

    Returns:
        A process as that of `fedlearn.templates.build_broadcast_process`.

    Raises:
        TypeError: If `model_weights_type` is placed or a function.
    """
    return build_broadcast_process(model_weights_type)


__all__ = ["ClientOutput", "ServerState", "build_stateless_broadcaster"]
