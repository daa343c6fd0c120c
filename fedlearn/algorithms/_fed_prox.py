"""FedProx: the distance to the server's weights enters the clients' objective.

TFF adds the gradient of the proximal term with the opposite sign, from 0.40 (the
reference) to 0.87, its last release. The builders of TFF's names do the same, so that
results agree; `build_fed_prox` is the algorithm of the paper.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import (
    MeanFactory,
    UnweightedAggregationFactory,
    UnweightedMeanFactory,
    WeightedAggregationFactory,
)
from fedcore.types import to_type
from fedlearn.algorithms._fed_avg import (
    averaging_process,
    default_server_optimizer,
    unweighted,
    weighted,
)
from fedlearn.metrics import sum_then_finalize
from fedlearn.templates import ClientWorkProcess, DistributionProcess, LearningProcess
from fedlearn.templates._client_loop import Learner, learner
from fedlearn.templates._client_work import (
    client_optimizer,
    local_training,
    stateless_client_work,
)
from fedlearn.weighting import ClientWeighting, Weighting, check_weighting


def build_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    *,
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
) -> LearningProcess:
    """Builds FedProx as its paper has it: clients are held near the server's weights.

    Federated Averaging whose clients minimise F(w) + μ/2 ‖w − wᵗ‖², wᵗ being the server's
    weights: each gradient becomes ∇F(w) + μ (w − wᵗ). The loss that is reported is F.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        proximal_strength: μ ≥ 0; 0 is Federated Averaging.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        server_optimizer_fn: As `client_optimizer_fn`; its state is kept over rounds.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_weighted_fed_avg`; its client work has no state.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `proximal_strength` is negative.

    References:
        T. Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
        arXiv:1812.06127.
    """
    check_weighting(client_weighting)
    model = learner(model_fn)
    return averaging_process(
        model,
        _proximal_work(
            model,
            _checked(proximal_strength),
            client_optimizer_fn,
            client_weighting,
            metrics_aggregator,
        ),
        server_optimizer_fn,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )


def build_weighted_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    client_weighting: Weighting = ClientWeighting.NUM_EXAMPLES,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: WeightedAggregationFactory | None = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds TFF's FedProx with a weight for each client.

    Federated Averaging in which each gradient of a client becomes ∇F(w) − μ (w − wᵗ), wᵗ
    being the server's weights. The sign is TFF's, and the opposite of the paper's: μ > 0
    drives clients apart. `build_fed_prox` holds them near wᵗ, as the paper does.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        proximal_strength: μ ≥ 0; 0 is Federated Averaging.
        client_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer. It starts anew each round.
        server_optimizer_fn: As `client_optimizer_fn`; its state is kept over rounds.
        client_weighting: A `ClientWeighting`, or a function from a client's unfinalized
            metrics to its weight.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `MeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_weighted_fed_avg`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `proximal_strength` is negative.

    References:
        T. Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
        arXiv:1812.06127.
    """
    del use_experimental_simulation_loop
    check_weighting(client_weighting)
    model = learner(model_fn)
    return averaging_process(
        model,
        _proximal_work(
            model,
            -_checked(proximal_strength),
            client_optimizer_fn,
            client_weighting,
            metrics_aggregator,
        ),
        server_optimizer_fn,
        model_distributor,
        weighted(model_aggregator or MeanFactory()),
    )


def build_unweighted_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = default_server_optimizer,
    model_distributor: DistributionProcess | None = None,
    model_aggregator: UnweightedAggregationFactory | None = None,
    metrics_aggregator: Any = sum_then_finalize,
    use_experimental_simulation_loop: bool = False,
) -> LearningProcess:
    """Builds TFF's FedProx in which every client counts the same.

    As `build_weighted_fed_prox`, with TFF's sign, with all weights 1.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`, or a
            `fedlearn.models.FunctionalModel`.
        proximal_strength: μ ≥ 0; 0 is Federated Averaging.
        client_optimizer_fn: As for `build_weighted_fed_prox`.
        server_optimizer_fn: As for `build_weighted_fed_prox`.
        model_distributor: Sends weights to clients; a plain broadcast if None.
        model_aggregator: Aggregates the updates; `UnweightedMeanFactory()` if None.
        metrics_aggregator: As for `build_weighted_fed_avg`.
        use_experimental_simulation_loop: Accepted for TFF's scripts; has no effect.

    Returns:
        A process as that of `build_unweighted_fed_avg`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `proximal_strength` is negative.

    References:
        T. Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.
        arXiv:1812.06127.
    """
    del use_experimental_simulation_loop
    model = learner(model_fn)
    return averaging_process(
        model,
        _proximal_work(
            model,
            -_checked(proximal_strength),
            client_optimizer_fn,
            ClientWeighting.UNIFORM,
            metrics_aggregator,
        ),
        server_optimizer_fn,
        model_distributor,
        unweighted(model_aggregator or UnweightedMeanFactory()),
    )


def _proximal_work(
    model: Learner,
    strength: float,
    client_optimizer_fn: Any,
    client_weighting: Weighting,
    metrics_aggregator: Any,
) -> ClientWorkProcess:
    optimizer = client_optimizer(model, client_optimizer_fn)

    def pull(start, weights, gradients):
        server_weights = tf.nest.flatten(start["weights"].trainable)
        return [
            g + strength * (w - s)
            for g, w, s in zip(gradients, weights, server_weights)
        ]

    work = local_training(
        model,
        to_type(OrderedDict(weights=model.weights_type)),
        lambda start: optimizer,
        client_weighting,
        pull,
    )
    return stateless_client_work(model, work, metrics_aggregator)


def _checked(strength: Any) -> float:
    """The proximal strength, if it is a number ≥ 0."""
    if isinstance(strength, bool) or not isinstance(strength, (int, float)):
        raise TypeError(
            f"`proximal_strength` needs to be a float ≥ 0, found `{strength!r}`."
        )
    if not strength >= 0:
        raise ValueError(f"`proximal_strength` needs to be ≥ 0, found {strength}.")
    return float(strength)
