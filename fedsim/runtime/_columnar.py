"""A pass over columns of examples.

A client's dataset is a range of rows with tf.data's operations recorded on it; a pass
over it is a table of row numbers, made in NumPy, and the program gathers the rows and
maps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import tensorflow as tf

from fedcore.compiler import ClientStep, Reduce
from fedcore.types import Type
from fedsim.datasets.client_dataset import ClientDataset, plan_many
from fedsim.runtime._kernel import DYNAMIC, EXACT, MASKED, filled_up, padded_starts
from fedsim.runtime._leaves import to_leaves
from fedsim.runtime._seeds import fold
from fedsim.runtime._values import from_nest
from fedsim.runtime._workers import Clients
from fedsim.runtime._xla import dynamic_length

_LEAST_POWER = 4  # of 4: 256 elements


@attrs.frozen(eq=False)
class RowsPass:
    """A pass over the clients' rows; see `_kernel.Pass`.

    Attributes:
        name: The sequence in the step.
        dataset: One client's: its kind is that of all.
        element_type: The type of an element.
        tail: How a smaller batch is treated, see `_kernel`.
        iteration: How many passes over the sequence come before: each has an order of
            its own.
    """

    name: str
    dataset: ClientDataset
    element_type: Type
    tail: str
    iteration: int

    def specs(self, clients: int) -> Any:
        """Columns, row numbers, how many there are in each element, and the starts."""
        columns = [
            tf.TensorSpec([None, *a.shape[1:]], a.dtype)
            for a in tf.nest.flatten(self.dataset.columns.features)
        ]
        return (
            columns,
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([clients + 1], tf.int32),
        )

    def element(self, given: Any, i: tf.Tensor) -> tuple[list[Any], tf.Tensor | None]:
        """See `_kernel.Pass`."""
        columns, rows, counts, _ = given
        rows, count = rows[i], counts[i]
        form = self.dataset.form
        mask = None
        if form.batch_size is None:
            read = [tf.gather(column, rows[0]) for column in columns]
        elif self.tail == EXACT:
            read = [tf.gather(column, rows[:count]) for column in columns]
        else:
            # What fills a smaller batch up is its own first row: no other's NaN.
            filled = tf.where(rows < 0, rows[0], rows)
            read = [tf.gather(column, filled) for column in columns]
            if self.tail == DYNAMIC:
                read = [dynamic_length(tensor, count) for tensor in read]
            elif self.tail == MASKED:
                mask = tf.cast(tf.range(tf.shape(rows)[0]) < count, tf.float32)
        if form.drop_remainder:
            read = [tf.ensure_shape(t, [form.batch_size, *t.shape[1:]]) for t in read]
        element = tf.nest.pack_sequence_as(self.dataset.columns.features, read)
        for fn in form.batch_maps:
            element = fn(element)
        return to_leaves(from_nest(element, self.element_type), self.element_type), mask

    def given(self, clients: Clients, task: range, capacity: int) -> Any:
        """What a program for up to `capacity` clients is given for a task."""
        plan = self._plan(clients, task)
        length = _table_length(len(plan.rows))
        return (
            self.dataset.columns.tensors(),
            filled_up(plan.rows, length, -1),
            filled_up(plan.counts, length, 0),
            padded_starts(plan.starts, capacity),
        )

    def has_smaller_batch(self, clients: Clients, client: int) -> bool:
        """Whether some element of a client has fewer rows than the others."""
        plan = self._plan(clients, range(client, client + 1))
        return bool((plan.counts < plan.rows.shape[1]).any())

    def _plan(self, clients: Clients, task: range) -> Any:
        datasets = [clients.values[self.name][client] for client in task]
        seeds = [fold(clients.seed, client) for client in task]
        return plan_many(datasets, seeds, self.iteration)


def _table_length(length: int) -> int:
    """Far apart, for XLA compiles each anew; what fills a table up costs next to nothing."""
    steps = max(0, -(-max(length - 1, 0).bit_length() // 2) - _LEAST_POWER)
    return 4 ** (steps + _LEAST_POWER)


def rows_passes(
    step: ClientStep, datasets: dict[str, ClientDataset], tail: str
) -> Sequence[RowsPass]:
    """The passes of a step over its clients' sequences."""
    found, before = [], dict.fromkeys(datasets, 0)
    for op in step.work:
        if isinstance(op, Reduce):
            name = op.sequence[0]
            element = step.types[name].element
            found.append(RowsPass(name, datasets[name], element, tail, before[name]))
            before[name] += 1
    return found
