"""A process that aggregates clients' values at the server."""

from __future__ import annotations

from fedcore.computation import Computation
from fedcore.templates._errors import (
    TemplateNextFnNumArgsError,
    TemplateNotFederatedError,
    TemplatePlacementError,
)
from fedcore.templates.measured_process import MeasuredProcess
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    PlacementLiteral,
    StructType,
    Type,
)


class AggregationProcess(MeasuredProcess):
    """A `MeasuredProcess` from `{V}@CLIENTS` to a result at the server.

    Args:
        initialize_fn: `( -> S@SERVER)`.
        next_fn: `(<S@SERVER,{V}@CLIENTS> -> <state=S@SERVER,result=R@SERVER,
            measurements=M@SERVER>)`, or with a third argument `{W}@CLIENTS`, the weights.

    Raises:
        TemplateNotFederatedError: If a part is not placed.
        TemplateNextFnNumArgsError: If `next_fn` takes another number of arguments.
        TemplatePlacementError: If a part is at another placement than shown above.
        TypeError: As `MeasuredProcess`.
    """

    def __init__(self, initialize_fn: Computation, next_fn: Computation):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
        parameter = next_fn.type_signature.parameter
        output = next_fn.type_signature.result
        given = initialize_fn.type_signature.result
        if len(parameter) not in (2, 3):
            raise TemplateNextFnNumArgsError(
                "`next_fn` needs to take a state and a value, and possibly weights, found "
                f"{len(parameter)} arguments: `{parameter}`."
            )
        check_placed("The state that `initialize_fn` returns", given, SERVER)
        for name, type_, placement in zip(
            ("state", "value", "weight"), parameter, (SERVER, CLIENTS, CLIENTS)
        ):
            check_placed(f"The {name} that `next_fn` takes", type_, placement)
        for name in ("state", "result", "measurements"):
            check_placed(f"The `{name}` that `next_fn` returns", output[name], SERVER)
        self._is_weighted = len(parameter) == 3

    @property
    def is_weighted(self) -> bool:
        """Whether `next` takes a weight for each client's value."""
        return self._is_weighted


def check_placed(what: str, type_: Type, placement: PlacementLiteral) -> None:
    """Raises unless `type_` is federated and at `placement`."""
    if not isinstance(type_, FederatedType):
        remedy = ""
        if isinstance(type_, StructType) and any(t.is_federated() for t in type_):
            remedy = "\nMake one federated value of it with `federated_zip`."
        raise TemplateNotFederatedError(
            f"{what} needs to be a federated value, found `{type_}`.{remedy}"
        )
    if type_.placement is not placement:
        raise TemplatePlacementError(
            f"{what} needs to be at {placement.name}, found `{type_}`."
        )
