"""MimeLite: clients step as the server's optimizer would, with its state held fixed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import tensorflow as tf

from fedcore.aggregators import (
    MeanFactory,
    UnweightedAggregationFactory,
    UnweightedMeanFactory,
    WeightedAggregationFactory,
)
from fedcore.computation import Computation
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_zip,
)
from fedcore.templates import MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, at_clients, at_server, to_type
from fedlearn.algorithms._fed_avg import (
    averaging_process,
    create_aggregator,
    unweighted,
    weighted,
)
from fedlearn.algorithms._schedules import (
    first_round,
    learning_rate_computation,
    next_round,
)
from fedlearn.metrics import sum_then_finalize
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.optimizers import LEARNING_RATE_KEY, Optimizer, build_sgdm
from fedlearn.templates import ClientWorkProcess, DistributionProcess, LearningProcess
from fedlearn.templates._client_loop import Learner, learner
from fedlearn.templates._client_work import (
    local_training,
    mean_gradient,
    training_metrics,
)
from fedlearn.templates._finalizer import trainable_specs
from fedlearn.templates._non_finite import zero_if_any_non_finite
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting


def build_weighted_mime_lite(
    model_fn: Any,
    base_optimizer: Optimizer,
    server_optimizer: Any = build_sgdm(1.0),
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    full_gradient_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds MimeLite with a weight for each client.

    Clients take the steps of `base_optimizer` U from its state s as the server has it,
    without changing it: w ← U(w, ∇F(w; batch), s). Then the server updates s with the
    mean gradient at its own weights wᵗ over all the clients' examples, and wᵗ with the
    mean of the clients' Δ. Each client passes over its data twice.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        base_optimizer: U, an optimizer of `fedlearn.optimizers`.
        server_optimizer: Takes the mean of Δ as a gradient, as in `build_weighted_fed_avg`.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        full_gradient_aggregator: Aggregates the gradients; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_weighted_fed_avg`; the state of its client work holds
        the states of `base_optimizer` and of the aggregation of gradients.

    Raises:
        TypeError: If an argument is of another kind than said.

    References:
        S. P. Karimireddy et al., Breaking the Centralized Barrier for Cross-Device
        Federated Learning, NeurIPS 2021. arXiv:2008.03606.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    return averaging_process(
        model,
        _mime_lite_work(
            model,
            base_optimizer,
            client_weighting,
            weighted(full_gradient_aggregator or MeanFactory()),
            metrics_aggregator,
        ),
        server_optimizer,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )


def build_unweighted_mime_lite(
    model_fn: Any,
    base_optimizer: Optimizer,
    server_optimizer: Any = build_sgdm(1.0),
    model_distributor: DistributionProcess | None = None,
    model_aggregator: UnweightedAggregationFactory | None = None,
    full_gradient_aggregator: UnweightedAggregationFactory | None = None,
    metrics_aggregator: Any = sum_then_finalize,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds MimeLite in which every client counts the same.

    As `build_weighted_mime_lite` with all weights 1.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        base_optimizer: An optimizer of `fedlearn.optimizers`.
        server_optimizer: As for `build_weighted_mime_lite`.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `UnweightedMeanFactory()` if None.
        full_gradient_aggregator: Aggregates the gradients; `UnweightedMeanFactory()` if
            None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_weighted_mime_lite`.

    Raises:
        TypeError: If an argument is of another kind than said.

    References:
        S. P. Karimireddy et al., Breaking the Centralized Barrier for Cross-Device
        Federated Learning, NeurIPS 2021. arXiv:2008.03606.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    return averaging_process(
        model,
        _mime_lite_work(
            model,
            base_optimizer,
            ClientWeighting.UNIFORM,
            unweighted(full_gradient_aggregator or UnweightedMeanFactory()),
            metrics_aggregator,
        ),
        server_optimizer,
        model_distributor,
        unweighted(model_aggregator or UnweightedMeanFactory()),
    )


def build_mime_lite_with_optimizer_schedule(
    model_fn: Any,
    learning_rate_fn: Callable[[tf.Tensor], Any],
    base_optimizer: Optimizer,
    server_optimizer: Any = build_sgdm(1.0),
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    full_gradient_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds MimeLite whose clients' learning rate depends on the round.

    As `build_weighted_mime_lite`, with rate η(t) in round t = 0, 1, ...

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        learning_rate_fn: η, from the round (int32[], traced) to a float; it branches by
            `tf.where` or `tf.cond`.
        base_optimizer: An optimizer of `fedlearn.optimizers`; the rate it was built with
            is not used.
        server_optimizer: As for `build_weighted_mime_lite`.
        client_weighting: As for `build_weighted_mime_lite`.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        full_gradient_aggregator: Aggregates the gradients; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_weighted_mime_lite`; the state of its client work is a
        pair, the round (`int32`) first.

    Raises:
        TypeError: If an argument is of another kind than said.
        KeyError: If `base_optimizer` has no learning rate in its state.

    References:
        S. P. Karimireddy et al., Breaking the Centralized Barrier for Cross-Device
        Federated Learning, NeurIPS 2021. arXiv:2008.03606.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    work = _mime_lite_work(
        model,
        base_optimizer,
        client_weighting,
        weighted(full_gradient_aggregator or MeanFactory()),
        metrics_aggregator,
    )
    return averaging_process(
        model,
        _scheduled(work, base_optimizer, learning_rate_computation(learning_rate_fn)),
        server_optimizer,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )


@attrs.frozen(eq=False)
class _AtState(Optimizer):
    """An optimizer whose state no step changes."""

    optimizer: Optimizer
    state: Any

    def initialize(self, specs: Any) -> Any:
        return ()

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        return state, self.optimizer.next(self.state, weights, gradients)[1]


def _mime_lite_work(
    model: Learner,
    base_optimizer: Optimizer,
    client_weighting: Weighting,
    full_gradient_aggregator: Any,
    metrics_aggregator: Any,
) -> ClientWorkProcess:
    """Two passes over a client's data; its state is `<optimizer,aggregator>`."""
    if not isinstance(base_optimizer, Optimizer):
        raise TypeError(
            "`base_optimizer` needs to be an optimizer of `fedlearn.optimizers`, found "
            f"`{type(base_optimizer).__name__}`.\nFor example `build_sgdm(0.1, 0.9)`."
        )
    specs = trainable_specs(model.weights_type)

    @tf_computation
    def initial_state():
        return base_optimizer.initialize(specs)

    optimizer_type = initial_state.type_signature.result
    start_type = to_type(
        OrderedDict(weights=model.weights_type, optimizer=optimizer_type)
    )
    train = local_training(
        model,
        start_type,
        lambda start: _AtState(base_optimizer, start["optimizer"]),
        client_weighting,
    )
    full_gradient = mean_gradient(
        model,
        start_type,
        lambda start, gradient, num_examples, metrics: zero_if_any_non_finite(gradient)[
            0
        ],
    )
    gradient_type = model.weights_type.trainable
    gradients = create_aggregator(full_gradient_aggregator, gradient_type)
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )

    @tf_computation(optimizer_type, gradient_type)
    def follow(state, gradient):
        """The optimizer's state after a step with `gradient`, if that is finite."""
        gradient, non_finite = zero_if_any_non_finite(tf.nest.flatten(gradient))
        weights = [tf.zeros_like(g) for g in gradient]
        new_state, _ = base_optimizer.next(state, weights, gradient)
        return tf.nest.map_structure(
            lambda old, new: tf.where(non_finite, old, new), state, new_state
        )

    @federated_computation
    def initialize_fn():
        optimizer = federated_eval(initial_state, SERVER)
        return federated_zip((optimizer, gradients.initialize()))

    @federated_computation(
        initialize_fn.type_signature.result,
        at_clients(model.weights_type),
        at_clients(model.data_type),
    )
    def next_fn(state, weights, client_data):
        optimizer, gradients_state = state
        start = federated_zip(
            OrderedDict(weights=weights, optimizer=federated_broadcast(optimizer))
        )
        result, metrics = federated_map(train, (start, client_data))
        gradient = [federated_map(full_gradient, (start, client_data))]
        if gradients.is_weighted:
            gradient.append(result.update_weight)
        mean = gradients.next(gradients_state, *gradient)
        optimizer = federated_map(follow, (optimizer, mean.result))
        return MeasuredProcessOutput(
            federated_zip((optimizer, mean.state)),
            result,
            training_metrics(aggregate, metrics),
        )

    return ClientWorkProcess(initialize_fn, next_fn)


