"""Walking and rewriting trees: one function for each, for every pass.

Nothing here recurses in Python: a tree may be as deep as memory allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import attrs

from fedcore.ir._blocks import Block, Lambda, Node, Reference

Rule = Callable[[Node], Node]
Steps = Generator["Steps", Any, Any]


def drive(steps: Steps) -> Any:
    """Runs a recursive function that yields each of its recursive calls."""
    stack, value = [steps], None
    while stack:
        try:
            deeper = stack[-1].send(value)
        except StopIteration as done:
            stack.pop()
            value = done.value
        else:
            stack.append(deeper)
            value = None
    return value


def rewrite(node: Node, rule: Rule) -> Node:
    """Applies `rule` to every node, children first; shared nodes are visited once."""
    return _bottom_up(node, lambda old, new: rule(with_children(old, new)))


def _bottom_up(node: Node, visit: Callable[[Node, Callable[[Node], Any]], Any]) -> Any:
    """Visits each node once, after what is below it, with the results from there."""
    done: dict[int, tuple[Node, Any]] = {}  # holds the nodes: no id may be reused

    def result(child: Node) -> Any:
        return done[id(child)][1]

    todo = [(node, False)]
    while todo:
        current, ready = todo.pop()
        if id(current) in done:
            continue
        if ready:
            done[id(current)] = current, visit(current, result)
        else:
            todo.append((current, True))
            todo.extend((child, False) for child in reversed(current.children()))
    return result(node)


def with_children(node: Node, change: Rule) -> Node:
    """`node` with each child replaced by `change(child)`; itself if none changed."""
    changes = {}
    for field in attrs.fields(type(node)):
        old = getattr(node, field.name)
        new = _map_nodes(old, change)
        if new is not old:
            changes[field.name] = new
    return attrs.evolve(node, **changes) if changes else node


def _map_nodes(value: Any, change: Rule) -> Any:
    if isinstance(value, Node):
        return change(value)
    if isinstance(value, tuple):
        old = cast("tuple[Any, ...]", value)
        new = tuple(_map_nodes(item, change) for item in old)
        return old if all(a is b for a, b in zip(new, old)) else new
    return value


def walk(node: Node) -> Iterator[Node]:
    """Every node of the tree, parents first; a node in two places comes twice."""
    todo = [node]
    while todo:
        current = todo.pop()
        yield current
        todo.extend(reversed(current.children()))


def substitute(node: Node, bindings: dict[str, Node]) -> Node:
    """Replaces free references by the nodes that `bindings` gives.

    Bound names are unique in a checked tree, so nothing can be captured.
    """
    if not bindings:
        return node
    return rewrite(
        node,
        lambda n: bindings.get(n.name, n) if isinstance(n, Reference) else n,
    )


def free_names(node: Node) -> frozenset[str]:
    """The names `node` refers to and does not bind."""

    def visit(n: Node, below: Callable[[Node], frozenset[str]]) -> frozenset[str]:
        match n:
            case Reference(name, _):
                return frozenset([name])
            case Lambda(parameter, _, result):
                return below(result) - {parameter}
            case Block(local, result):
                free = set(below(result))
                for name, value in reversed(local):
                    free.discard(name)
                    free |= below(value)
                return frozenset(free)
            case _:
                return frozenset[str]().union(*map(below, n.children()))

    return _bottom_up(node, visit)


def renamed(node: Node, fresh: Callable[[], str]) -> Node:
    """`node` with every name it binds replaced by a fresh one (for inlining twice)."""
    names: dict[str, str] = {}

    def visit(n: Node) -> Steps:
        match n:
            case Reference(name, type_):
                return Reference(names[name], type_) if name in names else n
            case Lambda(str() as parameter, parameter_type, result):
                outer, names[parameter] = names.get(parameter), fresh()
                name = names[parameter]
                result = yield visit(result)
                restore(parameter, outer)
                return Lambda(name, parameter_type, result)
            case Block(local, result):
                outer_names: list[tuple[str, str | None]] = []
                pairs: list[tuple[str, Node]] = []
                for old, value in local:
                    value = yield visit(value)
                    outer_names.append((old, names.get(old)))
                    names[old] = fresh()
                    pairs.append((names[old], value))
                result = yield visit(result)
                for old, before in reversed(outer_names):
                    restore(old, before)
                return Block(tuple(pairs), result)
            case _:
                new: list[Node] = []
                for child in n.children():
                    new.append((yield visit(child)))
                following = iter(new)
                return with_children(n, lambda _: next(following))

    def restore(name: str, before: str | None) -> None:
        if before is None:
            del names[name]
        else:
            names[name] = before

    return drive(visit(node))


def fresh_names(prefix: str = "v") -> Callable[[], str]:
    """A supply of names: v0, v1, ..."""
    counter = itertools.count()
    return lambda: f"{prefix}{next(counter)}"


def canonical_names(node: Node) -> Node:
    """`node` with its bound names numbered in order: equal trees get equal text."""
    free, fresh = free_names(node), fresh_names()

    def unused() -> str:
        return next(name for name in iter(fresh, None) if name not in free)

    return renamed(node, unused)
