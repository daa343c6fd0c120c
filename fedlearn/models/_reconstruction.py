"""Models of which a part is sent round and a part never leaves the client."""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedlearn.metrics._counters import num_rows
from fedlearn.metrics._keras_versions import check_not_keras_2, is_model
from fedlearn.models._batch import checked_input_spec, inputs_of, predictions_of
from fedlearn.models._keras import check_built
from fedlearn.models._weights import ModelWeights

ReconstructionDatasetSplitFn = Callable[
    [tf.data.Dataset], tuple[tf.data.Dataset, tf.data.Dataset]
]


@attrs.frozen(eq=False)
class BatchOutput:
    """What a forward pass of a `ReconstructionModel` over one batch gives.

    Attributes:
        predictions: What the model predicts, a tensor or a structure of tensors.
        labels: The labels of the batch.
        num_examples: Number of examples in the batch.
    """

    predictions: Any
    labels: Any
    num_examples: Any


class ReconstructionModel(abc.ABC):
    """A model with global variables, which are trained together, and local ones.

    Local variables are made anew from their initial values by each client in each
    round and fitted there ("reconstructed") with the global ones held fixed. Each variable
    is of one kind only. The loss is no part of the model: the algorithms take a `loss_fn`.
    For a Keras model use `from_keras_model_and_layers`.
    """

    @property
    @abc.abstractmethod
    def global_trainable_variables(self) -> Sequence[Any]:
        """Variables that are trained and aggregated over clients."""

    @property
    @abc.abstractmethod
    def global_non_trainable_variables(self) -> Sequence[Any]:
        """Variables that the server sends and that are not trained."""

    @property
    @abc.abstractmethod
    def local_trainable_variables(self) -> Sequence[Any]:
        """Variables that each client reconstructs and keeps to itself."""

    @property
    @abc.abstractmethod
    def local_non_trainable_variables(self) -> Sequence[Any]:
        """Variables of the client that are not trained."""

    @property
    @abc.abstractmethod
    def input_spec(self) -> Any:
        """The structure of `tf.TensorSpec` of one batch, as `forward_pass` takes it."""

    @abc.abstractmethod
    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """Runs the model on a batch with labels.

        Args:
            batch_input: A batch, of the structure of `input_spec`.
            training: Whether the model is being trained (matters to dropout and such).

        Returns:
            A `BatchOutput`.
        """

    @staticmethod
    def from_keras_model_and_layers(
        keras_model: keras.Model,
        *,
        global_layers: Iterable[keras.layers.Layer],
        local_layers: Iterable[keras.layers.Layer],
        input_spec: Any,
    ) -> ReconstructionModel:
        """As `fedlearn.reconstruction.from_keras_model`."""
        return from_keras_model(
            keras_model,
            global_layers=global_layers,
            local_layers=local_layers,
            input_spec=input_spec,
        )

    @staticmethod
    def from_keras_model_and_variables(
        keras_model: keras.Model,
        *,
        global_trainable_variables: Iterable[Any],
        global_non_trainable_variables: Iterable[Any],
        local_trainable_variables: Iterable[Any],
        local_non_trainable_variables: Iterable[Any],
        input_spec: Any,
    ) -> ReconstructionModel:
        """Wraps a Keras model whose weights are told apart one by one.

        Args:
            keras_model: A built model that is not compiled.
            global_trainable_variables: See the attributes of this class.
            global_non_trainable_variables: See there.
            local_trainable_variables: See there.
            local_non_trainable_variables: See there.
            input_spec: Inputs and labels of one batch, a mapping of `x` and `y` or a
                sequence of two, of `tf.TensorSpec`s.

        Returns:
            A `ReconstructionModel`.

        Raises:
            TypeError: If an argument is of the wrong kind.
            ValueError: If a weight is missing or named twice, or the model is compiled
                or not built.
        """
        return _keras_model(
            "from_keras_model_and_variables",
            keras_model,
            input_spec,
            list(global_trainable_variables),
            list(global_non_trainable_variables),
            list(local_trainable_variables),
            list(local_non_trainable_variables),
        )

    @staticmethod
    def get_global_variables(model: ReconstructionModel) -> ModelWeights:
        """The global variables of a model.

        Args:
            model: A `ReconstructionModel`.

        Returns:
            A `ModelWeights` of lists of variables.
        """
        return ModelWeights(
            list(model.global_trainable_variables),
            list(model.global_non_trainable_variables),
        )

    @staticmethod
    def get_local_variables(model: ReconstructionModel) -> ModelWeights:
        """The local variables of a model.

        Args:
            model: A `ReconstructionModel`.

        Returns:
            A `ModelWeights` of lists of variables.
        """
        return ModelWeights(
            list(model.local_trainable_variables),
            list(model.local_non_trainable_variables),
        )

    @staticmethod
    def has_only_global_variables(model: ReconstructionModel) -> bool:
        """Whether the model has nothing to reconstruct.

        Args:
            model: A `ReconstructionModel`.

        Returns:
            True if there are no local variables.
        """
        local = ReconstructionModel.get_local_variables(model)
        return not (local.trainable or local.non_trainable)

    @staticmethod
    def read_metric_variables(
        metrics: list[keras.metrics.Metric],
    ) -> OrderedDict[str, list[tf.Tensor]]:
        """The values of metrics' variables, by the names of the metrics.

        Args:
            metrics: Keras metrics.

        Returns:
            An `OrderedDict` from a metric's name to a list of tensors.
        """
        return OrderedDict(
            (metric.name, [tf.convert_to_tensor(v) for v in metric.variables])
            for metric in metrics
        )

    @staticmethod
    def simple_dataset_split_fn(
        client_dataset: tf.data.Dataset,
    ) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """As `fedlearn.reconstruction.simple_dataset_split_fn`."""
        return simple_dataset_split_fn(client_dataset)

    @staticmethod
    def build_dataset_split_fn(
        recon_epochs: int = 1,
        recon_steps_max: int | None = None,
        post_recon_epochs: int = 1,
        post_recon_steps_max: int | None = None,
        split_dataset: bool = False,
    ) -> ReconstructionDatasetSplitFn:
        """As `fedlearn.reconstruction.build_dataset_split_fn`."""
        return build_dataset_split_fn(
            recon_epochs,
            recon_steps_max,
            post_recon_epochs,
            post_recon_steps_max,
            split_dataset,
        )


