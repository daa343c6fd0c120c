"""A client step as one program for a task of clients.

The program is three plain nested loops, over the leaves of the task, the clients of a
leaf and the elements of a client's sequence: it takes an element, steps, and adds what a
client sends to its leaf's accumulator. Where elements come from is a `Pass`: rows of
columns (`_columnar`) or what tf.data made (`_stacks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import tensorflow as tf

from fedcore.compiler import ClientStep, Graph, Reduce
from fedcore.tensorflow import _compose
from fedcore.tensorflow._private import FlatCall
from fedsim.runtime._counter import Counter
from fedsim.runtime._drained import declared, emit_local
from fedsim.runtime._seeds import as_int32_pair, fold
from fedsim.runtime._workers import Clients, clients_in_a_leaf

# How a batch that is smaller than the others is treated: there is none, its rows are cut
# off, which XLA cannot do, the step takes a mask, or XLA knows its length at run time only.
EVEN, EXACT, MASKED, DYNAMIC = "even", "exact", "masked", "dynamic"

kernels_made = Counter()

_LEAST_ELEMENTS = 32


class Pass(Protocol):
    """A pass of a step over its clients' sequences, as a program sees it."""

    def specs(self, clients: int) -> Any:
        """What the program is given for a task of up to `clients` clients.

        The last of it is where each client's elements start, `int32[clients + 1]`.
        """
        ...

    def element(self, given: Any, i: tf.Tensor) -> tuple[list[Any], tf.Tensor | None]:
        """The leaves of element `i`, and which of its rows count if the step masks."""
        ...


@attrs.frozen(eq=False)
class Stacked:
    """The accumulators of a task's leaves, stacked, and what its clients keep."""

    leaves: int
    buffers: list[tf.Tensor]
    kept: dict[str, list[Any]]


