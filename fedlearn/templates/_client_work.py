"""Local training: a client's update is how far its training moved the weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.tensorflow import tf_computation
from fedcore.templates import MeasuredProcessOutput
from fedcore.types import SERVER, at_clients, at_server
from fedlearn.metrics import sum_then_finalize
from fedlearn.models import ModelWeights
from fedlearn.templates._client_loop import Learner, client_pass, learner
from fedlearn.templates._finalizer import (
    resolve_optimizer,
    trainable_specs,
)
from fedlearn.templates._non_finite import zero_if_any_non_finite
from fedlearn.templates._parts import ClientResult, ClientWorkProcess
from fedlearn.weighting import Weighting, check_weighting, weight_of


def build_model_delta_client_work(
    model_fn: Any,
    optimizer: Any,
    client_weighting: Weighting,
    metrics_aggregator: Callable[..., Computation] | None = None,
    *,
    use_experimental_simulation_loop: bool = False,
) -> ClientWorkProcess:
    """Clients train from the server's weights w: Δ = w − w_client, weighted.

    A client whose Δ is not finite sends 0 with weight 0.

    Args:
        model_fn: A function without arguments that returns a `Model`, or a
            `FunctionalModel`.
        optimizer: The client's optimizer: one of `fedlearn.optimizers`, or a function
            without arguments that makes a Keras optimizer. It starts anew each round.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight.
        metrics_aggregator: `metric_finalizers, unfinalized_metrics_type -> computation
            ({unfinalized}@CLIENTS -> metrics@SERVER)`; `sum_then_finalize` if None.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A stateless process whose result is `{ClientResult}@CLIENTS` and whose
        measurements are `<train=...>@SERVER`.

    Raises:
        TypeError: If an argument is of another kind than said.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    work = delta_work(model, optimizer, client_weighting)
    return stateless_client_work(model, work, metrics_aggregator or sum_then_finalize)


def delta_work(
    model: Learner,
    optimizer: Any,
    client_weighting: Weighting,
    objective: Callable[[Any, Any, tf.Tensor], tf.Tensor] | None = None,
) -> Computation:
    """`(<W,D*> -> <ClientResult,unfinalized metrics>)`: one client's local training.

    Args:
        model: The model.
        optimizer: As for `build_model_delta_client_work`.
        client_weighting: As there.
        objective: `initial weights, trainable, loss -> loss`: what the client minimises,
            if it is not the model's loss alone.
    """
    specs = trainable_specs(model.weights_type)
    optimizer = resolve_optimizer(optimizer, specs)

    def finish(initial, weights, extra, num_examples, metrics):
        delta = tf.nest.map_structure(
            tf.subtract,
            tf.nest.flatten(initial.trainable),
            tf.nest.flatten(weights.trainable),
        )
        delta, non_finite = zero_if_any_non_finite(delta)
        weight = weight_of(client_weighting, num_examples, metrics)
        weight = tf.where(non_finite, 0.0, weight)
        nested = tf.nest.pack_sequence_as(initial.trainable, delta)
        return ClientResult(nested, weight), metrics

    return client_pass(
        model,
        model.weights_type,
        weights_of=lambda weights: weights,
        begin=lambda weights: optimizer.initialize(specs),
        update=lambda initial, state, trainable, gradients: optimizer.next(
            state, trainable, gradients
        ),
        finish=finish,
        objective=objective,
    )


def stateless_client_work(
    model: Learner, work: Computation, metrics_aggregator: Callable[..., Computation]
) -> ClientWorkProcess:
    """The process that runs `work` on each client and aggregates its metrics."""
    aggregate = metrics_aggregator(model.metric_finalizers, model.metrics_type)

    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(
        at_server(()), at_clients(model.weights_type), at_clients(model.data_type)
    )
    def next_fn(state, weights, client_data):
        result, metrics = federated_map(work, (weights, client_data))
        train = aggregate(metrics)
        return MeasuredProcessOutput(
            state, result, federated_zip(OrderedDict(train=train))
        )

    return ClientWorkProcess(initialize_fn, next_fn)