def from_keras_model(
    keras_model: keras.Model,
    *,
    global_layers: Iterable[keras.layers.Layer],
    local_layers: Iterable[keras.layers.Layer],
    input_spec: Any,
) -> ReconstructionModel:
    """Wraps a Keras model whose layers are either global or local.

    What layers add to a loss (regularisation) is left out: the loss of the algorithms is
    their `loss_fn` of labels and predictions alone. Statistics of batch normalisation are
    non-trainable weights: a client updates its copy and the server's stay as they are.

    Args:
        keras_model: A built model that is not compiled. Make it anew in each call of
            `model_fn`.
        global_layers: The layers whose weights are trained and aggregated over clients.
        local_layers: The layers whose weights each client reconstructs for itself.
        input_spec: Inputs and labels of one batch, a mapping of `x` and `y` or a sequence
            of two, of `tf.TensorSpec`s.

    Returns:
        A `ReconstructionModel`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a weight of the model belongs to no layer, or to a global and a
            local one; if the model is compiled or not built.
    """
    groups = []
    for name, layers in (
        ("global_layers", global_layers),
        ("local_layers", local_layers),
    ):
        layers = list(layers)
        for layer in layers:
            check_not_keras_2("from_keras_model", name, layer)
            if not isinstance(layer, keras.layers.Layer):
                raise TypeError(
                    f"`from_keras_model` needs Keras layers at `{name}`, found "
                    f"`{type(layer).__name__}`."
                )
        groups.append(_once(v for layer in layers for v in layer.trainable_weights))
        groups.append(_once(v for layer in layers for v in layer.non_trainable_weights))
    return _keras_model("from_keras_model", keras_model, input_spec, *groups)


class KerasReconstructionModel(ReconstructionModel):
    """A Keras model whose weights are told apart."""

    def __init__(
        self, keras_model: keras.Model, input_spec: Any, groups: Sequence[list]
    ):
        self.keras_model = keras_model
        self._input_spec = input_spec
        self._groups = groups

    @property
    def global_trainable_variables(self) -> list[keras.Variable]:
        return self._groups[0]

    @property
    def global_non_trainable_variables(self) -> list[keras.Variable]:
        return self._groups[1]

    @property
    def local_trainable_variables(self) -> list[keras.Variable]:
        return self._groups[2]

    @property
    def local_non_trainable_variables(self) -> list[keras.Variable]:
        return self._groups[3]

    @property
    def input_spec(self) -> Any:
        return self._input_spec

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        inputs = inputs_of(batch_input)
        labels = batch_input["y" if isinstance(batch_input, Mapping) else 1]
        predictions = predictions_of(self.keras_model, inputs, training)
        return BatchOutput(predictions, labels, num_rows(inputs))