class Kernel:
    """A client step as one program, for up to `clients` clients in up to `leaves` leaves.

    Args:
        step: The step.
        tensors: Of each input that is a tensor, one client's value.
        passes: Of each pass over a sequence in the step, in order, what it reads.
        clients: Capacity.
        leaves: Capacity.
        compiled: Whether XLA compiles it.
    """

    def __init__(
        self,
        step: ClientStep,
        tensors: dict[str, Any],
        passes: Sequence[Pass],
        clients: int,
        leaves: int,
        compiled: bool,
    ):
        self._step = step
        self.clients = clients
        self._leaves = leaves
        self._tensors = list(tensors)
        self.passes = passes
        program = tf.function(self._program, jit_compile=compiled, autograph=False)
        self._run = FlatCall(program.get_concrete_function(*self._signature(tensors)))

    def _signature(self, tensors: dict[str, Any]) -> tuple[Any, ...]:
        def spec(name: str, *outer: int | None) -> tf.TensorSpec:
            type_ = self._step.types[name]
            return tf.TensorSpec([*outer, *type_.shape], type_.dtype)

        def stacked(value: Any) -> tf.TensorSpec:
            tensor = tf.convert_to_tensor(value)
            return tf.TensorSpec([self.clients, *tensor.shape], tensor.dtype)

        return (
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([2], tf.int32),
            tf.TensorSpec([self.clients, 2], tf.int32),
            [spec(name) for name in self._step.shared],
            [spec(name) for name in self._step.totals],
            [stacked(value) for value in tensors.values()],
            [one.specs(self.clients) for one in self.passes],
        )

    # --- The program ----------------------------------------------------------------

    def _program(self, count, leaf, server_seed, seeds, shared, zero, tensors, given):
        kernels_made.add()
        step = self._step
        around = dict(zip(step.shared, shared))
        types = [step.types[name] for name in step.keep]
        keeps = [tf.zeros([self.clients, *t.shape], t.dtype) for t in types]

        def client(c, totals, keeps):
            env = dict(around)
            env.update({n: stack[c] for n, stack in zip(self._tensors, tensors)})
            following = iter(zip(self.passes, given))
            for op in step.work:
                if isinstance(op, Graph):
                    inputs = [env[name] for name in op.inputs]
                    made = _compose.emit(op.graph, inputs, seeds[c])
                else:
                    made = self._reduce(op, env, *next(following), c)
                env.update(zip(op.outputs, made, strict=True))
            new = emit_local(step.accumulate, totals, env, server_seed)
            new_keeps = [
                tf.tensor_scatter_nd_update(stack, [[c]], [env[name]])
                for name, stack in zip(step.keep, keeps)
            ]
            return c + 1, declared(new, totals), new_keeps

        def one_leaf(i, buffers, keeps):
            stop = tf.minimum((i + 1) * leaf, count)
            _, totals, keeps = tf.while_loop(
                lambda c, *_: c < stop, client, (i * leaf, zero, keeps)
            )
            buffers = [
                tf.tensor_scatter_nd_update(buffer, [[i]], [total])
                for buffer, total in zip(buffers, totals)
            ]
            return i + 1, buffers, keeps

        buffers = [tf.zeros([self._leaves, *z.shape], z.dtype) for z in zero]
        _, buffers, keeps = tf.while_loop(
            lambda i, *_: i * leaf < count,
            one_leaf,
            (tf.constant(0), buffers, keeps),
        )
        return buffers, keeps

    def _reduce(self, op: Reduce, env, one: Pass, given, c) -> list[tf.Tensor]:
        def step(i, state):
            element, mask = one.element(given, i)
            fn, arguments = op.step, [*state, *element]
            if mask is not None:
                masked = op.step.ops[0].masked
                inputs = {**env, **dict(zip(fn.inputs, arguments, strict=True))}
                inputs = [inputs[n] for n in op.step.ops[0].inputs]
                made = _compose.emit(masked, [*inputs, mask])
            else:
                made = emit_local(fn, arguments, env)
            return i + 1, declared(made, state)

        state = [env[n] for n in op.zero]
        shapes = [self._step.types[n].shape for n in op.outputs]
        state = [
            s
            if s.shape == shape
            else tf.raw_ops.PlaceholderWithDefault(input=s, shape=shape)
            for s, shape in zip(state, shapes)
        ]
        starts = given[-1]
        _, state = tf.while_loop(
            lambda i, _: i < starts[c + 1], step, (starts[c], state)
        )
        return state

    # --- Running it -----------------------------------------------------------------

    def prepared(
        self, shared: dict[str, Any], clients: Clients, task: range, given: list[Any]
    ) -> Callable[[], Stacked]:
        """What runs the clients of a task on what is given for each pass.

        All that holds Python's lock is done here, and so can be done by one thread.
        """
        step = self._step
        leaf = clients_in_a_leaf(clients.count)
        arguments = (
            np.int32(len(task)),
            np.int32(leaf),
            np.array(as_int32_pair(fold(clients.seed, -1, 0)), np.int32),
            self._seeds(clients, task),
            [shared[name] for name in step.shared],
            [shared[name] for name in step.zero],
            [_stack(clients.values[n], task, self.clients) for n in self._tensors],
            given,
        )
        flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(arguments)]

        def run() -> Stacked:
            made = self._run(flat)
            buffers, keeps = made[: len(step.zero)], made[len(step.zero) :]
            kept = {
                name: tf.unstack(stack[: len(task)]) if task else []
                for name, stack in zip(step.keep, keeps)
            }
            return Stacked(-(-len(task) // leaf), buffers, kept)

        return run

    def _seeds(self, clients: Clients, task: range) -> np.ndarray:
        seeds = np.zeros([self.clients, 2], np.int32)
        for i, client in enumerate(task):
            seeds[i] = as_int32_pair(fold(clients.seed, client, 0))
        return seeds


def padded_starts(starts: np.ndarray, clients: int) -> np.ndarray:
    """`starts` for up to `clients` clients: those that are not there have no elements."""
    return filled_up(starts.astype(np.int32, copy=False), clients + 1, starts[-1])


def filled_up(array: np.ndarray, length: int, value: Any) -> np.ndarray:
    """An array of that length, what is new being `value`; `np.pad` takes long to say so."""
    made = np.empty([length, *array.shape[1:]], array.dtype)
    made[: len(array)] = array
    made[len(array) :] = value
    return made


def rounded_up(length: int) -> int:
    """A power of two, so that few shapes are compiled."""
    return max(_LEAST_ELEMENTS, 1 << max(length - 1, 0).bit_length())


def _stack(values: Sequence[Any], task: range, clients: int) -> np.ndarray:
    stacked = np.stack([np.asarray(values[client]) for client in task])
    return filled_up(stacked, clients, 0)
