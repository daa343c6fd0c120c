"""How much clients gain by fitting the server's model to their own data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from fedcore.aggregators import federated_sample
from fedcore.computation import Computation
from fedcore.federated import federated_broadcast, federated_computation, federated_map
from fedcore.tensorflow import tf_computation
from fedcore.types import SequenceType, Type, at_clients, at_server, to_type
from fedlearn.models import (
    FunctionalModel,
    Model,
    ModelWeights,
    weights_type_from_model,
)

BASELINE = "baseline_metrics"


def build_personalization_eval(
    model_fn: Callable[[], Model],
    personalize_fn_dict: Mapping[str, Callable[[], Callable[..., Any]]],
    baseline_evaluate_fn: Callable[[Model, tf.data.Dataset], Any],
    max_num_clients: int = 100,
    context_tff_type: Type | None = None,
) -> Computation:
    """Builds the computation that compares ways of personalising the server's model.

    Each client evaluates the model as it is, then, each time from the server's weights,
    as every personalisation strategy leaves it.

    Args:
        model_fn: A function without arguments that returns a `fedlearn.Model`.
        personalize_fn_dict: By name, functions without arguments that make a strategy: a
            function `(model, train_data, test_data, context) -> metrics` that trains the
            model on `train_data` and evaluates it on `test_data`, datasets of single
            examples (it batches them itself). `context` is left out of the call if
            `context_tff_type` is None.
        baseline_evaluate_fn: `(model, test_data) -> metrics`.
        max_num_clients: The metrics of a uniform sample of so many clients are returned.
        context_tff_type: The type C of what a client gives its strategies besides data.

    Returns:
        `(<server_model_weights=W@SERVER,federated_client_input={<train_data=E*,
        test_data=E*,context=C>}@CLIENTS> -> <baseline_metrics=M,...>@SERVER)`, E a single
        example and each metric a tensor with a row for every client of the sample.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If a strategy is called `baseline_metrics`, or `max_num_clients` is not
            positive.

    References:
        K. Wang et al., Federated Evaluation of On-device Personalization, 2019.
        arXiv:1910.10252.
    """
    _check(personalize_fn_dict, baseline_evaluate_fn, context_tff_type)
    _check_model_and_number(model_fn, max_num_clients)
    weights_type = weights_type_from_model(model_fn)
    with tf.Graph().as_default():  # its variables are not kept
        example_type = _without_batch(model_fn().input_spec)
    input_type = OrderedDict(
        train_data=SequenceType(example_type), test_data=SequenceType(example_type)
    )
    if context_tff_type is not None:
        input_type["context"] = context_tff_type

    @tf_computation(weights_type, to_type(input_type))
    def personalize(server_model_weights, client_input):
        arguments = [client_input["train_data"], client_input["test_data"]]
        if context_tff_type is not None:
            arguments.append(client_input["context"])
        model = _model_at(model_fn, server_model_weights)
        metrics = OrderedDict(
            [(BASELINE, baseline_evaluate_fn(model, client_input["test_data"]))]
        )
        for name, make_strategy in personalize_fn_dict.items():
            model = _model_at(model_fn, server_model_weights)
            metrics[name] = _made(name, make_strategy)(model, *arguments)
        return metrics

    @federated_computation(at_server(weights_type), at_clients(to_type(input_type)))
    def evaluate(server_model_weights, federated_client_input):
        sent = federated_broadcast(server_model_weights)
        metrics = federated_map(personalize, (sent, federated_client_input))
        return federated_sample(metrics, max_num_clients)

    return evaluate


def _made(name: str, make_strategy: Callable[[], Any]) -> Callable[..., Any]:
    """The strategy, made inside the graph: it may have an optimizer's variables."""
    strategy = make_strategy()
    if not callable(strategy):
        raise TypeError(
            "`build_personalization_eval` needs functions that make a strategy at "
            f"`personalize_fn_dict`, found that `{name}` makes "
            f"`{type(strategy).__name__}`.\n"
            "A strategy is a function (model, train_data, test_data) -> metrics."
        )
    return strategy


def _model_at(model_fn: Callable[[], Model], weights: ModelWeights) -> Model:
    """A model of its own with the given weights."""
    model = model_fn()
    weights.assign_weights_to(model)
    return model


def _without_batch(input_spec: Any) -> Type:
    def of_example(spec: tf.TensorSpec) -> tf.TensorSpec:
        if spec.shape.rank is None or spec.shape.rank < 1:
            raise TypeError(
                "`build_personalization_eval` needs a model whose batches have examples "
                f"along their first dimension, found `{spec}` in its `input_spec`."
            )
        return tf.TensorSpec(spec.shape[1:], spec.dtype)

    return to_type(tf.nest.map_structure(of_example, input_spec))


def _check_model_and_number(model_fn: Any, max_num_clients: Any) -> None:
    if isinstance(model_fn, FunctionalModel) or not callable(model_fn):
        raise TypeError(
            "`build_personalization_eval` needs a function that makes a `Model` at "
            f"`model_fn`, found `{type(model_fn).__name__}`.\n"
            "Make one of a functional model by fedlearn.models.model_from_functional."
        )
    if isinstance(max_num_clients, bool) or not isinstance(max_num_clients, int):
        raise TypeError(
            "`build_personalization_eval` needs an integer at `max_num_clients`, found "
            f"`{max_num_clients!r}`."
        )
    if max_num_clients < 1:
        raise ValueError(
            "`build_personalization_eval` needs `max_num_clients` > 0, found "
            f"{max_num_clients}."
        )


def _check(strategies: Any, baseline: Any, context_type: Any) -> None:
    function = "`build_personalization_eval`"
    if not isinstance(strategies, Mapping) or not all(
        isinstance(name, str) and callable(make) for name, make in strategies.items()
    ):
        raise TypeError(
            f"{function} needs functions by name at `personalize_fn_dict`, found "
            f"`{strategies!r}`."
        )
    if BASELINE in strategies:
        raise ValueError(
            f"{function} needs strategies of other names than `{BASELINE}`, under which "
            "the model as it is stands in the result."
        )
    if not callable(baseline):
        raise TypeError(
            f"{function} needs a function at `baseline_evaluate_fn`, found "
            f"`{type(baseline).__name__}`."
        )
    if context_type is not None and not isinstance(context_type, Type):
        raise TypeError(
            f"{function} needs a type at `context_tff_type`, found `{context_type!r}`.\n"
            "Make one with `fedcore.to_type`."
        )
