"""What a learning algorithm is to its user: a process over a model's weights."""

from __future__ import annotations

from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.templates import IterativeProcess
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructType,
    StructWithPythonType,
)
from fedlearn.templates._hparams import check_computation, checked_hparams


class LearningProcessPlacementError(TypeError):
    """A part of a learning process is at another placement than it must be."""


class LearningProcessSequenceTypeError(TypeError):
    """The clients' data of a learning process is not a sequence."""


class LearningProcessOutputError(TypeError):
    """`next` of a learning process does not return a `LearningProcessOutput`."""


class GetModelWeightsTypeSignatureError(TypeError):
    """`get_model_weights` does not take the process's state."""


class SetModelWeightsTypeSignatureError(TypeError):
    """`set_model_weights` does not go from state and weights to state."""


@attrs.define(eq=False)
class LearningAlgorithmState:
    """The server's state between two rounds.

    Attributes:
        global_model_weights: The model's weights, a `ModelWeights`.
        distributor: State of the process that sends weights to clients.
        client_work: State of the clients' part.
        aggregator: State of the process that aggregates clients' updates.
        finalizer: State of the process that updates the model.
    """

    global_model_weights: Any
    distributor: Any
    client_work: Any
    aggregator: Any
    finalizer: Any


@attrs.define(eq=False)
class LearningProcessOutput:
    """What a round gives.

    Attributes:
        state: The next state.
        metrics: What was measured in the round.
    """

    state: Any
    metrics: Any


class LearningProcess(IterativeProcess):
    """A process that trains or evaluates a model, a round at each `next`.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,{D*}@CLIENTS> -> <state=S@SERVER,metrics=M@SERVER>)`, a
            `LearningProcessOutput`.
        get_model_weights: `(S -> W)`, unplaced.
        set_model_weights: `(<S,W> -> S)`, unplaced.
        get_hparams_fn: `(S -> H)`, unplaced; no hyperparameters if None.
        set_hparams_fn: `(<S,H> -> S)`, unplaced.

    Raises:
        TypeError: If a computation is of another type; each breach has a subclass.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        get_model_weights: Computation,
        set_model_weights: Computation,
        *,
        get_hparams_fn: Computation | None = None,
        set_hparams_fn: Computation | None = None,
    ):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
        _check_next(next_fn, self.state_type)
        state = self.state_type.member
        check_computation("get_model_weights", get_model_weights)
        check_computation("set_model_weights", set_model_weights)
        taken = get_model_weights.type_signature.parameter
        if taken is None or not taken.is_assignable_from(state):
            raise GetModelWeightsTypeSignatureError(
                f"`get_model_weights` needs to take the state\n    {state}\nfound "
                f"`{get_model_weights.type_signature}`."
            )
        weights = get_model_weights.type_signature.result
        taken = set_model_weights.type_signature.parameter
        if not (
            isinstance(taken, StructType)
            and len(taken) == 2
            and taken[0].is_assignable_from(state)
            and taken[1].is_assignable_from(weights)
            and state.is_assignable_from(set_model_weights.type_signature.result)
        ):
            raise SetModelWeightsTypeSignatureError(
                "`set_model_weights` needs to go from state and weights to state, found "
                f"`{set_model_weights.type_signature}`."
            )
        self._get_model_weights = get_model_weights
        self._set_model_weights = set_model_weights
        self._get_hparams, self._set_hparams = checked_hparams(
            get_hparams_fn, set_hparams_fn, state
        )

    @property
    def get_model_weights(self) -> Computation:
        """`(S -> W)`: the model's weights in a state."""
        return self._get_model_weights

    @property
    def set_model_weights(self) -> Computation:
        """`(<S,W> -> S)`: a state with other weights of the model."""
        return self._set_model_weights

    @property
    def get_hparams(self) -> Computation:
        """`(S -> H)`: the hyperparameters in a state, such as learning rates.

        They are in a mapping by part of the process; H is `<>` if there are none.
        """
        return self._get_hparams

    @property
    def set_hparams(self) -> Computation:
        """`(<S,H> -> S)`: a state with other hyperparameters."""
        return self._set_hparams


def _check_next(next_fn: Computation, state: Any) -> None:
    parameter = next_fn.type_signature.parameter
    result = next_fn.type_signature.result
    if not (
        isinstance(result, StructWithPythonType)
        and result.python_container is LearningProcessOutput
    ):
        raise LearningProcessOutputError(
            "`next_fn` needs to return a `LearningProcessOutput(state, metrics)`, found "
            f"`{result}`."
        )
    parts = [
        ("`initialize_fn`'s result", state, SERVER),
        ("`next_fn`'s second argument", parameter[1], CLIENTS),
        ("`next_fn`'s state", result.state, SERVER),
        ("`next_fn`'s metrics", result.metrics, SERVER),
    ]
    for name, type_, placement in parts:
        if not (isinstance(type_, FederatedType) and type_.placement is placement):
            raise LearningProcessPlacementError(
                f"{name} needs to be at {placement.name}, found `{type_}`."
            )
    if not parameter[1].member.is_sequence():
        raise LearningProcessSequenceTypeError(
            "`next_fn`'s second argument needs to be sequences at CLIENTS, found "
            f"`{parameter[1]}`."
        )
