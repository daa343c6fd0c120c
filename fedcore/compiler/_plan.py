"""All passes, one after another."""

from __future__ import annotations

import attrs

from fedcore import ir
from fedcore.compiler._desugar import desugar
from fedcore.compiler._local import local
from fedcore.compiler._normalize import normalize
from fedcore.compiler._steps import Plan, steps


def compile_tree(tree: ir.Node) -> Plan:
    """The steps of a computation's tree, each of few lines."""
    plan = local(steps(normalize(desugar(tree))))
    return attrs.evolve(plan, needs_clients=_holds_mean(tree))


def _holds_mean(tree: ir.Node) -> bool:
    found: list[ir.Node] = []

    def look(node: ir.Node) -> ir.Node:
        if isinstance(node, ir.Intrinsic) and node.uri == "federated_mean":
            found.append(node)
        return node

    ir.rewrite(tree, look)  # a walk would visit shared nodes again and again
    return bool(found)
