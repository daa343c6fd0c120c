"""Graphs from strangers: vetted by what they ask for, without importing them."""

import numpy as np
import pytest
import strategies_ir
import tensorflow as tf

from fedcore import ir
from fedcore.ir import _serialize
from fedcore.ir._serialize import SerializationError
from fedcore.types import CLIENTS, FederatedType, FunctionType, SequenceType, TensorType

INT = TensorType(tf.int32)


def load_graph(graph, type_=None, **kwargs):
    type_ = type_ or FunctionType(None, TensorType(tf.string))
    node = ir.Compiled(graph, type_)
    return _serialize.deserialize_node(_serialize.serialize_node(node), **kwargs)


def graph_of(fn, *specs):
    return strategies_ir.graph_bytes(*strategies_ir.traced(fn, *specs))


def write_summary():
    writer = tf.raw_ops.SummaryWriter()
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir="x", max_queue=1, flush_millis=1, filename_suffix=""
    )
    return tf.constant("x")


def in_a_function():
    with tf.init_scope():
        function = tf.function(lambda: tf.io.read_file("x")).get_concrete_function()
    return function()


def after(operation):
    with tf.control_dependencies([operation]):
        return tf.constant("x")


def first_of(dataset):
    return tf.strings.as_string(tf.raw_ops.DatasetCardinality(input_dataset=dataset))


def dataset_of(dataset):
    return first_of(dataset._variant_tensor)


@pytest.mark.parametrize(
    ("fn", "operation"),
    [
        (lambda: tf.io.read_file("x"), "ReadFile"),
        (lambda: after(tf.io.write_file("x", "y")), "WriteFile"),
        (lambda: tf.io.matching_files("*")[0], "MatchingFiles"),
        (lambda: tf.numpy_function(lambda: b"", [], tf.string), "PyFunc"),
        (lambda: tf.py_function(lambda: b"", [], tf.string), "EagerPyFunc"),
        (
            lambda: tf.raw_ops.RestoreV2(
                prefix="x",
                tensor_names=["a"],
                shape_and_slices=[""],
                dtypes=[tf.string],
            )[0],
            "RestoreV2",
        ),
        (
            lambda: after(
                tf.raw_ops.SaveV2(
                    prefix="x", tensor_names=["a"], shape_and_slices=[""], tensors=[1]
                )
            ),
            "SaveV2",
        ),
        (
            lambda: after(
                tf.raw_ops.MergeV2Checkpoints(
                    checkpoint_prefixes=["a"], destination_prefix="b"
                )
            ),
            "MergeV2Checkpoints",
        ),
        (lambda: after(tf.print("x", output_stream="file:///tmp/x")), "PrintV2"),
        (write_summary, "SummaryWriter"),
        (lambda: dataset_of(tf.data.TFRecordDataset("x")), "TFRecordDataset"),
        (lambda: dataset_of(tf.data.TextLineDataset("x")), "TextLineDataset"),
        (
            lambda: dataset_of(tf.data.FixedLengthRecordDataset("x", 1)),
            "FixedLengthRecordDataset",
        ),
        (lambda: dataset_of(tf.data.Dataset.range(3).cache("file")), "CacheDataset"),
        (
            lambda: dataset_of(tf.data.Dataset.range(3).snapshot("dir")),
            "SnapshotDataset",
        ),
        (
            lambda: dataset_of(
                tf.data.experimental.SqlDataset("sqlite", "file", "q", (tf.string,))
            ),
            "SqlDataset",
        ),
        (
            lambda: tf.raw_ops.ImmutableConst(
                dtype=tf.string, shape=[], memory_region_name="x"
            ),
            "ImmutableConst",
        ),
        (
            lambda: tf.raw_ops.DebugIdentity(input="x", debug_urls=["file:///tmp/x"]),
            "DebugIdentity",
        ),
        (in_a_function, "ReadFile"),
    ],
)
def test_graphs_with_side_effects_are_refused_unless_asked_for(fn, operation):
    graph = graph_of(fn)
    with pytest.raises(SerializationError, match="without side effects") as e:
        load_graph(graph)
    assert f"found `{operation}" in str(e.value)
    assert "allow_side_effects=True" in str(e.value)
    assert load_graph(graph, allow_side_effects=True).graph == graph


def variable():
    handle = tf.raw_ops.VarHandleOp(dtype=tf.string, shape=[], shared_name="x")
    with tf.control_dependencies(
        [tf.raw_ops.AssignVariableOp(resource=handle, value="x")]
    ):
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.string)


