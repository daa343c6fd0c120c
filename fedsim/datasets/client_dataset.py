"""One client's examples, with what tf.data would do to them recorded, not run."""

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fedsim.datasets import _client_dataset_ops as ops
from fedsim.datasets._client_dataset_maps import MapFn, by_row, map_fn
from fedsim.datasets._client_dataset_ops import Form, Pipeline
from fedsim.datasets._client_dataset_plan import (
    BatchPlan,
    NoColumnarPlanError,
    evaluate,
    segments,
)

__all__ = [
    "BatchPlan",
    "ClientDataset",
    "Form",
    "MapFn",
    "NoColumnarPlanError",
    "plan_many",
    "same_pipeline",
]


class ClientDataset:
    """A range of rows of `Columns`, and the tf.data operations recorded on it.

    It has the methods of `tf.data.Dataset` with their names, parameters and meaning, so
    a `preprocess(dataset)` written for tf.data runs on it. It is immutable: each method
    gives another dataset, and nothing is read or copied until someone iterates. It
    means what `to_tf()` means. A method of `tf.data.Dataset` that is not recorded
    (`padded_batch`, `window`, ...) gives a `tf.data.Dataset` from there on.

    The order of `shuffle`: `plan(seed)` rests on the seed alone, or on the shuffle's own
    seed where it has one. Python's iteration draws a new seed each time, repeatable
    after `tf.random.set_seed`; with a seed of its own a shuffle gives the same orders
    for each new dataset, another one at each iteration of it unless
    `reshuffle_each_iteration=False`. The orders are not those of tf.data's generator.

    Attributes:
        columns: The `Columns` with all clients' examples.
        start: The client's first row.
        stop: One past its last row.
        client_id: The client's name, or None.
        pipeline: What is recorded; one object for all clients with equal records.
    """

    # Not an attrs class: `tf.nest` would take a dataset apart into these.
    __slots__ = (
        "__weakref__",
        "_home",
        "_iterations",
        "client_id",
        "columns",
        "pipeline",
        "start",
        "stop",
    )

    def __init__(
        self,
        columns: Any,
        start: int,
        stop: int,
        client_id: str | None,
        pipeline: Pipeline,
        home: int = 0,
    ):
        keep = object.__setattr__
        keep(self, "columns", columns)
        keep(self, "start", start)
        keep(self, "stop", stop)
        keep(self, "client_id", client_id)
        keep(self, "pipeline", pipeline)
        # What is cached has one order in Python, whichever iteration reads it.
        keep(self, "_home", home)
        keep(self, "_iterations", itertools.count())

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"`ClientDataset` is immutable, found a value for `{name}`.\n"
            "Its methods give other datasets."
        )

    def shuffle(
        self,
        buffer_size: int,
        seed: int | None = None,
        reshuffle_each_iteration: bool | None = None,
        name: str | None = None,
    ) -> "ClientDataset":
        """As `tf.data.Dataset.shuffle`; before or after `batch`."""
        buffer_size = int(buffer_size)
        if buffer_size < 1 and buffer_size != ops.UNKNOWN:
            raise ValueError(
                f"`shuffle` needs a `buffer_size` of at least 1, found {buffer_size}.\n"
                "Give `len(dataset)` for a full shuffle."
            )
        again = reshuffle_each_iteration is None or bool(reshuffle_each_iteration)
        seed = None if seed is None else int(seed)
        return self._then(ops.Shuffle(buffer_size, seed, again))

    def repeat(
        self, count: int | None = None, name: str | None = None
    ) -> "ClientDataset":
        """As `tf.data.Dataset.repeat`; without an end if `count` is None or -1."""
        count = None if count is None or int(count) < 0 else int(count)
        return self._then(ops.Repeat(count))

    def batch(
        self,
        batch_size: int,
        drop_remainder: bool = False,
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
        name: str | None = None,
    ) -> "ClientDataset":
        """As `tf.data.Dataset.batch`."""
        if int(batch_size) < 1:
            raise ValueError(
                f"`batch` needs a `batch_size` of at least 1, found {batch_size}."
            )
        return self._then(ops.Batch(int(batch_size), bool(drop_remainder)))

    def take(self, count: int, name: str | None = None) -> "ClientDataset":
        """As `tf.data.Dataset.take`; everything if `count` is -1."""
        return self._then(ops.Take(int(count)))

    def skip(self, count: int, name: str | None = None) -> "ClientDataset":
        """As `tf.data.Dataset.skip`; everything if `count` is -1."""
        return self._then(ops.Skip(int(count)))

    def filter(
        self, predicate: Callable[..., Any], name: str | None = None
    ) -> "ClientDataset":
        """As `tf.data.Dataset.filter`; by row before `batch`, else on tf.data's road."""
        fn = map_fn(predicate, self.element_spec)
        spec = fn.element_spec
        if not isinstance(spec, tf.TensorSpec) or spec != tf.TensorSpec([], tf.bool):
            raise TypeError(
                f"`filter` needs a `predicate` that gives a scalar bool, found `{spec}` "
                f"from `{fn.name}`."
            )
        return self._then(ops.Filter(fn))

    def map(
        self,
        map_func: Callable[..., Any],
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
        name: str | None = None,
    ) -> "ClientDataset":
        """As `tf.data.Dataset.map`; the function is traced once for all clients."""
        fn = map_fn(map_func, self.element_spec)
        return self._then(ops.Map(fn, num_parallel_calls, deterministic))

    def prefetch(self, buffer_size: int, name: str | None = None) -> "ClientDataset":
        """As `tf.data.Dataset.prefetch`: changes nothing but when elements are made."""
        return self._then(ops.Prefetch(int(buffer_size)))

    def cache(self, filename: str = "", name: str | None = None) -> "ClientDataset":
        """As `tf.data.Dataset.cache`: the order of shuffles before it stays."""
        return self._then(ops.Cache(str(filename)), home=_fresh_seed())

    def apply(self, transformation_func: Callable[["ClientDataset"], Any]) -> Any:
        """Gives `transformation_func(self)`."""
        return transformation_func(self)

    def reduce(
        self,
        initial_state: Any,
        reduce_func: Callable[..., Any],
        name: str | None = None,
    ) -> Any:
        """As `tf.data.Dataset.reduce`, which runs it."""
        return self.to_tf().reduce(initial_state, reduce_func)

    @property
    def element_spec(self) -> Any:
        """A nest of `tf.TypeSpec`: one element after all that is recorded."""
        return self.pipeline.element_spec

    @property
    def num_examples(self) -> int:
        """How many rows the client has, whatever is recorded."""
        return self.stop - self.start

    @property
    def form(self) -> Form:
        """What to do with the rows of a plan.

        Returns:
            The maps before and after `batch`, and the batch size.

        Raises:
            NoColumnarPlanError: If there is no plan, see `no_plan_reason`.
        """
        self._check_plan()
        return self.pipeline.form

    @property
    def no_plan_reason(self) -> str | None:
        """Why what is recorded cannot be a table of row numbers; None if it can."""
        if self.pipeline.reason is not None:
            return self.pipeline.reason
        return "`repeat()` has no end" if self.pipeline.endless else None

    def plan(self, seed: int, iteration: int = 0) -> BatchPlan:
        """Which rows each element reads.

        Args:
            seed: Decides the order of shuffles that have no seed of their own.
            iteration: How often the dataset was iterated before.

        Returns:
            A table of row numbers, the same for the same arguments.

        Raises:
            NoColumnarPlanError: If there is none, see `no_plan_reason`.
        """
        return plan_many([self], [seed], iteration)

    def to_tf(self) -> tf.data.Dataset:
        """The `tf.data.Dataset` that this dataset stands for."""
        return ops.to_tf(self.pipeline, self._rows())

    def cardinality(self) -> tf.Tensor:
        """As `tf.data.Dataset.cardinality`: an int64 scalar."""
        return tf.constant(self.pipeline.size(self.num_examples), tf.int64)

    def as_numpy_iterator(self) -> Iterator[Any]:
        """Iterates over the elements as NumPy arrays and scalars."""
        form = self.pipeline.form
        plan = None if form.row_maps or form.batch_maps else self._next_plan()
        if plan is not None:
            return self._read(plan)
        return (tf.nest.map_structure(lambda t: t.numpy(), element) for element in self)

    def __iter__(self) -> Iterator[Any]:
        plan = self._next_plan()
        if plan is None:
            yield from self.to_tf()
            return
        form = self.pipeline.form
        for element in self._read(plan):
            if form.batch_size is not None and form.row_maps:
                element = by_row(form.row_maps, element)
            else:
                element = tf.nest.map_structure(tf.convert_to_tensor, element)
                for fn in form.row_maps:
                    element = fn(element)
            for fn in form.batch_maps:
                element = fn(element)
            yield element

    def __len__(self) -> int:
        size = self.pipeline.size(self.num_examples)
        if size < 0:
            what = "infinite" if size == ops.INFINITE else "not known"
            raise TypeError(
                f"`len` needs a finite dataset, found one whose length is {what}."
            )
        return size

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        recorded = ", ".join(map(_described, self.pipeline.ops))
        return (
            f"ClientDataset(client={self.client_id!r}, {self.num_examples} examples"
            f"{': ' if recorded else ''}{recorded}; element_spec={self.element_spec})"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(tf.data.Dataset, name):
            raise AttributeError(f"`ClientDataset` has no attribute `{name}`.")
        return getattr(self.to_tf(), name)

    def _then(self, op: ops.Op, home: int | None = None) -> "ClientDataset":
        return ClientDataset(
            self.columns,
            self.start,
            self.stop,
            self.client_id,
            self.pipeline.then(op),
            self._home if home is None else home,
        )

    def _rows(self) -> Any:
        return tf.nest.map_structure(
            lambda a: a[self.start : self.stop], self.columns.features
        )

    def _next_plan(self) -> BatchPlan | None:
        """The order of a new iteration; None where only tf.data can tell it."""
        if self.no_plan_reason is not None:
            return None
        ranges = [(self.start, self.stop)]
        iteration = next(self._iterations)
        passes = segments(ranges, [_fresh_seed()], [self._home], iteration)
        try:
            return evaluate(self.pipeline, self.columns, passes)
        except NoColumnarPlanError:
            return None

    def _read(self, plan: BatchPlan) -> Iterator[Any]:
        """The elements before any map."""
        batched = self.pipeline.form.batch_size is not None
        for rows, count in zip(plan.rows, plan.counts):
            yield self.columns.gather(rows[:count] if batched else rows[0])

    def _check_plan(self) -> None:
        if self.no_plan_reason is not None:
            raise NoColumnarPlanError(
                "`plan` needs operations on rows, then at most one `batch`, then "
                f"operations on batches, found that {self.no_plan_reason}, in {self}.\n"
                "Use `to_tf()`, or change the operations."
            )


def plan_many(
    datasets: Sequence[ClientDataset], seeds: Sequence[int], iteration: int = 0
) -> BatchPlan:
    """Plans some clients' datasets together, much faster than one by one.

    Args:
        datasets: At least one; all with the `same_pipeline`.
        seeds: One for each.
        iteration: How often each was iterated before.

    Returns:
        The plans one after another; each is what `plan` gives alone (its width aside).

    Raises:
        NoColumnarPlanError: If there is none, see `ClientDataset.no_plan_reason`.
        ValueError: If the datasets differ in what is recorded.
    """
    first = datasets[0]
    if any(not same_pipeline(first, dataset) for dataset in datasets):
        raise ValueError(
            "`plan_many` needs datasets with the same pipeline on the same columns.\n"
            "Group them by `dataset.pipeline` first."
        )
    first._check_plan()
    ranges = [(dataset.start, dataset.stop) for dataset in datasets]
    return evaluate(
        first.pipeline, first.columns, segments(ranges, seeds, seeds, iteration)
    )


def same_pipeline(a: ClientDataset, b: ClientDataset) -> bool:
    """Whether two datasets differ in nothing but the range of rows."""
    return a.columns is b.columns and a.pipeline is b.pipeline


def _fresh_seed() -> int:
    """A new seed, from TensorFlow's global one if there is one."""
    graph_seed, op_seed = tf.compat.v1.get_seed(None)
    if graph_seed is None and op_seed is None:
        return secrets.randbits(64)
    return int(np.uint64((graph_seed or 0) % (1 << 32))) << 32 | (op_seed or 0) % (
        1 << 32
    )


def _described(op: ops.Op) -> str:
    kind = type(op).__name__.lower()
    match op:
        case ops.Map(fn) | ops.Filter(fn):
            return f"{kind}({fn.name})"
        case ops.Shuffle(buffer_size, seed, again):
            seed = "" if seed is None else f", seed={seed}"
            again = "" if again else ", reshuffle_each_iteration=False"
            return f"{kind}({buffer_size}{seed}{again})"
        case ops.Repeat(count):
            return f"{kind}({'' if count is None else count})"
        case ops.Batch(batch_size, drop_remainder):
            drop = ", drop_remainder=True" if drop_remainder else ""
            return f"{kind}({batch_size}{drop})"
        case ops.Cache(filename):
            return f"{kind}({filename!r})" if filename else f"{kind}()"
        case ops.Take(count) | ops.Skip(count) | ops.Prefetch(count):
            return f"{kind}({count})"
