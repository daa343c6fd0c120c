"""A client's part of federated reconstruction: fit the local variables, then go on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import keras
import tensorflow as tf

from fedcore.computation import Computation
from fedcore.federated import federated_computation, sequence_reduce
from fedcore.tensorflow import tf_computation
from fedcore.types import SequenceType, Type, to_type
from fedlearn.metrics import MetricFinalizersType, create_keras_metric_finalizer
from fedlearn.metrics._fresh import apart, build_lazy_metric
from fedlearn.metrics._keras_versions import check_not_keras_2, is_loss, is_metric
from fedlearn.models import ModelWeights
from fedlearn.models._losses import Term, mean_loss_metric
from fedlearn.models._reconstruction import build_dataset_split_fn
from fedlearn.models._reconstruction_pure import (
    GLOBAL,
    LOCAL,
    PureReconstruction,
    pure_reconstruction,
)
from fedlearn.templates._finalizer import resolve_optimizer, trainable_specs


@attrs.frozen(eq=False)
class Reconstruction:
    """A model, its loss, its metrics and the division of data, looked at once.

    Attributes:
        model: The model as pure functions.
        loss: `(labels, predictions) -> ` scalar.
        metrics: Keras metrics that are only used without their state.
        first_metrics: The unfinalized metrics before any batch, as arrays.
        metric_finalizers: The finalizer of each.
        metrics_type: The type of a client's unfinalized metrics.
        split: `(D* -> <D*,D*>)`.
    """

    model: PureReconstruction
    loss: Term
    metrics: tuple[keras.metrics.Metric, ...]
    first_metrics: OrderedDict[str, list[Any]]
    metric_finalizers: MetricFinalizersType
    metrics_type: Type
    split: Computation

    @property
    def weights_type(self) -> Type:
        return self.model.weights_type

    @property
    def data_type(self) -> SequenceType:
        data_type: Any = self.split.type_signature.parameter
        return data_type

    @property
    def initial_weights(self) -> Computation:
        """`( -> W)`: the initial global weights, drawn anew on each run."""
        return tf_computation(self.model.initial_weights)

    def begin_metrics(self) -> OrderedDict[str, list[tf.Tensor]]:
        """The unfinalized metrics before any batch."""
        return tf.nest.map_structure(tf.constant, self.first_metrics)

    def update_metrics(self, unfinalized: Any, output: Any) -> Any:
        """The unfinalized metrics after a batch."""
        return OrderedDict(
            (
                metric.name,
                metric.stateless_update_state(
                    list(unfinalized[metric.name]), output.labels, output.predictions
                ),
            )
            for metric in self.metrics
        )


def reconstruction(
    model_fn: Any,
    loss_fn: Any,
    metrics_fn: Any,
    dataset_split_fn: Any,
    *,
    loss_first: bool = False,
) -> Reconstruction:
    """What the algorithms need to know of a model, checked.

    Args:
        model_fn: Makes a `ReconstructionModel`.
        loss_fn: Makes a `keras.losses.Loss`.
        metrics_fn: Makes a list of Keras metrics; None for none.
        dataset_split_fn: Divides a client's data; if None every other batch is for
            either phase.
        loss_first: Whether the mean loss stands before the other metrics.
    """
    model = pure_reconstruction(model_fn)
    with apart():
        loss = Term(_made(loss_fn, "loss_fn", "a `keras.losses.Loss`", is_loss))
        metrics, sources = _metrics(metrics_fn)
        if "loss" not in [m.name for m in metrics]:
            at = 0 if loss_first else len(metrics)
            metrics.insert(at, mean_loss_metric([loss]))
            sources.insert(at, lambda: mean_loss_metric([loss]))
        for metric in metrics:
            build_lazy_metric(
                metric, model.output_specs.labels, model.output_specs.predictions
            )
    if dataset_split_fn is None:
        dataset_split_fn = build_dataset_split_fn(split_dataset=True)
    finalizers = OrderedDict(
        (metric.name, create_keras_metric_finalizer(source))
        for metric, source in zip(metrics, sources)
    )
    data_type = SequenceType(to_type(model.input_spec))
    first = OrderedDict((m.name, [v.numpy() for v in m.variables]) for m in metrics)
    metrics_type = to_type(
        tf.nest.map_structure(lambda a: tf.TensorSpec(a.shape, a.dtype), first)
    )
    split = _split(dataset_split_fn, data_type)
    return Reconstruction(
        model, loss, tuple(metrics), first, finalizers, metrics_type, split
    )


def reconstruct_then(
    recon: Reconstruction,
    reconstruction_optimizer: Any,
    optimizer: Any,
    finish: Callable[[ModelWeights, ModelWeights, tf.Tensor, Any], Any],
) -> Computation:
    """`(<W,D*> -> result)`: a client's two passes over its data.

    The local trainable variables l are fitted with the global ones g fixed, then the
    global ones are trained with l fixed, or evaluated.

    Args:
        recon: The model and what belongs to it.
        reconstruction_optimizer: Optimizer of l, in any form an algorithm accepts.
        optimizer: Optimizer of g; None to evaluate without training.
        finish: `initial global weights, new ones, num_examples, metrics -> result`, of
            the second pass.
    """
    model, weights_type = recon.model, recon.weights_type
    group = GLOBAL if optimizer is not None else None
    specs = trainable_specs(weights_type)
    trainer = (
        None
        if optimizer is None
        else resolve_optimizer(optimizer, specs, model.constraints[GLOBAL])
    )
    fitter = resolve_optimizer(
        reconstruction_optimizer, model.local_specs, model.constraints[LOCAL]
    )

    @tf_computation(weights_type)
    def begin_fit(weights):
        state = fitter.initialize(model.local_specs) if model.local_specs else ()
        return OrderedDict(values=model.begin(weights), optimizer=state)

    fit_type = begin_fit.type_signature.result
    batch_type = recon.data_type.element

    @tf_computation(fit_type, batch_type)
    def fit(state, batch):
        _, gradients, values = model.step(
            state["values"], batch, True, recon.loss, LOCAL
        )
        return _stepped(fitter, state, LOCAL, gradients, values)

    @tf_computation(fit_type)
    def begin_train(state):
        return OrderedDict(
            values=state["values"],
            optimizer=trainer.initialize(specs) if trainer else (),
            metrics=recon.begin_metrics(),
            num_examples=tf.constant(0, tf.int64),
        )

    train_type = begin_train.type_signature.result

    @tf_computation(train_type, batch_type)
    def train(state, batch):
        output, gradients, values = model.step(
            state["values"], batch, trainer is not None, recon.loss, group
        )
        if trainer is None:
            new = OrderedDict(values=values, optimizer=state["optimizer"])
        else:
            new = _stepped(trainer, state, GLOBAL, gradients, values)
        new["metrics"] = recon.update_metrics(state["metrics"], output)
        new["num_examples"] = state["num_examples"] + tf.cast(
            output.num_examples, tf.int64
        )
        return new

    @tf_computation(weights_type, train_type)
    def finish_train(weights, state):
        values = state["values"]
        trained = ModelWeights(
            list(values[GLOBAL]), list(values["global_non_trainable"])
        )
        return finish(weights, trained, state["num_examples"], state["metrics"])

    @federated_computation(weights_type, recon.data_type)
    def client_work(weights, data):
        fit_data, train_data = recon.split(data)
        state = begin_fit(weights)
        if model.local_specs:
            state = sequence_reduce(fit_data, state, fit)
        state = sequence_reduce(train_data, begin_train(state), train)
        return finish_train(weights, state)

    return client_work


def _stepped(optimizer, state, group, gradients, values) -> OrderedDict:
    new_state, trained = optimizer.next(
        state["optimizer"], list(values[group]), list(gradients)
    )
    values = OrderedDict(values)
    values[group] = tuple(trained)
    return OrderedDict(values=values, optimizer=new_state)


def _split(dataset_split_fn: Any, data_type: SequenceType) -> Computation:
    if not callable(dataset_split_fn):
        raise TypeError(
            "`dataset_split_fn` needs to be a function from a dataset to two, found "
            f"`{type(dataset_split_fn).__name__}`.\n"
            "Make one with `reconstruction.build_dataset_split_fn`."
        )

    def split(data):
        parts = dataset_split_fn(data)
        if (
            not isinstance(parts, (tuple, list))
            or len(parts) != 2
            or not all(isinstance(part, tf.data.Dataset) for part in parts)
        ):
            raise TypeError(
                "`dataset_split_fn` needs to return two datasets, for the "
                f"reconstruction and after it, found `{parts!r}`."
            )
        return tuple(parts)

    # Without AutoGraph: a split function has nothing of a loop over data.
    traced = tf_computation(tf.autograph.experimental.do_not_convert(split), data_type)
    for part in traced.type_signature.result:
        if not data_type.is_assignable_from(part):
            raise TypeError(
                "`dataset_split_fn` needs to return datasets of the client's batches, "
                f"`{data_type}`, found `{part}`."
            )
    return traced


def _metrics(metrics_fn: Any) -> tuple[list[Any], list[Callable[[], Any]]]:
    if metrics_fn is None:
        return [], []
    metrics = list(_made(metrics_fn, "metrics_fn", "a list of Keras metrics", _is_list))
    for metric in metrics:
        check_not_keras_2("metrics_fn", "metrics", metric)
        if not is_metric(metric):
            raise TypeError(
                "`metrics_fn` needs to return a list of Keras metrics, found "
                f"`{type(metric).__name__}` in it."
            )
        if [m.name for m in metrics].count(metric.name) > 1:
            raise ValueError(
                f"`metrics_fn` needs metrics of different names, found `{metric.name}` "
                "more than once.\nGive one another name=..."
            )
    return metrics, [lambda i=i: metrics_fn()[i] for i in range(len(metrics))]


def _made(make: Any, name: str, wanted: str, is_wanted: Callable[[Any], bool]) -> Any:
    """What the argument `name` makes, after checking that it does make `wanted`."""
    # Losses and metrics are themselves callable.
    if not callable(make) or is_loss(make) or is_metric(make):
        raise TypeError(
            f"`{name}` needs to be a function without arguments that returns {wanted}, "
            f"found `{type(make).__name__}`."
        )
    made = make()
    check_not_keras_2(name, name, made)
    if not is_wanted(made):
        raise TypeError(
            f"`{name}` needs to return {wanted}, found `{type(made).__name__}`."
        )
    return made


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))
