"""fedsim: running federated computations, and the data to run them on."""

from fedsim import datasets, models, runtime, sizing
from fedsim._debug import debug
from fedsim._explain import explain
from fedsim._record import record
from fedsim.client_state import ClientStateStore
from fedsim.runtime import local_context, reference_context

__all__ = [
    "ClientStateStore",
    "datasets",
    "debug",
    "explain",
    "local_context",
    "models",
    "record",
    "reference_context",
    "runtime",
    "sizing",
]
