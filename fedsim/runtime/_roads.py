"""Which road a client step takes: a rule on what it holds, never a timing.

The road shows in the last bits of a result, so it rests on the step, on the kind of its
arguments and on the context's options alone.

1. *columnar*: every sequence is a `ClientDataset` with one pipeline for all clients, all
   else are tensors of one shape, and the work is graphs and passes over those sequences.
   XLA compiles it if every operation is fine there, and the last batches of clients can
   be treated: there is no smaller one, or the model's step takes a mask and what is
   mapped onto a batch is mapped row by row, or every operation is right at a length
   known at run time. Where there is no mask, a client is run without XLA too the first
   time; if the results differ, XLA is not used.
2. *tf.data*: every sequence is a tf.data.Dataset, and what they make can be stacked (see
   `_stacks`). XLA compiles it if every operation is fine there and the model's step takes
   a mask.
3. *streamed*: passes over any other dataset are drained in C++ in pieces (see
   `_drained`), client by client.
4. *general*: line by line.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore.compiler import ClientStep, Graph, Op, Reduce
from fedcore.tensorflow._graph import unpack
from fedcore.tensorflow._ops import op_names
from fedcore.types import SequenceType, TensorType
from fedsim.datasets.client_dataset import ClientDataset, same_pipeline
from fedsim.runtime._drained import drained_loop
from fedsim.runtime._extents import Extent, NoStackError, extent_of
from fedsim.runtime._kernel import DYNAMIC, EVEN, EXACT, MASKED
from fedsim.runtime._workers import Clients
from fedsim.runtime._xla import FINE, FINE_AT_ANY_LENGTH, unfit

_ROWS_TRIED = 8

COLUMNAR, TF_DATA = "columnar", "tf.data"
STREAMED, GENERAL = "tf.data, client by client", "general"


@attrs.frozen
class Road:
    """How a client step runs.

    Attributes:
        name: `columnar`, `tf.data`, `tf.data, client by client` or `general`.
        tail: On the first two, how smaller batches are treated (see `_kernel`).
        reason: Why not a faster one; empty if it is the fastest.
        extents: On the tf.data road, of each sequence, how far it goes.
    """

    name: str
    tail: str | None = None
    reason: str = ""
    extents: dict[str, Extent] = attrs.field(factory=dict, repr=False)

    @property
    def compiled(self) -> bool:
        """Whether XLA compiles it."""
        return self.tail not in (None, EXACT)

    def __str__(self) -> str:
        how = ""
        if self.tail is not None:
            how = f", XLA ({self.tail})" if self.compiled else ", graph"
        return self.name + how + (f": {self.reason}" if self.reason else "")


def road_of(step: ClientStep, clients: Clients, xla: bool | None) -> Road:
    """The road of a step with these clients.

    Args:
        step: The step.
        clients: At least one.
        xla: Whether XLA may compile; by its operations if None.
    """
    reason = _not_one_program(step) or _not_alike(step, clients)
    if not reason:
        sequences = [n for n in step.inputs if isinstance(step.types[n], SequenceType)]
        reason = _not_columnar(sequences, clients)
        if not reason:
            firsts = [clients.values[name][0] for name in sequences]
            return _with_tail(step, firsts, xla)
        try:
            return _stacked(step, sequences, clients, xla, reason)
        except NoStackError as error:
            reason = f"{reason}; {error}"
    loops = [op for op in step.work if isinstance(op, Reduce)]
    drained = [op for op in loops if drained_loop(op, step.types) is not None]
    return Road(STREAMED if drained else GENERAL, None, reason)


def _with_tail(
    step: ClientStep, datasets: list[ClientDataset], xla: bool | None
) -> Road:
    if xla is False:
        return Road(COLUMNAR, EXACT, "XLA is switched off")
    ops = set(_ops(step))
    for dataset in datasets:
        ops.update(op for fn in dataset.form.batch_maps for op in _map_ops(fn))
    wrong = unfit(ops, FINE)
    if wrong and not xla:
        return Road(COLUMNAR, EXACT, f"`{wrong}` is not fit for XLA")
    forms = [dataset.form for dataset in datasets]
    if all(form.batch_size is None or form.drop_remainder for form in forms):
        return Road(COLUMNAR, EVEN)
    if _has_mask(step) and all(_maps_by_row(dataset) for dataset in datasets):
        return Road(COLUMNAR, MASKED)
    wrong = unfit(ops, FINE_AT_ANY_LENGTH)
    if wrong and not xla:
        reason = f"`{wrong}` may be wrong under XLA on a smaller batch"
        return Road(COLUMNAR, EXACT, reason)
    return Road(COLUMNAR, DYNAMIC)


def _stacked(
    step: ClientStep,
    sequences: list[str],
    clients: Clients,
    xla: bool | None,
    reason: str,
) -> Road:
    extents = {
        name: extent_of(clients.values[name], step.types[name], clients.count)
        for name in sequences
    }
    by_row = all(extent.by_row for extent in extents.values())
    wrong = unfit(_ops(step), FINE)
    if xla is False:
        tail, why = EXACT, "XLA is switched off"
    elif wrong and not xla:
        tail, why = EXACT, f"`{wrong}` is not fit for XLA"
    elif not (_has_mask(step) and by_row):
        tail, why = EXACT, "its step takes no mask for smaller batches"
    else:
        return Road(TF_DATA, MASKED, reason, extents)
    return Road(TF_DATA, tail, f"{reason}; {why}", extents)


def _has_mask(step: ClientStep) -> bool:
    passes = [op for op in step.work if isinstance(op, Reduce)]
    return all(len(o.step.ops) == 1 and o.step.ops[0].masked for o in passes)


_reasons: weakref.WeakKeyDictionary[ClientStep, str] = weakref.WeakKeyDictionary()


def _not_one_program(step: ClientStep) -> str:
    if step not in _reasons:
        _reasons[step] = next(_obstacles(step), "")
    return _reasons[step]


def _obstacles(step: ClientStep) -> Iterator[str]:
    """What in a step keeps it from being one program for a task of clients."""
    sequences = {n for n in step.inputs if isinstance(step.types[n], SequenceType)}
    if not sequences:
        yield "no client has a dataset"
    for op in step.work:
        if isinstance(op, Reduce) and op.sequence[0] in sequences:
            inner, outer = op.step.ops, (*op.zero, *op.outputs, *op.step.free())
            if not all(isinstance(o, Graph) for o in inner):
                yield "a step over a dataset holds a loop of its own"
            if any(isinstance(o, Graph) and unpack(o.graph).seed for o in inner):
                yield "each step over a dataset draws randomness without a seed"
            names = (*outer, *(n for o in inner for n in o.outputs))
        elif isinstance(op, Graph):
            names = (*op.inputs, *op.outputs)
        else:
            yield f"there is a `{type(op).__name__}` in it"
            return
        if any(isinstance(step.types[n], SequenceType) for n in names):
            yield "a graph takes or makes a dataset"
    if not all(isinstance(o, Graph) for o in (*step.accumulate.ops, *step.merge.ops)):
        yield "an aggregation holds a loop"
    for name in (*step.keep, *step.totals):
        if not _is_regular(step.types[name]):
            yield f"a value of type `{step.types[name]}` has no fixed size"
    for name in step.shared:
        if not isinstance(step.types[name], TensorType):
            yield "the server sends a dataset"


def _is_regular(type_: Any) -> bool:
    return (
        isinstance(type_, TensorType)
        and type_.shape.is_fully_defined()
        and type_.dtype not in (tf.string, tf.variant)
    )


def _not_alike(step: ClientStep, clients: Clients) -> str:
    """Why clients' tensors cannot be stacked."""
    for name in step.inputs:
        if not isinstance(step.types[name], SequenceType):
            values = clients.values[name]
            if step.types[name].dtype == tf.string:
                return "a client's value is a string"
            if any(v.shape != values[0].shape for v in values):
                return "clients' values differ in shape"
    return ""


