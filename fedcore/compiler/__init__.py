"""The compiler: from a traced tree to steps of server and client work."""

from fedcore.compiler._desugar import desugar
from fedcore.compiler._local import constant, local
from fedcore.compiler._normalize import flat, leaf_types, normalize
from fedcore.compiler._plan import compile_tree
from fedcore.compiler._program import (
    Aggregate,
    Constant,
    Graph,
    LeafType,
    Local,
    Op,
    Program,
    Reduce,
    Select,
    SequenceMap,
)
from fedcore.compiler._steps import ClientStep, Plan, ServerStep, steps

__all__ = [
    "Aggregate",
    "ClientStep",
    "Constant",
    "Graph",
    "LeafType",
    "Local",
    "Op",
    "Plan",
    "Program",
    "Reduce",
    "Select",
    "SequenceMap",
    "ServerStep",
    "compile_tree",
    "constant",
    "desugar",
    "flat",
    "leaf_types",
    "local",
    "normalize",
    "steps",
]
