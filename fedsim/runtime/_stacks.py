"""A pass over tf.data datasets: those of a task's clients, run by one operation.

What tf.data makes for the clients of a task is stacked, element by element, each padded
to the size of a batch; the program of the task (`_kernel`) takes them from there. It
keeps tf.data's exact meaning: every dataset is iterated once in each pass. Datasets that
are endless, of unknown length or too big to be stacked stay with `_drained`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore.compiler import ClientStep, Reduce
from fedcore.types import SequenceType, Type, type_to_tf_tensor_specs
from fedsim.runtime._extents import Extent, element_bytes
from fedsim.runtime._kernel import Kernel, Stacked, padded_starts, rounded_up
from fedsim.runtime._leaves import as_tensor, to_leaves
from fedsim.runtime._values import from_nest
from fedsim.runtime._workers import Clients, leaves

_GROUP_BYTES = 1 << 26  # of clients that are stacked together
_FILLER = -1  # the size of an element that fills a stack up


# --- A pass, as the program sees it -------------------------------------------------


@attrs.frozen(eq=False)
class StackPass:
    """A pass over stacked elements; see `_kernel.Pass`.

    Attributes:
        name: The sequence in the step.
        type: Its type.
        batch_size: To which size elements are padded; None if the type says their size.
        masked: Whether the step masks the padding; else elements are cut.
    """

    name: str
    type: SequenceType
    batch_size: int | None
    masked: bool

    @property
    def _specs(self) -> list[tf.TensorSpec]:
        return tf.nest.flatten(type_to_tf_tensor_specs(self.type.element))

    def specs(self, clients: int) -> Any:
        """Stacks, the true size of each element in each stack, and the starts."""
        first = self.batch_size if self.masked else None

        def stack(spec: tf.TensorSpec) -> tf.TensorSpec:
            dims = [first if dim is None else dim for dim in spec.shape]
            return tf.TensorSpec([None, *dims], spec.dtype)

        return (
            [stack(spec) for spec in self._specs],
            tf.TensorSpec([None, len(self._specs)], tf.int32),
            tf.TensorSpec([clients + 1], tf.int32),
        )

    def element(self, given: Any, i: tf.Tensor) -> tuple[list[Any], tf.Tensor | None]:
        """See `_kernel.Pass`."""
        stacks, sizes, _ = given
        padded, mask = [stack[i] for stack in stacks], None
        if self.masked:
            present = tf.range(tf.shape(padded[0])[0]) < sizes[i, 0]
            mask = tf.cast(present, tf.float32)
            # Padding takes the first row's place: zeros might be what no row may be.
            read = [
                tf.where(tf.reshape(present, [-1] + [1] * (p.shape.rank - 1)), p, p[:1])
                for p in padded
            ]
        else:
            read = [
                p[: sizes[i, k]] if spec.shape.rank and spec.shape[0] is None else p
                for k, (p, spec) in enumerate(zip(padded, self._specs))
            ]
        read = [tf.ensure_shape(t, spec.shape) for t, spec in zip(read, self._specs)]
        element = self.type.element
        nested = tf.nest.pack_sequence_as(type_to_tf_tensor_specs(element), read)
        return to_leaves(from_nest(nested, element), element), mask


def stack_passes(
    step: ClientStep, extents: dict[str, Extent], masked: bool
) -> list[StackPass]:
    """The passes of a step over its clients' sequences."""
    return [
        StackPass(name, step.types[name], extents[name].batch_size, masked)
        for name in (op.sequence[0] for op in step.work if isinstance(op, Reduce))
    ]


# --- Running tf.data ----------------------------------------------------------------


@attrs.frozen(eq=False)
class Drained:
    """The elements of some clients in one pass, stacked.

    Attributes:
        stacks: Of each tensor of an element, all elements.
        sizes: `int32[elements, tensors]`: their lengths before they were padded.
        numbers: How many elements each client has; the rest are there to fill up.
    """

    stacks: list[tf.Tensor]
    sizes: np.ndarray
    numbers: Sequence[int]

    def fits(self, batch_size: int) -> bool:
        """Whether all tensors of each element have one length, `batch_size` at most."""
        sizes = self.sizes[: sum(self.numbers)]
        return bool(
            (sizes == sizes[:, :1]).all() and sizes.max(initial=0) <= batch_size
        )

    def given(self, capacity: int) -> Any:
        """What a program for up to `capacity` clients is given."""
        starts = np.cumsum([0, *self.numbers])
        return self.stacks, self.sizes, padded_starts(starts, capacity)

    def part(self, clients: range, batch_size: int) -> Drained:
        """The elements of some of the clients, by their place here, padded no further."""
        start = sum(self.numbers[: clients.start])
        stop = start + sum(self.numbers[clients.start : clients.stop])
        filler = rounded_up(stop - start) - (stop - start)
        sizes = self.sizes[start:stop]
        longest = max(sizes.max(initial=0), batch_size)
        return Drained(
            [
                tf.pad(
                    stack[start:stop, :longest],
                    [[0, filler]] + [[0, 0]] * (stack.shape.rank - 1),
                )
                for stack in self.stacks
            ],
            np.pad(sizes, [(0, filler), (0, 0)]),
            self.numbers[clients.start : clients.stop],
        )


