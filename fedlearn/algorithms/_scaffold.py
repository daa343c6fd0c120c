"""SCAFFOLD: control variates correct the drift of clients that differ."""

from __future__ import annotations

import numbers
from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import MeanFactory, WeightedAggregationFactory
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_sum,
    federated_zip,
)
from fedcore.templates import MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    SERVER,
    at_clients,
    at_server,
    structure_from_tensor_type_tree,
    to_type,
)
from fedlearn.algorithms._fed_avg import (
    create_aggregator,
    default_server_optimizer,
    weighted,
)
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.optimizers import Optimizer, build_sgdm
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
    client_result,
    dense_gradients,
    model_delta,
    training_metrics,
)
from fedlearn.templates._finalizer import trainable_specs
from fedlearn.templates._non_finite import zero_if_any_non_finite
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting, weight_of


def build_scaffold(
    model_fn: Any,
    client_learning_rate: float,
    server_optimizer_fn: Any = default_server_optimizer,
    *,
    num_clients: int,
    client_weighting: Weighting = ClientWeighting.UNIFORM,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
) -> StatefulLearningProcess:
    """Builds SCAFFOLD, whose clients keep a control variate from round to round.

    The server has weights x and a control variate c, client i its own cᵢ. It takes K steps
    y ← y − η (∇Fᵢ(y) − cᵢ + c) from y = x, and then cᵢ⁺ = cᵢ − c + (x − y) / (K η)
    (option II of the paper). x is updated with the mean of x − y as in Federated
    Averaging, and c ← c + Σ (cᵢ⁺ − cᵢ) / N over the clients of the round; that sum is a
    plain one, whatever `model_aggregator` is. A client whose update is not finite, or
    that takes no step, keeps its cᵢ.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        client_learning_rate: η > 0 of the clients' gradient descent.
        server_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer.
        num_clients: N, how many clients there are in all, in a round or not.
        client_weighting: How much a client counts in the mean; the same in the paper.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.

    Returns:
        A process whose clients' states are like the trainable weights, at first 0.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `client_learning_rate` or `num_clients` is not above 0.

    References:
        S. P. Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated
        Learning, ICML 2020. arXiv:1910.06378.
    """
    check_weighting(client_weighting)
    if callable(client_learning_rate) or isinstance(client_learning_rate, Optimizer):
        raise TypeError(
            "`build_scaffold` needs a float as `client_learning_rate`, found "
            f"`{type(client_learning_rate).__name__}`.\n"
            "Its clients take plain gradient steps: pass the rate, not an optimizer."
        )
    rate = arguments.number_above_zero(
        "build_scaffold", "client_learning_rate", client_learning_rate
    )
    check_num_clients("build_scaffold", num_clients)
    model = learner(model_fn)
    control_type = model.weights_type.trainable

    @tf_computation(model.weights_type)
    def initialize_client(weights):
        return tf.nest.map_structure(tf.zeros_like, weights.trainable)

    return compose_stateful_learning_process(
        model.initial_weights,
        initialize_client,
        model_distributor or build_broadcast_process(model.weights_type),
        _client_work(
            model,
            rate,
            num_clients,
            client_weighting,
            metrics_aggregator,
        ),
        create_aggregator(weighted(model_aggregator or MeanFactory()), control_type),
        build_apply_optimizer_finalizer(server_optimizer_fn, model.weights_type),
    )


def check_num_clients(function: str, num_clients: Any) -> None:
    """Raises unless `num_clients` is an int above 0."""
    if isinstance(num_clients, bool) or not isinstance(num_clients, numbers.Integral):
        raise TypeError(
            f"`{function}` needs an int as `num_clients`, found "
            f"`{type(num_clients).__name__}`.\nIt is the number of all clients, such as "
            "`len(train.client_ids)`, not of those of a round."
        )
    if num_clients < 1:
        raise ValueError(
            f"`{function}` needs `num_clients` of at least 1, found {num_clients}."
        )


def _client_work(
    model: Learner,
    learning_rate: float,
    num_clients: int,
    client_weighting: Weighting,
    metrics_aggregator: Any,
) -> StatefulClientWorkProcess:
    """Local training with control variates; the state is the server's, c."""
    specs = trainable_specs(model.weights_type)
    control_type = model.weights_type.trainable
    start_type = to_type(
        OrderedDict(
            weights=model.weights_type,
            control=control_type,
            client_control=control_type,
        )
    )
    sgd = build_sgdm(learning_rate)

    def begin(start):
        return OrderedDict(optimizer=sgd.initialize(specs), steps=tf.constant(0))

    def update(start, extra, trainable, gradients, num_examples):
        corrected = [
            gradient - of_client + of_server
            for gradient, of_client, of_server in zip(
                dense_gradients(gradients, trainable),
                tf.nest.flatten(start["client_control"]),
                tf.nest.flatten(start["control"]),
            )
        ]
        state, trainable = sgd.next(extra["optimizer"], trainable, corrected)
        return OrderedDict(optimizer=state, steps=extra["steps"] + 1), trainable

    def finish(start, weights, extra, num_examples, metrics):
        delta = model_delta(start["weights"].trainable, weights.trainable)
        travelled = learning_rate * tf.cast(extra["steps"], tf.float32)
        # A client without a step, or whose update is not finite, keeps its variate.
        moved = tf.nest.map_structure(
            lambda d, c: tf.where(
                extra["steps"] > 0,
                tf.math.divide_no_nan(d, tf.cast(travelled, d.dtype)) - c,
                tf.zeros_like(c),
            ),
            delta,
            start["control"],
        )
        moved, _ = zero_if_any_non_finite(moved)
        kept = tf.nest.map_structure(tf.add, start["client_control"], moved)
        weight = weight_of(client_weighting, num_examples, metrics)
        result = StatefulClientResult(client_result(delta, weight), kept)
        return result, moved, metrics

    work = client_pass(
        model,
        start_type,
        weights_of=lambda start: start["weights"],
        begin=begin,
        update=update,
        finish=finish,
    )
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )

    @tf_computation
    def initial_control():
        return structure_from_tensor_type_tree(
            lambda tensor: tf.zeros(tensor.shape, tensor.dtype), control_type
        )

    @tf_computation(control_type, control_type)
    def move(control, moved):
        return tf.nest.map_structure(lambda c, m: c + m / num_clients, control, moved)

    @federated_computation
    def initialize_fn():
        return federated_eval(initial_control, SERVER)

    @federated_computation(
        at_server(control_type),
        at_clients(model.weights_type),
        at_clients(control_type),
        at_clients(model.data_type),
    )
    def next_fn(control, weights, client_controls, client_data):
        start = federated_zip(
            OrderedDict(
                weights=weights,
                control=federated_broadcast(control),
                client_control=client_controls,
            )
        )
        result, moved, metrics = federated_map(work, (start, client_data))
        control = federated_map(move, (control, federated_sum(moved)))
        return MeasuredProcessOutput(
            control, result, training_metrics(aggregate, metrics)
        )

    return StatefulClientWorkProcess(initialize_fn, next_fn)
