"""What kind of node a node is, by the names that TFF's users ask with."""

from __future__ import annotations


class UnexpectedBlockError(TypeError):
    """A node of the tree is of another kind than the one that is needed."""


class Kinds:
    """`is_call()`, `check_call()` and their like, for every kind of node."""

    def _is(self, kind: str) -> bool:
        return type(self).__name__ == kind

    def _check(self, kind: str) -> None:
        if not self._is(kind):
            raise UnexpectedBlockError(
                f"A node of the kind `{kind}` is needed, found a "
                f"`{type(self).__name__}`: {self}"
            )

    def is_reference(self) -> bool:
        return self._is("Reference")

    def check_reference(self) -> None:
        self._check("Reference")

    def is_selection(self) -> bool:
        return self._is("Selection")

    def check_selection(self) -> None:
        self._check("Selection")

    def is_struct(self) -> bool:
        return self._is("Struct")

    def check_struct(self) -> None:
        self._check("Struct")

    def is_call(self) -> bool:
        return self._is("Call")

    def check_call(self) -> None:
        self._check("Call")

    def is_lambda(self) -> bool:
        return self._is("Lambda")

    def check_lambda(self) -> None:
        self._check("Lambda")

    def is_block(self) -> bool:
        return self._is("Block")

    def check_block(self) -> None:
        self._check("Block")

    def is_intrinsic(self) -> bool:
        return self._is("Intrinsic")

    def check_intrinsic(self) -> None:
        self._check("Intrinsic")

    def is_data(self) -> bool:
        return self._is("Data")

    def check_data(self) -> None:
        self._check("Data")

    def is_compiled_computation(self) -> bool:
        return self._is("Compiled")

    def check_compiled_computation(self) -> None:
        self._check("Compiled")

    def is_placement(self) -> bool:
        return self._is("Placement")

    def check_placement(self) -> None:
        self._check("Placement")
