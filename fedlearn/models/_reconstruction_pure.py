"""A `ReconstructionModel` as functions of the values of its variables.

A Keras model runs on values in place of its variables. Any other is made anew for each
batch, its variables set and read; this is right for every model that names all of its
variables, and slower.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedcore.types import StructType, to_type
from fedlearn.metrics._fresh import apart
from fedlearn.models._reconstruction import (
    BatchOutput,
    KerasReconstructionModel,
    ReconstructionModel,
)
from fedlearn.models._stateless import KerasState
from fedlearn.models._weights import ModelWeights

Values = OrderedDict[str, tuple[Any, ...]]

GLOBAL, LOCAL = "global_trainable", "local_trainable"
_GROUPS = (GLOBAL, "global_non_trainable", LOCAL, "local_non_trainable")
# States of random generators, which belong to the client but are no weights.
_OTHER = "other"


@attrs.frozen(eq=False)
class PureReconstruction:
    """The functions; `Values` are tuples of tensors by group of variables.

    Attributes:
        input_spec: Structure of `tf.TensorSpec` of a batch.
        weights_type: The type of the global `ModelWeights`.
        local_specs: The `tf.TensorSpec`s of the local trainable variables.
        output_specs: A `BatchOutput` of specs.
        initial_weights: Makes the initial global weights, inside a `tf_computation`.
        begin: `ModelWeights -> Values`: a client's first values, inside a
            `tf_computation`; what is random is drawn anew.
        step: `(values, batch, training, loss_fn, group) -> (BatchOutput, gradients,
            values)`: a forward pass and the gradients of `loss_fn(labels, predictions)`
            with respect to the group, of nothing if that is None.
        constraints: By group of trainable variables, of each the constraint that a Keras
            variable carries, or None.
    """

    input_spec: Any
    weights_type: StructType
    local_specs: list[tf.TensorSpec]
    output_specs: BatchOutput
    initial_weights: Callable[[], ModelWeights]
    begin: Callable[[ModelWeights], Values]
    step: Callable[
        [Values, Any, bool, Callable[[Any, Any], tf.Tensor], str | None],
        tuple[BatchOutput, list[Any], Values],
    ]
    constraints: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor] | None, ...]]


def pure_reconstruction(
    model_fn: Callable[[], ReconstructionModel],
) -> PureReconstruction:
    """The pure view of the model that `model_fn` makes.

    Args:
        model_fn: A function without arguments that makes a `ReconstructionModel`. It is
            called here once, outside of any graph, and again by each trace.

    Raises:
        TypeError: If it makes something else, or its forward pass gives no
            `BatchOutput`.
    """
    if not callable(model_fn):
        raise TypeError(
            "`model_fn` needs to be a function without arguments that makes a "
            f"`ReconstructionModel`, found `{type(model_fn).__name__}`."
        )
    with apart():
        model = model_fn()
    if not isinstance(model, ReconstructionModel):
        raise TypeError(
            "`model_fn` needs to make a `ReconstructionModel`, found "
            f"`{type(model).__name__}`.\n"
            "Wrap a Keras model with reconstruction.from_keras_model."
        )
    groups = _groups(model)

    def initial_weights() -> ModelWeights:
        fresh = model_fn()
        return ModelWeights(*(_read(variables) for variables in _groups(fresh)[:2]))

    state = _keras_state(model)

    def begin(weights: ModelWeights) -> Values:
        fresh = model_fn()
        values = [tuple(weights.trainable), tuple(weights.non_trainable)]
        values += [tuple(_read(variables)) for variables in _groups(fresh)[2:]]
        other = () if state is None else tuple(state.begin_local())
        return OrderedDict(zip((*_GROUPS, _OTHER), (*values, other)))

    return PureReconstruction(
        input_spec=model.input_spec,
        weights_type=to_type(
            ModelWeights(*(_specs(variables) for variables in groups[:2]))
        ),
        local_specs=_specs(groups[2]),
        output_specs=_output_specs(model),
        initial_weights=initial_weights,
        begin=begin,
        step=_variable_step(model_fn) if state is None else _keras_step(model, state),
        constraints={
            name: tuple(getattr(v, "constraint", None) for v in variables)
            for name, variables in zip(_GROUPS, groups)
            if name in (GLOBAL, LOCAL)
        },
    )


def _keras_step(model: KerasReconstructionModel, state: KerasState) -> Callable:
    trainable, non_trainable = list(state.trainable), list(state.non_trainable)
    groups = dict(zip(_GROUPS, _groups(model)))

    def step(values, batch, training, loss_fn, group):
        watched = list(values[group]) if group else []
        current = {
            id(variable): value
            for name, variables in groups.items()
            for variable, value in zip(variables, values[name])
        }
        current |= {id(v): w for v, w in zip(groups.get(group, []), watched)}
        with tf.GradientTape() as tape:
            tape.watch(watched)
            output, new_non_trainable, other = state.call(
                lambda: model.forward_pass(batch, training=training),
                [current[id(v)] for v in trainable],
                [current[id(v)] for v in non_trainable],
                list(values[_OTHER]),
            )
            loss = loss_fn(output.labels, output.predictions) if group else None
        gradients = tape.gradient(loss, watched) if group else []
        current |= {id(v): w for v, w in zip(non_trainable, new_non_trainable)}
        new_values = OrderedDict(
            (name, tuple(current[id(v)] for v in variables))
            for name, variables in groups.items()
        )
        new_values[_OTHER] = tuple(other)
        return output, gradients, new_values

    return step


def _variable_step(model_fn: Callable[[], ReconstructionModel]) -> Callable:
    def step(values, batch, training, loss_fn, group):
        model = model_fn()
        groups = OrderedDict(zip(_GROUPS, _groups(model)))
        for name, variables in groups.items():
            for variable, value in zip(variables, values[name]):
                variable.assign(value)
        watched = [_tf_variable(v) for v in groups[group]] if group else []
        with tf.GradientTape() as tape:
            tape.watch(watched)
            output = model.forward_pass(batch, training=training)
            loss = loss_fn(output.labels, output.predictions) if group else None
        gradients = tape.gradient(loss, watched) if group else []
        new_values = OrderedDict(
            (name, tuple(_read(variables))) for name, variables in groups.items()
        )
        new_values[_OTHER] = ()
        return output, gradients, new_values

    return step


def _keras_state(model: ReconstructionModel) -> KerasState | None:
    """The state of a Keras model that can run on values; None if the model cannot."""
    if not isinstance(model, KerasReconstructionModel):
        return None
    layers = model.keras_model._flatten_layers()
    if any(getattr(layer, "stateful", False) for layer in layers):
        return None
    state = KerasState.of(model.keras_model)
    parts = (state.trainable, state.non_trainable, state.local)

    def call(trainable, non_trainable, local, batch):
        return state.call(
            lambda: model.forward_pass(batch).predictions,
            trainable,
            non_trainable,
            local,
        )

    try:
        traced = tf.function(call, autograph=False).get_concrete_function(
            *(_specs(part) for part in parts), model.input_spec
        )
    except Exception:
        # If the model itself is at fault, looking at its output raises too.
        return None
    resources = (tf.resource, tf.variant)
    captured = any(t.dtype in resources for t in traced.captured_inputs)
    return None if captured else state


def _output_specs(model: ReconstructionModel) -> BatchOutput:
    def forward(batch):
        output = model.forward_pass(batch, training=False)
        for name in ("predictions", "labels", "num_examples"):
            if not hasattr(output, name):
                raise TypeError(
                    "`forward_pass` of a `ReconstructionModel` needs to return a "
                    "`reconstruction.BatchOutput(predictions, labels, num_examples)`, "
                    f"found `{type(output).__name__}`."
                )
        return output.predictions, output.labels, output.num_examples

    with apart():
        traced = tf.function(forward, autograph=False).get_concrete_function(
            model.input_spec
        )
    specs = tf.nest.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype) if hasattr(t, "shape") else t,
        traced.structured_outputs,
    )
    return BatchOutput(*specs)


def _groups(model: ReconstructionModel) -> list[list[Any]]:
    return [list(getattr(model, f"{name}_variables")) for name in _GROUPS]


def _read(variables: list[Any]) -> list[tf.Tensor]:
    # A copy: what is read must not change when the variable is assigned to.
    return [tf.identity(tf.convert_to_tensor(v)) for v in variables]


def _specs(variables: Any) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(v.shape, v.dtype) for v in variables]


def _tf_variable(variable: Any) -> tf.Variable:
    return variable.value if isinstance(variable, keras.Variable) else variable
