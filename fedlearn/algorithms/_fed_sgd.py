"""FedSGD: clients send gradients, the server takes the step."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import keras
import tensorflow as tf

from fedcore.aggregators import MeanFactory, WeightedAggregationFactory
from fedcore.types import to_type
from fedlearn.algorithms._fed_avg import averaging_process, weighted
from fedlearn.templates import DistributionProcess, LearningProcess
from fedlearn.templates._client_loop import learner
from fedlearn.templates._client_work import (
    client_result,
    mean_gradient,
    stateless_client_work,
)


def default_server_optimizer() -> keras.optimizers.Optimizer:
    """SGD of step 0.1."""
    return keras.optimizers.SGD(learning_rate=0.1)


def build_fed_sgd(
    model_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds FedSGD: a gradient step on the data of all clients of the round.

    Client k with nₖ examples sends gₖ = ∇Fₖ(w), the mean over its examples;
    w ← server_optimizer(w, Σ nₖ gₖ / Σ nₖ).

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        server_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer; its state is kept over rounds.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the gradients; `MeanFactory()` if None.
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

    def finish(start, gradient, num_examples, metrics):
        return client_result(gradient, tf.cast(num_examples, tf.float32)), metrics

    start_type = to_type(OrderedDict(weights=model.weights_type))
    work = mean_gradient(model, start_type, finish)
    return averaging_process(
        model,
        stateless_client_work(model, work, metrics_aggregator),
        server_optimizer_fn,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )
