"""A learning rate that changes from step to step."""

import collections
from collections.abc import Callable
from typing import Any

import attrs
import tensorflow as tf

from fedlearn.optimizers._optimizer import LEARNING_RATE_KEY, Optimizer


def schedule_learning_rate(
    optimizer: Optimizer, schedule_fn: Callable[[Any], Any]
) -> Optimizer:
    """Returns an optimizer whose learning rate is a function of the number of its step.

    At a server a step is a round; at a client it is a batch, from 0 in each round.

    Args:
        optimizer: An optimizer with `learning_rate` in its state, as all those built
            here have. The rate it was built with is not used.
        schedule_fn: Maps the number of the step (`int32`, from 0) to a float. It is
            traced, so it branches by `tf.where` or `tf.cond`; a
            `keras.optimizers.schedules.LearningRateSchedule` will do.

    Returns:
        An optimizer of state `<round_num=int32,optimizer=S>`, S being the state of
        `optimizer`.

    Raises:
        TypeError: If `optimizer` is not an optimizer or `schedule_fn` not callable.
        KeyError: At `initialize`, if the state of `optimizer` has no learning rate.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            "`schedule_learning_rate` needs a `fedlearn.optimizers.Optimizer`, found "
            f"{optimizer!r}.\nA Keras optimizer takes a "
            "`keras.optimizers.schedules.LearningRateSchedule` as its `learning_rate`."
        )
    if not callable(schedule_fn):
        raise TypeError(
            "`schedule_learning_rate` needs a callable `schedule_fn`, found "
            f"{type(schedule_fn).__name__}.\n"
            "For a constant rate build the optimizer with it."
        )
    return _ScheduledOptimizer(optimizer, schedule_fn)


@attrs.frozen(eq=False)
class _ScheduledOptimizer(Optimizer):
    optimizer: Optimizer
    schedule_fn: Callable[[Any], Any]

    def initialize(self, specs: Any) -> Any:
        state = self.optimizer.initialize(specs)
        if not (isinstance(state, dict) and LEARNING_RATE_KEY in state):
            keys = list(state) if isinstance(state, dict) else type(state).__name__
            raise KeyError(
                f"`schedule_learning_rate` needs an optimizer with {LEARNING_RATE_KEY!r} "
                f"in its state, found {keys}."
            )
        return self._at_round(tf.constant(0, tf.int32), state)

    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        inner, weights = self.optimizer.next(state["optimizer"], weights, gradients)
        return self._at_round(state["round_num"] + 1, inner), weights

    def _at_round(self, round_num, state):
        rate = tf.cast(self.schedule_fn(round_num), tf.float32)
        state = collections.OrderedDict(state)
        state[LEARNING_RATE_KEY] = rate
        return collections.OrderedDict(round_num=round_num, optimizer=state)
