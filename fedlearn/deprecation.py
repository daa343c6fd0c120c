"""Saying that a function is on its way out."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def deprecated(fn: Callable[..., Result], message: str) -> Callable[..., Result]:
    """A function that does what `fn` does, and warns each time it is called.

    Args:
        fn: The function that should no longer be called.
        message: What to say, such as what to call instead.

    Returns:
        The function; it raises a `DeprecationWarning` with `message`.
    """

    @functools.wraps(fn)
    def warn_and_call(*args, **kwargs):
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return fn(*args, **kwargs)

    return warn_and_call


__all__ = ["deprecated"]
