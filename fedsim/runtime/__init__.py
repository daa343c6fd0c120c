"""What runs computations: the contexts of this machine, and the errors of running."""

from fedsim.runtime._context import ReferenceContext, local_context
from fedsim.runtime._errors import ClientError, EmptyMeanError
from fedsim.runtime._values import CardinalityError

__all__ = [
    "CardinalityError",
    "ClientError",
    "EmptyMeanError",
    "ReferenceContext",
    "local_context",
]
