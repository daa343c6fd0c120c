"""Any Keras optimizer as a function of its state, by way of variables inside the graph."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedlearn.optimizers._optimizer import Optimizer


class VariableOptimizer(Optimizer):
    """A Keras optimizer that has no pure form here, made anew for every step.

    Its variables (without the learning rate, which the optimizer itself knows) are the
    state; a step makes them, sets them, applies the optimizer and reads them. This works
    for every optimizer and, since it holds variables, never under XLA.

    Args:
        optimizer_fn: Makes the Keras optimizer.
    """

    def __init__(self, optimizer_fn: Callable[[], Any]):
        self._optimizer_fn = optimizer_fn

    def initialize(self, specs: Any) -> Any:
        variables = [
            tf.Variable(tf.zeros(s.shape, s.dtype)) for s in tf.nest.flatten(specs)
        ]
        return [tf.convert_to_tensor(v) for v in self._built(variables)[1]]

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        variables = [tf.Variable(w) for w in tf.nest.flatten(weights)]
        optimizer, slots = self._built(variables)
        for slot, value in zip(slots, state):
            slot.assign(value)
        optimizer.apply_gradients(zip(tf.nest.flatten(gradients), variables))
        new_weights = [v.read_value() for v in variables]
        new_state = [tf.convert_to_tensor(s) for s in slots]
        return new_state, tf.nest.pack_sequence_as(weights, new_weights)

    def get_hparams(self, state: Any) -> Any:
        return OrderedDict()

    def set_hparams(self, state: Any, hparams: Any) -> Any:
        return state

    def _built(self, variables: list[tf.Variable]) -> tuple[Any, list[Any]]:
        optimizer = self._optimizer_fn()
        optimizer.build(variables)
        rate = getattr(optimizer, "_learning_rate", None)
        return optimizer, [v for v in optimizer.variables if v is not rate]
