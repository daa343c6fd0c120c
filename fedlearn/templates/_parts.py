"""The parts a learning process is composed of, with their types checked."""

from __future__ import annotations

from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_value,
)
from fedcore.templates import MeasuredProcess, MeasuredProcessOutput
from fedcore.templates import TemplateNextFnNumArgsError as NextFnNumArgsError
from fedcore.templates import TemplateNotFederatedError as NotFederatedError
from fedcore.templates import TemplatePlacementError as PlacementError
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructWithPythonType,
    Type,
    at_server,
)
from fedlearn.templates._hparams import checked_hparams


class ClientDataTypeError(TypeError):
    """The clients' data is not a sequence."""


class ClientResultTypeError(TypeError):
    """The clients' part does not return a `ClientResult`."""


class FinalizerResultTypeError(TypeError):
    """The finalizer does not return weights like those it takes."""


@attrs.frozen(eq=False)
class ClientResult:
    """What a client sends to the server.

    Attributes:
        update: The update of the model's trainable weights.
        update_weight: How much it counts: float32[].
    """

    update: Any
    update_weight: Any


def _check(name: str, type_: Type, placement: Any) -> None:
    if not isinstance(type_, FederatedType):
        raise NotFederatedError(
            f"{name} needs to be a federated value, found `{type_}`."
        )
    if type_.placement is not placement:
        raise PlacementError(
            f"{name} needs to be at {placement.name}, found `{type_}`."
        )


class _Part(MeasuredProcess):
    """A measured process with a fixed list of arguments and placements."""

    _arguments: tuple[tuple[str, Any], ...]
    _result: Any

    def __init__(self, initialize_fn: Computation, next_fn: Computation):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
        parameter = next_fn.type_signature.parameter
        result = next_fn.type_signature.result
        if len(parameter) != len(self._arguments):
            names = ", ".join(name for name, _ in self._arguments)
            raise NextFnNumArgsError(
                f"`next_fn` of a {type(self).__name__} needs to take {names}, found "
                f"`{parameter}`."
            )
        for (name, placement), type_ in zip(self._arguments, parameter):
            _check(f"`next_fn`'s {name}", type_, placement)
        _check("`next_fn`'s new state", result.state, SERVER)
        _check("`next_fn`'s result", result.result, self._result)
        _check("`next_fn`'s measurements", result.measurements, SERVER)


class DistributionProcess(_Part):
    """Sends the model's weights to the clients.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,W@SERVER> -> <state=S@SERVER,result={W'}@CLIENTS,
            measurements=M@SERVER>)`.

    Raises:
        TypeError: If a computation is of another type.
    """

    _arguments = (("state", SERVER), ("value", SERVER))
    _result = CLIENTS


class _WithHparams(_Part):
    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        *,
        get_hparams_fn: Computation | None = None,
        set_hparams_fn: Computation | None = None,
    ):
        super().__init__(initialize_fn, next_fn)
        self._get_hparams_fn, self._set_hparams_fn = checked_hparams(
            get_hparams_fn, set_hparams_fn, self.state_type.member
        )

    @property
    def get_hparams(self) -> Computation:
        """`(S -> H)`: the hyperparameters in a state; H is `<>` if there are none."""
        return self._get_hparams_fn

    @property
    def set_hparams(self) -> Computation:
        """`(<S,H> -> S)`: a state with other hyperparameters."""
        return self._set_hparams_fn


class ClientWorkProcess(_WithHparams):
    """What clients do in a round.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,{W}@CLIENTS,{D*}@CLIENTS> -> <state=S@SERVER,
            result={<update=U,update_weight=float32>}@CLIENTS,measurements=M@SERVER>)`,
            the result a `ClientResult`.
        get_hparams_fn: `(S -> H)`, unplaced; no hyperparameters if None.
        set_hparams_fn: `(<S,H> -> S)`, unplaced.

    Raises:
        ClientDataTypeError: If the third argument is not a sequence.
        ClientResultTypeError: If the result is not a `ClientResult`.
        TypeError: If a computation is of another type.
    """

    _arguments = (("state", SERVER), ("weights", CLIENTS), ("data", CLIENTS))
    _result = CLIENTS

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        *,
        get_hparams_fn: Computation | None = None,
        set_hparams_fn: Computation | None = None,
    ):
        super().__init__(
            initialize_fn,
            next_fn,
            get_hparams_fn=get_hparams_fn,
            set_hparams_fn=set_hparams_fn,
        )
        data = next_fn.type_signature.parameter[2].member
        if not data.is_sequence():
            raise ClientDataTypeError(
                f"`next_fn`'s data needs to be sequences at CLIENTS, found `{data}`."
            )
        result = next_fn.type_signature.result.result.member
        if not (
            isinstance(result, StructWithPythonType)
            and result.python_container is ClientResult
        ):
            raise ClientResultTypeError(
                f"`next_fn` needs to return a `ClientResult` for each client, found "
                f"`{result}`."
            )


class FinalizerProcess(_WithHparams):
    """Updates the model with the aggregated update.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,W@SERVER,U@SERVER> -> <state=S@SERVER,result=W@SERVER,
            measurements=M@SERVER>)`.
        get_hparams_fn: `(S -> H)`, unplaced; no hyperparameters if None.
        set_hparams_fn: `(<S,H> -> S)`, unplaced.

    Raises:
        FinalizerResultTypeError: If the result is not weights like the argument's.
        TypeError: If a computation is of another type.
    """

    _arguments = (("state", SERVER), ("weights", SERVER), ("update", SERVER))
    _result = SERVER

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        *,
        get_hparams_fn: Computation | None = None,
        set_hparams_fn: Computation | None = None,
    ):
        super().__init__(
            initialize_fn,
            next_fn,
            get_hparams_fn=get_hparams_fn,
            set_hparams_fn=set_hparams_fn,
        )
        weights = next_fn.type_signature.parameter[1]
        result = next_fn.type_signature.result.result
        if not weights.is_assignable_from(result):
            raise FinalizerResultTypeError(
                f"`next_fn` needs to return weights like those it takes,\n    {weights}\n"
                f"found\n    {result}"
            )


def build_broadcast_process(value_type: Type) -> DistributionProcess:
    """Sends a value to all clients as it is.

    Args:
        value_type: W, unplaced.

    Returns:
        A stateless process with next `(<state=<>@SERVER,value=W@SERVER> ->
        <state=<>@SERVER,result=W@CLIENTS,measurements=<>@SERVER>)`.

    Raises:
        TypeError: If `value_type` is placed or a function.
    """
    if not isinstance(value_type, Type) or value_type.is_federated():
        raise TypeError(
            f"`build_broadcast_process` needs an unplaced type, found `{value_type}`."
        )

    @federated_computation
    def initialize_fn():
        return federated_value((), SERVER)

    @federated_computation(at_server(()), at_server(value_type))
    def next_fn(state, value):
        return MeasuredProcessOutput(
            state, federated_broadcast(value), federated_value((), SERVER)
        )

    return DistributionProcess(initialize_fn, next_fn)
