"""A process whose state can be asked for an estimate."""

from __future__ import annotations

from fedcore.computation import Computation
from fedcore.federated import federated_computation
from fedcore.templates._errors import TemplateStateNotAssignableError
from fedcore.templates.iterative_process import IterativeProcess, check_computation


class EstimationProcess(IterativeProcess):
    """An `IterativeProcess` with a third computation, `report`, from state to estimate.

    Args:
        initialize_fn: `( -> S)`.
        next_fn: `(<S,...> -> S)` or `(<S,...> -> <S,...>)`.
        report_fn: `(S -> E)`.
        next_is_multi_arg: As for `IterativeProcess`.

    Raises:
        TemplateStateNotAssignableError: If `report_fn` does not take the state.
        TypeError: As `IterativeProcess`.
    """

    def __init__(
        self,
        initialize_fn: Computation,
        next_fn: Computation,
        report_fn: Computation,
        next_is_multi_arg: bool | None = None,
    ):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        check_computation(report_fn, "report_fn")
        taken = report_fn.type_signature.parameter
        if taken is None or not taken.is_assignable_from(self.state_type):
            raise TemplateStateNotAssignableError(
                "`report_fn` needs to take the state of type\n    "
                f"{self.state_type}\nfound that it takes\n    {taken}"
            )
        self._report_fn = report_fn

    @property
    def report(self) -> Computation:
        """The computation `(S -> E)` that gives the estimate of a state."""
        return self._report_fn

    def map(self, map_fn: Computation) -> EstimationProcess:
        """The same process with `map_fn` applied to what it reports.

        Args:
            map_fn: `(E -> F)`.

        Returns:
            An `EstimationProcess` that reports F.

        Raises:
            TypeError: If `map_fn` does not take E.
        """
        check_computation(map_fn, "map_fn")
        estimate = self._report_fn.type_signature.result
        taken = map_fn.type_signature.parameter
        if taken is None or not taken.is_assignable_from(estimate):
            raise TypeError(
                f"`map_fn` needs to take the estimate of type\n    {estimate}\nfound "
                f"that it takes\n    {taken}"
            )
        report = self._report_fn

        @federated_computation(self._report_fn.type_signature.parameter)
        def mapped_report(state):
            return map_fn(report(state))

        return EstimationProcess(
            self._initialize_fn, self._next_fn, mapped_report, self._next_is_multi_arg
        )
