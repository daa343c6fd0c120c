"""The invariants of a tree: bound once, no free reference, types agree."""

from __future__ import annotations

from fedcore.ir._blocks import (
    Block,
    Call,
    Compiled,
    Intrinsic,
    Lambda,
    Node,
    Reference,
    Selection,
)
from fedcore.ir._rewrite import Steps, drive
from fedcore.types import FunctionType, StructType, Type


class TreeError(ValueError):
    """A tree breaks an invariant of the IR; the message prints the sub-tree."""


def check(node: Node) -> Node:
    """Returns `node` if it keeps every invariant of a closed tree.

    Raises:
        TreeError: If a name is bound twice, a reference is free, or types disagree.
    """
    drive(_Checker().visit(node))
    return node


class _Checker:
    """One walk: what is bound so far, and the part of it that is in scope."""

    def __init__(self):
        self._bound: set[str] = set()
        self._scope: dict[str, Type] = {}
        self._agreed: dict[int, Node] = {}  # holds the nodes: no id may be reused

    def visit(self, node: Node) -> Steps:
        match node:
            case Reference(name, type_):
                self._look_up(name, type_)
            case Lambda(str() as parameter, Type() as parameter_type, result):
                self._bind(node, parameter, parameter_type)
                yield self.visit(result)
                del self._scope[parameter]
            case Block(local, result):
                for name, value in local:
                    yield self.visit(value)
                    self._bind(node, name, value.type)
                yield self.visit(result)
                for name, _ in local:
                    del self._scope[name]
            case _:
                for child in node.children():
                    yield self.visit(child)
        if id(node) not in self._agreed:
            check_node(node)
            self._agreed[id(node)] = node

    def _bind(self, binder: Node, name: str, type_: Type) -> None:
        if name in self._bound:
            raise TreeError(f"The name `{name}` is bound twice, here in `{binder}`.")
        self._bound.add(name)
        self._scope[name] = type_

    def _look_up(self, name: str, type_: Type) -> None:
        if name not in self._scope:
            raise TreeError(f"The reference `{name}` is not bound.")
        if self._scope[name] != type_:
            raise TreeError(
                f"The reference `{name}` needs type `{self._scope[name]}`, found "
                f"`{type_}`."
            )


def check_node(node: Node) -> None:
    """Checks `node` alone, given that what is below it is sound."""
    match node:
        case Lambda(parameter, parameter_type, _):
            if (parameter is None) != (parameter_type is None):
                raise TreeError(
                    "A lambda needs a parameter name exactly where it has a parameter "
                    f"type, found `{parameter}` and `{parameter_type}`."
                )
        case Selection(source, index):
            if not isinstance(source.type, StructType):
                raise TreeError(
                    f"A selection needs a structure, found `{source.type}` in "
                    f"`{source}`."
                )
            if not 0 <= index < len(source.type):
                raise TreeError(
                    f"A selection needs an index below {len(source.type)}, found "
                    f"{index} in `{source}`."
                )
        case Call(function, argument):
            _check_call(node, function, argument)
        case Compiled(_, type_) if not isinstance(type_, FunctionType):
            raise TreeError(f"A graph needs a function type, found `{type_}`.")
        case Intrinsic(uri, type_) if not uri:
            raise TreeError(f"An intrinsic of type `{type_}` needs a name.")
        case _:
            return


def _check_call(node: Call, function: Node, argument: Node | None) -> None:
    if not isinstance(function.type, FunctionType):
        raise TreeError(
            f"A call needs a function, found `{function.type}`: `{function}`."
        )
    wanted = function.type.parameter
    found = None if argument is None else argument.type
    if wanted is found:
        return
    if wanted is None or found is None or not _fits(wanted, found):
        raise TreeError(
            f"A call needs an argument of type `{wanted}`, found `{found}` in `{node}`."
        )


def _fits(wanted: Type, found: Type) -> bool:
    try:
        return wanted.is_assignable_from(found)
    except TypeError as e:  # abstract types compare with nothing
        raise TreeError(f"A call needs concrete types. {e}") from e
