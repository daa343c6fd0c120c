"""Ditto: every client has a model of its own, held near the server's."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import MeanFactory, WeightedAggregationFactory
from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, at_clients, at_server, to_type
from fedlearn.algorithms._fed_avg import (
    create_aggregator,
    default_server_optimizer,
    weighted,
)
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.models import ModelWeights
from fedlearn.optimizers import _arguments as arguments
from fedlearn.templates import (
    DistributionProcess,
    StatefulClientResult,
    StatefulClientWorkProcess,
    StatefulLearningProcess,
    build_apply_optimizer_finalizer,
    build_broadcast_process,
    compose_stateful_learning_process,
)
from fedlearn.templates._client_loop import Learner, client_pass, learner
from fedlearn.templates._client_work import (
    client_optimizer,
    dense_gradients,
    local_training,
)
from fedlearn.templates._finalizer import trainable_specs
from fedlearn.templates._non_finite import zero_if_any_non_finite
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting


def build_ditto(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    *,
    proximal_strength: float,
    personal_optimizer_fn: Any = None,
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
) -> StatefulLearningProcess:
    """Builds Ditto: Federated Averaging, and beside it a personal model of each client.

    The server's weights w are trained by Federated Averaging. Client k also keeps vₖ, at
    first w, and in each round passes over its data once more with gradients
    ∇Fₖ(vₖ) + λ (vₖ − w). The non-trainable weights of a personal model are the server's.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        server_optimizer_fn: As `client_optimizer_fn`; its state is kept over rounds.
        proximal_strength: λ ≥ 0; with 0 the personal models are trained alone.
        personal_optimizer_fn: Trains vₖ; `client_optimizer_fn` if None.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.

    Returns:
        A process whose clients' states are the trainable weights vₖ, and whose client work
        measures `<train=...,personal=...>`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `proximal_strength` is negative.

    References:
        T. Li et al., Ditto: Fair and Robust Federated Learning Through Personalization,
        ICML 2021. arXiv:2012.04221.
    """
    check_weighting(client_weighting)
    strength = arguments.number_at_least_zero(
        "build_ditto", "proximal_strength", proximal_strength
    )
    model = learner(model_fn)
    optimizer = client_optimizer(model, client_optimizer_fn)
    train = local_training(
        model,
        to_type(OrderedDict(weights=model.weights_type)),
        lambda start: optimizer,
        client_weighting,
    )
    personalize = _personal_training(
        model, personal_optimizer_fn or client_optimizer_fn, strength
    )
    update_type = model.weights_type.trainable
    return compose_stateful_learning_process(
        model.initial_weights,
        tf_computation(lambda weights: weights.trainable, model.weights_type),
        model_distributor or build_broadcast_process(model.weights_type),
        _client_work(model, train, personalize, metrics_aggregator),
        create_aggregator(weighted(model_aggregator or MeanFactory()), update_type),
        build_apply_optimizer_finalizer(server_optimizer_fn, model.weights_type),
    )


def _personal_training(
    model: Learner, optimizer_fn: Any, strength: float
) -> Computation:
    """`(<<weights=W,personal=V>,D*> -> <V,unfinalized metrics>)`."""
    specs = trainable_specs(model.weights_type)
    optimizer = client_optimizer(model, optimizer_fn)

    def update(start, state, trainable, gradients, num_examples):
        server_weights = tf.nest.flatten(start["weights"].trainable)
        gradients = [
            g + strength * (v - w)
            for g, v, w in zip(
                dense_gradients(gradients, trainable), trainable, server_weights
            )
        ]
        return optimizer.next(state, trainable, gradients)

    def finish(start, weights, state, num_examples, metrics):
        old, new = (
            tf.nest.flatten(part) for part in (start["personal"], weights.trainable)
        )
        _, spoilt = zero_if_any_non_finite(new)  # such a pass changes nothing
        kept = [tf.where(spoilt, before, after) for before, after in zip(old, new)]
        return tf.nest.pack_sequence_as(start["personal"], kept), metrics

    return client_pass(
        model,
        to_type(
            OrderedDict(
                weights=model.weights_type, personal=model.weights_type.trainable
            )
        ),
        weights_of=lambda start: ModelWeights(
            start["personal"], start["weights"].non_trainable
        ),
        begin=lambda start: optimizer.initialize(specs),
        update=update,
        finish=finish,
    )


def _client_work(
    model: Learner,
    train: Computation,
    personalize: Computation,
    metrics_aggregator: Any,
) -> StatefulClientWorkProcess:
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )

    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(
        at_server(()),
        at_clients(model.weights_type),
        at_clients(model.weights_type.trainable),
        at_clients(model.data_type),
    )
    def next_fn(state, weights, personal, client_data):
        result, metrics = federated_map(
            train, (federated_zip(OrderedDict(weights=weights)), client_data)
        )
        start = federated_zip(OrderedDict(weights=weights, personal=personal))
        kept, personal_metrics = federated_map(personalize, (start, client_data))
        measured = OrderedDict(
            train=aggregate(metrics), personal=aggregate(personal_metrics)
        )
        return MeasuredProcessOutput(
            state,
            federated_zip(StatefulClientResult(result, kept)),
            federated_zip(measured),
        )

    return StatefulClientWorkProcess(initialize_fn, next_fn)
