"""Local training: a client's update is how far its training moved the weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import tensorflow as tf

from fedcore.computation import Computation
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.templates import MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, Type, at_clients, at_server, to_type
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.optimizers import Optimizer, handle_indexed_slices_gradients
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
        A process whose state are the optimizer's hyperparameters H (`<>` for a Keras
        optimizer), whose result is `{ClientResult}@CLIENTS` and whose measurements are
        `<train=...>@SERVER`.

    Raises:
        TypeError: If an argument is of another kind than said.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    return delta_client_work(model, optimizer, client_weighting, metrics_aggregator)


def delta_client_work(
    model: Learner,
    optimizer: Any,
    client_weighting: Weighting,
    metrics_aggregator: Callable[..., Computation] | None,
) -> ClientWorkProcess:
    """The process of `build_model_delta_client_work`, of a model looked at already."""
    optimizer = client_optimizer(model, optimizer)
    specs = trainable_specs(model.weights_type)

    @tf_computation
    def initial_hparams():
        return optimizer.get_hparams(optimizer.initialize(specs))

    hparams_type = initial_hparams.type_signature.result
    start_type = to_type(OrderedDict(weights=model.weights_type, hparams=hparams_type))
    work = local_training(
        model,
        start_type,
        lambda start: _WithHparams(optimizer, start["hparams"]),
        client_weighting,
    )
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )

    @federated_computation
    def initialize_fn():
        return federated_eval(initial_hparams, SERVER)

    @federated_computation(
        at_server(hparams_type),
        at_clients(model.weights_type),
        at_clients(model.data_type),
    )
    def next_fn(state, weights, client_data):
        hparams = federated_broadcast(state)
        start = federated_zip(OrderedDict(weights=weights, hparams=hparams))
        result, metrics = federated_map(work, (start, client_data))
        return MeasuredProcessOutput(
            state, result, training_metrics(aggregate, metrics)
        )

    # The state is the hyperparameters and nothing else.
    @tf_computation(hparams_type)
    def get_hparams(state):
        return state

    @tf_computation(hparams_type, hparams_type)
    def set_hparams(state, hparams):
        return hparams

    return ClientWorkProcess(
        initialize_fn, next_fn, get_hparams_fn=get_hparams, set_hparams_fn=set_hparams
    )


@attrs.frozen(eq=False)
class _WithHparams(Optimizer):
    """An optimizer that starts with the given hyperparameters."""

    optimizer: Optimizer
    hparams: Any

    def initialize(self, specs: Any) -> Any:
        state = self.optimizer.initialize(specs)
        return self.optimizer.set_hparams(state, self.hparams)

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        return self.optimizer.next(state, weights, gradients)


def client_optimizer(model: Learner, optimizer: Any) -> Optimizer:
    """A client's optimizer as pure functions, however it was given.

    Args:
        model: The model, as `learner` gives it; a Keras optimizer keeps the constraints
            that its variables carry.
        optimizer: An optimizer of `fedlearn.optimizers`, or a function without arguments
            that makes one or a Keras optimizer.

    Returns:
        A `fedlearn.optimizers.Optimizer`.

    Raises:
        TypeError: If `optimizer` is something else.
    """
    specs = trainable_specs(model.weights_type)
    return resolve_optimizer(optimizer, specs, model.constraints)


def local_training(
    model: Learner,
    start_type: Type,
    optimizer_of: Callable[[Any], Optimizer],
    client_weighting: Weighting,
    correct: Callable[[Any, Any, Any], Any] | None = None,
) -> Computation:
    """`(<start,D*> -> <ClientResult,unfinalized metrics>)`: one client's local training.

    Args:
        model: The model.
        start_type: What the server sends: a mapping with `weights`, the model's.
        optimizer_of: `start -> Optimizer`, which begins anew for each client.
        client_weighting: As for `build_model_delta_client_work`.
        correct: `start, trainable, gradients -> gradients`: what an algorithm adds to the
            gradients, all flat lists of tensors; nothing if None.

    Returns:
        The computation, local to a client, for example for `stateless_client_work`.
    """
    specs = trainable_specs(model.weights_type)

    def update(start, state, trainable, gradients, num_examples):
        if correct is not None:
            gradients = correct(start, trainable, dense_gradients(gradients, trainable))
        return optimizer_of(start).next(state, trainable, gradients)

    def finish(start, weights, state, num_examples, metrics):
        delta = model_delta(start["weights"].trainable, weights.trainable)
        weight = weight_of(client_weighting, num_examples, metrics)
        return client_result(delta, weight), metrics

    return client_pass(
        model,
        start_type,
        weights_of=lambda start: start["weights"],
        begin=lambda start: optimizer_of(start).initialize(specs),
        update=update,
        finish=finish,
    )


def mean_gradient(
    model: Learner, start_type: Type, finish: Callable[[Any, Any, tf.Tensor, Any], Any]
) -> Computation:
    """`(<start,D*> -> result)`: the gradient over all of a client's examples.

    Args:
        model: The model.
        start_type: What the server sends: a mapping with `weights`, the model's.
        finish: `start, gradient, num_examples, metrics -> result`; the gradient is
            structured as the trainable weights, and 0 for a client without examples.
    """
    specs = trainable_specs(model.weights_type)

    def update(start, total, trainable, gradients, num_examples):
        gradients = dense_gradients(gradients, trainable)
        added = [
            t + g * tf.cast(num_examples, g.dtype) for t, g in zip(total, gradients)
        ]
        return added, trainable

    def finish_fn(start, weights, total, num_examples, metrics):
        mean = [tf.math.divide_no_nan(t, tf.cast(num_examples, t.dtype)) for t in total]
        nested = tf.nest.pack_sequence_as(start["weights"].trainable, mean)
        return finish(start, nested, num_examples, metrics)

    return client_pass(
        model,
        start_type,
        weights_of=lambda start: start["weights"],
        begin=lambda start: [tf.zeros(spec.shape, spec.dtype) for spec in specs],
        update=update,
        finish=finish_fn,
    )


def dense_gradients(gradients: Any, trainable: Any) -> list[tf.Tensor]:
    """The gradients as tensors: 0 where the loss does not depend on the weight."""
    return [
        tf.zeros_like(weight) if gradient is None else gradient
        for gradient, weight in zip(
            handle_indexed_slices_gradients(gradients), trainable
        )
    ]


def model_delta(start: Any, trained: Any) -> Any:
    """Δ = w − w_client, the update that a server's optimizer takes for a gradient.

    Args:
        start: The weights w that the client started from, in any structure.
        trained: The weights that it ended with.

    Returns:
        Δ, structured as `start`.
    """
    pairs = zip(tf.nest.flatten(start), tf.nest.flatten(trained))
    return tf.nest.pack_sequence_as(start, [before - after for before, after in pairs])


def client_result(update: Any, weight: tf.Tensor) -> ClientResult:
    """A client's update, or 0 with weight 0 if the update is not finite.

    Args:
        update: A structure of tensors.
        weight: How much the client counts, float32[].

    Returns:
        A `ClientResult`.
    """
    update, non_finite = zero_if_any_non_finite(update)
    return ClientResult(update, tf.where(non_finite, 0.0, weight))


def training_metrics(aggregate: Computation, metrics: Any) -> Any:
    """`<train=M>@SERVER` of the clients' unfinalized metrics."""
    return federated_zip(OrderedDict(train=aggregate(metrics)))


def stateless_client_work(
    model: Learner,
    work: Computation,
    metrics_aggregator: Callable[..., Computation] | None = None,
) -> ClientWorkProcess:
    """The process that runs `work` on each client and aggregates its metrics.

    Args:
        model: The model, as `learner` gives it.
        work: `(<<weights=W>,D*> -> <ClientResult,unfinalized metrics>)`.
        metrics_aggregator: As for `build_model_delta_client_work`.

    Returns:
        A process without state that measures `<train=...>@SERVER`.
    """
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )

    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(
        at_server(()), at_clients(model.weights_type), at_clients(model.data_type)
    )
    def next_fn(state, weights, client_data):
        start = federated_zip(OrderedDict(weights=weights))
        result, metrics = federated_map(work, (start, client_data))
        return MeasuredProcessOutput(
            state, result, training_metrics(aggregate, metrics)
        )

    return ClientWorkProcess(initialize_fn, next_fn)
