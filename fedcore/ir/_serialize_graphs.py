"""What a graph from a stranger must keep, found without importing it.

The graph is only parsed. It may use the operations that this TensorFlow knows and
that touch neither files, nor the network, nor Python, and its head must fit its type.
"""

from __future__ import annotations

import graphlib
import json
import math
import re
from collections.abc import Iterable, Iterator

import tensorflow as tf
from google.protobuf import message
from tensorflow.core.framework import (
    attr_value_pb2,
    function_pb2,
    graph_pb2,
    node_def_pb2,
    op_def_pb2,
)
from tensorflow.python.framework import op_def_registry

from fedcore import structure
from fedcore.ir._serialize_wire import SerializationError
from fedcore.types import FunctionType, SequenceType, StructType, TensorType, Type

_HEAD_VERSION = 1
_MAX_CONSTANT_BYTES = 1 << 31

# Of the operations with state, only these are known to keep it inside the process.
_SAFE_STATE = re.compile(
    r"VarHandleOp|ReadVariableOp|Assign(Add|Sub)?VariableOp|VarIsInitializedOp"
    r"|VariableShape|DestroyResourceOp|DisableCopyOnRead"
    r"|Resource(Apply|SparseApply|Scatter|Gather|StridedSlice|CountUpTo).*"
    r"|If|While|Case|StatefulPartitionedCall|Assert|CheckNumerics(V2)?|Print|PrintV2"
    r"|Empty|DeepCopy|GuaranteeConst|Timestamp|DeviceIndex"
    r"|Random(StandardNormal|Uniform|UniformInt|Gamma|Poisson|PoissonV2|Shuffle|Crop)"
    r"|Multinomial|TruncatedNormal|ParameterizedTruncatedNormal|SampleDistorted.*"
    r"|Stateful(Random|Standard|Truncated|Uniform).*|Rng(Skip|ReadAndSkip)"
    r"|NonDeterministicInts|StatelessRandomGetAlg"
    r"|(All|Uniform|LogUniform|LearnedUnigram|ThreadUnsafeUnigram)CandidateSampler"
    r"|(Range|Tensor|TensorSlice|SparseTensorSlice|Reduce|GroupByReducer|Generator|List"
    r"|GlobalShuffle)Dataset|(Shuffle|ShuffleAndRepeat|Random|Cache)Dataset(V[23])?"
    r"|DatasetToSingleElement|(Anonymous)?Iterator(V[23])?|IteratorGetNext.*"
    r"|MakeIterator|OneShotIterator|Delete(Iterator|MemoryCache|(Random)?SeedGenerator)"
    r"|Anonymous((Random)?SeedGenerator|MemoryCache)"
    r"|Dummy(MemoryCache|SeedGenerator|IterationCounter)"
    r"|(Anonymous|Mutable|MutableDense|AnonymousMutable|AnonymousMutableDense)?HashTable"
    r"(OfTensors)?(V2)?|LookupTable.*V2|InitializeTable(V2|FromDataset)"
    r"|TensorArray.*|Stack((Push|Pop|Close)?V2)?|CudnnRNN.*|MutexV2|MutexLock"
    r"|ConsumeMutexLock|TemporaryVariable"
)
# Operations without state give themselves away by what they ask for.
_OUTSIDE_ARGUMENT = re.compile(
    r"(.*_)?(file|files|filename|filenames|file_pattern|dir|directory|path|address|url"
    r"|urls|uri)(_.*)?|memory_region_name"
)
_OUTSIDE_NAME = re.compile(r".*(PyFunc|MatchingFiles|XlaHostCompute).*|_.*")


def check_graph(graph: bytes, type_: FunctionType, *, allow_side_effects: bool) -> None:
    """Raises if the bytes of a graph break their layout, or the graph the rules."""
    head, definition = _split(graph)
    try:
        parsed = graph_pb2.GraphDef.FromString(definition)
    except message.DecodeError as e:
        raise SerializationError(f"A graph needs a GraphDef, found none: {e}") from e
    functions = {f.signature.name: f for f in parsed.library.function}
    if len(functions) != len(parsed.library.function):
        raise SerializationError("A graph needs one function for each name.")
    bodies = [parsed.node, *(f.node_def for f in parsed.library.function)]
    for body in bodies:
        _check_operations(body, functions, allow_side_effects)
    _check_constants(bodies)
    _check_recursion(functions)
    tensors = _Tensors(parsed.node, functions)
    _check_leaves("in", head["in"], type_.parameter, tensors)
    _check_leaves("out", head["out"], type_.result, tensors)
    if head["seed"] is not None and tensors.dtype(head["seed"]) != tf.int32:
        raise SerializationError("The seed of a graph needs dtype int32.")


