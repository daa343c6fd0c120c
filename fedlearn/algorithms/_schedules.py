"""Learning rates of clients that change from round to round."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore.aggregators import MeanFactory, WeightedAggregationFactory
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
    default_server_optimizer,
    weighted,
)
from fedlearn.metrics._aggregator import metrics_aggregation
from fedlearn.metrics._fresh import apart
from fedlearn.optimizers import Optimizer
from fedlearn.optimizers._keras import KerasOptimizer, as_optimizer, call_optimizer_fn
from fedlearn.optimizers._variables import VariableOptimizer
from fedlearn.templates import ClientWorkProcess, DistributionProcess, LearningProcess
from fedlearn.templates._client_loop import Learner, learner
from fedlearn.templates._client_work import local_training, training_metrics
from fedlearn.templates._finalizer import trainable_specs
from fedlearn.weighting import ClientWeighting


def build_weighted_fed_avg_with_optimizer_schedule(
    model_fn: Any,
    client_learning_rate_fn: Callable[[tf.Tensor], Any],
    client_optimizer_fn: Callable[[Any], Any],
    server_optimizer_fn: Any = default_server_optimizer,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds Federated Averaging whose clients' learning rate depends on the round.

    In round t = 0, 1, ... every client trains with rate η(t); clients weigh as many
    examples as they have.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        client_learning_rate_fn: η, from the round (int32[], traced) to a float; it
            branches by `tf.where` or `tf.cond`.
        client_optimizer_fn: From a learning rate to an optimizer of that rate: a Keras
            optimizer, or one of `fedlearn.optimizers`.
        server_optimizer_fn: As for `build_weighted_fed_avg`.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_weighted_fed_avg`; the state of its client work is the
        round, `int32`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `client_optimizer_fn` makes optimizers of other rates than given.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    return averaging_process(
        model,
        _scheduled_work(
            model,
            learning_rate_computation(client_learning_rate_fn),
            _optimizer_by_rate(model, client_optimizer_fn),
            metrics_aggregator,
        ),
        server_optimizer_fn,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )


def learning_rate_computation(learning_rate_fn: Callable[[Any], Any]) -> Computation:
    """`(int32 -> float32)`: the learning rate of a round."""
    if not callable(learning_rate_fn):
        raise TypeError(
            "A learning-rate schedule needs to be a function of the round, found "
            f"`{learning_rate_fn!r}`.\nFor a constant rate use the algorithm without a "
            "schedule."
        )
    return tf_computation(
        lambda round_num: tf.cast(learning_rate_fn(round_num), tf.float32), tf.int32
    )


def next_round(round_num: Any) -> Any:
    """`int32@SERVER`, one more."""
    return federated_map(tf_computation(lambda r: r + 1, tf.int32), round_num)


def first_round() -> Any:
    """`int32@SERVER`: 0."""
    return federated_eval(tf_computation(lambda: tf.constant(0)), SERVER)


def _scheduled_work(
    model: Learner,
    learning_rate: Computation,
    optimizer_by_rate: Callable[[Any], Optimizer],
    metrics_aggregator: Any,
) -> ClientWorkProcess:
    start_type = to_type(
        OrderedDict(weights=model.weights_type, learning_rate=tf.float32)
    )
    work = local_training(
        model,
        start_type,
        lambda start: optimizer_by_rate(start["learning_rate"]),
        ClientWeighting.NUM_EXAMPLES,
    )
    aggregate = metrics_aggregation(
        metrics_aggregator, model.metric_finalizers, model.metrics_type
    )
    initialize_fn = federated_computation(first_round)

    @federated_computation(
        at_server(tf.int32), at_clients(model.weights_type), at_clients(model.data_type)
    )
    def next_fn(round_num, weights, client_data):
        rate = federated_broadcast(federated_map(learning_rate, round_num))
        start = federated_zip(OrderedDict(weights=weights, learning_rate=rate))
        result, metrics = federated_map(work, (start, client_data))
        return MeasuredProcessOutput(
            next_round(round_num), result, training_metrics(aggregate, metrics)
        )

    return ClientWorkProcess(initialize_fn, next_fn)


def _optimizer_by_rate(
    model: Learner, optimizer_fn: Callable[[Any], Any]
) -> Callable[[Any], Optimizer]:
    """From a learning rate, which may be a tensor, to the optimizer of that rate."""
    if isinstance(optimizer_fn, Optimizer) or not callable(optimizer_fn):
        raise TypeError(
            "`client_optimizer_fn` needs to be a function from a learning rate to an "
            f"optimizer, found `{type(optimizer_fn).__name__}`.\n"
            "For example `lambda rate: keras.optimizers.SGD(rate)`."
        )
    with apart():
        made = call_optimizer_fn(lambda: optimizer_fn(1.0))
        if isinstance(made, Optimizer):
            return optimizer_fn
        _check_rate_alone_differs(made, optimizer_fn(0.5))
    specs = trainable_specs(model.weights_type)
    optimizer = as_optimizer(lambda: optimizer_fn(1.0), specs, model.constraints)
    if isinstance(optimizer, KerasOptimizer):
        return optimizer.with_learning_rate
    return VariableOptimizer(
        lambda: optimizer_fn(1.0), model.constraints
    ).with_learning_rate


def _check_rate_alone_differs(one: Any, half: Any) -> None:
    """Raises ValueError unless these are of rate 1 and 0.5, and else the same."""
    configs = [dict(one.get_config()), dict(half.get_config())]
    rates = [config.pop("learning_rate") for config in configs]
    for config in configs:
        config.pop("name", None)  # Keras numbers them
    if rates != [1.0, 0.5] or configs[0] != configs[1]:
        raise ValueError(
            "`client_optimizer_fn` needs to make optimizers that differ in nothing but "
            f"the given learning rate, found rates {rates} for 1.0 and 0.5.\n"
            "Put what else the rate is multiplied by into `client_learning_rate_fn`."
        )
