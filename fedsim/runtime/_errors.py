"""Errors of running: which client failed, and where."""

from __future__ import annotations

_ADVICE = (
    "\nCall it inside `with fedsim.debug():` to see the line at fault and to look at the "
    "values, or leave the client out."
)


class ClientError(RuntimeError):
    """Work at one client failed; the cause is the exception this was raised from.

    Attributes:
        client: The client's index in the call's list of clients.
        step: The operator under which it failed, such as `federated_map`.
        computation: The name of the computation that was called.
    """

    def __init__(
        self,
        computation: str,
        step: str,
        client: int,
        clients: int,
        error: BaseException,
        advice: str = _ADVICE,
    ):
        self.client = client
        self.step = step
        self.computation = computation
        super().__init__(
            f"Client {client} of {clients} failed in `{step}` of `{computation}`: "
            f"{type(error).__name__}: {error}{advice}"
        )


class EmptyMeanError(ValueError):
    """A mean was asked over no clients."""

    def __init__(self, computation: str):
        super().__init__(
            f"`federated_mean` needs at least one client, found none in `{computation}`.\n"
            "Pass data of at least one client, or use federated_sum."
        )
