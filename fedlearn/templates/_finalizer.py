"""Applies a server optimizer to the aggregated update."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
)
from fedcore.templates import MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, StructType, Type, at_server, type_to_tf_tensor_specs
from fedlearn.models import ModelWeights
from fedlearn.optimizers import Optimizer
from fedlearn.optimizers._keras import as_optimizer
from fedlearn.optimizers._variables import VariableOptimizer
from fedlearn.templates._non_finite import zero_if_any_non_finite
from fedlearn.templates._parts import FinalizerProcess


def build_apply_optimizer_finalizer(
    optimizer_fn: Any, model_weights_type: Type
) -> FinalizerProcess:
    """Takes the aggregated update as a gradient: w ← optimizer(w, Δ).

    An update that is not finite is taken as 0 and counted in `update_non_finite`.

    Args:
        optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function without
            arguments that makes a Keras optimizer.
        model_weights_type: The type W of the model's `ModelWeights`, unplaced.

    Returns:
        A process with next `(<state=S@SERVER,weights=W@SERVER,update=U@SERVER> ->
        <state=S@SERVER,result=W@SERVER,measurements=<update_non_finite=int32>@SERVER>)`,
        U the type of W's trainable part.

    Raises:
        TypeError: If `optimizer_fn` is no optimizer, or W not the type of `ModelWeights`.
    """
    check_weights_type("build_apply_optimizer_finalizer", model_weights_type)
    specs = trainable_specs(model_weights_type)
    optimizer = resolve_optimizer(optimizer_fn, specs)

    @tf_computation
    def initialize():
        return optimizer.initialize(specs)

    state_type = initialize.type_signature.result
    update_type = model_weights_type.trainable

    @tf_computation(state_type, model_weights_type, update_type)
    def apply(state, weights, update):
        update, non_finite = zero_if_any_non_finite(tf.nest.flatten(update))
        state, trainable = optimizer.next(
            state, tf.nest.flatten(weights.trainable), update
        )
        new_weights = ModelWeights(
            tf.nest.pack_sequence_as(weights.trainable, tf.nest.flatten(trainable)),
            weights.non_trainable,
        )
        metrics = OrderedDict(update_non_finite=tf.cast(non_finite, tf.int32))
        return state, new_weights, metrics

    @federated_computation
    def initialize_fn():
        return federated_eval(initialize, SERVER)

    @federated_computation(
        at_server(state_type), at_server(model_weights_type), at_server(update_type)
    )
    def next_fn(state, weights, update):
        state, weights, metrics = federated_map(apply, (state, weights, update))
        return MeasuredProcessOutput(state, weights, metrics)

    hparams = hparams_computations(optimizer, state_type)
    return FinalizerProcess(initialize_fn, next_fn, **hparams)


def check_weights_type(function: str, type_: Any) -> None:
    """Raises TypeError unless `type_` is that of a `ModelWeights`."""
    if not (isinstance(type_, StructType) and type_.python_container is ModelWeights):
        raise TypeError(
            f"`{function}` needs the type of a model's `ModelWeights`, found `{type_}`.\n"
            "Take it from `fedlearn.models.weights_type_from_model(model_fn)`."
        )


def trainable_specs(model_weights_type: Type) -> list[tf.TensorSpec]:
    """The TensorSpecs of the trainable weights, flat."""
    return tf.nest.flatten(type_to_tf_tensor_specs(model_weights_type.trainable))


def resolve_optimizer(
    optimizer_fn: Any, specs: list[tf.TensorSpec], constraints: tuple[Any, ...] = ()
) -> Optimizer:
    """The optimizer as pure functions of its state, whatever it was given as.

    Args:
        optimizer_fn: As users give it.
        specs: The weights to be optimized, flat.
        constraints: Of each weight, the constraint its Keras variable carries or None.
    """
    pure = as_optimizer(optimizer_fn, specs, constraints)
    return pure or VariableOptimizer(optimizer_fn, constraints)


def hparams_computations(optimizer: Optimizer, state_type: Type) -> dict[str, Any]:
    """`get_hparams_fn` and `set_hparams_fn` of a process whose state is an optimizer's."""

    @tf_computation(state_type)
    def get_hparams(state):
        return optimizer.get_hparams(state)

    @tf_computation(state_type, get_hparams.type_signature.result)
    def set_hparams(state, hparams):
        return optimizer.set_hparams(state, hparams)

    return {"get_hparams_fn": get_hparams, "set_hparams_fn": set_hparams}
