"""A process whose state can be asked for an estimate."""

from __future__ import annotations

from fedcore.computation import Computation
from fedcore.federated import federated_computation
from fedcore.templates._errors import (
    EstimateNotAssignableError,
    TemplateStateNotAssignableError,
)
from fedcore.templates.iterative_process import (
    IterativeProcess,
    check_computation,
    check_fits,
)


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
        check_fits(
            report_fn.type_signature.parameter,
            self.state_type,
            "`report_fn` needs to take the state of the process, found another type.",
            TemplateStateNotAssignableError,
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
            EstimateNotAssignableError: If `map_fn` does not take E.
            TypeError: If `map_fn` is not a traced computation.
        """
        check_computation(map_fn, "map_fn")
        check_fits(
            map_fn.type_signature.parameter,
            self._report_fn.type_signature.result,
            "`map_fn` needs to take what `report` returns, found another type.",
            EstimateNotAssignableError,
        )
        report = self._report_fn

        @federated_computation(self._report_fn.type_signature.parameter)
        def mapped_report(state):
            return map_fn(report(state))

        return EstimationProcess(
            self._initialize_fn, self._next_fn, mapped_report, self._next_is_multi_arg
        )
