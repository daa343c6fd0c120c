"""Optimizers that update every weight by one rule, whatever the structure."""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import tensorflow as tf

from fedlearn.optimizers._optimizer import (
    Optimizer,
    check_structures_match,
    check_weights_gradients_match,
    handle_indexed_slices_gradients,
)

STEP_KEY = "step"


@attrs.frozen
class Slot:
    """One tensor of state per weight: its key, its first value, its shape."""

    name: str
    initial_value: Any = 0.0
    shape_of: Callable[[tf.TensorShape], tf.TensorShape] = lambda shape: shape

    def spec(self, weight: Any) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape_of(tf.TensorShape(weight.shape)), weight.dtype)

    def initial(self, weight: Any) -> tf.Tensor:
        spec = self.spec(weight)
        return tf.fill(spec.shape, as_dtype(self.initial_value, spec.dtype))


@attrs.frozen(eq=False)
class RuleOptimizer(Optimizer):
    """State: the hyperparameters, the count of steps if needed, the slots.

    `update(hparams, step, weight, gradient, *slots)` gives a new weight and new slots;
    its numbers come in the dtype of the weight, or in float32 if that is narrower, for
    the powers and small constants of the rules vanish in bfloat16.
    """

    hparams: Mapping[str, Any]
    update: Callable[..., tuple]
    slots: tuple[Slot, ...] = ()
    counts_steps: bool = False

    def initialize(self, specs: Any) -> Any:
        for spec in tf.nest.flatten(specs):
            _check_spec(spec)
        state = collections.OrderedDict(self.hparams)
        if self.counts_steps:
            state[STEP_KEY] = 0
        for slot in self.slots:
            state[slot.name] = tf.nest.map_structure(slot.initial, specs)
        return state

    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        gradients = handle_indexed_slices_gradients(gradients)
        check_weights_gradients_match(weights, gradients)
        for slot in self.slots:
            _check_slot(slot, weights, state[slot.name])
        new_state = collections.OrderedDict(state)
        if self.counts_steps:
            new_state[STEP_KEY] = state[STEP_KEY] + 1
        updated = [
            self._update_one(new_state, *parts)
            for parts in zip(
                tf.nest.flatten(weights),
                tf.nest.flatten(gradients),
                *(tf.nest.flatten(state[slot.name]) for slot in self.slots),
            )
        ]
        # No weights at all: there is nothing to transpose.
        new_weights, *new_slots = (
            zip(*updated) if updated else [()] * (1 + len(self.slots))
        )
        for slot, values in zip(self.slots, new_slots):
            new_state[slot.name] = tf.nest.pack_sequence_as(state[slot.name], values)
        return new_state, tf.nest.pack_sequence_as(weights, new_weights)

    def get_hparams(self, state: Any) -> "collections.OrderedDict[str, Any]":
        return collections.OrderedDict((name, state[name]) for name in self.hparams)

    def set_hparams(self, state: Any, hparams: Any) -> Any:
        unknown = [name for name in hparams if name not in self.hparams]
        if unknown:
            raise KeyError(
                f"`set_hparams` needs names among {list(self.hparams)}, found {unknown}."
            )
        return collections.OrderedDict(state, **hparams)

    def _update_one(self, state, weight, gradient, *slots):
        if gradient is None:
            return (tf.convert_to_tensor(weight), *slots)
        dtype = weight.dtype if weight.dtype.size >= 4 else tf.float32
        hparams = {name: as_dtype(state[name], dtype) for name in self.hparams}
        step = as_dtype(state[STEP_KEY], dtype) if self.counts_steps else None
        tensors = [tf.cast(t, dtype) for t in (weight, gradient, *slots)]
        new_weight, *new_slots = self.update(hparams, step, *tensors)
        return tuple(tf.cast(t, weight.dtype) for t in (new_weight, *new_slots))


def as_dtype(value: Any, dtype: tf.DType) -> tf.Tensor:
    # `tf.cast` would take a Python float through float32.
    if tf.is_tensor(value):
        return tf.cast(value, dtype)
    return tf.constant(value, dtype)


def _check_spec(spec: Any) -> None:
    if not tf.TensorShape(spec.shape).is_fully_defined():
        raise ValueError(
            f"`Optimizer.initialize` needs fully defined shapes, found {spec}.\n"
            "Its state has the shapes of the weights: give those of the variables."
        )
    if not (spec.dtype.is_floating or spec.dtype.is_complex):
        raise TypeError(
            f"`Optimizer.initialize` needs weights of floats, found {spec}.\n"
            "Leave other variables out, as `ModelWeights.non_trainable`."
        )


def _check_slot(slot: Slot, weights: Any, value: Any) -> None:
    check_structures_match(
        tf.nest.map_structure(slot.spec, weights),
        value,
        f"`Optimizer.next` needs `{slot.name}` in its state to match the weights",
        "Was `initialize` given the specs of other weights?",
    )
