"""Merging accumulators in the order of the leaves."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore.compiler import ClientStep, Graph
from fedcore.tensorflow._private import FlatCall
from fedsim.runtime._drained import declared, emit_local


class Merge:
    """Merges stacked accumulators into a total, one after another, in one call."""

    def __init__(self, step: ClientStep):
        self._step = step
        types = [step.types[name] for name in step.totals]
        shared = [step.types[name] for name in step.merge.free()]
        scalar = tf.TensorSpec([], tf.int32)
        program = tf.function(self._program, autograph=False)
        concrete = program.get_concrete_function(
            [tf.TensorSpec(t.shape, t.dtype) for t in types],
            [tf.TensorSpec([None, *t.shape], t.dtype) for t in types],
            [tf.TensorSpec(t.shape, t.dtype) for t in shared],
            tf.TensorSpec([2], tf.int32),
            scalar,
            scalar,
        )
        self._run = FlatCall(concrete)

    def _program(self, total, buffers, shared, seed, start, stop):
        around = dict(zip(self._step.merge.free(), shared))
        # With nothing merged yet the first leaf is the total.
        total = [
            tf.cond(start > 0, lambda b=b: b[0], lambda t=t: t)
            for t, b in zip(total, buffers)
        ]

        def merge(i, total):
            both = [*total, *(buffer[i] for buffer in buffers)]
            merged = emit_local(self._step.merge, both, around, seed)
            return i + 1, declared(merged, total)

        return tf.while_loop(lambda i, _: i < stop, merge, (start, total))[1]

    def __call__(
        self,
        total: list[Any] | None,
        buffers: list[Any],
        leaves: int,
        shared: dict[str, Any],
        seed: tuple[int, int],
    ) -> list[Any]:
        """The total with the first `leaves` accumulators merged in."""
        start = 0
        if total is None:
            total, start = [shared[name] for name in self._step.zero], 1
        free = [shared[name] for name in self._step.merge.free()]
        numbers = (np.array(seed, np.int32), np.int32(start), np.int32(leaves))
        arguments = (*total, *buffers, *free, *numbers)
        return self._run([tf.convert_to_tensor(value) for value in arguments])


_merges: weakref.WeakKeyDictionary[ClientStep, Merge] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def merge_of(step: ClientStep) -> Merge:
    """The merge of a step, made once."""
    assert all(isinstance(op, Graph) for op in step.merge.ops)
    with _lock:
        if step not in _merges:
            _merges[step] = Merge(step)
        return _merges[step]
