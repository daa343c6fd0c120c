"""What is asked of a model that is written by hand, before clients train it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore.types import to_type, type_to_tf_tensor_specs
from fedlearn.models._model import BatchOutput


def check_forward_pass(
    name: str, forward_pass: Callable[[Any], Any], input_spec: Any
) -> None:
    """Raises a `TypeError` unless a forward pass gives a `BatchOutput` with a loss.

    Args:
        name: What users call the function.
        forward_pass: The function of a batch, of a model made outside of any graph. If it
            cannot be traced, that is said where it is trained.
        input_spec: What a batch looks like.

    Raises:
        TypeError: If it gives something else, or the loss is not a float scalar.
    """
    outputs = []

    def forward(batch: Any) -> tuple:
        outputs.append(forward_pass(batch))
        return ()

    try:
        spec = type_to_tf_tensor_specs(to_type(input_spec))
        tf.function(forward).get_concrete_function(spec)
    except Exception:
        return
    (output,) = outputs
    missing = [
        name
        for name in ("loss", "predictions", "num_examples")
        if not hasattr(output, name)
    ]
    if missing:
        raise TypeError(
            f"{name} needs to return a `BatchOutput(loss, predictions, num_examples)`, "
            f"found `{type(output).__name__}`."
        )
    check_loss(output.loss)


def check_loss(loss: Any) -> None:
    """Raises a `TypeError` unless this is a tensor that can be minimised."""
    is_tensor = isinstance(loss, tf.Tensor)
    if is_tensor and loss.dtype.is_floating and loss.shape.rank in (0, None):
        return
    found = f"`{type(loss).__name__}`"
    if is_tensor:
        found = f"`{to_type((loss.dtype, loss.shape))}`"
    raise TypeError(
        f"A model needs a float scalar as the loss of a batch, found {found}.\n"
        f"Return for example {BatchOutput.__name__}(loss=tf.reduce_mean(losses), ...)."
    )
