"""The Python function behind a graph, kept for debugging and for messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from fedcore.computation import Unpack, describe
from fedcore.types import StructType, Type


@attrs.frozen(eq=False)
class Python:
    """What a graph was traced from.

    Attributes:
        function: The function itself; `call` runs it on values.
        unpack: How a structure is handed to its arguments; None: as one.
        name: What messages call it.
    """

    function: Callable[..., Any]
    unpack: Unpack | None
    name: str

    @property
    def source(self) -> str:
        """Where it is defined, `file:line`; empty if that is not known."""
        return describe(self.function)[1]

    def call(self, argument: Any, type_: Type | None) -> Any:
        """Runs the Python function as it is on an argument of type `type_`.

        Args:
            argument: Eager tensors and datasets in the containers of the type; a
                structure that is unpacked is a sequence of its elements.
            type_: The type of the parameter; None for no argument.
        """
        if type_ is None:
            return self.function()
        if self.unpack is None:
            return self.function(argument)
        assert isinstance(type_, StructType)
        return self.unpack.call(self.function, list(argument))