def simple_dataset_split_fn(
    client_dataset: tf.data.Dataset,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Uses all of a client's data for both phases.

    Args:
        client_dataset: The client's data.

    Returns:
        The dataset, twice.
    """
    return client_dataset, client_dataset


def build_dataset_split_fn(
    recon_epochs: int = 1,
    recon_steps_max: int | None = None,
    post_recon_epochs: int = 1,
    post_recon_steps_max: int | None = None,
    split_dataset: bool = False,
) -> ReconstructionDatasetSplitFn:
    """Makes a function that divides a client's batches between the two phases.

    Args:
        recon_epochs: How often the reconstruction goes over its batches.
        recon_steps_max: At most this many batches in the reconstruction; None for all.
        post_recon_epochs: How often the phase after it goes over its batches.
        post_recon_steps_max: At most this many batches there; None for all.
        split_dataset: Whether the phases have batches of their own, the first, third, ...
            for the reconstruction and the others after it. Otherwise both have all.

    Returns:
        A function from a dataset to a pair of datasets.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is negative.
    """
    numbers = OrderedDict(
        recon_epochs=recon_epochs,
        recon_steps_max=recon_steps_max,
        post_recon_epochs=post_recon_epochs,
        post_recon_steps_max=post_recon_steps_max,
    )
    for name, number in numbers.items():
        if number is None and name.endswith("_max"):
            continue
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(
                f"`build_dataset_split_fn` needs an int at `{name}`, found {number!r}."
            )
        if number < 0:
            raise ValueError(
                f"`build_dataset_split_fn` needs `{name}` to be 0 or more, found {number}."
            )

    def part(dataset: Any, index: int, epochs: int, steps_max: int | None) -> Any:
        if split_dataset:
            dataset = dataset.shard(2, index)
        dataset = dataset.repeat(epochs)
        return dataset if steps_max is None else dataset.take(steps_max)

    def dataset_split_fn(client_dataset):
        return (
            part(client_dataset, 0, recon_epochs, recon_steps_max),
            part(client_dataset, 1, post_recon_epochs, post_recon_steps_max),
        )

    return dataset_split_fn


def _keras_model(
    function: str, keras_model: Any, input_spec: Any, *groups: list
) -> KerasReconstructionModel:
    check_not_keras_2(function, "keras_model", keras_model)
    if not is_model(keras_model):
        raise TypeError(
            f"`{function}` needs a Keras model at `keras_model`, found "
            f"`{type(keras_model).__name__}`."
        )
    input_spec = checked_input_spec(function, input_spec)
    if keras_model.compiled:
        raise ValueError(
            f"`{function}` needs a model that is not compiled, found "
            f"`{keras_model.name}`, which is.\n"
            "Leave out `compile`; loss, metrics and optimizers are given separately."
        )
    check_built(function, keras_model)
    _check_each_once(function, keras_model, groups)
    return KerasReconstructionModel(keras_model, input_spec, groups)


def _check_each_once(function: str, keras_model: Any, groups: Sequence[list]) -> None:
    given = [id(v) for group in groups for v in group]
    missing = [v.path for v in keras_model.weights if id(v) not in given]
    if missing:
        raise ValueError(
            f"`{function}` needs each weight of the model to be global or local, found "
            f"neither for {missing}.\nName their layers among the global or local ones."
        )
    twice = [v.path for group in groups for v in group if given.count(id(v)) > 1]
    if twice:
        raise ValueError(
            f"`{function}` needs each weight to be either global or local, found both "
            f"for {sorted(set(twice))}.\n"
            "A layer that is shared belongs to one of the two, with all its weights."
        )
    known = {id(v) for v in keras_model.weights}
    foreign = [v.name for group in groups for v in group if id(v) not in known]
    if foreign:
        raise ValueError(
            f"`{function}` needs weights of the model `{keras_model.name}`, found others: "
            f"{foreign}."
        )
    trainable = {id(v) for v in keras_model.trainable_weights}
    frozen = [v.path for v in (*groups[0], *groups[2]) if id(v) not in trainable]
    if frozen:
        raise ValueError(
            f"`{function}` needs trainable weights at the trainable variables, found "
            f"frozen ones: {frozen}."
        )


def _once(variables: Iterable[Any]) -> list[Any]:
    """The variables in their order, each once."""
    return list({id(v): v for v in variables}.values())
