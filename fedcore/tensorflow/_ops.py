"""Which operations a graph holds, its library functions included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensorflow.core.framework import graph_pb2

# They call back into the Python process that made the graph: no other can run them.
PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

# They reach files or other processes when the graph runs.
FILE_OPS = frozenset(
    {
        "DebugIdentity",
        "DebugIdentityV2",
        "DebugIdentityV3",
        "FixedLengthRecordDataset",
        "FixedLengthRecordDatasetV2",
        "FixedLengthRecordReader",
        "FixedLengthRecordReaderV2",
        "InitializeTableFromTextFile",
        "InitializeTableFromTextFileV2",
        "LoadDataset",
        "MatchingFiles",
        "MatchingFilesDataset",
        "MergeV2Checkpoints",
        "ReadFile",
        "Restore",
        "RestoreSlice",
        "RestoreV2",
        "Save",
        "SaveDataset",
        "SaveDatasetV2",
        "SaveSlices",
        "SaveV2",
        "ShardedFilespec",
        "SqlDataset",
        "TFRecordDataset",
        "TFRecordDatasetV2",
        "TFRecordReader",
        "TFRecordReaderV2",
        "TextLineDataset",
        "TextLineReader",
        "TextLineReaderV2",
        "WholeFileReader",
        "WholeFileReaderV2",
        "WriteFile",
    }
)


def all_nodes(graph_def: graph_pb2.GraphDef) -> Iterator[Any]:
    """The nodes of a GraphDef and those of its library functions."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def op_names(graph_def: graph_pb2.GraphDef) -> frozenset[str]:
    """The names of the operations in a GraphDef; calls of its own functions left out."""
    functions = {f.signature.name for f in graph_def.library.function}
    return frozenset(node.op for node in all_nodes(graph_def)) - functions
