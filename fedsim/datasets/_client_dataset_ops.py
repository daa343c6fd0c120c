"""What is recorded on a `ClientDataset`: a chain of operations, shared by clients.

A chain has a columnar form when it can be said as: operations on row numbers, then
perhaps one batch, then operations on the numbers of batches. A `map` works row by row or
batch by batch and so commutes with those; it is kept aside and applied to what is read.
"""

import collections
import threading
import weakref
from typing import Any, NamedTuple

import attrs
import tensorflow as tf

from fedsim.datasets._client_dataset_maps import MapFn

INFINITE, UNKNOWN = -1, -2  # as tf.data.INFINITE_CARDINALITY, UNKNOWN_CARDINALITY


@attrs.frozen
class Shuffle:
    buffer_size: int
    seed: int | None
    reshuffle_each_iteration: bool

    def size(self, n: int) -> int:
        return n

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.shuffle(
            self.buffer_size,
            seed=self.seed,
            reshuffle_each_iteration=self.reshuffle_each_iteration,
        )


@attrs.frozen
class Repeat:
    count: int | None

    def size(self, n: int) -> int:
        if self.count == 0 or n == 0:
            return 0
        if self.count is None:
            return INFINITE
        return n if n < 0 else n * self.count

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        # tf.data fuses `shuffle` and `repeat`, and then refuses the count 0.
        return dataset.take(0) if self.count == 0 else dataset.repeat(self.count)


@attrs.frozen
class Take:
    count: int

    def size(self, n: int) -> int:
        if self.count < 0 or n == UNKNOWN:
            return n
        return self.count if n == INFINITE else min(n, self.count)

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.take(self.count)


@attrs.frozen
class Skip:
    count: int

    def size(self, n: int) -> int:
        if n < 0:
            return n
        return max(n - self.count, 0) if self.count >= 0 else 0

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.skip(self.count)


@attrs.frozen
class Batch:
    batch_size: int
    drop_remainder: bool

    def size(self, n: int) -> int:
        if n < 0:
            return n
        return (
            n if self.drop_remainder else n + self.batch_size - 1
        ) // self.batch_size

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.batch(self.batch_size, drop_remainder=self.drop_remainder)


@attrs.frozen
class Map:
    fn: MapFn
    # How tf.data runs it; the same pipeline with or without.
    num_parallel_calls: int | None = attrs.field(default=None, eq=False)
    deterministic: bool | None = attrs.field(default=None, eq=False)

    def size(self, n: int) -> int:
        return n

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.map(
            self.fn.on_components,
            num_parallel_calls=self.num_parallel_calls,
            deterministic=self.deterministic,
        )


@attrs.frozen
class Filter:
    fn: MapFn

    def size(self, n: int) -> int:
        return UNKNOWN

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.filter(self.fn.on_components)


@attrs.frozen
class Prefetch:
    buffer_size: int

    def size(self, n: int) -> int:
        return n

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.prefetch(self.buffer_size)


@attrs.frozen
class Cache:
    filename: str

    def size(self, n: int) -> int:
        return n

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.cache(self.filename)


Op = Shuffle | Repeat | Take | Skip | Batch | Map | Filter | Prefetch | Cache


class Form(NamedTuple):
    """The columnar form of a chain, but for the order of the rows.

    row_maps: Applied to each row read.
    batch_size: None if nothing is batched; then an element is a row.
    drop_remainder: Whether every batch is full.
    batch_maps: Applied to each batch of mapped rows.
    """

    row_maps: tuple[MapFn, ...] = ()
    batch_size: int | None = None
    drop_remainder: bool = False
    batch_maps: tuple[MapFn, ...] = ()