def _not_columnar(sequences: list[str], clients: Clients) -> str:
    """Why clients' sequences cannot be read from columns."""
    for name in sequences:
        values = clients.values[name]
        first = values[0]
        if not isinstance(first, ClientDataset):
            return f"a client's data is a `{type(first).__name__}`"
        if first.no_plan_reason:
            return first.no_plan_reason
        if first.form.row_maps:
            return "a `map` comes before `batch`"
        if not all(
            isinstance(v, ClientDataset) and same_pipeline(first, v) for v in values
        ):
            return "clients' datasets differ in more than their rows"
    return ""


_step_ops: weakref.WeakKeyDictionary[ClientStep, frozenset[str]] = (
    weakref.WeakKeyDictionary()
)


def _ops(step: ClientStep) -> frozenset[str]:
    if step not in _step_ops:
        lines = [*step.work, *step.accumulate.ops]
        _step_ops[step] = frozenset(n for op in lines for n in _line_ops(op))
    return _step_ops[step]


def _line_ops(op: Op) -> Iterator[str]:
    if isinstance(op, Reduce):
        for inner in op.step.ops:
            yield from _line_ops(inner)
    elif isinstance(op, Graph):
        yield from op_names(unpack(op.graph).graph_def)
        if op.masked is not None:
            yield from op_names(unpack(op.masked).graph_def)


_maps: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()


def _map_ops(fn: Any) -> frozenset[str]:
    if fn not in _maps:
        call = tf.function(functools.partial(_apply, fn), autograph=False)
        graph = call.get_concrete_function(fn.input_spec).graph
        _maps[fn] = op_names(graph.as_graph_def())
    return _maps[fn]


_by_row: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def _maps_by_row(dataset: ClientDataset) -> bool:
    """Whether the functions mapped onto a batch look at each of its rows on its own.

    Tried on the first rows of the columns: half of them give half of the results, and
    the half that stays does not depend on what the others are.
    """
    pipeline = dataset.pipeline
    if not dataset.form.batch_maps:
        return True
    if pipeline not in _by_row:
        _by_row[pipeline] = _tried_by_row(dataset)
    return _by_row[pipeline]


def _tried_by_row(dataset: ClientDataset) -> bool:
    columns = dataset.columns.features
    size = min(_ROWS_TRIED, len(tf.nest.flatten(columns)[0]))
    half = size // 2
    if not half:
        return False

    def mapped(rows: np.ndarray) -> list[np.ndarray]:
        element = tf.nest.map_structure(
            lambda column: tf.constant(column[rows]), columns
        )
        for fn in dataset.form.batch_maps:
            element = fn(element)
        return [np.asarray(leaf) for leaf in tf.nest.flatten(element)]

    every = np.arange(size)
    filled = np.where(every < half, every, 0)
    whole, filled, part = mapped(every), mapped(filled), mapped(every[:half])
    return all(
        w.ndim
        and len(w) == len(f) == size
        and len(p) == half
        and np.array_equal(w[:half], p, equal_nan=p.dtype.kind == "f")
        and np.array_equal(f[:half], p, equal_nan=p.dtype.kind == "f")
        for w, f, p in zip(whole, filled, part)
    )


def _apply(fn: Any, element: Any) -> Any:
    return fn(element)
