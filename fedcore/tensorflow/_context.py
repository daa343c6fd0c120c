"""What calling a computation means while a `tf_computation` is being traced."""

from __future__ import annotations

from typing import Any

from fedcore import ir
from fedcore.context import ContextError, SyncContext
from fedcore.tensorflow import _values
from fedcore.tensorflow._graph import executable


class TracingContext(SyncContext):
    """A call of another `tf_computation` puts its graph into the one being built."""

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
                "A `tf_computation` can call other tf_computations only, found "
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
