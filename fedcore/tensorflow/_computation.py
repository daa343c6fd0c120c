"""`tf_computation`: TensorFlow and Keras code as a computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedcore import ir
from fedcore.computation import (
    Computation,
    ComputationDecorator,
    ConcreteComputation,
    Unpack,
)
from fedcore.tensorflow._python import Python
from fedcore.tensorflow._trace import trace
from fedcore.types import Type


def _trace_computation(
    fn: Callable[..., Any],
    parameter_type: Type | None,
    unpack: Unpack | None,
    name: str,
) -> Computation:
    graph, type_ = trace(fn, parameter_type, unpack, name)
    python = Python(fn, unpack, name)
    return ConcreteComputation(ir.Compiled(graph, type_, python), name)


tf_computation = ComputationDecorator(
    "tf_computation",
    _trace_computation,
    """Makes a computation of Python code with TensorFlow and Keras in it.

    The function is run once for each type of argument, on symbolic tensors; AutoGraph
    converts its `if`, `for` and `while`. Keras models, optimizers and metrics and
    `tf.Variable`s are made inside it, and start fresh in each run; values go in as
    arguments and come out as results, in their Python containers.

        @tf_computation(tf.float32, tf.float32)
        def add(x, y):
            return x + y

    Keras randomness without a seed (dropout masks, initial weights) is drawn anew in each
    run from the seed of the context that runs it.

    Args:
        *args: The function, its types, or both: a type for each parameter, or none (then
            the computation is traced for each type of argument that it is called with).

    Returns:
        A `fedcore.Computation` of type `(T -> U)`, or a polymorphic one without types.

    Raises:
        TracingError: If the function uses a variable, model, optimizer, metric, dataset or
            table made outside of it, or calls Python code at run time.
        ComputationReturnedNoneError: If the function returns None.
        TypeError: If a type has placements or functions in it, or the function returns
            what is not a value.
    """,
)
