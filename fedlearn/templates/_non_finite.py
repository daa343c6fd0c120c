"""What is done with updates that are not numbers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def zero_if_any_non_finite(update: Any) -> tuple[Any, tf.Tensor]:
    """The update, or zeros if any of it is NaN or infinite, and whether that was so.

    Args:
        update: A nest of tensors; only floats can be non-finite.

    Returns:
        The update or zeros in its place, and bool[].
    """
    tensors = [t for t in tf.nest.flatten(update) if t.dtype.is_floating]
    finite = [tf.reduce_all(tf.math.is_finite(t)) for t in tensors]
    all_finite = tf.reduce_all(tf.stack(finite)) if finite else tf.constant(True)
    # A product with 0 would keep a NaN.
    zeroed = tf.nest.map_structure(
        lambda t: tf.where(all_finite, t, tf.zeros_like(t)), update
    )
    return zeroed, tf.logical_not(all_finite)
