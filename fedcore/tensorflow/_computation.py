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
from fedcore.context import ContextError, SyncContext, get_context_stack
from fedcore.tensorflow import _values
from fedcore.tensorflow._graph import executable
from fedcore.tensorflow._trace import trace
from fedcore.types import Type


class TracingContext(SyncContext):
    """Inside the trace of a `tf_computation`: a call of another one inlines its graph."""

    def __init__(self, name: str):
        self._name = name

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Calls `comp` in the graph that is being built.

        Args:
            comp: A `tf_computation`.
            arg: Its argument: tensors, datasets and containers of them.

        Returns:
            The result, symbolic, in the containers of the result's type.

        Raises:
            ContextError: If `comp` is a federated computation.
            TypeError: If `arg` is not of the parameter's type.
        """
        node = getattr(comp, "node", None)
        if not isinstance(node, ir.Compiled):
            raise ContextError(
                f"A `tf_computation` can call other tf_computations only, found "
                f"`{getattr(comp, '__name__', comp)}` of type `{comp.type_signature}`, "
                f"called in `{self._name}`.\n"
                "Call it outside, in a federated_computation, and pass its result in."
            )
        parameter, result = node.type.parameter, node.type.result
        flat = []
        if parameter is not None:
            flat = _values.flatten_as(arg, parameter, comp.__name__)
        outputs = executable(node.graph).inline(flat)
        return _values.pack(result, iter(outputs))


def _trace_computation(
    fn: Callable[..., Any],
    parameter_type: Type | None,
    unpack: Unpack | None,
    name: str,
) -> Computation:
    with get_context_stack().install(TracingContext(name)):
        graph, type_ = trace(fn, parameter_type, unpack, name)
    return ConcreteComputation(ir.Compiled(graph, type_), name)


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
