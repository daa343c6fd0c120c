"""Text of a tree: compact on one line, formatted over several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fedcore import structure
from fedcore.ir._blocks import (
    Block,
    Call,
    Compiled,
    Data,
    Intrinsic,
    Lambda,
    Literal,
    Node,
    Placement,
    Reference,
    Selection,
    Struct,
)
from fedcore.ir._rewrite import Steps, drive
from fedcore.types import StructType

_INDENT = "  "
_WIDTH = 80


def compact(node: Node) -> str:
    """The tree on one line: `(let v0=federated_sum(x) in v0)`."""
    return drive(_compact(node, {}))


def formatted(node: Node, indent: str = "") -> str:
    """The tree indented: a line for each local, each element, each argument."""
    lines: dict[int, str] = {}
    drive(_compact(node, lines))
    return drive(_formatted(node, indent, lines))


def structural(node: Node) -> str:
    """The tree drawn as a tree, without types: a line for each node."""
    lines: list[str] = []
    todo = [("", "", "", node)]
    while todo:
        lead, below, label, current = todo.pop()
        lines.append(f"{lead}{label}{_kind(current)}")
        children = list(_labelled(current))
        for i, (name, child) in reversed(list(enumerate(children))):
            last = i == len(children) - 1
            todo.append(
                (
                    below + ("└─ " if last else "├─ "),
                    below + ("   " if last else "│  "),
                    name,
                    child,
                )
            )
    return "\n".join(lines)


def _kind(node: Node) -> str:
    match node:
        case Reference(name, _):
            return f"Ref({name})"
        case Selection():
            return f"Sel({_selector(node).lstrip('.').strip('[]')})"
        case Lambda(parameter, _, _):
            return f"Lambda({parameter or ''})"
        case Intrinsic() | Compiled() | Data() | Literal() | Placement():
            return _leaf(node)
        case _:
            return type(node).__name__


def _labelled(node: Node) -> Iterator[tuple[str, Node]]:
    match node:
        case Block(local, result):
            yield from ((f"{name}=", value) for name, value in local)
            yield "in ", result
        case Struct(elements, _):
            yield from ((_label(name), item) for name, item in elements)
        case _:
            yield from (("", child) for child in node.children())


def _compact(node: Node, known: dict[int, str]) -> Steps:
    """The text of one line, kept by node so that nothing is printed twice."""
    if id(node) not in known:
        known[id(node)] = yield _print(node, known)
    return known[id(node)]


def _print(node: Node, known: dict[int, str]) -> Steps:
    match node:
        case Selection(source, _):
            return f"{(yield _compact(source, known))}{_selector(node)}"
        case Struct(elements, _):
            parts = []
            for name, item in elements:
                parts.append(f"{_label(name)}{(yield _compact(item, known))}")
            return f"<{','.join(parts)}>"
        case Call(function, argument):
            text = yield _compact(function, known)
            inside = "" if argument is None else (yield _compact(argument, known))
            return f"{text}({inside})"
        case Lambda(parameter, _, result):
            return f"({parameter or ''} -> {(yield _compact(result, known))})"
        case Block(local, result):
            parts = []
            for name, value in local:
                parts.append(f"{name}={(yield _compact(value, known))}")
            text = yield _compact(result, known)
            return f"(let {','.join(parts)} in {text})"
        case _:
            return _leaf(node)


def _formatted(node: Node, indent: str, lines: dict[int, str]) -> Steps:
    deeper = indent + _INDENT
    short = lines[id(node)]
    if len(indent) + len(short) <= _WIDTH and not isinstance(node, Block | Lambda):
        return short
    match node:
        case Selection(source, _):
            return f"{(yield _formatted(source, indent, lines))}{_selector(node)}"
        case Struct(elements, _) if elements:
            parts = []
            for name, item in elements:
                text = yield _formatted(item, deeper, lines)
                parts.append(f"{deeper}{_label(name)}{text}")
            inside = ",\n".join(parts)
            return f"<\n{inside}\n{indent}>"
        case Call(function, argument):
            text = yield _formatted(function, indent, lines)
            if argument is None:
                return f"{text}()"
            return f"{text}({(yield _formatted(argument, indent, lines))})"
        case Lambda(parameter, _, result):
            text = yield _formatted(result, indent, lines)
            return f"({parameter or ''} -> {text})"
        case Block(local, result):
            parts = []
            for name, value in local:
                text = yield _formatted(value, deeper, lines)
                parts.append(f"{deeper}{name}={text}")
            inside = ",\n".join(parts)
            text = yield _formatted(result, indent, lines)
            return f"(let\n{inside}\n{indent}in {text})"
        case _:
            return short


def _label(name: str | None) -> str:
    return "" if name is None else f"{name}="


def _selector(node: Selection) -> str:
    source = node.source.type
    if isinstance(source, StructType) and 0 <= node.index < len(source):
        name = structure.name_list_with_nones(source)[node.index]
        if name is not None:
            return f".{name}"
    return f"[{node.index}]"


def _leaf(node: Node) -> str:
    match node:
        case Reference(name, _):
            return name
        case Intrinsic(uri, _):
            return uri
        case Placement(literal):
            return literal.uri
        case Compiled(graph):
            # Content, not identity: two traces of one function print alike.
            name = getattr(node.python, "name", "")
            name = name if name.isidentifier() else "graph"
            return f"{name}#{hashlib.sha256(graph).hexdigest()[:8]}"
        case Data(uri, _):
            return f"data({uri})"
        case Literal():
            return _literal(node)
        case _:
            raise TypeError(f"`compact` needs a node of the IR, found `{node!r}`.")


def _literal(node: Literal) -> str:
    value = node.value
    if value.size > 4:
        return f"constant:{node.type}"
    return repr(value.tolist())
