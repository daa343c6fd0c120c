"""The older face of Federated Averaging: `next` gives a pair of state and metrics."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs
import numpy as np

from fedcore.aggregators import MeanFactory
from fedcore.federated import federated_computation, federated_zip
from fedcore.templates import IterativeProcess
from fedlearn.algorithms._fed_avg import averaging_process, default_server_optimizer
from fedlearn.framework import ServerState
from fedlearn.models import ModelWeights
from fedlearn.templates import (
    ClientWorkProcess,
    DistributionProcess,
    LearningAlgorithmState,
)
from fedlearn.templates._client_loop import learner
from fedlearn.templates._client_work import delta_client_work
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting


class AveragingProcess(IterativeProcess):
    """An `IterativeProcess` of Federated Averaging with the model's weights at hand."""

    def __init__(self, initialize_fn, next_fn):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)

    def get_model_weights(self, state: ServerState) -> Any:
        """The model's weights, a `ModelWeights`, in a state."""
        return state.model


def build_federated_averaging_process(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    *,
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    broadcast_process: DistributionProcess | None = None,
    model_update_aggregation_factory: Any = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> AveragingProcess:
    """Builds Federated Averaging under the name of TFF's first releases.

    The algorithm is that of `fedlearn.algorithms.build_weighted_fed_avg`, which new code
    should use; only the shape of state and metrics differs.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`.
        client_optimizer_fn: As for `build_weighted_fed_avg`, as are all that follow.
        server_optimizer_fn: See there.
        client_weighting: See there.
        broadcast_process: Called `model_distributor` there.
        model_update_aggregation_factory: Called `model_aggregator` there.
        metrics_aggregator: See there.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process with next `(<state=ServerState@SERVER,client_data={D*}@CLIENTS> ->
        <ServerState@SERVER,<broadcast=...,aggregation=...,train=...>@SERVER>)`.

    Raises:
        TypeError: If an argument is of another kind than said.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    client_work = delta_client_work(
        model, client_optimizer_fn, client_weighting, metrics_aggregator
    )
    process = averaging_process(
        model,
        client_work,
        server_optimizer_fn,
        broadcast_process,
        model_update_aggregation_factory or MeanFactory(),
    )

    @federated_computation
    def initialize_fn():
        return _server_state(process.initialize())

    client_data_type = process.next.type_signature.parameter[1]

    @federated_computation(initialize_fn.type_signature.result, client_data_type)
    def next_fn(state, client_data):
        output = process.next(_learning_state(state, client_work), client_data)
        metrics = OrderedDict(
            broadcast=output.metrics["distributor"],
            aggregation=output.metrics["aggregator"],
            train=output.metrics["client_work"]["train"],
        )
        return _server_state(output.state), federated_zip(metrics)

    return AveragingProcess(initialize_fn, next_fn)


def state_with_new_model_weights(
    server_state: ServerState | LearningAlgorithmState,
    trainable_weights: list[np.ndarray],
    non_trainable_weights: list[np.ndarray],
) -> ServerState | LearningAlgorithmState:
    """A server's state like the given one, with other weights.

    Args:
        server_state: A state of `build_federated_averaging_process`, or of a
            `LearningProcess`.
        trainable_weights: List of arrays of the dtypes and shapes of those in the state.
        non_trainable_weights: As `trainable_weights`.

    Returns:
        The new state; the old one is as it was.

    Raises:
        TypeError: If weights differ in number, dtype or shape from those in the state.
    """
    name = "global_model_weights"
    if isinstance(server_state, ServerState):
        name = "model"
    old = getattr(server_state, name)
    new = ModelWeights(
        _like("trainable_weights", old.trainable, trainable_weights),
        _like("non_trainable_weights", old.non_trainable, non_trainable_weights),
    )
    return attrs.evolve(server_state, **{name: new})


def _like(argument: str, old: Any, new: Any) -> Any:
    """The new weights, after checking that they are like the old."""
    found, wanted = [[(w.dtype, w.shape) for w in map(_array, ws)] for ws in (new, old)]
    if found != wanted:
        raise TypeError(
            f"`state_with_new_model_weights` needs `{argument}` of the dtypes and shapes "
            f"of those in the state, {_listed(wanted)}, found {_listed(found)}."
        )
    return new


def _array(weight: Any) -> np.ndarray:
    return weight if isinstance(weight, np.ndarray) else np.asarray(weight)


def _listed(weights: list[Any]) -> str:
    return str([f"{dtype}{list(shape)}" for dtype, shape in weights])


def _server_state(state: Any) -> Any:
    return federated_zip(
        ServerState(
            state.global_model_weights,
            state.finalizer,
            state.aggregator,
            state.distributor,
        )
    )


def _learning_state(state: Any, client_work: ClientWorkProcess) -> Any:
    return federated_zip(
        LearningAlgorithmState(
            state.model,
            state.model_broadcast_state,
            client_work.initialize(),
            state.delta_aggregate_state,
            state.optimizer_state,
        )
    )
