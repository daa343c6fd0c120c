"""What runs computations: the contexts of this machine, and the errors of running."""

from fedcore.framework.executors_errors import CardinalityError
from fedsim.runtime._context import (
    LocalContext,
    ReferenceContext,
    local_context,
    reference_context,
)
from fedsim.runtime._errors import ClientError, EmptyMeanError

__all__ = [
    "CardinalityError",
    "ClientError",
    "EmptyMeanError",
    "LocalContext",
    "ReferenceContext",
    "local_context",
    "reference_context",
]
