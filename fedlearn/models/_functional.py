"""Models without variables: weights are an argument."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Weight = np.ndarray | int | float
WeightStruct = Sequence[Weight] | Mapping[str, Weight]


class CallableNotTensorFlowFunctionError(TypeError):
    """A function of a `FunctionalModel` is not decorated with `tf.function`."""


class ValueMustNotBeTFError(TypeError):
    """The initial weights of a `FunctionalModel` hold tensors or variables."""


class KerasFunctionalModelError(Exception):
    """A Keras model cannot be a `FunctionalModel`."""


@tf.function
def empty_metrics_state() -> collections.OrderedDict[str, Any]:
    """The metrics state of a model without metrics."""
    return collections.OrderedDict()


@tf.function
def noop_update_metrics(
    state: Any, y_true: Any, y_pred: Any, sample_weight: Any = None
) -> Any:
    """Gives the metrics state back as it is."""
    del y_true, y_pred, sample_weight
    return state


@tf.function
def noop_finalize_metrics(state: Any) -> collections.OrderedDict[str, Any]:
    """The metrics of a model without metrics."""
    del state
    return collections.OrderedDict()


class FunctionalModel:
    """A model given by pure functions of its weights.

    `ModelWeights` below stands for a pair `(trainable, non_trainable)`, each a sequence
    or a mapping of arrays.
    """

    def __init__(
        self,
        *,
        initial_weights: tuple[WeightStruct, WeightStruct],
        forward_pass_fn: Callable[[Any, Any, bool], Any],
        predict_on_batch_fn: Callable[[Any, Any, bool], Any],
        metrics_fns: tuple[Callable, Callable, Callable] = (
            empty_metrics_state,
            noop_update_metrics,
            noop_finalize_metrics,
        ),
        input_spec: Any,
    ):
        """Makes a model of its functions, all decorated with `tf.function`.

        Args:
            initial_weights: The pair of initial weights, NumPy arrays or Python numbers.
            forward_pass_fn: From weights, a batch of `input_spec` and whether it is
                training to a `BatchOutput`.
            predict_on_batch_fn: From weights, the inputs of a batch and whether it is
                training to the predictions.
            metrics_fns: Three functions: the initial state; from state, labels,
                predictions and an optional `sample_weight` to the new state; from a
                state to the metrics.
            input_spec: Structure of `tf.TensorSpec` of a batch.

        Raises:
            CallableNotTensorFlowFunctionError: If a function is not a `tf.function`.
            ValueMustNotBeTFError: If the weights hold tensors or variables.
        """
        if hasattr(initial_weights, "non_trainable"):
            initial_weights = (initial_weights.trainable, initial_weights.non_trainable)
        _check_arrays(initial_weights)
        names = ("initialize_metrics_state", "update_metrics_state", "finalize_metrics")
        for name, fn in (
            ("forward_pass_fn", forward_pass_fn),
            ("predict_on_batch_fn", predict_on_batch_fn),
            *zip(names, metrics_fns, strict=True),
        ):
            _check_tf_function(name, fn)
        self._initial_weights = initial_weights
        self._forward_pass_fn = forward_pass_fn
        self._predict_on_batch_fn = predict_on_batch_fn
        self._initialize_metrics, self._update_metrics, self._finalize = metrics_fns
        self._input_spec = input_spec

    @property
    def initial_weights(self) -> tuple[WeightStruct, WeightStruct]:
        """The pair of the initial trainable and non-trainable weights."""
        return self._initial_weights

    @property
    def input_spec(self) -> Any:
        """The structure of `tf.TensorSpec` of one batch."""
        return self._input_spec

    def forward_pass(
        self, model_weights: Any, batch_input: Any, training: bool = True
    ) -> Any:
        """Runs the model on a batch with labels.

        Args:
            model_weights: Pair of the trainable and non-trainable weights, or a
                `ModelWeights`.
            batch_input: A batch, of the structure of `input_spec`.
            training: Whether the model is being trained.

        Returns:
            A `BatchOutput`.
        """
        return self._forward_pass_fn(_pair(model_weights), batch_input, training)

    def predict_on_batch(
        self, model_weights: Any, x: Any, training: bool = True
    ) -> Any:
        """Predicts for a batch without labels.

        Args:
            model_weights: Pair of the trainable and non-trainable weights, or a
                `ModelWeights`.
            x: The inputs of a batch.
            training: Whether the model is being trained.

        Returns:
            The predictions, a tensor or a structure of tensors.
        """
        return self._predict_on_batch_fn(_pair(model_weights), x, training)

    def initialize_metrics_state(self) -> Any:
        """The metrics state before any batch.

        Returns:
            A structure of tensors, by the names of the metrics.
        """
        return self._initialize_metrics()

    def update_metrics_state(
        self, state: Any, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """The metrics state after one more batch.

        Args:
            state: The state before.
            y_true: Labels of the batch.
            y_pred: Predictions for the batch.
            sample_weight: Optional weights of the examples.

        Returns:
            The state after, of the same structure.
        """
        return self._update_metrics(
            state, y_true=y_true, y_pred=y_pred, sample_weight=sample_weight
        )

    def finalize_metrics(self, state: Any) -> Any:
        """The metrics of a state.

        Args:
            state: A state, of one client or summed over clients.

        Returns:
            The metrics by their names.
        """
        return self._finalize(state)


def _pair(model_weights: Any) -> tuple[Any, Any]:
    if hasattr(model_weights, "non_trainable"):
        return model_weights.trainable, model_weights.non_trainable
    return model_weights


def _check_tf_function(name: str, fn: Any) -> None:
    if not hasattr(fn, "get_concrete_function"):
        raise CallableNotTensorFlowFunctionError(
            f"`FunctionalModel` needs a function decorated with `tf.function` at "
            f"`{name}`, found `{fn!r}`."
        )


def _check_arrays(initial_weights: Any) -> None:
    for weight in tf.nest.flatten(initial_weights):
        if isinstance(weight, tf.Variable) or tf.is_tensor(weight):
            raise ValueMustNotBeTFError(
                "`FunctionalModel` needs NumPy arrays at `initial_weights`, found "
                f"`{type(weight).__name__}`.\n"
                "Convert it with weight.numpy()."
            )
