"""Adaptive optimizers at the server: FedAdagrad, FedYogi and FedAdam.

Algorithm 2 of the paper. With the mean Δ of the clients' w − wᵢ, by coordinate,

    m ← β₁ m + (1 − β₁) Δ
    v ← v + Δ²                            FedAdagrad
    v ← v − (1 − β₂) Δ² sign(v − Δ²)      FedYogi
    v ← β₂ v + (1 − β₂) Δ²                FedAdam
    w ← w − η m / (√v + τ)

from m = 0 and v = τ². Unlike Adam and Yogi in `fedlearn.optimizers` nothing is corrected
for the moments' bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedlearn.algorithms._fed_avg import build_weighted_fed_avg
from fedlearn.optimizers import LEARNING_RATE_KEY, Optimizer
from fedlearn.optimizers import _arguments as arguments
from fedlearn.optimizers._rule import RuleOptimizer, Slot
from fedlearn.templates import LearningProcess


def build_fed_adam(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_learning_rate: float = 0.1,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    adaptivity: float = 1e-3,
    **options: Any,
) -> LearningProcess:
    """Builds FedAdam: Federated Averaging with Adam's moments at the server.

    m ← β₁ m + (1 − β₁) Δ, v ← β₂ v + (1 − β₂) Δ², w ← w − η m / (√v + τ), from m = 0 and
    v = τ².

    Args:
        model_fn: As for `build_weighted_fed_avg`.
        client_optimizer_fn: As for `build_weighted_fed_avg`.
        server_learning_rate: η ≥ 0.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        adaptivity: τ ≥ 0; the smaller, the more adaptive.
        **options: The keyword-only options of `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_weighted_fed_avg`; the finalizer's state is
        `<learning_rate=float32,beta_1=float32,beta_2=float32,adaptivity=float32,
        accumulator=V,preconditioner=V>`, V like the trainable weights.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If a number is out of range.

    References:
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    server = _adaptive(
        "build_fed_adam",
        lambda v, square, beta_2: beta_2 * v + (1 - beta_2) * square,
        server_learning_rate,
        adaptivity,
        beta_1,
        beta_2,
    )
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server, **options)


def build_fed_yogi(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_learning_rate: float = 0.1,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    adaptivity: float = 1e-3,
    **options: Any,
) -> LearningProcess:
    """Builds FedYogi: Federated Averaging with Yogi's moments at the server.

    m ← β₁ m + (1 − β₁) Δ, v ← v − (1 − β₂) Δ² sign(v − Δ²), w ← w − η m / (√v + τ), from
    m = 0 and v = τ².

    Args:
        model_fn: As for `build_weighted_fed_avg`.
        client_optimizer_fn: As for `build_weighted_fed_avg`.
        server_learning_rate: η ≥ 0.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        adaptivity: τ ≥ 0; the smaller, the more adaptive.
        **options: The keyword-only options of `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_fed_adam`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If a number is out of range.

    References:
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    server = _adaptive(
        "build_fed_yogi",
        lambda v, square, beta_2: v - (1 - beta_2) * square * tf.sign(v - square),
        server_learning_rate,
        adaptivity,
        beta_1,
        beta_2,
    )
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server, **options)


def build_fed_adagrad(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_learning_rate: float = 0.1,
    *,
    beta_1: float = 0.0,
    adaptivity: float = 1e-3,
    **options: Any,
) -> LearningProcess:
    """Builds FedAdagrad: Federated Averaging with Adagrad's sum of squares at the server.

    m ← β₁ m + (1 − β₁) Δ, v ← v + Δ², w ← w − η m / (√v + τ), from m = 0 and v = τ².

    Args:
        model_fn: As for `build_weighted_fed_avg`.
        client_optimizer_fn: As for `build_weighted_fed_avg`.
        server_learning_rate: η ≥ 0.
        beta_1: β₁ in [0, 1); 0 in the paper's experiments.
        adaptivity: τ ≥ 0; the smaller, the more adaptive.
        **options: The keyword-only options of `build_weighted_fed_avg`.

    Returns:
        A process as that of `build_fed_adam`, without β₂.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If a number is out of range.

    References:
        S. Reddi et al., Adaptive Federated Optimization, ICLR 2021. arXiv:2003.00295.
    """
    server = _adaptive(
        "build_fed_adagrad",
        lambda v, square, beta_2: v + square,
        server_learning_rate,
        adaptivity,
        beta_1,
    )
    return build_weighted_fed_avg(model_fn, client_optimizer_fn, server, **options)


def _adaptive(
    function: str,
    second_moment: Callable[..., tf.Tensor],
    learning_rate: Any,
    adaptivity: Any,
    beta_1: Any,
    beta_2: Any = None,
) -> Optimizer:
    """The server's optimizer; `second_moment` goes from v, Δ² and β₂ to the new v."""
    hparams = {
        LEARNING_RATE_KEY: arguments.number_at_least_zero(
            function, "server_learning_rate", learning_rate
        ),
        "beta_1": arguments.fraction(function, "beta_1", beta_1),
    }
    if beta_2 is not None:
        hparams["beta_2"] = arguments.fraction(function, "beta_2", beta_2)
    hparams["adaptivity"] = arguments.number_at_least_zero(
        function, "adaptivity", adaptivity
    )

    def update(hparams, step, weight, delta, m, v):
        m = hparams["beta_1"] * m + (1 - hparams["beta_1"]) * delta
        v = second_moment(v, tf.square(delta), hparams.get("beta_2"))
        root = tf.sqrt(v) + hparams["adaptivity"]
        # Where τ = 0 and nothing has moved yet, nothing moves.
        step = tf.math.divide_no_nan(m, root)
        return weight - hparams[LEARNING_RATE_KEY] * step, m, v

    slots = Slot("accumulator"), Slot("preconditioner", adaptivity**2)
    return RuleOptimizer(hparams, update, slots)
