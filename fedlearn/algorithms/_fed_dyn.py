"""FedDyn: clients' objectives are changed so that they agree with the server's."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import MeanFactory, WeightedAggregationFactory
from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
    federated_sum,
    federated_value,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    SERVER,
    Type,
    at_clients,
    at_server,
    structure_from_tensor_type_tree,
    to_type,
)
from fedlearn.algorithms._fed_avg import create_aggregator, weighted
from fedlearn.algorithms._scaffold import check_num_clients
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.models import ModelWeights
from fedlearn.optimizers import _arguments as arguments
from fedlearn.templates import (
    DistributionProcess,
    FinalizerProcess,
    StatefulClientResult,
    StatefulClientWorkProcess,
    StatefulLearningProcess,
    build_broadcast_process,
    compose_stateful_learning_process,
)
from fedlearn.templates._client_loop import Learner, client_pass, learner
from fedlearn.templates._client_work import (
    client_optimizer,
    client_result,
    dense_gradients,
    model_delta,
    training_metrics,
)
from fedlearn.templates._finalizer import trainable_specs
from fedlearn.templates._non_finite import zero_if_any_non_finite


def build_fed_dyn(
    model_fn: Any,
    client_optimizer_fn: Any,
    *,
    regularization: float,
    num_clients: int,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
) -> StatefulLearningProcess:
    """Builds FedDyn, whose clients keep the gradient of their loss where they ended.

    The server has weights θ and h, client k its own gₖ; all but θ are 0 at first. A client
    descends on Lₖ(w) − ⟨gₖ, w⟩ + α/2 ‖w − θ‖² from w = θ to θₖ, and then
    gₖ ← gₖ − α (θₖ − θ). Over the clients P of the round h ← h − α/N Σ (θₖ − θ), and
    θ ← Σ θₖ / |P| − h / α.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        regularization: α > 0.
        num_clients: N, how many clients there are in all, in a round or not.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Takes the mean of θ − θₖ; `MeanFactory()` if None. A client
            without examples, or whose update is not finite, does not count.
        metrics_aggregator: As for `build_weighted_fed_avg`.

    Returns:
        A process whose clients' states gₖ are like the trainable weights, as is the state
        h / α of its finalizer.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `regularization` or `num_clients` is not above 0.

    References:
        D. A. E. Acar et al., Federated Learning Based on Dynamic Regularization, ICLR
        2021. arXiv:2111.04263.
    """
    alpha = arguments.number_above_zero(
        "build_fed_dyn", "regularization", regularization
    )
    check_num_clients("build_fed_dyn", num_clients)
    model = learner(model_fn)
    mean = create_aggregator(
        weighted(model_aggregator or MeanFactory()), model.weights_type.trainable
    )

    @tf_computation(model.weights_type)
    def initialize_client(weights):
        return tf.nest.map_structure(tf.zeros_like, weights.trainable)

    return compose_stateful_learning_process(
        model.initial_weights,
        initialize_client,
        model_distributor or build_broadcast_process(model.weights_type),
        _client_work(
            model,
            _local_training(model, client_optimizer_fn, alpha),
            metrics_aggregator,
        ),
        _mean_and_count(mean),
        _finalizer(model.weights_type, num_clients),
    )


def _local_training(model: Learner, optimizer_fn: Any, alpha: float) -> Any:
    """`(<<weights=W,gradient=G>,D*> -> <StatefulClientResult,unfinalized metrics>)`."""
    specs = trainable_specs(model.weights_type)
    optimizer = client_optimizer(model, optimizer_fn)

    def update(start, state, trainable, gradients, num_examples):
        parts = zip(
            dense_gradients(gradients, trainable),
            tf.nest.flatten(start["gradient"]),
            trainable,
            tf.nest.flatten(start["weights"].trainable),
        )
        gradients = [g - own + alpha * (w - server) for g, own, w, server in parts]
        return optimizer.next(state, trainable, gradients)

    def finish(start, weights, state, num_examples, metrics):
        delta = model_delta(start["weights"].trainable, weights.trainable)
        result = client_result(delta, tf.where(num_examples > 0, 1.0, 0.0))
        gradient = tf.nest.map_structure(
            lambda own, d: own + alpha * d, start["gradient"], result.update
        )
        return StatefulClientResult(result, gradient), metrics

    return client_pass(
        model,
        to_type(
            OrderedDict(
                weights=model.weights_type, gradient=model.weights_type.trainable
            )
        ),
        weights_of=lambda start: start["weights"],
        begin=lambda start: optimizer.initialize(specs),
        update=update,
        finish=finish,
    )


def _client_work(
    model: Learner, train: Any, metrics_aggregator: Any
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
    def next_fn(state, weights, gradients, client_data):
        start = federated_zip(OrderedDict(weights=weights, gradient=gradients))
        result, metrics = federated_map(train, (start, client_data))
        return MeasuredProcessOutput(
            state, result, training_metrics(aggregate, metrics)
        )

    return StatefulClientWorkProcess(initialize_fn, next_fn)


def _mean_and_count(mean: AggregationProcess) -> AggregationProcess:
    """The mean of the updates, and how many clients it is of."""
    taken: Any = mean.next.type_signature.parameter

    @federated_computation(*taken)
    def next_fn(state, update, weight):
        output = mean.next(state, update, weight)
        result = OrderedDict(mean=output.result, count=federated_sum(weight))
        return MeasuredProcessOutput(
            output.state, federated_zip(result), output.measurements
        )

    return AggregationProcess(mean.initialize, next_fn)


def _finalizer(weights_type: Any, num_clients: int) -> FinalizerProcess:
    """θ ← θ − Δ̄ − h/α with h/α ← h/α + |P| Δ̄ / N, Δ̄ the mean of θ − θₖ."""
    offset_type: Type = weights_type.trainable
    update_type = to_type(OrderedDict(mean=offset_type, count=tf.float32))

    @tf_computation
    def initial_offset():
        return structure_from_tensor_type_tree(
            lambda tensor: tf.zeros(tensor.shape, tensor.dtype), offset_type
        )

    @tf_computation(offset_type, weights_type, update_type)
    def apply(offset, weights, update):
        mean, non_finite = zero_if_any_non_finite(update["mean"])
        share = update["count"] / num_clients
        new_offset = tf.nest.map_structure(
            lambda h, d: h + tf.cast(share, d.dtype) * d, offset, mean
        )
        moved = tf.nest.map_structure(
            lambda w, d, h: w - d - h, weights.trainable, mean, new_offset
        )
        # In a round of no use, for all clients were spoilt, nothing moves.
        trainable = tf.nest.map_structure(
            lambda old, new: tf.where(non_finite, old, new), weights.trainable, moved
        )
        metrics = OrderedDict(update_non_finite=tf.cast(non_finite, tf.int32))
        return new_offset, ModelWeights(trainable, weights.non_trainable), metrics

    @federated_computation
    def initialize_fn():
        return federated_eval(initial_offset, SERVER)

    @federated_computation(
        at_server(offset_type), at_server(weights_type), at_server(update_type)
    )
    def next_fn(offset, weights, update):
        offset, weights, metrics = federated_map(apply, (offset, weights, update))
        return MeasuredProcessOutput(offset, weights, metrics)

    return FinalizerProcess(initialize_fn, next_fn)
