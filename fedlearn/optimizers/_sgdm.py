"""Stochastic gradient descent, with momentum or without."""

from typing import Any

from fedlearn.optimizers import _arguments as arguments
from fedlearn.optimizers._optimizer import LEARNING_RATE_KEY, Optimizer
from fedlearn.optimizers._rule import RuleOptimizer, Slot


def build_sgdm(learning_rate: Any = 0.01, momentum: float | None = None) -> Optimizer:
    """Builds stochastic gradient descent.

    w ← w − η g, or with momentum β: a ← β a + g, w ← w − η a.

    Args:
        learning_rate: η ≥ 0, a float or a scalar float tensor.
        momentum: β in [0, 1); None and 0 keep no accumulator.

    Returns:
        An optimizer of state `<learning_rate=float32>`, or with momentum
        `<learning_rate=float32,momentum=float32,accumulator=W>`, W like the weights.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.
    """
    learning_rate = arguments.number_at_least_zero(
        "build_sgdm", "learning_rate", learning_rate
    )
    if momentum is not None:
        momentum = arguments.fraction("build_sgdm", "momentum", momentum)
    if momentum is None or (isinstance(momentum, float) and momentum == 0.0):
        return RuleOptimizer({LEARNING_RATE_KEY: learning_rate}, _descend)
    return RuleOptimizer(
        {LEARNING_RATE_KEY: learning_rate, "momentum": momentum},
        _descend_with_momentum,
        (Slot("accumulator"),),
    )


def _descend(hparams, step, weight, gradient):
    return (weight - hparams[LEARNING_RATE_KEY] * gradient,)


def _descend_with_momentum(hparams, step, weight, gradient, accumulator):
    accumulator = hparams["momentum"] * accumulator + gradient
    return weight - hparams[LEARNING_RATE_KEY] * accumulator, accumulator
