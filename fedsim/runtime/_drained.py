"""The tf.data road: a client's pass over any dataset as one call of one graph.

The dataset is drained in C++ in pieces of bounded size, each a tensor of padded elements,
and a plain loop runs over a piece; an element is cut back to its true shape first. So a
long dataset streams, and an element costs no call of Python and no step of an iterator.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import tensorflow as tf

from fedcore.compiler import Graph, Local, Reduce
from fedcore.tensorflow import _compose, _graph
from fedcore.tensorflow._dataset_loop import (
    cannot_be_padded,
    cut,
    most_at_once,
    padded,
)
from fedcore.tensorflow._private import FlatCall
from fedcore.types import SequenceType, TensorType, Type, type_to_tf_tensor_specs
from fedsim.runtime._counter import Counter
from fedsim.runtime._leaves import to_leaves
from fedsim.runtime._values import from_nest

loops_made = Counter()


class NoLoop(Exception):
    """Why a pass over a dataset cannot be one graph."""


class DrainedLoop:
    """A `Reduce` over a tf.data.Dataset, compiled once for the line."""

    def __init__(self, op: Reduce, types: dict[str, Any]):
        self._op = op
        self._types = types
        self.free = op.step.free()
        element = types[op.sequence[0]].element
        self._check(element)
        self._spec = type_to_tf_tensor_specs(element)
        self._element = element
        state = [_spec(types[name]) for name in op.outputs]
        free = [_spec(types[name]) for name in self.free]
        variant = tf.TensorSpec([], tf.variant)
        program = tf.function(self._loop, autograph=False)
        self._run = FlatCall(program.get_concrete_function(variant, state, free))

    def __call__(self, variant: tf.Tensor, state: list[Any], free: list[Any]) -> list:
        """The state after all elements of the dataset.

        Args:
            variant: The dataset.
            state: The state to start from.
            free: The values named in `free`.
        """
        return self._run([variant, *state, *free])

    def _check(self, element: Type) -> None:
        names = (*self._op.zero, *self._op.outputs, *self.free)
        if any(isinstance(self._types[name], SequenceType) for name in names):
            raise NoLoop("a sequence is part of its state")
        for op in self._op.step.ops:
            if not isinstance(op, Graph):
                raise NoLoop("a step holds a loop of its own")
            if _graph.unpack(op.graph).seed is not None:
                raise NoLoop("each step draws randomness without a seed")
        obstacle = cannot_be_padded(type_to_tf_tensor_specs(element))
        if obstacle:
            raise NoLoop(obstacle)

    def _loop(self, variant: tf.Tensor, state: list[Any], free: list[Any]) -> list:
        loops_made.add()
        dataset = tf.data.experimental.from_variant(variant, self._spec)
        most = most_at_once(self._spec)
        size = dataset.cardinality()  # negative if infinite or not known
        around = dict(zip(self.free, free))

        def over_elements(piece: Any, state: list[Any]) -> list[Any]:
            number = tf.shape(tf.nest.flatten(piece)[0])[0]
            _, state = tf.while_loop(
                lambda i, _: i < number,
                lambda i, state: (i + 1, self._step(piece, i, state, around)),
                (tf.constant(0), state),
            )
            return state

        def at_once() -> list[Any]:
            whole = padded(dataset, size).get_single_element()
            return over_elements(whole, state)

        def in_pieces() -> list[Any]:
            # An iterator costs 10 ms: it makes the pipeline's functions anew.
            iterator = iter(padded(dataset, most))

            def over_pieces(piece: Any, state: list[Any]) -> tuple[Any, list[Any]]:
                state = over_elements(piece.get_value(), state)
                return iterator.get_next_as_optional(), state

            _, last = tf.while_loop(
                lambda piece, _: piece.has_value(),
                over_pieces,
                (iterator.get_next_as_optional(), state),
            )
            return last

        fits = tf.logical_and(size > 0, size <= most)
        return tf.cond(fits, at_once, in_pieces)

    def _step(
        self, piece: Any, i: tf.Tensor, state: list[Any], around: dict[str, Any]
    ) -> list[tf.Tensor]:
        nested = tf.nest.pack_sequence_as(self._spec, cut(piece, i, self._spec))
        element = to_leaves(from_nest(nested, self._element), self._element)
        return declared(emit_local(self._op.step, [*state, *element], around), state)


_loops: weakref.WeakKeyDictionary[Reduce, DrainedLoop | None] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def drained_loop(op: Reduce, types: dict[str, Any]) -> DrainedLoop | None:
    """The loop of a line, made once; None if it cannot be one graph."""
    with _lock:
        if op not in _loops:
            try:
                _loops[op] = DrainedLoop(op, types)
            except NoLoop:
                _loops[op] = None
        return _loops[op]


def _spec(type_: TensorType) -> tf.TensorSpec:
    return tf.TensorSpec(type_.shape, type_.dtype)


def declared(tensors: list[tf.Tensor], like: list[tf.Tensor]) -> list[tf.Tensor]:
    """The tensors with shapes no less known than those of `like`: a loop wants that."""
    return [
        tensor
        if _known_as_well(tensor.shape, old.shape)
        else tf.ensure_shape(tensor, old.shape)
        for tensor, old in zip(tensors, like, strict=True)
    ]


def _known_as_well(shape: tf.TensorShape, wanted: tf.TensorShape) -> bool:
    if wanted.rank is None:
        return True
    if shape.rank is None:
        return False
    return all(w is None or d == w for d, w in zip(shape, wanted))


def emit_local(
    fn: Local, arguments: list[Any], around: dict[str, Any], seed: Any = None
) -> list[tf.Tensor]:
    """Adds a local function of graphs to the graph being built."""
    env = {**around, **dict(zip(fn.inputs, arguments, strict=True))}
    for op in fn.ops:
        assert isinstance(op, Graph)
        outputs = _compose.emit(op.graph, [env[name] for name in op.inputs], seed)
        env.update(zip(op.outputs, outputs, strict=True))
    return [env[name] for name in fn.outputs]
