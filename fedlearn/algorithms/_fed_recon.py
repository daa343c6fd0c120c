"""Federated reconstruction: training and evaluating models that are partly local."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore.aggregators import (
    MeanFactory,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcess, MeasuredProcessOutput
from fedcore.types import SERVER, at_clients, at_server
from fedlearn.algorithms._fed_avg import create_aggregator
from fedlearn.algorithms._recon_client import (
    Reconstruction,
    reconstruct_then,
    reconstruction,
)
from fedlearn.metrics import SumThenFinalizeFactory, sum_then_finalize
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.models._reconstruction import (
    ReconstructionDatasetSplitFn,
    ReconstructionModel,
)
from fedlearn.optimizers import Optimizer, build_sgdm
from fedlearn.templates import (
    ClientResult,
    ClientWorkProcess,
    DistributionProcess,
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    build_apply_optimizer_finalizer,
    build_broadcast_process,
    compose_learning_process,
)
from fedlearn.templates._compose import weights_computations
from fedlearn.templates._non_finite import zero_if_any_non_finite
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting, weight_of

_SGD_1 = build_sgdm(1.0)
_SGD_01 = build_sgdm(0.1)


def build_fed_recon(
    model_fn: Callable[[], ReconstructionModel],
    *,
    loss_fn: Callable[[], Any],
    metrics_fn: Callable[[], list[Any]] | None = None,
    server_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_1,
    client_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_01,
    reconstruction_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_01,
    dataset_split_fn: ReconstructionDatasetSplitFn | None = None,
    client_weighting: Weighting | None = None,
    model_distributor: DistributionProcess | None = None,
    model_aggregator_factory: Any = None,
    metrics_aggregator: Any = sum_then_finalize,
) -> LearningProcess:
    """Builds the training of a model's global variables, the local ones reconstructed.

    In each round a client starts its local variables l anew, fits them on its support
    batches with the global ones g fixed, then trains g from the server's value to gᵢ on
    its query batches with l fixed. The server takes the mean of g − gᵢ as a gradient. No
    l ever leaves its client, and no client keeps anything between two rounds.

    A client whose update is not finite sends 0 with weight 0.

    Args:
        model_fn: A function without arguments that makes a `ReconstructionModel`.
        loss_fn: A function without arguments that makes a `keras.losses.Loss`.
        metrics_fn: A function without arguments that makes a list of Keras metrics of
            labels and predictions; the mean `loss` is added to them.
        server_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer; its state is kept over rounds.
        client_optimizer_fn: As `server_optimizer_fn`, of g; it starts anew each round.
        reconstruction_optimizer_fn: As `client_optimizer_fn`, of l.
        dataset_split_fn: From a client's dataset to a pair of them, for fitting l and for
            training g; see `reconstruction.build_dataset_split_fn`. If None, the first,
            third, ... batches are for l and the others for g.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight; the number of examples g was trained on if None.
        model_distributor: Sends g to clients; a plain broadcast if None.
        model_aggregator_factory: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: `metric_finalizers, unfinalized_metrics_type ->
            ({unfinalized}@CLIENTS -> metrics@SERVER)`.

    Returns:
        A process with next `(<state=S@SERVER,client_data={D*}@CLIENTS> ->
        <state=S@SERVER,metrics=<distributor=...,client_work=<train=...>,aggregator=...,
        finalizer=...>@SERVER>)`; its metrics are of the batches g was trained on.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If no global variable is trainable, or an aggregator without weights
            is given together with a weighting other than `UNIFORM`.

    References:
        K. Singhal et al., Federated Reconstruction: Partially Local Federated Learning,
        NeurIPS 2021. arXiv:2102.03448.
    """
    recon = reconstruction(model_fn, loss_fn, metrics_fn, dataset_split_fn)
    return training_process(
        recon,
        server_optimizer_fn,
        client_optimizer_fn,
        reconstruction_optimizer_fn,
        client_weighting,
        recon_distributor("model_distributor", model_distributor, recon),
        recon_aggregator(
            "model_aggregator_factory",
            model_aggregator_factory,
            client_weighting,
            recon,
        ),
        metrics_aggregator,
    )


def build_fed_recon_eval(
    model_fn: Callable[[], ReconstructionModel],
    *,
    loss_fn: Callable[[], Any],
    metrics_fn: Callable[[], list[Any]] | None = None,
    reconstruction_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_01,
    dataset_split_fn: ReconstructionDatasetSplitFn | None = None,
    model_distributor: DistributionProcess | None = None,
    metrics_aggregation_process: AggregationProcess | None = None,
) -> LearningProcess:
    """Builds a process that evaluates global variables, the local ones reconstructed.

    Each client fits its local variables on its support batches and evaluates on its query
    batches. The weights do not change; metrics are of the round and of all rounds so far.

    Args:
        model_fn: A function without arguments that makes a `ReconstructionModel`.
        loss_fn: A function without arguments that makes a `keras.losses.Loss`.
        metrics_fn: A function without arguments that makes a list of Keras metrics; the
            mean `loss` is added to them.
        reconstruction_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function
            without arguments that makes a Keras optimizer.
        dataset_split_fn: As for `build_fed_recon`.
        model_distributor: Sends the weights to clients; a plain broadcast if None.
        metrics_aggregation_process: An `AggregationProcess` of unfinalized metrics, whose
            result is a pair: of this round, of all rounds;
            `fedlearn.metrics.SumThenFinalizeFactory(...)` makes the one used if None.

    Returns:
        A process with metrics `<distributor=...,client_work=<eval=<
        current_round_metrics=M,total_rounds_metrics=M>>,aggregator=<>,finalizer=<>>`.

    Raises:
        TypeError: If an argument is of another kind than said.

    References:
        K. Singhal et al., Federated Reconstruction: Partially Local Federated Learning,
        NeurIPS 2021. arXiv:2102.03448.
    """
    recon = reconstruction(model_fn, loss_fn, metrics_fn, dataset_split_fn)
    distributor = recon_distributor("model_distributor", model_distributor, recon)
    aggregation = metrics_aggregation_process
    if aggregation is None:
        factory = SumThenFinalizeFactory(recon.metric_finalizers)
        aggregation = factory.create(recon.metrics_type)
    elif not isinstance(aggregation, AggregationProcess):
        raise TypeError(
            "`metrics_aggregation_process` needs to be an `AggregationProcess`, found "
            f"`{type(aggregation).__name__}`."
        )
    work = evaluation_work(recon, reconstruction_optimizer_fn)
    initial_weights = recon.initial_weights

    @federated_computation
    def initialize_fn():
        return federated_zip(
            LearningAlgorithmState(
                federated_value(initial_weights(), SERVER),
                distributor.initialize(),
                aggregation.initialize(),
                federated_value((), SERVER),
                federated_value((), SERVER),
            )
        )

    state_type = initialize_fn.type_signature.result

    @federated_computation(state_type, at_clients(recon.data_type))
    def next_fn(state, client_data):
        weights = state.global_model_weights
        sent = distributor.next(state.distributor, weights)
        metrics = federated_map(work, (sent.result, client_data))
        aggregated = aggregation.next(state.client_work, metrics)
        current, total = aggregated.result
        new_state = LearningAlgorithmState(
            weights, sent.state, aggregated.state, state.aggregator, state.finalizer
        )
        evaluated = OrderedDict(
            current_round_metrics=current, total_rounds_metrics=total
        )
        measured = OrderedDict(
            distributor=sent.measurements,
            client_work=OrderedDict([("eval", evaluated)]),
            aggregator=state.aggregator,
            finalizer=state.finalizer,
        )
        return LearningProcessOutput(federated_zip(new_state), federated_zip(measured))

    return LearningProcess(
        initialize_fn, next_fn, *weights_computations(state_type.member)
    )


def training_process(
    recon: Reconstruction,
    server_optimizer: Any,
    client_optimizer: Any,
    reconstruction_optimizer: Any,
    client_weighting: Weighting | None,
    distributor: DistributionProcess,
    aggregator: AggregationProcess,
    metrics_aggregator: Callable[..., Computation],
) -> LearningProcess:
    """The process of `build_fed_recon`, of arguments that are checked."""
    weighting = client_weighting or ClientWeighting.NUM_EXAMPLES
    work = training_work(recon, client_optimizer, reconstruction_optimizer, weighting)
    aggregate = metrics_aggregation(
        metrics_aggregator, recon.metric_finalizers, recon.metrics_type
    )

    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(
        at_server(()), at_clients(recon.weights_type), at_clients(recon.data_type)
    )
    def next_fn(state, weights, client_data):
        result, metrics = federated_map(work, (weights, client_data))
        train = OrderedDict(train=aggregate(metrics))
        return MeasuredProcessOutput(state, result, federated_zip(train))

    return compose_learning_process(
        recon.initial_weights,
        distributor,
        ClientWorkProcess(initialize_fn, next_fn),
        aggregator,
        build_apply_optimizer_finalizer(server_optimizer, recon.weights_type),
    )


def training_work(
    recon: Reconstruction,
    client_optimizer: Any,
    reconstruction_optimizer: Any,
    weighting: Weighting,
) -> Computation:
    """`(<W,D*> -> <ClientResult,unfinalized metrics>)`: one client's round."""

    def finish(start, weights, num_examples, metrics):
        delta = tf.nest.map_structure(
            tf.subtract, list(start.trainable), list(weights.trainable)
        )
        delta, non_finite = zero_if_any_non_finite(delta)
        weight = weight_of(weighting, num_examples, metrics)
        return ClientResult(delta, tf.where(non_finite, 0.0, weight)), metrics

    return reconstruct_then(recon, reconstruction_optimizer, client_optimizer, finish)


