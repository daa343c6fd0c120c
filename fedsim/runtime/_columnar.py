"""The columnar road: a task of clients as one program over columns of examples.

A client's dataset is a range of rows with tf.data's operations recorded on it; a pass
over it is a table of row numbers, made in NumPy. The program is three plain nested loops,
over the leaves of the task, the clients of a leaf and the batches of a client: it gathers
rows, maps them, steps, and adds what a client sends to its leaf's accumulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore.compiler import ClientStep, Graph, Reduce
from fedcore.tensorflow import _compose
from fedcore.tensorflow._private import FlatCall
from fedsim.datasets.client_dataset import ClientDataset, plan_many
from fedsim.runtime._counter import Counter
from fedsim.runtime._drained import declared, emit_local
from fedsim.runtime._leaves import to_leaves
from fedsim.runtime._seeds import as_int32_pair, fold
from fedsim.runtime._values import from_nest
from fedsim.runtime._workers import Clients, clients_in_a_leaf
from fedsim.runtime._xla import dynamic_length

EVEN, EXACT, MASKED, DYNAMIC = "even", "exact", "masked", "dynamic"

kernels_made = Counter()

_LEAST_ELEMENTS = 32  # of a table


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
        values: Of each input, one client's value: its kind is that of all.
        clients: Capacity.
        leaves: Capacity.
        tail: How a batch that is smaller than the others is treated: there is none
            (`EVEN`), its rows are cut off, which XLA cannot do (`EXACT`), the step takes
            a mask (`MASKED`), or XLA knows its length at run time only (`DYNAMIC`).
    """

    def __init__(
        self,
        step: ClientStep,
        values: dict[str, Any],
        clients: int,
        leaves: int,
        tail: str,
    ):
        self._step = step
        self._clients = clients
        self._leaves = leaves
        self._tail = tail
        self._sources = {
            name: value
            for name, value in values.items()
            if isinstance(value, ClientDataset)
        }
        self._tensors = [name for name in step.inputs if name not in self._sources]
        # Each pass over a dataset has an order of its own.
        self._passes: list[tuple[str, int]] = []
        passes = dict.fromkeys(self._sources, 0)
        for op in step.work:
            if isinstance(op, Reduce):
                name = op.sequence[0]
                self._passes.append((name, passes[name]))
                passes[name] += 1
        program = tf.function(self._program, jit_compile=tail != EXACT, autograph=False)
        self._run = FlatCall(program.get_concrete_function(*self._signature(values)))

    def _signature(self, values: dict[str, Any]) -> tuple[Any, ...]:
        def spec(name: str, *outer: int | None) -> tf.TensorSpec:
            type_ = self._step.types[name]
            return tf.TensorSpec([*outer, *type_.shape], type_.dtype)

        def stacked(value: Any) -> tf.TensorSpec:
            tensor = tf.convert_to_tensor(value)
            return tf.TensorSpec([self._clients, *tensor.shape], tensor.dtype)

        def columns(dataset: ClientDataset) -> list[tf.TensorSpec]:
            return [
                tf.TensorSpec([None, *a.shape[1:]], a.dtype)
                for a in tf.nest.flatten(dataset.columns.features)
            ]

        int32 = tf.int32
        table = (
            tf.TensorSpec([None, None], int32),
            tf.TensorSpec([None], int32),
            tf.TensorSpec([self._clients + 1], int32),
        )
        return (
            tf.TensorSpec([], int32),
            tf.TensorSpec([], int32),
            tf.TensorSpec([2], int32),
            tf.TensorSpec([self._clients, 2], int32),
            [spec(name) for name in self._step.shared],
            [spec(name) for name in self._step.totals],
            [stacked(values[name]) for name in self._tensors],
            [columns(dataset) for dataset in self._sources.values()],
            [table for _ in self._passes],
        )

    # --- The program ----------------------------------------------------------------

    def _program(
        self, count, leaf, server_seed, seeds, shared, zero, tensors, columns, tables
    ):
        kernels_made.add()
        step = self._step
        around = dict(zip(step.shared, shared))
        columns = dict(zip(self._sources, columns))
        types = [step.types[name] for name in step.keep]
        keeps = [tf.zeros([self._clients, *t.shape], t.dtype) for t in types]

        def client(c, totals, keeps):
            env = dict(around)
            env.update({n: stack[c] for n, stack in zip(self._tensors, tensors)})
            following = iter(tables)
            for op in step.work:
                if isinstance(op, Graph):
                    inputs = [env[name] for name in op.inputs]
                    made = _compose.emit(op.graph, inputs, seeds[c])
                else:
                    made = self._pass(op, env, columns, next(following), c)
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

    def _pass(self, op: Reduce, env, columns, table, c) -> list[tf.Tensor]:
        name = op.sequence[0]
        rows, counts, starts = table

        def batch(i, state):
            element, mask = self._element(name, columns[name], rows[i], counts[i])
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
        _, state = tf.while_loop(
            lambda i, _: i < starts[c + 1], batch, (starts[c], state)
        )
        return state

    def _element(self, name, columns, rows, count):
        dataset = self._sources[name]
        form = dataset.form
        mask = None
        if form.batch_size is None:
            read = [tf.gather(column, rows[0]) for column in columns]
        elif self._tail == EXACT:
            read = [tf.gather(column, rows[:count]) for column in columns]
        else:
            # What fills a smaller batch up is its own first row: no other's NaN.
            filled = tf.where(rows < 0, rows[0], rows)
            read = [tf.gather(column, filled) for column in columns]
            if self._tail == DYNAMIC:
                read = [dynamic_length(tensor, count) for tensor in read]
            elif self._tail == MASKED:
                mask = tf.cast(tf.range(tf.shape(rows)[0]) < count, tf.float32)
        if form.drop_remainder:
            read = [tf.ensure_shape(t, [form.batch_size, *t.shape[1:]]) for t in read]
        element = tf.nest.pack_sequence_as(dataset.columns.features, read)
        for fn in form.batch_maps:
            element = fn(element)
        type_ = self._step.types[name].element
        return to_leaves(from_nest(element, type_), type_), mask

    # --- Running it -----------------------------------------------------------------

    def __call__(
        self, shared: dict[str, Any], clients: Clients, task: range
    ) -> Stacked:
        """Runs the clients of a task."""
        step = self._step
        leaf = clients_in_a_leaf(clients.count)
        tables = [self._table(name, i, clients, task) for name, i in self._passes]
        arguments = (
            np.int32(len(task)),
            np.int32(leaf),
            np.array(as_int32_pair(fold(clients.seed, -1, 0)), np.int32),
            self._seeds(clients, task),
            [shared[name] for name in step.shared],
            [shared[name] for name in step.zero],
            [_stack(clients.values[n], task, self._clients) for n in self._tensors],
            [d.columns.tensors() for d in self._sources.values()],
            tables,
        )
        flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(arguments)]
        made = self._run(flat)
        buffers, keeps = made[: len(step.zero)], made[len(step.zero) :]
        kept = {
            name: tf.unstack(stack[: len(task)]) if task else []
            for name, stack in zip(step.keep, keeps)
        }
        return Stacked(-(-len(task) // leaf), buffers, kept)

    def has_smaller_batch(self, clients: Clients, client: int) -> bool:
        """Whether some element of a client has fewer rows than the others."""
        task = range(client, client + 1)
        tables = [self._table(name, i, clients, task) for name, i in self._passes]
        return any(
            (counts[: starts[1]] < rows.shape[1]).any()
            for rows, counts, starts in tables
        )

    def _seeds(self, clients: Clients, task: range) -> np.ndarray:
        seeds = np.zeros([self._clients, 2], np.int32)
        for i, client in enumerate(task):
            seeds[i] = as_int32_pair(fold(clients.seed, client, 0))
        return seeds

    def _table(self, name: str, iteration: int, clients: Clients, task: range):
        datasets = [clients.values[name][client] for client in task]
        seeds = [fold(clients.seed, client) for client in task]
        plan = plan_many(datasets, seeds, iteration)
        padded = _rounded_up(len(plan.rows)) - len(plan.rows)
        starts = np.full(self._clients + 1, plan.starts[-1], np.int32)
        starts[: len(plan.starts)] = plan.starts
        return (
            np.pad(plan.rows, [(0, padded), (0, 0)], constant_values=-1),
            np.pad(plan.counts, (0, padded)),
            starts,
        )


def _rounded_up(length: int) -> int:
    """A power of two, so that few shapes are compiled."""
    return max(_LEAST_ELEMENTS, 1 << max(length - 1, 0).bit_length())


def _stack(values: Sequence[Any], task: range, clients: int) -> np.ndarray:
    stacked = np.stack([np.asarray(values[client]) for client in task])
    return np.pad(stacked, [(0, clients - len(task))] + [(0, 0)] * (stacked.ndim - 1))
