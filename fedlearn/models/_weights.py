"""The weights of a model as one value."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf

from fedcore.structure import Struct
from fedcore.types import StructType, TensorType, to_type
from fedlearn.metrics._fresh import apart
from fedlearn.metrics._keras_versions import is_model
from fedlearn.models._functional import FunctionalModel
from fedlearn.models._model import Model


@attrs.frozen(eq=False)
class ModelWeights:
    """The trainable and the non-trainable weights of a model.

    Attributes:
        trainable: List of the weights that training changes.
        non_trainable: List of the others (batch normalisation statistics, frozen layers).
    """

    trainable: Any
    non_trainable: Any

    @classmethod
    def from_model(cls, model: Model | keras.Model) -> ModelWeights:
        """The variables of a model.

        Args:
            model: A `Model` or a Keras model.

        Returns:
            A `ModelWeights` of lists of variables.

        Raises:
            TypeError: If `model` is something else.
        """
        if isinstance(model, Model):
            return cls(
                list(model.trainable_variables), list(model.non_trainable_variables)
            )
        _check_model("ModelWeights.from_model", model)
        # Without the states of random generators, which are no weights.
        return cls(list(model.trainable_weights), list(model.non_trainable_weights))

    @classmethod
    def from_tff_result(cls, struct: Struct) -> ModelWeights:
        """Weights from the anonymous structure that a computation works with.

        Args:
            struct: A `Struct` with elements `trainable` and `non_trainable`, structures
                of weights.

        Returns:
            A `ModelWeights` of lists.

        Raises:
            TypeError: If `struct` is not such a structure.
        """
        if isinstance(struct, cls):
            return cls(list(struct.trainable), list(struct.non_trainable))
        if not isinstance(struct, Struct):
            raise TypeError(
                "`from_tff_result` needs a `Struct` with elements `trainable` and "
                f"`non_trainable`, found `{type(struct).__name__}`."
            )
        for part in ("trainable", "non_trainable"):
            weights = getattr(struct, part, None)
            if not isinstance(weights, (Struct, list, tuple)):
                raise TypeError(
                    f"`from_tff_result` needs a structure of weights at `{part}`, found "
                    f"`{type(weights).__name__}`."
                )
        return cls(list(struct.trainable), list(struct.non_trainable))

    def assign_weights_to(self, model: Model | keras.Model) -> None:
        """Sets the weights of a model to these.

        Args:
            model: A `Model` or a Keras model with weights of the same shapes.

        Raises:
            TypeError: If `model` is something else.
            ValueError: If the numbers or the shapes of the weights differ.
        """
        target = ModelWeights.from_model(model)
        for part in ("trainable", "non_trainable"):
            variables, values = getattr(target, part), list(getattr(self, part))
            if len(variables) != len(values):
                raise ValueError(
                    f"`assign_weights_to` needs {len(variables)} {part} weights for this "
                    f"model, found {len(values)}."
                )
            for variable, value in zip(variables, values):
                _assign(variable, value)

    def convert_variables_to_arrays(self) -> ModelWeights:
        """These weights as NumPy arrays.

        Returns:
            A `ModelWeights` of lists of `np.ndarray`.
        """

        def to_array(weight: Any) -> np.ndarray:
            return weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight)

        return ModelWeights(
            [to_array(weight) for weight in self.trainable],
            [to_array(weight) for weight in self.non_trainable],
        )


def weights_type_from_model(
    model: Model | FunctionalModel | Callable[[], Model],
) -> StructType:
    """The type of a model's weights.

    Args:
        model: A `Model`, a `FunctionalModel`, or a function without arguments that makes
            a model.

    Returns:
        The type `<trainable=<...>,non_trainable=<...>>` of a `ModelWeights`.

    Raises:
        TypeError: If there is no model.
    """
    if callable(model) and not isinstance(model, (Model, FunctionalModel)):
        with apart():
            model = model()
    if isinstance(model, FunctionalModel):
        trainable, non_trainable = model.initial_weights
        return to_type(ModelWeights(_types(trainable), _types(non_trainable)))
    if not isinstance(model, Model):
        raise TypeError(
            "`weights_type_from_model` needs a `Model` or a function that makes one, "
            f"found `{type(model).__name__}`.\n"
            "Wrap a Keras model with from_keras_model."
        )
    weights = ModelWeights.from_model(model)
    return to_type(
        ModelWeights(_types(weights.trainable), _types(weights.non_trainable))
    )


def _types(weights: Any) -> Any:
    """`weights` with each one replaced by its type; structures stay as they are."""
    if isinstance(weights, Mapping):
        return collections.OrderedDict((k, _types(v)) for k, v in weights.items())
    if isinstance(weights, (list, tuple)):
        return type(weights)(_types(weight) for weight in weights)
    if not hasattr(weights, "dtype"):
        weights = np.asarray(weights)
    return TensorType(tf.as_dtype(weights.dtype), tf.TensorShape(weights.shape))


def _check_model(function: str, model: Any) -> None:
    if not is_model(model):
        raise TypeError(
            f"`{function}` needs a `Model` or a Keras model, found "
            f"`{type(model).__name__}`."
        )


def _assign(variable: Any, value: Any) -> None:
    shape = tf.TensorShape(
        np.shape(value) if not hasattr(value, "shape") else value.shape
    )
    if not variable.shape.is_compatible_with(shape):
        raise ValueError(
            f"`assign_weights_to` needs shape {tuple(variable.shape)} for weight "
            f"`{variable.name}`, found {tuple(shape)}."
        )
    variable.assign(value)
