"""A learning process, composed of its four parts."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.federated import federated_computation, federated_eval, federated_zip
from fedcore.templates import AggregationProcess
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, Type
from fedlearn.templates._finalizer import check_weights_type
from fedlearn.templates._learning_process import (
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
)
from fedlearn.templates._parts import (
    ClientWorkProcess,
    DistributionProcess,
    FinalizerProcess,
)


def compose_learning_process(
    initial_model_weights_fn: Computation,
    model_weights_distributor: DistributionProcess,
    client_work: ClientWorkProcess,
    model_update_aggregator: AggregationProcess,
    model_finalizer: FinalizerProcess,
) -> LearningProcess:
    """One round: distribute the weights, let clients work, aggregate, finalize.

    Args:
        initial_model_weights_fn: `( -> W)`, a `tf_computation` of the initial weights.
        model_weights_distributor: Sends W to the clients.
        client_work: What clients do with the weights and their data.
        model_update_aggregator: Aggregates the clients' updates, by weight or not.
        model_finalizer: Updates W with the aggregate.

    Returns:
        A process with state `LearningAlgorithmState` and metrics by part.

    Raises:
        TypeError: If a part is of another kind, or does not fit the one before.
    """
    _check_kinds(
        ("model_weights_distributor", model_weights_distributor, DistributionProcess),
        ("client_work", client_work, ClientWorkProcess),
        ("model_update_aggregator", model_update_aggregator, AggregationProcess),
        ("model_finalizer", model_finalizer, FinalizerProcess),
        ("initial_model_weights_fn", initial_model_weights_fn, Computation),
    )
    weights_type = initial_model_weights_fn.type_signature.result
    check_weights_type("compose_learning_process", weights_type)
    if initial_model_weights_fn.type_signature.parameter is not None:
        raise TypeError(
            "`initial_model_weights_fn` needs to take no argument, found "
            f"`{initial_model_weights_fn.type_signature}`."
        )
    _check_fits(
        weights_type,
        model_weights_distributor,
        client_work,
        model_update_aggregator,
        model_finalizer,
    )

    @federated_computation
    def initialize_fn():
        weights = federated_eval(initial_model_weights_fn, SERVER)
        return federated_zip(
            LearningAlgorithmState(
                weights,
                model_weights_distributor.initialize(),
                client_work.initialize(),
                model_update_aggregator.initialize(),
                model_finalizer.initialize(),
            )
        )

    state_type = initialize_fn.type_signature.result
    data_type = client_work.next.type_signature.parameter[2]

    @federated_computation(state_type, data_type)
    def next_fn(state, client_data):
        weights = state.global_model_weights
        sent = model_weights_distributor.next(state.distributor, weights)
        worked = client_work.next(state.client_work, sent.result, client_data)
        update = [worked.result.update]
        if model_update_aggregator.is_weighted:
            update.append(worked.result.update_weight)
        aggregated = model_update_aggregator.next(state.aggregator, *update)
        finalized = model_finalizer.next(state.finalizer, weights, aggregated.result)
        new_state = LearningAlgorithmState(
            finalized.result,
            sent.state,
            worked.state,
            aggregated.state,
            finalized.state,
        )
        metrics = OrderedDict(
            distributor=sent.measurements,
            client_work=worked.measurements,
            aggregator=aggregated.measurements,
            finalizer=finalized.measurements,
        )
        return LearningProcessOutput(federated_zip(new_state), federated_zip(metrics))

    return LearningProcess(
        initialize_fn,
        next_fn,
        *weights_computations(state_type.member),
        **hparams_of_parts(
            state_type.member,
            OrderedDict(client_work=client_work, finalizer=model_finalizer),
        ),
    )


def weights_computations(state_type: Type) -> tuple[Computation, Computation]:
    """`get_model_weights` and `set_model_weights` of a `LearningAlgorithmState`."""

    @tf_computation(state_type)
    def get_model_weights(state):
        return state.global_model_weights

    @tf_computation(state_type, state_type.global_model_weights)
    def set_model_weights(state, model_weights):
        return attrs.evolve(state, global_model_weights=model_weights)

    return get_model_weights, set_model_weights


def hparams_of_parts(
    state_type: Type, parts: OrderedDict[str, Any]
) -> dict[str, Computation]:
    """The hyperparameters of the parts, by the names that their states have."""

    @tf_computation(state_type)
    def get_hparams(state):
        return OrderedDict(
            (name, part.get_hparams(getattr(state, name)))
            for name, part in parts.items()
        )

    @tf_computation(state_type, get_hparams.type_signature.result)
    def set_hparams(state, hparams):
        changes = {
            name: part.set_hparams(getattr(state, name), hparams[name])
            for name, part in parts.items()
        }
        return attrs.evolve(state, **changes)

    return {"get_hparams_fn": get_hparams, "set_hparams_fn": set_hparams}


def _check_kinds(*parts: tuple[str, Any, type]) -> None:
    for name, part, kind in parts:
        if not isinstance(part, kind):
            raise TypeError(
                f"`compose_learning_process` needs `{name}` to be a `{kind.__name__}`, "
                f"found `{type(part).__name__}`."
            )


def _check_fits(
    weights_type: Type,
    distributor: DistributionProcess,
    client_work: ClientWorkProcess,
    aggregator: AggregationProcess,
    finalizer: FinalizerProcess,
) -> None:
    result = client_work.next.type_signature.result.result.member
    aggregated = aggregator.next.type_signature.result.result.member
    sent = distributor.next.type_signature.result.result.member
    fits = [
        ("model_weights_distributor", distributor, 1, "the weights", weights_type),
        ("client_work", client_work, 1, "what is distributed", sent),
        ("model_update_aggregator", aggregator, 1, "a client's update", result.update),
        ("model_finalizer", finalizer, 1, "the weights", weights_type),
        ("model_finalizer", finalizer, 2, "the aggregated update", aggregated),
    ]
    if aggregator.is_weighted:
        weight = result.update_weight
        fits.append(("model_update_aggregator", aggregator, 2, "the weight", weight))
    for name, part, index, what, given in fits:
        taken = part.next.type_signature.parameter[index].member
        if not taken.is_assignable_from(given):
            raise TypeError(
                f"`compose_learning_process` needs `{name}` to take {what},\n    {given}\n"
                f"found that it takes\n    {taken}"
            )
