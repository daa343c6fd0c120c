"""Optimizers with a step size of its own for each coordinate.

In the equations g is the gradient, η the learning rate, ε the constant `epsilon`, p the
`preconditioner`, a the `accumulator`, t the number of the step (from 1); products, roots
and quotients go by coordinate.
"""

import functools
from typing import Any

import tensorflow as tf

from fedlearn.optimizers import _arguments as arguments
from fedlearn.optimizers._optimizer import LEARNING_RATE_KEY, Optimizer
from fedlearn.optimizers._rule import RuleOptimizer, Slot


def build_adagrad(
    learning_rate: Any,
    initial_preconditioner_value: Any = 0.1,
    epsilon: Any = 1e-7,
) -> Optimizer:
    """Builds Adagrad.

    p ← p + g², w ← w − η g / √(p + ε).

    Args:
        learning_rate: η ≥ 0, a float or a scalar float tensor.
        initial_preconditioner_value: First value ≥ 0 of p.
        epsilon: ε ≥ 0.

    Returns:
        An optimizer of state
        `<learning_rate=float32,epsilon=float32,preconditioner=W>`, W like the weights.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.

    References:
        J. Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization, JMLR 12, 2011.
    """
    at_least_zero = functools.partial(arguments.number_at_least_zero, "build_adagrad")
    initial = at_least_zero(
        "initial_preconditioner_value", initial_preconditioner_value
    )
    return RuleOptimizer(
        {
            LEARNING_RATE_KEY: at_least_zero("learning_rate", learning_rate),
            "epsilon": at_least_zero("epsilon", epsilon),
        },
        _adagrad,
        (Slot("preconditioner", initial),),
    )


def build_rmsprop(
    learning_rate: Any, decay: Any = 0.9, epsilon: Any = 1e-7
) -> Optimizer:
    """Builds RMSprop.

    p ← ρ p + (1 − ρ) g², w ← w − η g / (√p + ε).

    Args:
        learning_rate: η ≥ 0, a float or a scalar float tensor.
        decay: ρ in [0, 1).
        epsilon: ε ≥ 0.

    Returns:
        An optimizer of state `<learning_rate=float32,decay=float32,epsilon=float32,
        preconditioner=W>`, W like the weights.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.

    References:
        T. Tieleman and G. Hinton, Lecture 6.5 of Neural Networks for Machine Learning,
        2012.
    """
    at_least_zero = functools.partial(arguments.number_at_least_zero, "build_rmsprop")
    return RuleOptimizer(
        {
            LEARNING_RATE_KEY: at_least_zero("learning_rate", learning_rate),
            "decay": arguments.fraction("build_rmsprop", "decay", decay),
            "epsilon": at_least_zero("epsilon", epsilon),
        },
        _rmsprop,
        (Slot("preconditioner"),),
    )


def build_adam(
    learning_rate: Any, beta_1: Any = 0.9, beta_2: Any = 0.999, epsilon: Any = 1e-7
) -> Optimizer:
    """Builds Adam.

    a ← β₁ a + (1 − β₁) g, p ← β₂ p + (1 − β₂) g²,
    w ← w − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · a / (√p + ε).

    Args:
        learning_rate: η ≥ 0, a float or a scalar float tensor.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε ≥ 0, the paper's ε̂.

    Returns:
        An optimizer of state `<learning_rate=float32,beta_1=float32,beta_2=float32,
        epsilon=float32,step=int32,accumulator=W,preconditioner=W>`, W like the weights.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.

    References:
        D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.
        arXiv:1412.6980.
    """
    hparams = _moment_hparams("build_adam", learning_rate, beta_1, beta_2, epsilon)
    return RuleOptimizer(hparams, _adam, _moments(), counts_steps=True)


def build_adamw(
    learning_rate: Any,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    weight_decay: Any = 0.004,
) -> Optimizer:
    """Builds AdamW: Adam with weight decay beside the gradient.

    Adam's step, less η λ w of the weights before it.

    Args:
        learning_rate: η ≥ 0, a float or a scalar float tensor.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε ≥ 0.
        weight_decay: λ ≥ 0.

    Returns:
        An optimizer of state `<learning_rate=float32,beta_1=float32,beta_2=float32,
        epsilon=float32,weight_decay=float32,step=int32,accumulator=W,preconditioner=W>`,
        W like the weights.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.

    References:
        I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019.
        arXiv:1711.05101.
    """
    hparams = _moment_hparams("build_adamw", learning_rate, beta_1, beta_2, epsilon)
    hparams["weight_decay"] = arguments.number_at_least_zero(
        "build_adamw", "weight_decay", weight_decay
    )
    return RuleOptimizer(hparams, _adamw, _moments(), counts_steps=True)


