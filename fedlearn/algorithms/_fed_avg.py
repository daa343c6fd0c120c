"""Federated Averaging: clients train from the server's weights, the server averages."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fedcore.aggregators import (
    MeanFactory,
    UnweightedAggregationFactory,
    UnweightedMeanFactory,
    WeightedAggregationFactory,
)
from fedcore.templates import AggregationProcess
from fedcore.types import TensorType, Type
from fedlearn.metrics import sum_then_finalize
from fedlearn.templates import (
    ClientWorkProcess,
    DistributionProcess,
    LearningProcess,
    build_apply_optimizer_finalizer,
    build_broadcast_process,
    compose_learning_process,
)
from fedlearn.templates._client_loop import Learner, learner
from fedlearn.templates._client_work import delta_client_work
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting


def default_server_optimizer() -> keras.optimizers.Optimizer:
    """SGD of step 1: the server takes the clients' average as its new weights."""
    return keras.optimizers.SGD(learning_rate=1.0)


def build_weighted_fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    *,
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds Federated Averaging with a weight for each client.

    Clients train from the server's weights w to wᵢ; the server takes the weighted mean of
    Δᵢ = w − wᵢ as a gradient: w ← server_optimizer(w, Σ pᵢ Δᵢ / Σ pᵢ).

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        server_optimizer_fn: As `client_optimizer_fn`; its state is kept over rounds.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight pᵢ.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: `metric_finalizers, unfinalized_metrics_type ->
            ({unfinalized}@CLIENTS -> metrics@SERVER)`; `sum_then_finalize` if None.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process with next `(<state=S@SERVER,client_data={D*}@CLIENTS> ->
        <state=S@SERVER,metrics=<distributor=...,client_work=<train=...>,aggregator=...,
        finalizer=...>@SERVER>)`.

    Raises:
        TypeError: If an argument is of another kind than said.

    References:
        H. B. McMahan et al., Communication-Efficient Learning of Deep Networks from
        Decentralized Data, AISTATS 2017. arXiv:1602.05629.
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    return averaging_process(
        model,
        delta_client_work(
            model, client_optimizer_fn, client_weighting, metrics_aggregator
        ),
        server_optimizer_fn,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )


def build_unweighted_fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: UnweightedAggregationFactory | None = None,
    metrics_aggregator: Any = sum_then_finalize,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds Federated Averaging in which every client counts the same.

    As `build_weighted_fed_avg` with pᵢ = 1.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        server_optimizer_fn: As `client_optimizer_fn`; its state is kept over rounds.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `UnweightedMeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_weighted_fed_avg`.

    Raises:
        TypeError: If an argument is of another kind than said.

    References:
        H. B. McMahan et al., Communication-Efficient Learning of Deep Networks from
        Decentralized Data, AISTATS 2017. arXiv:1602.05629.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    return averaging_process(
        model,
        delta_client_work(
            model, client_optimizer_fn, ClientWeighting.UNIFORM, metrics_aggregator
        ),
        server_optimizer_fn,
        model_distributor,
        unweighted(model_aggregator or UnweightedMeanFactory()),
    )


def averaging_process(
    model: Learner,
    client_work: ClientWorkProcess,
    server_optimizer_fn: Any,
    model_distributor: DistributionProcess | None,
    model_aggregator: Any,
) -> LearningProcess:
    """A learning process around the clients' part: what all averaging algorithms share."""
    distributor = model_distributor or build_broadcast_process(model.weights_type)
    return compose_learning_process(
        model.initial_weights,
        distributor,
        client_work,
        create_aggregator(model_aggregator, model.weights_type.trainable),
        build_apply_optimizer_finalizer(server_optimizer_fn, model.weights_type),
    )


def create_aggregator(factory: Any, value_type: Type) -> AggregationProcess:
    """The process of a factory for clients' updates, weighted by float32."""
    if isinstance(factory, WeightedAggregationFactory):
        return factory.create(value_type, TensorType(tf.float32))
    if isinstance(factory, UnweightedAggregationFactory):
        return factory.create(value_type)
    raise TypeError(
        "`model_aggregator` needs to be an aggregation factory of "
        f"`fedcore.aggregators`, found `{type(factory).__name__}`."
    )


def weighted(factory: Any) -> WeightedAggregationFactory:
    """Raises TypeError unless the factory takes weights."""
    if not isinstance(factory, WeightedAggregationFactory):
        raise TypeError(
            "`model_aggregator` needs to be a `WeightedAggregationFactory`, found "
            f"`{type(factory).__name__}`.\n"
            "Use the unweighted algorithm for one that takes no weights, or wrap it with "
            "`fedcore.aggregators.as_weighted_aggregator`."
        )
    return factory


def unweighted(factory: Any) -> UnweightedAggregationFactory:
    """Raises TypeError unless the factory takes no weights."""
    if not isinstance(factory, UnweightedAggregationFactory):
        raise TypeError(
            "`model_aggregator` needs to be an `UnweightedAggregationFactory`, found "
            f"`{type(factory).__name__}`.\n"
            "Use the weighted algorithm for one that takes weights."
        )
    return factory
