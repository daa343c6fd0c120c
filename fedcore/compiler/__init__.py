"""The compiler: from a traced tree to steps of server and client work."""

from fedcore.compiler._desugar import desugar
from fedcore.compiler._normalize import flat, leaf_types, normalize
from fedcore.compiler._program import (
    Aggregate,
    Constant,
    Graph,
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
    "Local",
    "Op",
    "Plan",
    "Program",
    "Reduce",
    "Select",
    "SequenceMap",
    "ServerStep",
    "desugar",
    "flat",
    "leaf_types",
    "normalize",
    "steps",
]