@pytest.mark.parametrize(
    "fn",
    [
        variable,
        lambda: tf.as_string(tf.random.normal([])),
        lambda: tf.as_string(tf.random.stateless_uniform([], [1, 2])),
        lambda: dataset_of(
            tf.data.Dataset.range(3).cache().shuffle(2).batch(2).repeat()
        ),
        lambda: after(tf.print("x")),
        lambda: tf.cond(
            tf.random.uniform([]) > 0.5, lambda: tf.constant("x"), lambda: "y"
        ),
        lambda: tf.strings.regex_replace("path", "a", "b"),
        lambda: tf.as_string(
            tf.data.Dataset.range(9).map(lambda x: x + 1).reduce(np.int64(0), tf.add)
        ),
    ],
)
def test_graphs_that_keep_to_themselves_are_loaded(fn):
    graph = graph_of(fn)
    assert load_graph(graph).graph == graph


def test_the_head_of_a_graph_must_fit():
    spec = tf.TensorSpec([], tf.int32)
    definition, inputs, outputs = strategies_ir.traced(lambda x: x + 1, spec)
    function = FunctionType(INT, INT)

    def load(type_=function, ins=inputs, outs=outputs, seed=None, **changes):
        graph = strategies_ir.graph_bytes(definition, ins, outs, seed, **changes)
        return load_graph(graph, type_)

    load()
    load(seed=inputs[0])
    with pytest.raises(SerializationError, match="needs 1 tensors `in`, found 0"):
        load(ins=[])
    with pytest.raises(SerializationError, match="needs 1 tensors `out`, found 2"):
        load(outs=outputs * 2)
    with pytest.raises(SerializationError, match="needs dtype bool, found int32"):
        load(FunctionType(INT, tf.bool))
    with pytest.raises(SerializationError, match="needs dtype variant, found int32"):
        load(FunctionType(SequenceType(INT), INT))
    with pytest.raises(
        SerializationError, match="needs types of tensors and sequences"
    ):
        load(FunctionType(INT, FederatedType(INT, CLIENTS)))
    for name in ("none:0", outputs[0][:-1] + "1", outputs[0][:-2], "", ":", "x:-1"):
        with pytest.raises(SerializationError, match="found none"):
            load(outs=[name])
        with pytest.raises(SerializationError, match="found none"):
            load(seed=name)
    for changes in ({"version": 2}, {"more": 1}, {"in": "x:0"}, {"seed": 3}):
        with pytest.raises(SerializationError, match="needs version 1, names"):
            load(**changes)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (b"", "needs a head"),
        (b"\xff\xff\xff\xff", "needs a head of 4294967295 bytes"),
        (b"\0\0\0\1[", "needs JSON"),
        (b"\0\0\0\2[]", "needs version 1"),
        (b"\0\0\0\1\xff", "needs JSON"),
        ((200_000).to_bytes(4, "big") + b"[" * 200_000, "needs JSON"),
        (
            (47).to_bytes(4, "big")
            + b'{"version": 1, "in": [], "out": [], "seed":null}',
            "needs JSON",
        ),
    ],
)
def test_the_head_of_a_graph_must_be_whole(graph, message):
    with pytest.raises(SerializationError, match=message):
        load_graph(graph)


def change_graph(change):
    definition, inputs, outputs = strategies_ir.traced(lambda: tf.constant("x"))
    change(definition)
    return strategies_ir.graph_bytes(definition, inputs, outputs)


def add_node(definition, op, name="n", **sizes):
    node = definition.node.add(op=op, name=name)
    if sizes:
        node.attr["value"].tensor.tensor_shape.dim.add(**sizes)


def add_recursion(definition):
    for name, callee in (("f", "g"), ("g", "f")):
        function = definition.library.function.add()
        function.signature.name = name
        node = function.node_def.add(op="PartitionedCall", name="call")
        node.attr["f"].func.name = callee


def add_function_twice(definition):
    for _ in range(2):
        definition.library.function.add().signature.name = "f"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: add_node(d, "NoSuchOperation"), "found `NoSuchOperation`"),
        (lambda d: add_node(d, "Const", d.node[0].name), "needs one node named"),
        (lambda d: add_node(d, "Const", size=2**50), "bytes of constants"),
        (lambda d: add_node(d, "Const", size=-1), "A constant needs a shape"),
        (add_recursion, "without recursion"),
        (add_function_twice, "one function for each name"),
    ],
)
def test_graphs_must_be_sound(change, message):
    with pytest.raises(SerializationError, match=message):
        load_graph(change_graph(change))


def test_graphs_must_parse():
    graph = change_graph(lambda d: None)
    with pytest.raises(SerializationError, match="needs a GraphDef"):
        load_graph(graph + b"\xff\xff\xff")
