"""Any Keras optimizer as a function of its state, by way of variables inside the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import tensorflow as tf

from fedlearn.optimizers._keras2 import built_keras_2, is_keras_2_optimizer
from fedlearn.optimizers._optimizer import Optimizer


@attrs.frozen(eq=False)
class VariableOptimizer(Optimizer):
    """A Keras optimizer that has no pure form here, made anew for every step.

    Its variables (without the learning rate, which the optimizer itself knows) are the
    state; a step makes them, sets them, applies the optimizer and reads them. This works
    for every optimizer and, since it holds variables, never under XLA.

    Args:
        optimizer_fn: Makes the Keras optimizer.
        constraints: Of each weight, the constraint its Keras variable carries or None;
            empty if there are none.
        learning_rate: In place of the optimizer's own, if not None.
    """

    optimizer_fn: Callable[[], Any]
    constraints: Sequence[Callable[[tf.Tensor], tf.Tensor] | None] = ()
    learning_rate: Any = None

    def with_learning_rate(self, learning_rate: Any) -> VariableOptimizer:
        """This optimizer with another rate, a float or a scalar tensor."""
        return attrs.evolve(self, learning_rate=learning_rate)

    def initialize(self, specs: Any) -> Any:
        zeros = [tf.zeros(s.shape, s.dtype) for s in tf.nest.flatten(specs)]
        return [tf.convert_to_tensor(v) for v in self._built(zeros)[2]]

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        variables, optimizer, slots = self._built(tf.nest.flatten(weights))
        for slot, value in zip(slots, state):
            slot.assign(value)
        optimizer.apply_gradients(zip(tf.nest.flatten(gradients), variables))
        new_weights = [v.read_value() for v in variables]
        new_state = [tf.convert_to_tensor(s) for s in slots]
        return new_state, tf.nest.pack_sequence_as(weights, new_weights)

    def _built(self, weights: list[tf.Tensor]) -> tuple[list[tf.Variable], Any, list]:
        constraints = self.constraints or [None] * len(weights)
        variables = [
            tf.Variable(weight, constraint=constraint)
            for weight, constraint in zip(weights, constraints)
        ]
        optimizer = self.optimizer_fn()
        if is_keras_2_optimizer(optimizer):
            state = built_keras_2(optimizer, variables, self.learning_rate)
            return variables, optimizer, state
        optimizer.build(variables)
        rate = getattr(optimizer, "_learning_rate", None)
        if self.learning_rate is not None:
            optimizer.learning_rate = self.learning_rate
        return variables, optimizer, [v for v in optimizer.variables if v is not rate]
