"""Processes: computations that go together, with their types checked."""

from fedcore.templates._errors import (
    EstimateNotAssignableError,
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateNotFederatedError,
    TemplateNotMeasuredProcessOutputError,
    TemplatePlacementError,
    TemplateStateNotAssignableError,
)
from fedcore.templates.aggregation_process import AggregationProcess
from fedcore.templates.estimation_process import EstimationProcess
from fedcore.templates.iterative_process import IterativeProcess
from fedcore.templates.measured_process import (
    MeasuredProcess,
    MeasuredProcessOutput,
    chain_measured_processes,
    concatenate_measured_processes,
)

__all__ = [
    "AggregationProcess",
    "EstimateNotAssignableError",
    "EstimationProcess",
    "IterativeProcess",
    "MeasuredProcess",
    "MeasuredProcessOutput",
    "TemplateInitFnParamNotEmptyError",
    "TemplateNextFnNumArgsError",
    "TemplateNotFederatedError",
    "TemplateNotMeasuredProcessOutputError",
    "TemplatePlacementError",
    "TemplateStateNotAssignableError",
    "chain_measured_processes",
    "concatenate_measured_processes",
]
