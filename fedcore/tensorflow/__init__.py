"""TensorFlow and Keras code as computations."""

from fedcore.tensorflow._computation import tf_computation
from fedcore.tensorflow._root import TracingError

computation = tf_computation
experimental_tf_fn_computation = tf_computation

__all__ = [
    "TracingError",
    "computation",
    "experimental_tf_fn_computation",
    "tf_computation",
]