@attrs.frozen(eq=False)
class Pipeline:
    """A chain of operations: the last one, and the chain before it.

    Equal chains from one root are one object, whatever the client. Once `reason` is
    set it says why there is no columnar form, and `form` is only what came before.
    """

    parent: "Pipeline | None"
    op: Op | None
    element_spec: Any
    form: Form = attrs.field(factory=Form)
    reason: str | None = None
    endless: bool = False
    depth: int = 0
    shuffles: int = 0
    repeats: int = 0
    _children: Any = attrs.field(factory=weakref.WeakValueDictionary, init=False)
    _lock: Any = attrs.field(factory=threading.Lock, init=False)

    def then(self, op: Op) -> "Pipeline":
        """The chain with one more operation."""
        with self._lock:
            child = self._children.get(op)
            if child is None:
                child = self._children[op] = _extended(self, op)
                _recent.append(child)
            return child

    @property
    def ops(self) -> tuple[Op, ...]:
        return () if self.op is None else (*self.parent.ops, self.op)

    def size(self, rows: int) -> int:
        """How many elements come of `rows` rows, as tf.data's `cardinality` says."""
        return rows if self.op is None else self.op.size(self.parent.size(rows))


# A training loop drops one round's datasets before it makes the next round's: without
# this their traces, and what the runtime compiled for them, would be made every round.
_recent: "collections.deque[Pipeline]" = collections.deque(maxlen=256)


def _extended(parent: Pipeline, op: Op) -> Pipeline:
    form, reason, spec, endless = (
        parent.form,
        parent.reason,
        parent.element_spec,
        parent.endless,
    )
    shuffles, repeats = parent.shuffles, parent.repeats
    batched = form.batch_size is not None
    match op:
        case Shuffle():
            shuffles += 1
        case Repeat(count):
            repeats += 1
            endless = (endless or count is None) and count != 0
        case Take(count):
            endless = endless and count < 0
        case Skip(count):
            endless = endless and count >= 0
        case Batch(batch_size, drop_remainder):
            spec = _batch_spec(parent, op)
            if batched:
                reason = reason or "it is batched twice"
            else:
                form = form._replace(
                    batch_size=batch_size, drop_remainder=drop_remainder
                )
        case Map(fn):
            spec = fn.element_spec
            where = "batch_maps" if batched else "row_maps"
            form = form._replace(**{where: (*getattr(form, where), fn)})
        case Filter(fn):
            if batched:
                reason = reason or f"`filter({fn.name})` comes after `batch`"
            impure = [f.name for f in (*form.row_maps, fn) if not f.pure]
            if impure:
                reason = reason or (
                    f"`filter({fn.name})` rests on `{impure[0]}`, whose result may "
                    "change from one time to the next"
                )
        case Cache():
            varied = [
                f.name for f in (*form.row_maps, *form.batch_maps) if not f.repeatable
            ]
            if varied:
                reason = reason or f"`cache` keeps what `{varied[0]}` drew once"
        case Prefetch():
            pass
    return Pipeline(
        parent,
        op,
        spec,
        form,
        reason,
        endless,
        parent.depth + 1,
        shuffles,
        repeats,
    )


def _batch_spec(parent: Pipeline, op: Batch) -> Any:
    leaves = tf.nest.flatten(parent.element_spec)
    if all(type(leaf) is tf.TensorSpec for leaf in leaves):
        size = op.batch_size if op.drop_remainder else None
        return tf.nest.map_structure(
            lambda s: (
                tf.TensorSpec([size, *s.shape], s.dtype)
                if s.shape.rank is not None
                else tf.TensorSpec(None, s.dtype)
            ),
            parent.element_spec,
        )
    # Ragged, sparse and nested elements batch as tf.data decides.
    root = parent
    while root.op is not None:
        root = root.parent
    rows = tf.nest.map_structure(
        lambda s: tf.zeros([0, *s.shape], s.dtype), root.element_spec
    )
    return to_tf(parent, rows).batch(op.batch_size, op.drop_remainder).element_spec


def to_tf(pipeline: Pipeline, rows: Any) -> tf.data.Dataset:
    """The chain as tf.data runs it on a nest of arrays of rows."""
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    for op in pipeline.ops:
        dataset = op.apply(dataset)
    return dataset
