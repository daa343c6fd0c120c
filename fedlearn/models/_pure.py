"""The pure view of a model: state in, state out.

The client loop needs a model without side effects. A Keras model and a `FunctionalModel`
can be seen so; a hand-written `Model` cannot, nor can a Keras model that keeps state
where Keras does not know of it (lookup tables, bare `tf.Variable`s).
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedcore.types import StructType, to_type
from fedlearn.metrics._fresh import apart
from fedlearn.metrics._keras_versions import is_keras_2
from fedlearn.models._batch import labels_of
from fedlearn.models._from_functional import ModelFromFunctional, loss_and_examples
from fedlearn.models._frozen import FrozenModel, frozen
from fedlearn.models._functional import FunctionalModel
from fedlearn.models._functional_keras import KerasFunctionalModel
from fedlearn.models._hand_written import check_forward_pass
from fedlearn.models._keras import KerasModel
from fedlearn.models._masked import MaskedModel, masked_model
from fedlearn.models._model import BatchOutput, Model
from fedlearn.models._stateless import KerasState
from fedlearn.models._weights import ModelWeights, weights_type_from_model


@attrs.frozen(eq=False)
class PureModel:
    """A model as functions of values.

    Attributes:
        input_spec: Structure of `tf.TensorSpec` of a batch.
        weights_type: The type of `ModelWeights`.
        initial_weights: Makes the initial weights, inside a `tf_computation`; what is
            random is drawn anew on every run.
        begin_local: Makes a client's state that is not weights (a list), such as the
            states of random generators; inside a `tf_computation`.
        forward: `(weights, local, batch, training) -> (BatchOutput, non_trainable,
            local)`; the loss is what to minimise, regularisation included.
        begin_metrics: Makes the unfinalized metrics before any batch.
        update_metrics: `(unfinalized, batch, BatchOutput) -> unfinalized`.
        metric_finalizers: By name, the functions from unfinalized metrics to metrics; for
            a `FunctionalModel` one function of all of them.
        constraints: In flat order of the trainable weights, the constraint that a Keras
            variable carries, or None; empty if none does.
        masked: The same model with a mask for the rows of a batch, where that is exact.
    """

    input_spec: Any
    weights_type: StructType
    initial_weights: Callable[[], ModelWeights]
    begin_local: Callable[[], list[Any]]
    forward: Callable[
        [ModelWeights, list[Any], Any, bool], tuple[BatchOutput, Any, list[Any]]
    ]
    begin_metrics: Callable[[], Any]
    update_metrics: Callable[[Any, Any, BatchOutput], Any]
    metric_finalizers: Any
    constraints: tuple[Callable[[tf.Tensor], tf.Tensor] | None, ...] = ()
    masked: MaskedModel | None = None


def pure_model(model_fn: Callable[[], Any] | FunctionalModel) -> PureModel | None:
    """The pure view of the model that `model_fn` makes.

    `model_fn` is called here once, outside of any graph, and again by each trace of
    `initial_weights`.

    Args:
        model_fn: A function without arguments that makes a model, or a
            `FunctionalModel`.

    Returns:
        The view, or None if the model has to run with its own variables.

    Raises:
        TypeError: If `model_fn` makes no model, or the loss is not a float scalar.
    """
    model: Any = model_fn
    if not isinstance(model_fn, FunctionalModel):
        if not callable(model_fn):
            raise TypeError(
                "`model_fn` needs to be a function without arguments that makes a model, "
                f"found `{type(model_fn).__name__}`.\n"
                "Pass the function itself, `model_fn`, not what it returns."
            )
        with apart():
            model = model_fn()
    if isinstance(model, FunctionalModel):
        return _of_functional(model)
    if not isinstance(model, Model):
        raise TypeError(
            f"`model_fn` needs to make a `Model`, found `{type(model).__name__}`.\n"
            "Wrap a Keras model with from_keras_model."
        )
    if isinstance(model, KerasModel):
        return _of_keras(model, model_fn)
    if isinstance(model, FrozenModel):
        return frozen(pure_model(model.model_fn), model.values)
    if isinstance(model, ModelFromFunctional):
        return _of_model_from_functional(model)
    check_forward_pass(
        "`forward_pass` of a `Model`", model.forward_pass, model.input_spec
    )
    return None


def _of_keras(model: KerasModel, model_fn: Callable[[], Any]) -> PureModel | None:
    if is_keras_2(model.keras_model):
        return None  # it has no stateless call
    if any(getattr(layer, "stateful", False) for layer in _layers(model.keras_model)):
        return None  # its state is kept from batch to batch, outside of the weights
    state = KerasState.of(model.keras_model)
    first_metrics = collections.OrderedDict(
        (metric.name, [v.numpy() for v in metric.variables]) for metric in model.metrics
    )

    def initial_weights() -> ModelWeights:
        weights = ModelWeights.from_model(model_fn())
        return ModelWeights(
            [tf.convert_to_tensor(v) for v in weights.trainable],
            [tf.convert_to_tensor(v) for v in weights.non_trainable],
        )

    def forward(
        weights: ModelWeights, local: list, batch: Any, training: bool
    ) -> tuple:
        return state.call(
            lambda: model.batch_output(batch, training),
            list(weights.trainable),
            list(weights.non_trainable),
            list(local),
        )

    def begin_metrics() -> collections.OrderedDict[str, list[tf.Tensor]]:
        return tf.nest.map_structure(tf.constant, first_metrics)

    def update_metrics(unfinalized: Any, batch: Any, output: BatchOutput) -> Any:
        return collections.OrderedDict(
            (
                metric.name,
                metric.stateless_update_state(
                    list(unfinalized[metric.name]), labels_of(batch), output.predictions
                ),
            )
            for metric in model.metrics
        )

    pure = PureModel(
        input_spec=model.input_spec,
        weights_type=weights_type_from_model(model),
        initial_weights=initial_weights,
        begin_local=state.begin_local,
        forward=forward,
        begin_metrics=begin_metrics,
        update_metrics=update_metrics,
        metric_finalizers=model.metric_finalizers(),
        constraints=tuple(v.constraint for v in model.trainable_variables),
    )
    if not _try(pure, model, state):
        return None
    return attrs.evolve(pure, masked=masked_model(model, state))


def _of_functional(model: FunctionalModel) -> PureModel:
    check_forward_pass(
        "`forward_pass_fn` of a `FunctionalModel`",
        lambda batch: model.forward_pass(model.initial_weights, batch),
        model.input_spec,
    )

    def initial_weights() -> ModelWeights:
        trainable, non_trainable = tf.nest.map_structure(
            tf.convert_to_tensor, model.initial_weights
        )
        return ModelWeights(trainable, non_trainable)

    def forward(
        weights: ModelWeights, local: list, batch: Any, training: bool
    ) -> tuple:
        # The loop may hold the weights flat; the model's functions know their names.
        flat = tf.nest.flatten((weights.trainable, weights.non_trainable))
        packed = tf.nest.pack_sequence_as(model.initial_weights, flat)
        if isinstance(model, KerasFunctionalModel):
            output, local = model.forward(packed, local, batch, training)
        else:
            output = model.forward_pass(packed, batch, training)
        return output, weights.non_trainable, local

    def update_metrics(unfinalized: Any, batch: Any, output: BatchOutput) -> Any:
        return model.update_metrics_state(
            unfinalized, labels_of(batch), output.predictions
        )

    return PureModel(
        input_spec=model.input_spec,
        weights_type=weights_type_from_model(model),
        initial_weights=initial_weights,
        begin_local=(
            model.keras_state.begin_local
            if isinstance(model, KerasFunctionalModel)
            else list
        ),
        forward=forward,
        begin_metrics=model.initialize_metrics_state,
        update_metrics=update_metrics,
        metric_finalizers=model.finalize_metrics,
    )


def _of_model_from_functional(model: ModelFromFunctional) -> PureModel:
    """As that of the functional model, with the metrics of the model around it."""
    inner = _of_functional(model.functional_model)
    finalizers = model.metric_finalizers()
    first_metrics = collections.OrderedDict(
        (name, [v.numpy() for v in values])
        for name, values in model.report_local_unfinalized_metrics().items()
    )

    def initial_weights() -> ModelWeights:
        weights = inner.initial_weights()
        return ModelWeights(
            tf.nest.flatten(weights.trainable), tf.nest.flatten(weights.non_trainable)
        )

    def update_metrics(unfinalized: Any, batch: Any, output: BatchOutput) -> Any:
        sums = zip(unfinalized["loss"], loss_and_examples(output))
        updated = collections.OrderedDict(loss=[a + b for a, b in sums])
        for metric in model.metrics:
            updated[metric.name] = metric.stateless_update_state(
                list(unfinalized[metric.name]), labels_of(batch), output.predictions
            )
        return updated

    return attrs.evolve(
        inner,
        weights_type=weights_type_from_model(model),
        initial_weights=initial_weights,
        begin_metrics=lambda: tf.nest.map_structure(tf.constant, first_metrics),
        update_metrics=update_metrics,
        metric_finalizers=finalizers,
    )


def _layers(keras_model: keras.Model) -> list[keras.layers.Layer]:
    return list(keras_model._flatten_layers())


def _try(pure: PureModel, model: KerasModel, state: KerasState) -> bool:
    """Traces one step; False if it touches a resource that is not among its arguments."""

    def specs(variables: Any) -> list[tf.TensorSpec]:
        return [tf.TensorSpec(v.shape, v.dtype) for v in variables]

    metrics = tf.nest.map_structure(tf.TensorSpec.from_tensor, pure.begin_metrics())

    def step(trainable, non_trainable, local, unfinalized, batch):
        weights = ModelWeights(trainable, non_trainable)
        output, non_trainable, local = pure.forward(weights, local, batch, True)
        unfinalized = pure.update_metrics(unfinalized, batch, output)
        return output.loss, non_trainable, local, unfinalized

    def trace(fn: Callable, *args: Any) -> Any:
        return tf.function(fn, autograph=False).get_concrete_function(*args)

    try:
        traced = trace(
            step,
            specs(state.trainable),
            specs(state.non_trainable),
            specs(state.local),
            metrics,
            model.input_spec,
        )
    except Exception:
        # Either the model itself is at fault, and this raises too, or it only cannot
        # run on values in place of its variables.
        try:
            trace(model.forward_pass, model.input_spec)
        except Exception as e:
            if hasattr(e, "add_note"):  # from Python 3.11 on
                e.add_note(
                    f"This is `{model.keras_model.name}`, with its loss and metrics, on a "
                    f"batch of its `input_spec`:\n    {to_type(model.input_spec)}"
                )
            raise
        return False
    loss = traced.structured_outputs[0]
    if loss.shape.rank != 0 or not loss.dtype.is_floating:
        raise TypeError(
            "A model needs a float scalar as the loss of a batch, found "
            f"{loss.dtype.name}{loss.shape}.\n"
            "Use a loss with reduction='sum_over_batch_size' or 'sum'."
        )
    resources = (tf.resource, tf.variant)
    return not any(t.dtype in resources for t in traced.captured_inputs)
