"""Which TensorFlow operations a tree holds, and which intrinsics."""

from __future__ import annotations

from collections.abc import Iterable

from fedcore import ir
from fedcore.compiler import desugar
from fedcore.tensorflow._graph import unpack
from fedcore.tensorflow._ops import op_names


class DisallowedOpInTensorFlowComputationError(Exception):
    """A graph holds operations that were not allowed."""


def check_allowed_ops(
    comp: ir.Node, allowed_op_names: Iterable[str]
) -> tuple[ir.Node, bool]:
    """Checks that the graphs in a tree hold no other operations than these.

    Args:
        comp: The tree, for example `computation.to_building_block()`.
        allowed_op_names: Names of TensorFlow operations, such as `"AddV2"`.

    Returns:
        The tree as it is, and False: it was not changed.

    Raises:
        DisallowedOpInTensorFlowComputationError: Names the others.
    """
    _refuse(comp, _ops(comp) - frozenset(allowed_op_names))
    return comp, False


def check_disallowed_ops(
    comp: ir.Node, disallowed_op_names: Iterable[str]
) -> tuple[ir.Node, bool]:
    """Checks that the graphs in a tree hold none of these operations.

    Args:
        comp: The tree, for example `computation.to_building_block()`.
        disallowed_op_names: Names of TensorFlow operations, such as `"ReadFile"`.

    Returns:
        The tree as it is, and False: it was not changed.

    Raises:
        DisallowedOpInTensorFlowComputationError: Names those that it holds.
    """
    _refuse(comp, _ops(comp) & frozenset(disallowed_op_names))
    return comp, False


def _refuse(comp: ir.Node, found: frozenset[str]) -> None:
    if found:
        raise DisallowedOpInTensorFlowComputationError(
            f"The computation holds operations that are not allowed: "
            f"{', '.join(sorted(found))}.\nIts type is `{comp.type}`."
        )


def _ops(comp: ir.Node) -> frozenset[str]:
    if not isinstance(comp, ir.Node):
        raise TypeError(
            "The operations of a tree are checked, found "
            f"`{type(comp).__name__}`.\n"
            "Pass `computation.to_building_block()`."
        )
    graphs: set[bytes] = set()

    def look(node: ir.Node) -> ir.Node:
        if isinstance(node, ir.Compiled):
            graphs.add(node.graph)
        return node

    ir.rewrite(comp, look)  # a walk would visit shared nodes again and again
    return frozenset().union(*(op_names(unpack(graph).graph_def) for graph in graphs))


def replace_intrinsics_with_bodies(comp: ir.Node) -> tuple[ir.Node, bool]:
    """Says the intrinsics of a tree in others: a mean in sums, a sum in an aggregate.

    Args:
        comp: The tree.

    Returns:
        A tree of the same meaning that holds primitive intrinsics alone, and whether
        anything was replaced.
    """
    replaced = desugar(comp)
    return replaced, replaced is not comp