@functools.lru_cache(maxsize=256)
def _drain_of(element: Type, batch_size: int | None) -> Callable[..., Any]:
    """Runs datasets one after another: `variants, total -> stacks, sizes`."""
    nested = type_to_tf_tensor_specs(element)
    specs = tf.nest.flatten(nested)

    def flat(*parts: Any) -> tuple[Any, Any]:
        tensors = tf.nest.flatten(parts)
        sizes = [tf.shape(t)[0] if t.shape.rank else 0 for t in tensors]
        return tuple(tensors), tf.stack(sizes)

    def filler(spec: tf.TensorSpec) -> tf.Tensor:
        dims = [batch_size if dim is None else dim for dim in spec.shape]
        return tf.zeros(dims, spec.dtype)

    @tf.function(autograph=False)
    def drain(variants: tf.Tensor, total: tf.Tensor) -> Any:
        datasets = tf.data.Dataset.from_tensor_slices(variants)
        elements = datasets.flat_map(
            lambda variant: tf.data.experimental.from_variant(variant, nested)
        ).map(flat)
        rest = (tuple(map(filler, specs)), tf.fill([len(specs)], _FILLER))
        filled = elements.concatenate(tf.data.Dataset.from_tensors(rest).repeat())
        return filled.take(total).padded_batch(total).get_single_element()

    return drain.get_concrete_function(
        tf.TensorSpec([None], tf.variant), tf.TensorSpec([], tf.int64)
    )


def drained(one: StackPass, extent: Extent, clients: Clients, task: range) -> Drained:
    """Runs the datasets of a task's clients, each once."""
    numbers = extent.numbers[task.start : task.stop]
    expected = sum(numbers)
    values = clients.values[one.name]
    variants = tf.stack([as_tensor(values[c], one.type) for c in task])
    total = rounded_up(expected + 1)  # one filler at least: it has the full size
    drain = _drain_of(one.type.element, extent.batch_size)
    stacks, sizes = drain(variants, tf.constant(total, tf.int64))
    sizes = np.asarray(sizes)
    found = int((sizes[:, 0] != _FILLER).sum())
    if found != expected:
        raise ValueError(
            f"Datasets need as many elements as their `cardinality()` says, found {found} "
            f"for {expected} at clients {task.start} to {task.stop - 1}.\n"
            "Apply `tf.data.experimental.assert_cardinality` with the true number, or with "
            "`tf.data.experimental.UNKNOWN_CARDINALITY`."
        )
    return Drained(list(stacks), sizes, numbers)


# --- Tasks --------------------------------------------------------------------------


@attrs.frozen(eq=False)
class StackTasks:
    """Runs tasks of clients whose datasets are stacked.

    Attributes:
        extents: Of each sequence, how far it goes.
        fast: The program for elements that fit: it masks them, or is `exact` itself.
        exact: Makes the program that cuts elements to their sizes.
    """

    extents: dict[str, Extent]
    fast: Kernel
    exact: Callable[[], Kernel]

    def __call__(
        self,
        shared: dict[str, Any],
        clients: Clients,
        task: range,
        check: Callable[[], None],
    ) -> Stacked:
        """The accumulators of a task's leaves."""
        parts: list[Stacked] = []
        for group in self._groups(clients, task):
            check()
            parts += self._run(shared, clients, group)
        return _joined(parts)

    def _groups(self, clients: Clients, task: range) -> Iterator[range]:
        """The clients in runs of whole leaves that are not too big to be stacked."""
        start, size = task.start, 0
        for leaf in leaves(task, clients.count):
            more = sum(
                element_bytes(one.type, self.extents[one.name])
                * sum(self.extents[one.name].numbers[leaf.start : leaf.stop])
                for one in self.fast.passes
            )
            if size and size + more > _GROUP_BYTES:
                yield range(start, leaf.start)
                start, size = leaf.start, 0
            size += more
        yield range(start, task.stop)

    def _run(
        self, shared: dict[str, Any], clients: Clients, group: range
    ) -> list[Stacked]:
        passes = self.fast.passes
        found = [drained(p, self.extents[p.name], clients, group) for p in passes]
        if self._fit(found):
            return [self._call(self.fast, shared, clients, group, found)]
        # Each leaf on its own: its road rests on its own elements, not on the task's.
        results = []
        for leaf in leaves(group, clients.count):
            places = range(leaf.start - group.start, leaf.stop - group.start)
            parts = [
                has.part(places, one.batch_size) for one, has in zip(passes, found)
            ]
            kernel = self.fast if self._fit(parts) else self.exact()
            results.append(self._call(kernel, shared, clients, leaf, parts))
        return results

    def _fit(self, found: list[Drained]) -> bool:
        return all(
            not one.masked or has.fits(one.batch_size)
            for one, has in zip(self.fast.passes, found)
        )

    def _call(
        self,
        kernel: Kernel,
        shared: dict[str, Any],
        clients: Clients,
        task: range,
        found: list[Drained],
    ) -> Stacked:
        given = [has.given(kernel.clients) for has in found]
        return kernel.prepared(shared, clients, task, given)()


def _joined(parts: list[Stacked]) -> Stacked:
    if len(parts) == 1:
        return parts[0]
    buffers = [
        tf.concat([b[: p.leaves] for b, p in zip(same, parts)], 0)
        for same in zip(*(p.buffers for p in parts))
    ]
    kept = {
        name: [value for part in parts for value in part.kept[name]]
        for name in parts[0].kept
    }
    return Stacked(sum(part.leaves for part in parts), buffers, kept)
