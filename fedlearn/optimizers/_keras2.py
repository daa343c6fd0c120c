"""Optimizers of Keras 2 (`tf_keras`), new and legacy, seen as those of Keras 3 are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def is_keras_2_optimizer(value: Any) -> bool:
    """Whether `value` is an optimizer of `tf_keras`, which is never imported for this."""
    optimizers = getattr(sys.modules.get("tf_keras"), "optimizers", None)
    if optimizers is None:
        return False
    return isinstance(value, (optimizers.Optimizer, optimizers.legacy.Optimizer))


def check_counts_in_variables(optimizer: Any) -> None:
    """Refuses the one that counts its steps in Python, which a graph cannot see."""
    if isinstance(optimizer, sys.modules["tf_keras"].optimizers.Nadam):
        raise TypeError(
            "An optimizer argument needs an optimizer that works in a graph, found "
            "`tf_keras.optimizers.Nadam`, whose count of steps is Python's.\n"
            "Use `tf_keras.optimizers.legacy.Nadam` or `keras.optimizers.Nadam`."
        )


def built_keras_2(
    optimizer: Any, variables: Sequence[tf.Variable], learning_rate: Any
) -> list[tf.Variable]:
    """Makes the variables of a Keras 2 optimizer, and sets its rate if one is given.

    Returns:
        The variables that are its state: the learning rate is the optimizer's own.
    """
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
        state, rate = list(optimizer.variables), optimizer._learning_rate
        optimizer.jit_compile = False  # it would compile a part of a graph on its own
    else:
        optimizer._create_all_weights(variables)
        state, rate = list(optimizer.variables()), None
    if learning_rate is not None:
        optimizer.learning_rate = learning_rate
    return [v for v in state if v is not rate]
