"""Replaces intrinsics that can be said in others by their bodies."""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs

from fedcore import ir
from fedcore.federated import body_of


def desugar(tree: ir.Node, keep: frozenset[str] = frozenset()) -> ir.Node:
    """`tree` with nothing but primitive intrinsics, and those in `keep`.

    Its meaning is unchanged.
    """
    return _desugar(tree, keep, ir.fresh_names("d"))


def _desugar(tree: ir.Node, keep: frozenset[str], fresh: Callable[[], str]) -> ir.Node:
    def rule(node: ir.Node) -> ir.Node:
        if isinstance(node, ir.Intrinsic) and node.uri not in keep:
            body = _body(node)
            if body is not None:
                # Used in several places, a body binds names of its own in each.
                body = _from(ir.renamed(body, fresh), node.origin or node.uri)
                return _desugar(body, keep, fresh)
        return node

    return ir.rewrite(tree, rule)


def _from(body: ir.Node, origin: str) -> ir.Node:
    """`body` with the name of what it is the body of in its operators."""

    def rule(node: ir.Node) -> ir.Node:
        if isinstance(node, ir.Intrinsic):
            return attrs.evolve(node, origin=origin)
        return node

    return ir.rewrite(body, rule)


@functools.lru_cache(maxsize=1024)
def _body(node: ir.Intrinsic) -> ir.Lambda | None:
    return body_of(node)
