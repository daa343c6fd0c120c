"""Adafactor: an adaptive optimizer whose state is smaller than the weights."""

import functools
from typing import Any

import tensorflow as tf

from fedlearn.optimizers import _arguments as arguments
from fedlearn.optimizers._optimizer import LEARNING_RATE_KEY, Optimizer
from fedlearn.optimizers._rule import RuleOptimizer, Slot


def build_adafactor(
    learning_rate: Any,
    *,
    beta_2_decay: Any = -0.8,
    epsilon_1: Any = 1e-30,
    epsilon_2: Any = 1e-3,
    clip_threshold: Any = 1.0,
    relative_step: bool = True,
) -> Optimizer:
    """Builds Adafactor.

    The mean square of the gradients of a matrix is kept as a row and a column, whose
    outer product stands for it: with β = 1 − tᵈ and G = g² + ε₁,
    r ← β r + (1 − β) mean_columns(G), c ← β c + (1 − β) mean_rows(G),
    v = r c / mean(r) (for vectors and scalars v ← β v + (1 − β) G),
    u = g / √v, u ← u / max(1, RMS(u) / k), w ← w − max(ε₂, RMS(w)) ρ u,
    where ρ = min(η, 1/√t), or η if not `relative_step`. A tensor of more than two
    dimensions is a batch of matrices.

    Args:
        learning_rate: η > 0, a float or a scalar float tensor.
        beta_2_decay: The exponent d of β.
        epsilon_1: ε₁ ≥ 0, added to the squared gradients.
        epsilon_2: ε₂ ≥ 0, the least scale of a tensor's weights.
        clip_threshold: k > 0, above which the RMS of an update is clipped.
        relative_step: Whether the learning rate falls with the number of steps.

    Returns:
        An optimizer of state `<learning_rate=float32,beta_2_decay=float32,
        epsilon_1=float32,epsilon_2=float32,clip_threshold=float32,step=int32,
        row=R,column=C,full=V>`; per weight either `row` and `column` or `full` is empty.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.

    References:
        N. Shazeer and M. Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory
        Cost, ICML 2018. arXiv:1804.04235.
    """
    name = "build_adafactor"
    at_least_zero = functools.partial(arguments.number_at_least_zero, name)
    above_zero = functools.partial(arguments.number_above_zero, name)
    hparams = {
        LEARNING_RATE_KEY: above_zero("learning_rate", learning_rate),
        "beta_2_decay": arguments.number(name, "beta_2_decay", beta_2_decay),
        "epsilon_1": at_least_zero("epsilon_1", epsilon_1),
        "epsilon_2": at_least_zero("epsilon_2", epsilon_2),
        "clip_threshold": above_zero("clip_threshold", clip_threshold),
    }
    rate = _falling_rate if relative_step else _constant_rate
    slots = (
        Slot("row", shape_of=lambda s: s[:-1] if _factored(s) else _EMPTY),
        Slot("column", shape_of=lambda s: s[:-2] + s[-1:] if _factored(s) else _EMPTY),
        Slot("full", shape_of=lambda s: _EMPTY if _factored(s) else s),
    )
    return RuleOptimizer(
        hparams, functools.partial(_adafactor, rate), slots, counts_steps=True
    )


_EMPTY = tf.TensorShape([0])


def _factored(shape: tf.TensorShape) -> bool:
    return shape.rank >= 2


def _falling_rate(hparams, step):
    return tf.minimum(hparams[LEARNING_RATE_KEY], tf.math.rsqrt(step))


def _constant_rate(hparams, step):
    return hparams[LEARNING_RATE_KEY]


def _adafactor(rate, hparams, step, weight, gradient, row, column, full):
    beta = 1 - step ** hparams["beta_2_decay"]
    square = tf.square(gradient) + hparams["epsilon_1"]
    if _factored(weight.shape):
        row = beta * row + (1 - beta) * tf.reduce_mean(square, axis=-1)
        column = beta * column + (1 - beta) * tf.reduce_mean(square, axis=-2)
        share = row / tf.reduce_mean(row, axis=-1, keepdims=True)
        mean_square = share[..., tf.newaxis] * column[..., tf.newaxis, :]
    else:
        mean_square = full = beta * full + (1 - beta) * square
    update = gradient * tf.math.rsqrt(mean_square)
    update = update / tf.maximum(
        tf.ones([], update.dtype), _root_mean_square(update) / hparams["clip_threshold"]
    )
    scale = tf.maximum(hparams["epsilon_2"], _root_mean_square(weight))
    return weight - scale * rate(hparams, step) * update, row, column, full


def _root_mean_square(tensor):
    return tf.sqrt(tf.reduce_mean(tf.square(tensor)))
