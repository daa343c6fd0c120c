"""Graph bytes: what a traced computation is, packed, unpacked and run."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from fedcore.tensorflow import _private
from fedcore.tensorflow._canonical import canonical

VERSION = 1
_LENGTH_BYTES = 4
_CACHED_EXECUTABLES = 4096


@attrs.frozen
class Unpacked:
    """The parts of graph bytes: a GraphDef and the tensors that go in and out.

    Inputs are in flat order of the parameter's type, outputs in that of the result's; a
    sequence is a scalar variant. `seed` names the hidden `int32[2]` input, if any.
    """

    graph_def: graph_pb2.GraphDef
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seed: str | None = None

    @property
    def all_inputs(self) -> tuple[str, ...]:
        return self.inputs if self.seed is None else (*self.inputs, self.seed)


def pack(parts: Unpacked) -> bytes:
    """The bytes of a graph in canonical form; equal graphs give equal bytes."""
    header = json.dumps(
        {
            "version": VERSION,
            "in": list(parts.inputs),
            "out": list(parts.outputs),
            "seed": parts.seed,
        },
        separators=(",", ":"),
    ).encode()
    body = canonical(parts.graph_def).SerializeToString(deterministic=True)
    return len(header).to_bytes(_LENGTH_BYTES, "big") + header + body


def unpack(graph: bytes) -> Unpacked:
    """The parts of graph bytes.

    Raises:
        ValueError: If these are not the bytes of a graph that this version reads.
    """
    try:
        end = _LENGTH_BYTES + int.from_bytes(graph[:_LENGTH_BYTES], "big")
        header = json.loads(graph[_LENGTH_BYTES:end])
        graph_def = graph_pb2.GraphDef.FromString(graph[end:])
        version, seed = header["version"], header["seed"]
        inputs, outputs = tuple(header["in"]), tuple(header["out"])
    except Exception as error:
        raise ValueError(
            f"A computation's graph needs its packed bytes, found {len(graph)} bytes that "
            f"cannot be read: {error}"
        ) from error
    if version != VERSION:
        raise ValueError(
            f"A computation's graph needs version {VERSION}, found {version}.\n"
            "Read it with the version of fedcore that wrote it."
        )
    return Unpacked(graph_def, inputs, outputs, seed)


def emit(parts: Unpacked, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Adds a graph's nodes to the one being built, in a form that XLA compiles too.

    Its placeholders go (left behind, unused, XLA refuses them), its functions are made
    known to the runtime, and tensors from around the current graph are captured first.
    """
    here = _private.default_graph()
    given = {
        name: here.capture(value) if hasattr(here, "capture") else value
        for name, value in zip(parts.all_inputs, inputs, strict=True)
    }
    _private.register_functions(parts.graph_def.library.function)
    body, used = _without_inputs(parts)
    wanted = [name for name in parts.outputs if name not in given]
    made: dict[str, tf.Tensor] = {}
    if body.node:
        tensors = tf.graph_util.import_graph_def(
            body,
            input_map={name: given[name] for name in parts.all_inputs if name in used},
            return_elements=wanted,
            name="graph",
        )
        made = dict(zip(wanted, tensors))
    return [given[name] if name in given else made[name] for name in parts.outputs]


def _without_inputs(parts: Unpacked) -> tuple[graph_pb2.GraphDef, set[str]]:
    """The nodes that are no input, and which tensors they read."""
    inputs = {name.split(":")[0] for name in parts.all_inputs}
    body = graph_pb2.GraphDef(
        library=parts.graph_def.library, versions=parts.graph_def.versions
    )
    used = set()
    for node in parts.graph_def.node:
        if node.name in inputs:
            continue
        kept = body.node.add()
        kept.CopyFrom(node)
        kept.input[:] = [
            name
            for name in node.input
            if not (name.startswith("^") and name[1:] in inputs)
        ]
        used.update(
            name if ":" in name else f"{name}:0"
            for name in kept.input
            if not name.startswith("^")
        )
    return body, used


class Executable:
    """Graph bytes made ready to run; may be called from many threads at once."""

    def __init__(self, graph: bytes):
        self._parts = unpack(graph)
        self.has_seed = self._parts.seed is not None
        _private.register_functions(self._parts.graph_def.library.function)
        self._graph = _private.FuncGraph("computation")
        with self._graph.as_default():
            tf.graph_util.import_graph_def(self._parts.graph_def, name="")
        element = self._graph.as_graph_element
        self._graph.inputs = [element(name) for name in self._parts.all_inputs]
        self._graph.outputs = [element(name) for name in self._parts.outputs]
        self._graph.structured_outputs = self._graph.outputs
        self._dtypes = [tensor.dtype for tensor in self._graph.inputs]
        name = f"computation_{hashlib.sha256(graph).hexdigest()[:16]}"
        self._run = _private.Runnable(self._graph, name)

    def __call__(self, flat_inputs: Sequence[Any], seed: Any = None) -> list[tf.Tensor]:
        """Runs the graph on eager tensors.

        Args:
            flat_inputs: One tensor for each input, in flat order; a variant for a dataset.
            seed: Two int32 that decide all unseeded Keras randomness; fresh entropy if
                None.

        Returns:
            The outputs, eager tensors in flat order.
        """
        inputs = self._with_seed(flat_inputs, seed)
        for i, value in enumerate(inputs):
            if not _private.is_eager(value):
                inputs[i] = tf.convert_to_tensor(value, self._dtypes[i])
        return self._run(inputs)

    def inline(self, flat_inputs: Sequence[Any], seed: Any = None) -> list[tf.Tensor]:
        """Calls the graph inside a graph that is being built; gradients flow through.

        Args:
            flat_inputs: As for a call, symbolic.
            seed: As for a call, symbolic. If None, a draw from the hidden seed of the
                computation being traced; outside of one, from entropy, once, now.

        Returns:
            The outputs, symbolic tensors in flat order.
        """
        root = _private.active_root()
        if self.has_seed and seed is None and root is not None:
            seed = root.seed_for_call()
        return list(self._function(*self._with_seed(flat_inputs, seed)))

    def _with_seed(self, flat_inputs: Sequence[Any], seed: Any) -> list[Any]:
        inputs = list(flat_inputs)
        if len(inputs) != len(self._parts.inputs):
            raise ValueError(
                f"The graph needs {len(self._parts.inputs)} tensors, found {len(inputs)}."
            )
        if self.has_seed:
            inputs.append(fresh_seed() if seed is None else seed)
        return inputs

    @functools.cached_property
    def _function(self) -> Any:
        """The graph as a `tf.function`: one that a GradientTape sees through."""
        # Built here and not from `self._graph`, which the runtime has already.
        parts = self._parts

        def computation(*inputs: tf.Tensor) -> list[tf.Tensor]:
            return emit(parts, inputs)

        signature = [
            tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self._graph.inputs
        ]
        return tf.function(computation, input_signature=signature, autograph=False)


_executables_lock = threading.Lock()


@functools.lru_cache(maxsize=_CACHED_EXECUTABLES)
def _cached_executable(graph: bytes) -> Executable:
    return Executable(graph)


def executable(graph: bytes) -> Executable:
    """The executable of graph bytes, made once for each content."""
    with _executables_lock:
        return _cached_executable(graph)


def fresh_seed() -> np.ndarray:
    """Two int32 from the operating system's entropy."""
    return np.frombuffer(os.urandom(8), dtype=np.int32)
