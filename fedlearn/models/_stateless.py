"""A Keras model as a pure function: variables in, values and new variables out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import keras
import numpy as np
import tensorflow as tf

_Result = TypeVar("_Result")


@attrs.frozen(eq=False)
class KerasState:
    """The variables of a built Keras model, by what becomes of them.

    `local` are those that are neither weights nor travel: the states of random number
    generators, and of metrics that are inside of layers.
    """

    trainable: tuple[keras.Variable, ...]
    non_trainable: tuple[keras.Variable, ...]
    local: tuple[keras.Variable, ...]
    # For each local variable: its first value, None for one drawn afresh.
    _first_local: tuple[np.ndarray | None, ...]

    @classmethod
    def of(cls, keras_model: keras.Model) -> KerasState:
        weights = {id(v) for v in keras_model.weights}
        local = tuple(
            v for v in keras_model.non_trainable_variables if id(v) not in weights
        )
        unseeded = {id(v) for v in unseeded_states(keras_model)}
        first = tuple(None if id(v) in unseeded else v.numpy() for v in local)
        return cls(
            tuple(keras_model.trainable_weights),
            tuple(keras_model.non_trainable_weights),
            local,
            first,
        )

    def begin_local(self) -> list[tf.Tensor]:
        """First values of the local variables; unseeded generators draw a new seed."""
        return [
            tf.convert_to_tensor(keras.random.SeedGenerator().state)
            if value is None
            else tf.constant(value)
            for value in self._first_local
        ]

    def call(
        self,
        fn: Callable[[], _Result],
        trainable: Sequence[Any],
        non_trainable: Sequence[Any],
        local: Sequence[Any],
    ) -> tuple[_Result, list[Any], list[Any]]:
        """Runs `fn`, which calls the model, with these values for the variables.

        Not by `Layer.stateless_call`: that skips the model's `__call__`, which is what
        tells the layers inside a subclassed model whether they are being trained.

        Returns:
            What `fn` returns, and the new non-trainable and local values.
        """
        mapping = [
            *zip(self.trainable, trainable, strict=True),
            *zip(self.non_trainable, non_trainable, strict=True),
            *zip(self.local, local, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            result = fn()
        return (
            result,
            [scope.get_current_value(v) for v in self.non_trainable],
            [scope.get_current_value(v) for v in self.local],
        )


def unseeded_states(keras_model: keras.Model) -> list[keras.Variable]:
    """The state variables of the random generators that were given no seed."""
    return [
        generator.state
        for layer in keras_model._flatten_layers()
        for generator in getattr(layer, "_seed_generators", ())  # Keras 2 has none
        if generator.get_config()["seed"] is None
    ]
