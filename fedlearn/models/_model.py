"""What the learning algorithms need to know of a model."""

from __future__ import annotations

import abc
import collections
from collections.abc import Sequence
from typing import Any

import attrs
import tensorflow as tf

from fedlearn.metrics import MetricFinalizersType


@attrs.frozen(eq=False)
class BatchOutput:
    """What a forward pass over one batch gives.

    Attributes:
        loss: The scalar to minimise.
        predictions: What the model predicts, a tensor or a structure of tensors.
        num_examples: Number of examples in the batch.
    """

    loss: Any
    predictions: Any
    num_examples: Any


class Model(abc.ABC):
    """A model with variables, as the learning algorithms train and evaluate it.

    A model is made inside a computation by a function without arguments (`model_fn`), so
    all of its state must be in the variables it names here. For a Keras model use
    `from_keras_model`.
    """

    @property
    @abc.abstractmethod
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """The variables that training changes."""

    @property
    @abc.abstractmethod
    def non_trainable_variables(self) -> Sequence[tf.Variable]:
        """Variables that belong to the model and that the optimizer does not change."""

    @property
    @abc.abstractmethod
    def local_variables(self) -> Sequence[tf.Variable]:
        """Variables that never leave the client, such as those of metrics."""

    @property
    @abc.abstractmethod
    def input_spec(self) -> Any:
        """The structure of `tf.TensorSpec` of one batch, as `forward_pass` takes it."""

    @abc.abstractmethod
    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """Runs the model on a batch with labels and updates the metrics.

        Args:
            batch_input: A batch, of the structure of `input_spec`.
            training: Whether the model is being trained (matters to dropout and such).

        Returns:
            A `BatchOutput`.
        """

    @abc.abstractmethod
    def predict_on_batch(self, batch_input: Any, training: bool = True) -> Any:
        """Predicts for a batch without labels; updates nothing.

        Args:
            batch_input: The inputs of a batch, without labels.
            training: Whether the model is being trained.

        Returns:
            The predictions, a tensor or a structure of tensors.
        """

    @abc.abstractmethod
    def report_local_unfinalized_metrics(
        self,
    ) -> collections.OrderedDict[str, list[tf.Tensor]]:
        """The values of the metrics' variables, by the names of the metrics.

        They are what a client sends; see `metric_finalizers`.

        Returns:
            An `OrderedDict` from a metric's name to a list of tensors.
        """

    @abc.abstractmethod
    def metric_finalizers(self) -> MetricFinalizersType:
        """Functions that turn the (aggregated) unfinalized metrics into metrics.

        Returns:
            An `OrderedDict` with the keys of `report_local_unfinalized_metrics`; each
            function takes the list of tensors found there.
        """

    @abc.abstractmethod
    def reset_metrics(self) -> None:
        """Sets the metrics' variables to their initial values."""
