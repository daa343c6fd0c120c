"""Adaptive optimizers at the server: FedAdam, FedYogi and FedAdagrad.

The defaults are those of the paper: β₁ = 0.9, β₂ = 0.99, τ = 10⁻³, v₋₁ = τ². As in the
paper's experiments, Adam's and Yogi's moments are corrected for their bias.
"""

from __future__ import annotations

from typing import Any

from fedlearn.algorithms._fed_avg import build_weighted_fed_avg
from fedlearn.optimizers import build_adagrad, build_adam, build_yogi
from fedlearn.templates import LearningProcess


def build_fed_adam(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_learning_rate: float = 0.1,
    **options: Any,
) -> LearningProcess:
    """Builds FedAdam: Federated Averaging with Adam at the server.

    Args:
        model_fn: As for `build_weighted_fed_avg`.
        client_optimizer_fn: As for `build_weighted_fed_avg`.
        server_learning_rate: η > 0 of the server's Adam.
        **options: The keyword-only options of `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_weighted_fed_avg`.

    References:
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    server = build_adam(server_learning_rate, beta_1=0.9, beta_2=0.99, epsilon=1e-3)
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server, **options)


def build_fed_yogi(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_learning_rate: float = 0.1,
    **options: Any,
) -> LearningProcess:
    """Builds FedYogi: Federated Averaging with Yogi at the server.

    Args:
        model_fn: As for `build_weighted_fed_avg`.
        client_optimizer_fn: As for `build_weighted_fed_avg`.
        server_learning_rate: η > 0 of the server's Yogi.
        **options: The keyword-only options of `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_weighted_fed_avg`.

    References:
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    server = build_yogi(
        server_learning_rate, 0.9, 0.99, 1e-3, initial_preconditioner_value=1e-6
    )
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server, **options)


def build_fed_adagrad(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_learning_rate: float = 0.1,
    **options: Any,
) -> LearningProcess:
    """Builds FedAdagrad: Federated Averaging with Adagrad at the server.

    τ² stands inside of the root here: w ← w − η Δ / √(v + τ²).

    Args:
        model_fn: As for `build_weighted_fed_avg`.
        client_optimizer_fn: As for `build_weighted_fed_avg`.
        server_learning_rate: η > 0 of the server's Adagrad.
        **options: The keyword-only options of `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_weighted_fed_avg`.

    References:
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    server = build_adagrad(
        server_learning_rate, initial_preconditioner_value=1e-6, epsilon=1e-6
    )
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server, **options)