def _split(graph: bytes) -> tuple[dict, bytes]:
    """The JSON head and the GraphDef after it."""
    size = int.from_bytes(graph[:4], "big")
    if len(graph) < 4 or size > len(graph) - 4:
        raise SerializationError(
            f"A graph needs a head of {size} bytes, found {len(graph)} in all."
        )
    try:
        head = json.loads(graph[4 : 4 + size].decode())
    except (ValueError, RecursionError) as e:
        raise SerializationError(f"The head of a graph needs JSON: {e}") from e
    if (
        not isinstance(head, dict)
        or head.keys() != {"version", "in", "out", "seed"}
        or head["version"] != _HEAD_VERSION
        or not _is_names(head["in"])
        or not _is_names(head["out"])
        or not isinstance(head["seed"], str | None)
    ):
        raise SerializationError(
            "The head of a graph needs version 1, names `in` and `out`, and a `seed`."
        )
    return head, graph[4 + size :]


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _check_operations(
    body: Iterable[node_def_pb2.NodeDef],
    functions: dict[str, function_pb2.FunctionDef],
    allow_side_effects: bool,
) -> None:
    nodes = {}
    for node in body:
        if node.name in nodes:
            raise SerializationError(f"A graph needs one node named `{node.name}`.")
        nodes[node.name] = node
        if node.op in functions:
            continue
        definition = op_def_registry.get(node.op)
        if definition is None:
            raise SerializationError(
                f"A graph needs operations of TensorFlow {tf.__version__}, found "
                f"`{node.op}`."
            )
        if not allow_side_effects and _reaches_outside(definition):
            raise _outside(node)
    if not allow_side_effects:
        for node in nodes.values():
            if node.op.startswith("CacheDataset") and not _in_memory(node, nodes):
                raise _outside(node)
            if node.op == "PrintV2" and _prints_to_file(node):
                raise _outside(node)


def _outside(node: node_def_pb2.NodeDef) -> SerializationError:
    return SerializationError(
        f"A graph needs operations without side effects, found `{node.op}` at "
        f"`{node.name}`: it may touch files, the network or Python.\n"
        "If you trust who made it, load it with `allow_side_effects=True`."
    )


def _reaches_outside(definition: op_def_pb2.OpDef) -> bool:
    if _OUTSIDE_NAME.fullmatch(definition.name):
        return True
    if definition.is_stateful:
        return _SAFE_STATE.fullmatch(definition.name) is None
    arguments = [*definition.input_arg, *definition.attr]
    return definition.name != "CacheDataset" and any(
        _OUTSIDE_ARGUMENT.fullmatch(argument.name) for argument in arguments
    )


def _in_memory(
    node: node_def_pb2.NodeDef, nodes: dict[str, node_def_pb2.NodeDef]
) -> bool:
    """Whether a dataset's cache has the constant file name "", which is no file."""
    if len(node.input) < 2:
        return False
    source = nodes.get(node.input[1].split(":")[0])
    if source is None or source.op != "Const":
        return False
    value = source.attr["value"].tensor
    return list(value.string_val) in ([b""], []) and not value.tensor_content


def _prints_to_file(node: node_def_pb2.NodeDef) -> bool:
    return node.attr["output_stream"].s.startswith(b"file")


def _check_constants(bodies: list[Iterable[node_def_pb2.NodeDef]]) -> None:
    """A constant may repeat its last value, up to a bound on all of them together."""
    claimed = 0
    for body in bodies:
        for node in body:
            for value in node.attr.values():
                for tensor in _attribute_tensors(value):
                    claimed += _claimed_bytes(tensor)
    if claimed > _MAX_CONSTANT_BYTES:
        raise SerializationError(
            f"A graph needs at most {_MAX_CONSTANT_BYTES} bytes of constants, found "
            f"{claimed}."
        )


