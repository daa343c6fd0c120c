"""Evaluating a model on clients' data, as one computation or as a process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import MeanFactory
from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import (
    AggregationProcess,
    MeasuredProcess,
    MeasuredProcessOutput,
)
from fedcore.types import (
    CLIENTS,
    SERVER,
    SequenceType,
    Type,
    at_clients,
    at_server,
    to_type,
)
from fedlearn.metrics import SumThenFinalizeFactory
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.templates import (
    ClientResult,
    ClientWorkProcess,
    DistributionProcess,
    FinalizerProcess,
    LearningProcess,
    build_broadcast_process,
    compose_learning_process,
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
    if not isinstance(broadcast, MeasuredProcess):
        raise TypeError(
            "`broadcast_process` needs to be a `DistributionProcess`, found "
            f"`{type(broadcast).__name__}`."
        )
    state = broadcast.state_type.member
    if not (state.is_struct() and len(state) == 0):
        raise ValueError(
            f"`broadcast_process` needs to be stateless, found a state of type `{state}`."
        )
    work = evaluation_work(model)
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
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
    aggregation = metrics_aggregation_process
    if aggregation is None:
        factory = SumThenFinalizeFactory(model.metric_finalizers)
        aggregation = factory.create(model.metrics_type)
    _check_aggregation(aggregation, model.metrics_type)
    # Four parts as in training, so that states and metrics look alike; nothing is sent.
    return compose_learning_process(
        model.initial_weights,
        model_distributor or build_broadcast_process(model.weights_type),
        _evaluation_client_work(model, aggregation),
        MeanFactory().create(to_type(()), to_type(tf.float32)),
        _unchanged_weights(model.weights_type),
    )


def _check_aggregation(aggregation: Any, metrics_type: Type) -> None:
    """Raises TypeError unless it takes the model's metrics and gives a pair of metrics."""
    name = "`metrics_aggregation_process`"
    if not isinstance(aggregation, AggregationProcess):
        raise TypeError(
            f"{name} needs to be an `AggregationProcess`, found "
            f"`{type(aggregation).__name__}`."
        )
    taken = aggregation.next.type_signature.parameter[1].member
    if not taken.is_assignable_from(metrics_type):
        raise TypeError(
            f"{name} needs to take the model's unfinalized metrics\n    {metrics_type}\n"
            f"found that it takes\n    {taken}"
        )
    result = aggregation.next.type_signature.result.result.member
    if not (result.is_struct() and len(result) == 2):
        raise TypeError(
            f"{name} needs to give a pair, the metrics of the round and of all rounds, "
            f"found `{result}`.\n"
            "fedlearn.metrics.SumThenFinalizeFactory makes such processes, also with "
            "another factory within: inner_summation_factory=..."
        )


def _evaluation_client_work(
    model: Learner, aggregation: AggregationProcess
) -> ClientWorkProcess:
    """Clients send their metrics, which are aggregated, and an empty update."""
    work = evaluation_work(model)

    @federated_computation(
        aggregation.state_type,
        at_clients(model.weights_type),
        at_clients(model.data_type),
    )
    def next_fn(state, weights, client_data):
        metrics = federated_map(work, (weights, client_data))
        aggregated = aggregation.next(state, metrics)
        current, total = aggregated.result
        evaluated = OrderedDict(
            current_round_metrics=current, total_rounds_metrics=total
        )
        return MeasuredProcessOutput(
            aggregated.state,
            federated_value(ClientResult((), 0.0), CLIENTS),
            federated_zip(OrderedDict([("eval", evaluated)])),
        )

    return ClientWorkProcess(aggregation.initialize, next_fn)


def _unchanged_weights(weights_type: Type) -> FinalizerProcess:
    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(at_server(()), at_server(weights_type), at_server(()))
    def next_fn(state, weights, update):
        return MeasuredProcessOutput(state, weights, federated_value((), SERVER))

    return FinalizerProcess(initialize_fn, next_fn)


def build_local_evaluation(
    model_fn: Any,
    model_weights_type: Type,
    batch_type: Any,
    use_experimental_simulation_loop: bool = False,
) -> Computation:
    """Builds the computation that evaluates weights on one client's data.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        model_weights_type: The type W of the weights, as
            `fedlearn.models.weights_type_from_model` gives it.
        batch_type: The type D of a batch, or what `to_type` makes one of.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        `(<incoming_model_weights=W,dataset=D*> -> <local_outputs=U,num_examples=int64>)`,
        U the unfinalized metrics.

    Raises:
        TypeError: If the model's weights or batches are of other types.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    data_type = SequenceType(to_type(batch_type))
    for name, wanted, found in [
        ("model_weights_type", model.weights_type, model_weights_type),
        ("batch_type", model.data_type, data_type),
    ]:
        if not wanted.is_assignable_from(to_type(found)):
            raise TypeError(
                f"`build_local_evaluation` needs at `{name}` the model's\n    {wanted}\n"
                f"found\n    {found}"
            )
    work = client_pass(
        model,
        model.weights_type,
        weights_of=lambda weights: weights,
        begin=lambda weights: (),
        update=None,
        finish=lambda start, weights, extra, num_examples, metrics: OrderedDict(
            local_outputs=metrics, num_examples=num_examples
        ),
        training=False,
    )

    @federated_computation(model.weights_type, data_type)
    def evaluate(incoming_model_weights, dataset):
        return work(incoming_model_weights, dataset)

    return evaluate
