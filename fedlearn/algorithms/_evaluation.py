"""Evaluating a model on clients' data, as one computation or as a process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
    federated_zip,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, at_clients, at_server
from fedlearn.metrics import SumThenFinalizeFactory, sum_then_finalize
from fedlearn.models import ModelWeights
from fedlearn.templates import (
    DistributionProcess,
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    build_broadcast_process,
)
from fedlearn.templates._client_loop import Learner, client_pass, learner


def evaluation_work(model: Learner) -> Computation:
    """`(<W,D*> -> unfinalized metrics)`: one client's pass in inference mode."""
    return client_pass(
        model,
        model.weights_type,
        weights_of=lambda weights: weights,
        begin=lambda weights: (),
        update=None,
        finish=lambda start, weights, extra, num_examples, metrics: metrics,
        training=False,
    )


def build_federated_evaluation(
    model_fn: Any,
    broadcast_process: DistributionProcess | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> Computation:
    """Builds the computation that evaluates weights on clients' data.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        broadcast_process: Sends the weights to the clients; it must be stateless. A plain
            broadcast if None.
        metrics_aggregator: `metric_finalizers, unfinalized_metrics_type ->
            ({unfinalized}@CLIENTS -> metrics@SERVER)`; `sum_then_finalize` if None.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        `(<server_model_weights=W@SERVER,federated_dataset={D*}@CLIENTS> ->
        <eval=M>@SERVER)`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `broadcast_process` has a state.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    broadcast = broadcast_process or build_broadcast_process(model.weights_type)
    state = broadcast.state_type.member
    if not (state.is_struct() and len(state) == 0):
        raise ValueError(
            f"`broadcast_process` needs to be stateless, found a state of type `{state}`."
        )
    work = evaluation_work(model)
    aggregate = (metrics_aggregator or sum_then_finalize)(
        model.metric_finalizers, model.metrics_type
    )

    @federated_computation(at_server(model.weights_type), at_clients(model.data_type))
    def evaluate(server_model_weights, federated_dataset):
        sent = broadcast.next(broadcast.initialize(), server_model_weights)
        metrics = federated_map(work, (sent.result, federated_dataset))
        return federated_zip(OrderedDict([("eval", aggregate(metrics))]))

    return evaluate


def build_fed_eval(
    model_fn: Any,
    model_distributor: DistributionProcess | None = None,
    metrics_aggregation_process: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds a process that evaluates the weights in its state, round after round.

    The weights do not change; metrics are reported of the round and of all rounds so far.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        model_distributor: Sends the weights to the clients; a plain broadcast if None.
        metrics_aggregation_process: An `AggregationProcess` of unfinalized metrics;
            `fedlearn.metrics.SumThenFinalizeFactory(...)` makes the one used if None.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A `LearningProcess` with metrics `<distributor=...,client_work=<eval=<
        current_round_metrics=M,total_rounds_metrics=M>>,aggregator=...,finalizer=...>`.

    Raises:
        TypeError: If an argument is of another kind than said.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    distributor = model_distributor or build_broadcast_process(model.weights_type)
    aggregation = metrics_aggregation_process
    if aggregation is None:
        factory = SumThenFinalizeFactory(model.metric_finalizers)
        aggregation = factory.create(model.metrics_type)
    work = evaluation_work(model)
    initial_weights = model.initial_weights

    # Four parts as in training, so that states and metrics look alike.
    @federated_computation
    def initialize_fn():
        nothing = federated_eval(tf_computation(lambda: ()), SERVER)
        weights = federated_eval(initial_weights, SERVER)
        return federated_zip(
            LearningAlgorithmState(
                weights,
                distributor.initialize(),
                aggregation.initialize(),
                nothing,
                nothing,
            )
        )

    state_type = initialize_fn.type_signature.result

    @federated_computation(state_type, at_clients(model.data_type))
    def next_fn(state, client_data):
        sent = distributor.next(state.distributor, state.global_model_weights)
        metrics = federated_map(work, (sent.result, client_data))
        aggregated = aggregation.next(state.client_work, metrics)
        current, total = aggregated.result
        new_state = LearningAlgorithmState(
            state.global_model_weights,
            sent.state,
            aggregated.state,
            state.aggregator,
            state.finalizer,
        )
        measured = OrderedDict(
            distributor=sent.measurements,
            client_work=OrderedDict(
                [
                    (
                        "eval",
                        OrderedDict(
                            current_round_metrics=current, total_rounds_metrics=total
                        ),
                    )
                ]
            ),
            aggregator=state.aggregator,
            finalizer=state.finalizer,
        )
        return LearningProcessOutput(federated_zip(new_state), federated_zip(measured))

    @tf_computation(state_type.member)
    def get_model_weights(state):
        return state.global_model_weights

    @tf_computation(state_type.member, model.weights_type)
    def set_model_weights(state, model_weights: ModelWeights):
        return attrs.evolve(state, global_model_weights=model_weights)

    return LearningProcess(initialize_fn, next_fn, get_model_weights, set_model_weights)
