"""Which modules of fedlearn AutoGraph need not read when a computation is traced.

Keras's code is not converted by Keras itself either, and plain arithmetic has nothing to
convert; reading them would take half the time of tracing a training step. What calls a
function of the user's is not listed, so that Python control flow works there.
"""

from fedcore.tensorflow._private import leave_unconverted

_MODULES = (
    "fedlearn.metrics",
    "fedlearn.models._batch",
    "fedlearn.models._functional_keras",
    "fedlearn.models._keras",
    "fedlearn.models._losses",
    "fedlearn.models._saved_functions",
    "fedlearn.models._saved_nest",
    "fedlearn.models._stateless",
    "fedlearn.models._weights",
    "fedlearn.optimizers._adafactor",
    "fedlearn.optimizers._adaptive",
    "fedlearn.optimizers._keras",
    "fedlearn.optimizers._optimizer",
    "fedlearn.optimizers._rule",
    "fedlearn.optimizers._sgdm",
    "fedlearn.templates._non_finite",
)


def leave_own_modules_alone() -> None:
    """Tells AutoGraph, once, when fedlearn is imported."""
    leave_unconverted(*_MODULES)