def evaluation_work(
    recon: Reconstruction, reconstruction_optimizer: Any
) -> Computation:
    """`(<W,D*> -> unfinalized metrics)`: one client's evaluation."""
    return reconstruct_then(
        recon,
        reconstruction_optimizer,
        None,
        lambda start, weights, num_examples, metrics: metrics,
    )


def recon_distributor(
    name: str, process: Any, recon: Reconstruction
) -> DistributionProcess:
    """The process that sends weights, its types checked; a plain broadcast for None."""
    if process is None:
        return build_broadcast_process(recon.weights_type)
    if isinstance(process, DistributionProcess):
        return process
    if not isinstance(process, MeasuredProcess):
        raise TypeError(
            f"`{name}` needs to be a `DistributionProcess`, found "
            f"`{type(process).__name__}`.\nMake one with "
            "`fedlearn.templates.build_broadcast_process`."
        )
    return DistributionProcess(process.initialize, process.next)


def recon_aggregator(
    name: str, factory: Any, client_weighting: Weighting | None, recon: Reconstruction
) -> AggregationProcess:
    """The process that aggregates updates, checked together with the weighting."""
    if client_weighting is not None:
        check_weighting(client_weighting)
    if factory is None:
        factory = MeanFactory()
    if not isinstance(
        factory, (UnweightedAggregationFactory, WeightedAggregationFactory)
    ):
        raise TypeError(
            f"`{name}` needs to be an aggregation factory of `fedcore.aggregators`, "
            f"found `{type(factory).__name__}`."
        )
    weighted = isinstance(factory, WeightedAggregationFactory)
    if not weighted and client_weighting is not ClientWeighting.UNIFORM:
        raise ValueError(
            f"`{name}` needs to take weights, found `{type(factory).__name__}`.\n"
            "Pass client_weighting=ClientWeighting.UNIFORM with it."
        )
    update_type = recon.weights_type.trainable
    if len(update_type) == 0:
        raise ValueError(
            "Training by reconstruction needs a global trainable variable, found none.\n"
            "Name a layer with weights at `global_layers`."
        )
    return create_aggregator(factory, update_type)
