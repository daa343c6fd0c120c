"""TensorFlow and Keras code as computations."""

import importlib
from typing import TYPE_CHECKING, Any

from fedcore.tensorflow._computation import tf_computation
from fedcore.tensorflow._root import TracingError

if TYPE_CHECKING:
    replace_intrinsics_with_bodies: Any

computation = tf_computation
experimental_tf_fn_computation = tf_computation

__all__ = [
    "TracingError",
    "computation",
    "experimental_tf_fn_computation",
    "replace_intrinsics_with_bodies",
    "tf_computation",
]


def __getattr__(name: str) -> Any:
    # Later TFF's name for what stands floors above, and is loaded by name.
    if name == "replace_intrinsics_with_bodies":
        return importlib.import_module(
            "fedcore.framework"
        ).replace_intrinsics_with_bodies
    raise AttributeError(f"`fedcore.tensorflow` has no name `{name}`.")