def _attribute_tensors(value: attr_value_pb2.AttrValue) -> Iterator:
    if value.HasField("tensor"):
        yield value.tensor
    elif value.HasField("list"):
        yield from value.list.tensor


def _claimed_bytes(tensor) -> int:
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if (
        tensor.tensor_shape.unknown_rank
        or len(sizes) > 254
        or min(sizes, default=0) < 0
    ):
        raise SerializationError("A constant needs a shape, found none.")
    # Zero sizes count as one: TensorFlow multiplies the others all the same.
    return 8 * math.prod(max(size, 1) for size in sizes)


def _check_recursion(functions: dict[str, function_pb2.FunctionDef]) -> None:
    """Functions may not call themselves: TensorFlow would run out of stack."""
    calls = {
        name: set(_called(function)) & functions.keys()
        for name, function in functions.items()
    }
    try:
        graphlib.TopologicalSorter(calls).prepare()
    except graphlib.CycleError as e:
        raise SerializationError(
            f"A graph needs functions without recursion, found {e.args[1]}."
        ) from e


def _called(function: function_pb2.FunctionDef) -> Iterator[str]:
    for node in function.node_def:
        yield node.op
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            elif value.HasField("list"):
                yield from (f.name for f in value.list.func)


class _Tensors:
    """The dtypes of a graph's tensors, by the names that a head uses."""

    def __init__(
        self,
        nodes: Iterable[node_def_pb2.NodeDef],
        functions: dict[str, function_pb2.FunctionDef],
    ):
        self._nodes = {node.name: node for node in nodes}
        self._functions = functions

    def dtype(self, name: str) -> tf.DType:
        node_name, _, index = name.partition(":")
        node = self._nodes.get(node_name)
        if node is None or not re.fullmatch(r"[0-9]{1,9}", index):
            raise SerializationError(f"A graph needs the tensor `{name}`, found none.")
        function = self._functions.get(node.op)
        definition = function.signature if function else op_def_registry.get(node.op)
        position = int(index)
        for output in definition.output_arg:
            dtypes, count = _output(output, node)
            if position < count:
                return _dtype(dtypes[position % len(dtypes)], name)
            position -= count
        raise SerializationError(f"A graph needs the tensor `{name}`, found none.")


def _output(
    output: op_def_pb2.OpDef.ArgDef, node: node_def_pb2.NodeDef
) -> tuple[list[int], int]:
    """The dtypes and the number of the tensors of one output of an operation."""
    if output.type_list_attr:
        dtypes = list(node.attr[output.type_list_attr].list.type)
        return dtypes, len(dtypes)
    one = [node.attr[output.type_attr].type if output.type_attr else output.type]
    return one, node.attr[output.number_attr].i if output.number_attr else 1


def _dtype(code: int, name: str) -> tf.DType:
    try:
        return tf.dtypes.as_dtype(code)
    except TypeError as e:
        raise SerializationError(f"The tensor `{name}` needs a dtype: {e}") from e


def _check_leaves(
    key: str, names: list[str], type_: Type | None, tensors: _Tensors
) -> None:
    leaves = [] if type_ is None else list(_leaves(type_))
    if len(names) != len(leaves):
        raise SerializationError(
            f"A graph of type `{type_}` needs {len(leaves)} tensors `{key}`, found "
            f"{len(names)}."
        )
    for name, leaf in zip(names, leaves):
        wanted = leaf.dtype if isinstance(leaf, TensorType) else tf.variant
        found = tensors.dtype(name)
        if found != wanted:
            raise SerializationError(
                f"The tensor `{name}` needs dtype {wanted.name}, found {found.name}."
            )


def _leaves(type_: Type) -> Iterator[TensorType | SequenceType]:
    match type_:
        case TensorType() | SequenceType():
            yield type_
        case StructType():
            for _, element in structure.iter_elements(type_):
                yield from _leaves(element)
        case _:
            raise SerializationError(
                f"A graph needs types of tensors and sequences, found `{type_}`."
            )
