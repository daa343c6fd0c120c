"""The older face of Federated Averaging: `next` gives a pair of state and metrics."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from fedcore.aggregators import MeanFactory
from fedcore.federated import federated_computation, federated_zip
from fedcore.templates import IterativeProcess
from fedlearn.algorithms._fed_avg import build_weighted_fed_avg, default_server_optimizer
from fedlearn.framework import ServerState
from fedlearn.templates import DistributionProcess
from fedlearn.templates._learning_process import LearningAlgorithmState
from fedlearn.weighting import ClientWeighting, Weighting


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
    process = build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn,
        server_optimizer_fn,
        client_weighting=client_weighting,
        model_distributor=broadcast_process,
        model_aggregator=model_update_aggregation_factory or MeanFactory(),
        metrics_aggregator=metrics_aggregator,
        use_experimental_simulation_loop=use_experimental_simulation_loop,
    )

    @federated_computation
    def initialize_fn():
        return _server_state(process.initialize())

    client_data_type = process.next.type_signature.parameter[1]

    @federated_computation(initialize_fn.type_signature.result, client_data_type)
    def next_fn(state, client_data):
        output = process.next(_learning_state(state), client_data)
        metrics = OrderedDict(
            broadcast=output.metrics["distributor"],
            aggregation=output.metrics["aggregator"],
            train=output.metrics["client_work"]["train"],
        )
        return _server_state(output.state), federated_zip(metrics)

    return AveragingProcess(initialize_fn, next_fn)


def _server_state(state: Any) -> Any:
    return federated_zip(
        ServerState(
            state.global_model_weights,
            state.finalizer,
            state.aggregator,
            state.distributor,
        )
    )


def _learning_state(state: Any) -> Any:
    return federated_zip(
        LearningAlgorithmState(
            state.model,
            state.model_broadcast_state,
            (),
            state.delta_aggregate_state,
            state.optimizer_state,
        )
    )
