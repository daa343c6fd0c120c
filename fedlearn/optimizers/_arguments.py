"""Checks of the numbers that optimizers are built from."""

import numbers
from typing import Any

import numpy as np
import tensorflow as tf


def number_at_least_zero(function: str, name: str, value: Any) -> Any:
    """Returns a Python float, or the scalar tensor given, after checking `value >= 0`."""
    return _checked(function, name, value, "at least 0", lambda x: not x < 0)


def fraction(function: str, name: str, value: Any) -> Any:
    """Returns a Python float, or the scalar tensor given, in [0, 1)."""
    return _checked(
        function, name, value, "at least 0 and less than 1", lambda x: 0 <= x < 1
    )


def number_above_zero(function: str, name: str, value: Any) -> Any:
    return _checked(function, name, value, "more than 0", lambda x: x > 0)


def number(function: str, name: str, value: Any) -> Any:
    return _checked(function, name, value, "a number", lambda x: True)


def _checked(function, name, value, wanted, holds):
    if tf.is_tensor(value) and not isinstance(value, tf.Variable):
        if not value.dtype.is_floating or value.shape.rank != 0:
            raise _wrong_type(function, name, f"{value.dtype.name}{value.shape}")
        known = tf.get_static_value(value)
    elif isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise _wrong_type(function, name, type(value).__name__)
    else:
        known = value = float(value)
    if known is not None and not holds(known):
        raise ValueError(f"`{function}` needs `{name}` {wanted}, found {known}.")
    return value


def _wrong_type(function: str, name: str, found: str) -> TypeError:
    return TypeError(
        f"`{function}` needs a float or a scalar float tensor as `{name}`, found "
        f"{found}.\nFor a rate that changes by the round use `schedule_learning_rate`."
    )
