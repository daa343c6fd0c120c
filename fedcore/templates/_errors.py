"""What can be wrong with the parts of a process, each with a name of its own."""


class TemplateInitFnParamNotEmptyError(TypeError):
    """`initialize` takes an argument."""


class TemplateStateNotAssignableError(TypeError):
    """A state does not fit where the next one of a process takes it."""


class TemplateNextFnNumArgsError(TypeError):
    """`next` takes another number of arguments than the process calls it with."""


class TemplateNotMeasuredProcessOutputError(TypeError):
    """`next` does not return a `MeasuredProcessOutput`."""


class TemplateNotFederatedError(TypeError):
    """`initialize` or `next` of a federated process has an unplaced part."""


class TemplatePlacementError(TypeError):
    """A part of a process is at another placement than it must be."""


class EstimateNotAssignableError(TypeError):
    """An estimate does not fit the function that `EstimationProcess.map` applies to it."""
