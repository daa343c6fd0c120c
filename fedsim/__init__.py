"""fedsim: running federated computations, and the data to run them on."""

from fedsim import datasets, models, runtime
from fedsim.runtime import local_context, reference_context

__all__ = ["datasets", "local_context", "models", "reference_context", "runtime"]
