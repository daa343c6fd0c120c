"""What an optimizer is: pure functions of a state, weights and gradients."""

import abc
import collections
from typing import Any, Generic, TypeVar

import tensorflow as tf

LEARNING_RATE_KEY = "learning_rate"

State = TypeVar("State")
Weights = TypeVar("Weights")


class Optimizer(abc.ABC, Generic[State, Weights]):
    """Updates weights by gradients, with its whole state going in and coming out."""

    @abc.abstractmethod
    def initialize(self, specs: Any) -> State:
        """Returns the state before the first step.

        Args:
            specs: Structure of `tf.TensorSpec`s like the weights to be optimized.

        Returns:
            A structure of tensors and Python numbers; its type never changes.
        """

    @abc.abstractmethod
    def next(
        self, state: State, weights: Weights, gradients: Any
    ) -> tuple[State, Weights]:
        """Takes one step.

        Args:
            state: What `initialize` or the step before returned.
            weights: Structure of tensors `W`.
            gradients: Structure of tensors `W`, of the same dtypes and shapes.

        Returns:
            The new state and the new weights, of the types of the old ones.
        """

    def get_hparams(self, state: State) -> "collections.OrderedDict[str, Any]":
        """Returns the hyperparameters in a state by name; none unless overridden."""
        del state
        return collections.OrderedDict()

    def set_hparams(self, state: State, hparams: Any) -> State:
        """Returns the state with the given hyperparameters; unchanged unless overridden.

        Args:
            state: What `initialize` or `next` returned.
            hparams: New values by name; those not named stay as they are.

        Returns:
            A state of the same type.
        """
        del hparams
        return state


def check_weights_gradients_match(weights: Any, gradients: Any) -> None:
    """Checks that weights and gradients agree in structure, shapes and dtypes.

    A gradient may be None (the loss does not depend on that weight).

    Args:
        weights: Structure of tensors or variables.
        gradients: Structure of tensors, `tf.IndexedSlices` or None.

    Raises:
        ValueError: If they do not match.
    """
    check_structures_match(
        weights,
        gradients,
        "An optimizer needs `gradients` of the structure, shapes and dtypes of "
        "`weights`",
        "Compute them as `tape.gradient(loss, weights)` of the same weights.",
    )


def check_structures_match(weights: Any, other: Any, needed: str, to_do: str) -> None:
    try:
        tf.nest.assert_same_structure(weights, other)
        same = all(
            leaf is None
            or (
                weight.dtype == tf.as_dtype(leaf.dtype)
                and tf.TensorShape(weight.shape).is_compatible_with(leaf.shape)
            )
            for weight, leaf in zip(tf.nest.flatten(weights), tf.nest.flatten(other))
        )
    except (ValueError, TypeError, AttributeError):
        same = False
    if not same:
        raise ValueError(
            f"{needed}, found {_describe(other)} for weights {_describe(weights)}.\n"
            f"{to_do}"
        )


def handle_indexed_slices_gradients(gradients: Any) -> Any:
    """Replaces each `tf.IndexedSlices` by the dense tensor it stands for.

    Args:
        gradients: Structure of tensors, `tf.IndexedSlices` (as the gradient of a
            gather is) or None.

    Returns:
        The structure with tensors alone; None stays None.
    """
    return tf.nest.map_structure(dense, gradients)


def dense(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def _describe(structure: Any) -> str:
    def text(leaf):
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
            return type(leaf).__name__
        dims = ["?" if d is None else str(d) for d in tf.TensorShape(leaf.shape)]
        name = tf.as_dtype(leaf.dtype).name
        return f"{name}[{','.join(dims)}]" if dims else name

    return f"`{tf.nest.map_structure(text, structure)}`".replace("'", "")