def build_yogi(
    learning_rate: Any,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-3,
    initial_preconditioner_value: Any = 1e-6,
) -> Optimizer:
    """Builds Yogi: Adam with a preconditioner that grows no faster than it shrinks.

    As Adam, but p ← p − (1 − β₂) sign(p − g²) g².

    Args:
        learning_rate: η ≥ 0, a float or a scalar float tensor.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε ≥ 0.
        initial_preconditioner_value: First value of p.

    Returns:
        An optimizer of state `<learning_rate=float32,beta_1=float32,beta_2=float32,
        epsilon=float32,step=int32,accumulator=W,preconditioner=W>`, W like the weights.

    Raises:
        TypeError: If an argument is not a float.
        ValueError: If an argument is out of range.

    References:
        M. Zaheer et al., Adaptive Methods for Nonconvex Optimization, NeurIPS 2018.
    """
    hparams = _moment_hparams("build_yogi", learning_rate, beta_1, beta_2, epsilon)
    initial = arguments.number(
        "build_yogi", "initial_preconditioner_value", initial_preconditioner_value
    )
    return RuleOptimizer(hparams, _yogi, _moments(initial), counts_steps=True)


def _moment_hparams(function, learning_rate, beta_1, beta_2, epsilon):
    at_least_zero = functools.partial(arguments.number_at_least_zero, function)
    return {
        LEARNING_RATE_KEY: at_least_zero("learning_rate", learning_rate),
        "beta_1": arguments.fraction(function, "beta_1", beta_1),
        "beta_2": arguments.fraction(function, "beta_2", beta_2),
        "epsilon": at_least_zero("epsilon", epsilon),
    }


def _moments(initial_preconditioner_value=0.0):
    return Slot("accumulator"), Slot("preconditioner", initial_preconditioner_value)


def _adagrad(hparams, step, weight, gradient, preconditioner):
    preconditioner = preconditioner + tf.square(gradient)
    root = tf.sqrt(preconditioner + hparams["epsilon"])
    return weight - hparams[LEARNING_RATE_KEY] * gradient / root, preconditioner


def _rmsprop(hparams, step, weight, gradient, preconditioner):
    decay = hparams["decay"]
    preconditioner = decay * preconditioner + (1 - decay) * tf.square(gradient)
    root = tf.sqrt(preconditioner) + hparams["epsilon"]
    return weight - hparams[LEARNING_RATE_KEY] * gradient / root, preconditioner


def _adam(hparams, step, weight, gradient, accumulator, preconditioner):
    beta_2 = hparams["beta_2"]
    preconditioner = beta_2 * preconditioner + (1 - beta_2) * tf.square(gradient)
    return _moment_step(hparams, step, weight, gradient, accumulator, preconditioner)


def _adamw(hparams, step, weight, gradient, accumulator, preconditioner):
    decay = hparams[LEARNING_RATE_KEY] * hparams["weight_decay"] * weight
    stepped, *slots = _adam(
        hparams, step, weight, gradient, accumulator, preconditioner
    )
    return stepped - decay, *slots


def _yogi(hparams, step, weight, gradient, accumulator, preconditioner):
    square = tf.square(gradient)
    sign = tf.sign(preconditioner - square)
    preconditioner = preconditioner - (1 - hparams["beta_2"]) * sign * square
    return _moment_step(hparams, step, weight, gradient, accumulator, preconditioner)


def _moment_step(hparams, step, weight, gradient, accumulator, preconditioner):
    beta_1, beta_2 = hparams["beta_1"], hparams["beta_2"]
    accumulator = beta_1 * accumulator + (1 - beta_1) * gradient
    correction = tf.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    scale = hparams[LEARNING_RATE_KEY] * correction
    root = tf.sqrt(preconditioner) + hparams["epsilon"]
    return weight - scale * accumulator / root, accumulator, preconditioner
