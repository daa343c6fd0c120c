"""IFCA, or HypCluster: several models, each trained by the clients it fits best."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import MeanFactory, WeightedAggregationFactory
from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
    federated_sum,
    federated_value,
    federated_zip,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, Type, at_clients, to_type
from fedlearn.algorithms._fed_avg import (
    create_aggregator,
    default_server_optimizer,
    weighted,
)
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.models import ModelWeights
from fedlearn.templates import (
    DistributionProcess,
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    build_apply_optimizer_finalizer,
    build_broadcast_process,
)
from fedlearn.templates._client_loop import Learner, client_pass, learner
from fedlearn.templates._client_work import client_optimizer, local_training
from fedlearn.templates._compose import weights_computations
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting


def build_ifca(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    *,
    num_clusters: int,
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
) -> LearningProcess:
    """Builds IFCA (HypCluster): Federated Averaging of K models, each for its cluster.

    In each round a client takes all K models, chooses the one of the least loss on its
    data, k = argminⱼ Fᵢ(wⱼ), and trains it; the server averages each model over the
    clients that chose it. The update of a model that nobody chose is 0.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`. The K models differ in what it draws: with
            a constant initializer set their weights apart by `set_model_weights`.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        server_optimizer_fn: As `client_optimizer_fn`, one for each model; its state is
            kept over rounds.
        num_clusters: K ≥ 1; 1 is Federated Averaging.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight.
        model_distributor: Sends the list of all models' weights to clients; a plain
            broadcast if None.
        model_aggregator: Aggregates the updates of a model's clients;
            `MeanFactory(no_nan_division=True)` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.

    Returns:
        A process whose weights are a list of K `ModelWeights`, and whose client work
        measures `<train=...,clients=int32[K]>`: training, and how many clients chose which
        model.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `num_clusters` is less than 1.

    References:
        A. Ghosh et al., An Efficient Framework for Clustered Federated Learning, NeurIPS
        2020. arXiv:2006.04088.
        Y. Mansour et al., Three Approaches for Personalization with Applications to
        Federated Learning, 2020. arXiv:2002.10619.
    """
    check_weighting(client_weighting)
    if isinstance(num_clusters, bool) or not isinstance(num_clusters, int):
        raise TypeError(
            "`build_ifca` needs an int as `num_clusters`, found "
            f"`{type(num_clusters).__name__}`."
        )
    if num_clusters < 1:
        raise ValueError(
            f"`build_ifca` needs `num_clusters` of at least 1, found {num_clusters}."
        )
    model = learner(model_fn)
    clusters = range(num_clusters)
    models_type = to_type([model.weights_type for _ in clusters])
    work = _client_work(
        model, models_type, client_optimizer_fn, client_weighting, num_clusters
    )
    distributor = model_distributor or build_broadcast_process(models_type)
    factory = weighted(model_aggregator or MeanFactory(no_nan_division=True))
    aggregator = create_aggregator(factory, model.weights_type.trainable)
    finalizer = build_apply_optimizer_finalizer(server_optimizer_fn, model.weights_type)
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )

    @federated_computation
    def initialize_fn():
        return federated_zip(
            LearningAlgorithmState(
                [federated_eval(model.initial_weights, SERVER) for _ in clusters],
                distributor.initialize(),
                federated_value((), SERVER),
                [aggregator.initialize() for _ in clusters],
                [finalizer.initialize() for _ in clusters],
            )
        )

    state_type = initialize_fn.type_signature.result

    @federated_computation(state_type, at_clients(model.data_type))
    def next_fn(state, client_data):
        models = state.global_model_weights
        sent = distributor.next(state.distributor, models)
        results, chosen, metrics = federated_map(work, (sent.result, client_data))
        aggregated = [
            aggregator.next(
                state.aggregator[k], results[k].update, results[k].update_weight
            )
            for k in clusters
        ]
        finalized = [
            finalizer.next(state.finalizer[k], models[k], aggregated[k].result)
            for k in clusters
        ]
        new_state = LearningAlgorithmState(
            [output.result for output in finalized],
            sent.state,
            state.client_work,
            [output.state for output in aggregated],
            [output.state for output in finalized],
        )
        measured = OrderedDict(
            distributor=sent.measurements,
            client_work=OrderedDict(
                train=aggregate(metrics), clients=federated_sum(chosen)
            ),
            aggregator=[output.measurements for output in aggregated],
            finalizer=[output.measurements for output in finalized],
        )
        return LearningProcessOutput(federated_zip(new_state), federated_zip(measured))

    return LearningProcess(
        initialize_fn, next_fn, *weights_computations(state_type.member)
    )


def _client_work(
    model: Learner,
    models_type: Type,
    client_optimizer_fn: Any,
    client_weighting: Weighting,
    num_clusters: int,
) -> Computation:
    """`(<[W]*K,D*> -> <[ClientResult]*K,int32[K],unfinalized metrics>)`."""
    optimizer = client_optimizer(model, client_optimizer_fn)
    loss = _total_loss(model)
    train = local_training(
        model,
        to_type(OrderedDict(weights=model.weights_type)),
        lambda start: optimizer,
        client_weighting,
    )

    @tf_computation(models_type, [tf.float32] * num_clusters)
    def choose(models, losses):
        # A loss that is no number is the worst.
        losses = tf.stack(losses)
        losses = tf.where(tf.math.is_nan(losses), float("inf"), losses)
        best = tf.argmin(losses, output_type=tf.int32)
        flat = zip(*[tf.nest.flatten(_parts(weights)) for weights in models])
        chosen = [tf.gather(tf.stack(of_models), best) for of_models in flat]
        trainable, non_trainable = tf.nest.pack_sequence_as(_parts(models[0]), chosen)
        weights = ModelWeights(trainable, non_trainable)
        return OrderedDict(weights=weights), tf.one_hot(
            best, num_clusters, dtype=tf.int32
        )

    result_type = train.type_signature.result[0]

    @tf_computation(result_type, (tf.int32, [num_clusters]))
    def for_each_model(result, chosen):
        # With weight 0, and 0 in place of the update, for the models not chosen.
        return [
            type(result)(
                tf.nest.map_structure(
                    lambda u, k=k: u * tf.cast(chosen[k], u.dtype), result.update
                ),
                result.update_weight * tf.cast(chosen[k], tf.float32),
            )
            for k in range(num_clusters)
        ]

    @federated_computation(models_type, model.data_type)
    def work(models, data):
        losses = [loss(models[k], data) for k in range(num_clusters)]
        start, chosen = choose(models, losses)
        result, metrics = train(start, data)
        return for_each_model(result, chosen), chosen, metrics

    return work


def _total_loss(model: Learner) -> Computation:
    """`(<W,D*> -> float32)`: the loss summed over a client's examples."""

    return client_pass(
        model,
        model.weights_type,
        weights_of=lambda weights: weights,
        begin=lambda weights: tf.constant(0.0),
        update=None,
        finish=lambda start, weights, total, num_examples, metrics: total,
        training=False,
        observe=lambda start, total, output, num_examples: (
            total + tf.cast(output.loss, tf.float32) * tf.cast(num_examples, tf.float32)
        ),
    )


def _parts(weights: ModelWeights) -> tuple[Any, Any]:
    return weights.trainable, weights.non_trainable
