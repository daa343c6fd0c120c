"""Learning processes whose clients keep a state from round to round."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.federated import federated_computation, federated_eval, federated_zip
from fedcore.templates import AggregationProcess, IterativeProcess, MeasuredProcess
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructWithPythonType,
    Type,
)
from fedlearn.templates._compose import hparams_of_parts, weights_computations
from fedlearn.templates._learning_process import (
    LearningAlgorithmState,
    LearningProcessOutputError,
    LearningProcessPlacementError,
)
from fedlearn.templates._parts import (
    ClientResult,
    DistributionProcess,
    FinalizerProcess,
)


@attrs.define(eq=False)
class StatefulLearningProcessOutput:
    """What a round with stateful clients gives.

    Attributes:
        state: The server's next state.
        client_states: The next states of the round's clients, in their order.
        metrics: What was measured in the round.
    """

    state: Any
    client_states: Any
    metrics: Any


@attrs.frozen(eq=False)
class StatefulClientResult:
    """What a client of a process with stateful clients comes to.

    Attributes:
        result: What it sends to the server, a `ClientResult`.
        client_state: What it keeps.
    """

    result: Any
    client_state: Any


class StatefulLearningProcess(IterativeProcess):
    """A process that trains a model with clients that keep a state.

    The states of a round's clients go in with their data and come out changed; whoever
    runs the process keeps them by client, for example in a `fedsim.ClientStateStore`.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,{C}@CLIENTS,{D*}@CLIENTS> -> <state=S@SERVER,
            client_states={C}@CLIENTS,metrics=M@SERVER>)`, a
            `StatefulLearningProcessOutput`.
        initialize_client: `(W -> C)`, unplaced: a client's state before its first round,
            from the server's weights.
        get_model_weights: `(S -> W)`, unplaced.
        set_model_weights: `(<S,W> -> S)`, unplaced.
        get_hparams_fn: `(S -> H)`: the hyperparameters in a state, if there are any.
        set_hparams_fn: `(<S,H> -> S)`.

    Raises:
        TypeError: If a computation is of another type.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        initialize_client: Computation,
        get_model_weights: Computation,
        set_model_weights: Computation,
        *,
        get_hparams_fn: Computation | None = None,
        set_hparams_fn: Computation | None = None,
    ):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
        _check_next(next_fn)
        kept = next_fn.type_signature.parameter[1].member
        first = initialize_client.type_signature
        weights = get_model_weights.type_signature.result
        if not (
            first.parameter is not None
            and first.parameter.is_assignable_from(weights)
            and kept.is_assignable_from(first.result)
        ):
            raise TypeError(
                "`initialize_client` needs to go from the model's weights to a client's "
                f"state\n    {kept}\nfound `{first}`."
            )
        self._initialize_client = initialize_client
        self._get_model_weights = get_model_weights
        self._set_model_weights = set_model_weights
        self._get_hparams = get_hparams_fn
        self._set_hparams = set_hparams_fn

    @property
    def initialize_client(self) -> Computation:
        """`(W -> C)`: a client's state before its first round."""
        return self._initialize_client

    @property
    def get_model_weights(self) -> Computation:
        """`(S -> W)`: the model's weights in a state."""
        return self._get_model_weights

    def set_model_weights(self, state: Any, model_weights: Any) -> Any:
        """A state like `state` with other weights."""
        return self._set_model_weights(state, model_weights)

    def get_hparams(self, state: Any) -> Any:
        """The hyperparameters in a state, by part of the process."""
        return OrderedDict() if self._get_hparams is None else self._get_hparams(state)

    def set_hparams(self, state: Any, hparams: Any) -> Any:
        """A state like `state` with other hyperparameters, as `get_hparams` names them.

        Raises:
            ValueError: If the process has none.
        """
        if self._set_hparams is None:
            raise ValueError(
                "`set_hparams` needs a process with hyperparameters in its state, found "
                "one that has none."
            )
        return self._set_hparams(state, hparams)


class StatefulClientWorkProcess(MeasuredProcess):
    """What clients that keep a state do in a round.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,{W}@CLIENTS,{C}@CLIENTS,{D*}@CLIENTS> -> <state=S@SERVER,
            result={<result=ClientResult,client_state=C>}@CLIENTS,
            measurements=M@SERVER>)`, the result a `StatefulClientResult`.

    Raises:
        TypeError: If a computation is of another type.
    """

    def __init__(self, initialize_fn: Computation, next_fn: Computation):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
        parameter = next_fn.type_signature.parameter
        result = next_fn.type_signature.result.result
        if len(parameter) != 4:
            raise TypeError(
                "`next_fn` of a StatefulClientWorkProcess needs to take state, weights, "
                f"client states and data, found `{parameter}`."
            )
        if not (
            isinstance(result, FederatedType)
            and result.placement is CLIENTS
            and isinstance(result.member, StructWithPythonType)
            and result.member.python_container is StatefulClientResult
            and result.member.result.python_container is ClientResult
        ):
            raise TypeError(
                "`next_fn` needs to return a `StatefulClientResult` for each client, "
                f"found `{result}`."
            )
        taken, given = parameter[2].member, result.member.client_state
        if not taken.is_assignable_from(given):
            raise TypeError(
                "`next_fn` needs to return client states like those it takes,\n"
                f"    {taken}\nfound\n    {given}"
            )


def compose_stateful_learning_process(
    initial_model_weights_fn: Computation,
    initialize_client: Computation,
    model_weights_distributor: DistributionProcess,
    client_work: StatefulClientWorkProcess,
    model_update_aggregator: AggregationProcess,
    model_finalizer: FinalizerProcess,
) -> StatefulLearningProcess:
    """As `compose_learning_process`, for clients that keep a state.

    Args:
        initial_model_weights_fn: `( -> W)`, a `tf_computation` of the initial weights.
        initialize_client: `(W -> C)`: a client's state before its first round.
        model_weights_distributor: Sends W to the clients.
        client_work: What clients do with weights, their states and their data.
        model_update_aggregator: Aggregates the clients' updates, by weight or not.
        model_finalizer: Updates W with the aggregate.

    Returns:
        A process whose server state is a `LearningAlgorithmState`, and whose
        hyperparameters are the finalizer's.

    Raises:
        TypeError: If a part is of another kind, or does not fit the one before.
    """
    _check_kinds(
        ("initial_model_weights_fn", initial_model_weights_fn, Computation),
        ("initialize_client", initialize_client, Computation),
        ("model_weights_distributor", model_weights_distributor, DistributionProcess),
        ("client_work", client_work, StatefulClientWorkProcess),
        ("model_update_aggregator", model_update_aggregator, AggregationProcess),
        ("model_finalizer", model_finalizer, FinalizerProcess),
    )
    _check_fits(
        initial_model_weights_fn.type_signature.result,
        model_weights_distributor,
        client_work,
        model_update_aggregator,
        model_finalizer,
    )

    @federated_computation
    def initialize_fn():
        return federated_zip(
            LearningAlgorithmState(
                federated_eval(initial_model_weights_fn, SERVER),
                model_weights_distributor.initialize(),
                client_work.initialize(),
                model_update_aggregator.initialize(),
                model_finalizer.initialize(),
            )
        )

    state_type = initialize_fn.type_signature.result
    taken: Any = client_work.next.type_signature.parameter
    _, _, kept_type, data_type = taken

    @federated_computation(state_type, kept_type, data_type)
    def next_fn(state, client_states, client_data):
        weights = state.global_model_weights
        sent = model_weights_distributor.next(state.distributor, weights)
        worked = client_work.next(
            state.client_work, sent.result, client_states, client_data
        )
        update = [worked.result.result.update]
        if model_update_aggregator.is_weighted:
            update.append(worked.result.result.update_weight)
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
        return StatefulLearningProcessOutput(
            federated_zip(new_state),
            worked.result.client_state,
            federated_zip(metrics),
        )

    return StatefulLearningProcess(
        initialize_fn,
        next_fn,
        initialize_client,
        *weights_computations(state_type.member),
        **hparams_of_parts(state_type.member, OrderedDict(finalizer=model_finalizer)),
    )


def _check_kinds(*parts: tuple[str, Any, type]) -> None:
    for name, part, kind in parts:
        if not isinstance(part, kind):
            raise TypeError(
                f"`compose_stateful_learning_process` needs `{name}` to be a "
                f"`{kind.__name__}`, found `{type(part).__name__}`."
            )


def _check_fits(
    weights_type: Type,
    distributor: DistributionProcess,
    client_work: StatefulClientWorkProcess,
    aggregator: AggregationProcess,
    finalizer: FinalizerProcess,
) -> None:
    sent = distributor.next.type_signature.result.result.member
    result = client_work.next.type_signature.result.result.member.result
    aggregated = aggregator.next.type_signature.result.result.member
    fits = [
        ("model_weights_distributor", distributor, 1, "the weights", weights_type),
        ("client_work", client_work, 1, "what is distributed", sent),
        ("model_update_aggregator", aggregator, 1, "a client's update", result.update),
        ("model_finalizer", finalizer, 1, "the weights", weights_type),
        ("model_finalizer", finalizer, 2, "the aggregated update", aggregated),
    ]
    for name, part, index, what, given in fits:
        taken = part.next.type_signature.parameter[index].member
        if not taken.is_assignable_from(given):
            raise TypeError(
                f"`compose_stateful_learning_process` needs `{name}` to take {what},\n"
                f"    {given}\nfound that it takes\n    {taken}"
            )


def _check_next(next_fn: Computation) -> None:
    parameter, result = next_fn.type_signature.parameter, next_fn.type_signature.result
    if not (
        isinstance(result, StructWithPythonType)
        and result.python_container is StatefulLearningProcessOutput
    ):
        raise LearningProcessOutputError(
            "`next_fn` needs to return a `StatefulLearningProcessOutput(state, "
            f"client_states, metrics)`, found `{result}`."
        )
    if len(parameter) != 3:
        raise TypeError(
            "`next_fn` needs to take the server's state, the clients' states and their "
            f"data, found `{parameter}`."
        )
    parts = [
        ("`next_fn`'s first argument", parameter[0], SERVER),
        ("`next_fn`'s second argument", parameter[1], CLIENTS),
        ("`next_fn`'s third argument", parameter[2], CLIENTS),
        ("`next_fn`'s state", result.state, SERVER),
        ("`next_fn`'s client states", result.client_states, CLIENTS),
        ("`next_fn`'s metrics", result.metrics, SERVER),
    ]
    for name, type_, placement in parts:
        if not (isinstance(type_, FederatedType) and type_.placement is placement):
            raise LearningProcessPlacementError(
                f"{name} needs to be at {placement.name}, found `{type_}`."
            )
    if not parameter[1].member.is_assignable_from(result.client_states.member):
        raise TypeError(
            "`next_fn` needs to return client states like those it takes,\n"
            f"    {parameter[1].member}\nfound\n    {result.client_states.member}"
        )