def _scheduled(
    work: ClientWorkProcess, base_optimizer: Optimizer, learning_rate: Computation
) -> ClientWorkProcess:
    """The same work, with the optimizer's rate set anew in each round."""
    optimizer_type = work.state_type.member[0]
    if LEARNING_RATE_KEY not in dir(optimizer_type):
        raise KeyError(
            f"`base_optimizer` needs {LEARNING_RATE_KEY!r} in its state, found "
            f"`{optimizer_type}`."
        )

    @tf_computation(optimizer_type, tf.float32)
    def set_rate(state, rate):
        return base_optimizer.set_hparams(
            state, OrderedDict([(LEARNING_RATE_KEY, rate)])
        )

    @federated_computation
    def initialize_fn():
        return federated_zip((first_round(), work.initialize()))

    taken: Any = work.next.type_signature.parameter
    _, weights_type, data_type = taken

    @federated_computation(
        at_server(initialize_fn.type_signature.result.member), weights_type, data_type
    )
    def next_fn(state, weights, client_data):
        round_num, (optimizer, gradients_state) = state
        rate = federated_map(learning_rate, round_num)
        optimizer = federated_map(set_rate, (optimizer, rate))
        output = work.next(
            federated_zip((optimizer, gradients_state)), weights, client_data
        )
        return MeasuredProcessOutput(
            federated_zip((next_round(round_num), output.state)),
            output.result,
            output.measurements,
        )

    return ClientWorkProcess(initialize_fn, next_fn)
