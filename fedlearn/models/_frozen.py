"""Models whose frozen weights are part of the program: they are not sent."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore.types import to_type, type_to_tf_tensor_specs
from fedlearn.metrics import MetricFinalizersType
from fedlearn.metrics._fresh import apart
from fedlearn.models._functional import FunctionalModel
from fedlearn.models._masked import MaskedModel
from fedlearn.models._model import BatchOutput, Model
from fedlearn.models._weights import ModelWeights

if TYPE_CHECKING:
    from fedlearn.models._pure import PureModel


def with_frozen_weights(model_fn: Callable[[], Model]) -> Callable[[], Model]:
    """Makes the non-trainable weights of a model part of it, so that they do not travel.

    A server sends all of `ModelWeights` in every round; of a model with frozen layers or
    LoRA these are mostly weights that never change. The models made by the function that
    this returns have the trainable ones alone. The others are constants of the clients'
    program, with the values that a model of `model_fn` has now. Training comes to the
    same.

    Statistics that a client's training changes, as those of batch normalisation, start
    from these values on each client, as they do otherwise.

    Args:
        model_fn: A function without arguments that makes a `fedlearn.Model`. It is called
            here once, for the frozen values: what was trained before is loaded inside of
            it.

    Returns:
        A function without arguments that makes models with the same trainable weights
        and no others; `ModelWeights.assign_weights_to` takes such a model.

    Raises:
        TypeError: If `model_fn` is or makes something else.
    """
    if isinstance(model_fn, FunctionalModel):
        raise TypeError(
            "`with_frozen_weights` needs a function that makes a `Model`, found a "
            "`FunctionalModel`.\nLeave its non-trainable weights out of "
            "`initial_weights`, and let its functions close over them."
        )
    if not callable(model_fn):
        raise TypeError(
            "`with_frozen_weights` needs a function without arguments that makes a "
            f"`Model`, found `{type(model_fn).__name__}`."
        )
    with apart():
        model = model_fn()
    if not isinstance(model, Model):
        raise TypeError(
            "`with_frozen_weights` needs `model_fn` to make a `Model`, found "
            f"`{type(model).__name__}`.\nWrap a Keras model with from_keras_model."
        )
    weights = ModelWeights.from_model(model).convert_variables_to_arrays()
    values = tuple(weights.non_trainable)
    return lambda: FrozenModel(model_fn, values)


class FrozenModel(Model):
    """The model that `model_fn` makes, with `values` for its non-trainable weights."""

    def __init__(self, model_fn: Callable[[], Model], values: Sequence[np.ndarray]):
        self.model_fn, self.values = model_fn, values
        self._model = model_fn()
        for variable, value in zip(self._model.non_trainable_variables, values):
            variable.assign(value)

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        return self._model.trainable_variables

    @property
    def non_trainable_variables(self) -> Sequence[tf.Variable]:
        return []

    @property
    def local_variables(self) -> Sequence[tf.Variable]:
        return [*self._model.local_variables, *self._model.non_trainable_variables]

    @property
    def input_spec(self) -> Any:
        return self._model.input_spec

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        return self._model.forward_pass(batch_input, training=training)

    def predict_on_batch(self, batch_input: Any, training: bool = True) -> Any:
        return self._model.predict_on_batch(batch_input, training=training)

    def report_local_unfinalized_metrics(
        self,
    ) -> collections.OrderedDict[str, list[tf.Tensor]]:
        return self._model.report_local_unfinalized_metrics()

    def metric_finalizers(self) -> MetricFinalizersType:
        return self._model.metric_finalizers()

    def reset_metrics(self) -> None:
        self._model.reset_metrics()


def frozen(pure: PureModel | None, values: Sequence[np.ndarray]) -> PureModel | None:
    """The pure view of a `FrozenModel`, of that of the model in it."""
    if pure is None:
        return None
    frame = _Frame(tuple(values), _changed_by_training(pure))
    masked = pure.masked

    def initial_weights() -> ModelWeights:
        return ModelWeights(pure.initial_weights().trainable, [])

    return attrs.evolve(
        pure,
        weights_type=_without_non_trainable(pure),
        initial_weights=initial_weights,
        begin_local=lambda: [*frame.begin(), *pure.begin_local()],
        forward=lambda *args: frame.forward(pure.forward, *args),
        masked=masked and _Masked(masked.model, masked.state, frame),
    )


@attrs.frozen(eq=False)
class _Frame:
    """The frozen weights around a forward pass: those that it changes are local state."""

    values: tuple[np.ndarray, ...]
    changed: tuple[bool, ...]

    def begin(self) -> list[tf.Tensor]:
        kept = zip(self.values, self.changed)
        return [tf.constant(value) for value, changed in kept if changed]

    def forward(
        self,
        forward: Any,
        weights: ModelWeights,
        local: list,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[BatchOutput, list[Any], list[Any]]:
        number = sum(self.changed)
        own = iter(local[:number])
        values = [
            next(own) if changed else tf.constant(value)
            for value, changed in zip(self.values, self.changed)
        ]
        output, values, local = forward(
            ModelWeights(weights.trainable, values), local[number:], *args, **kwargs
        )
        kept = zip(tf.nest.flatten(values), self.changed)
        return output, [], [*(v for v, changed in kept if changed), *local]


@attrs.frozen(eq=False)
class _Masked(MaskedModel):
    frame: _Frame

    def forward(self, *args: Any, **kwargs: Any) -> tuple[BatchOutput, Any, list[Any]]:
        inner = MaskedModel(self.model, self.state)
        return self.frame.forward(inner.forward, *args, **kwargs)


def _changed_by_training(pure: PureModel) -> tuple[bool, ...]:
    """Of each non-trainable weight, whether a forward pass gives another for it."""
    found: list[bool] = []

    def step(trainable, non_trainable, local, batch):
        weights = ModelWeights(list(trainable), list(non_trainable))
        output, after, _ = pure.forward(weights, list(local), batch, True)
        pairs = zip(non_trainable, tf.nest.flatten(after), strict=True)
        found.extend(old is not new for old, new in pairs)
        return output.loss

    weights: Any = pure.weights_type
    local = tf.function(pure.begin_local, autograph=False).get_concrete_function()
    tf.function(step, autograph=False).get_concrete_function(
        *(
            tf.nest.flatten(type_to_tf_tensor_specs(part))
            for part in (weights.trainable, weights.non_trainable)
        ),
        [tf.TensorSpec(t.shape, t.dtype) for t in local.outputs],
        pure.input_spec,
    )
    return tuple(found)


def _without_non_trainable(pure: PureModel) -> Any:
    weights: Any = pure.weights_type
    return to_type(ModelWeights(weights.trainable, []))
