"""The order of rows: a chain of operations evaluated on row numbers, in NumPy.

All clients of a group are evaluated together: a stream is one flat array, cut into
segments. `repeat` makes a segment of each epoch and joins them again. A random draw is a
hash of (key of the segment, position), so that an order depends on a client's seed and
on nothing else, least of all on which clients are planned together.
"""

import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np

from fedsim.datasets import _client_dataset_ops as ops
from fedsim.datasets._client_dataset_maps import MapFn, by_row
from fedsim.datasets._client_dataset_ops import Pipeline

# Limits hold for each client, so that whether there is a plan rests on it alone.
_MOST_ITEMS = 1 << 27
_LEAST_KEPT = 1 / 1024
_WHOLE = 1 << 31  # a buffer that holds anything
_FILTER_ROWS = 1 << 14
_DRAW_BITS = 32
_TOO_LONG = "`repeat` gives more elements than can be listed at once."


class NoColumnarPlanError(ValueError):
    """A dataset whose operations have no columnar form; `to_tf` runs it."""


@attrs.frozen(eq=False)
class BatchPlan:
    """Which rows each element of some clients' datasets reads, in order.

    Attributes:
        rows: `int32[elements, width]`: row numbers in the `Columns`, -1 where there is
            none; those of one element come first. The width is the batch size, less
            for batches far larger than any client, and 1 without `batch`.
        counts: `int32[elements]`: how many of them are rows.
        starts: `int32[clients + 1]`: client i has the elements `starts[i]` up to, not
            including, `starts[i + 1]`.
    """

    rows: np.ndarray
    counts: np.ndarray
    starts: np.ndarray


class Segments(NamedTuple):
    """One pass over each client's rows.

    key: Folded from the client's seed and the epochs of the repeats around it.
    turn: The same without the client's seed, for shuffles with a seed of their own.
    home: The key that holds below a `cache`.
    """

    start: np.ndarray
    stop: np.ndarray
    key: np.ndarray
    turn: np.ndarray
    home: np.ndarray


class _Stream(NamedTuple):
    values: np.ndarray  # row numbers; after a batch, numbers of lines of `table`
    lengths: np.ndarray  # of the segments
    table: np.ndarray | None = None
    counts: np.ndarray | None = None


def segments(
    ranges: Any, seeds: Sequence[int], homes: Sequence[int], iteration: int
) -> Segments:
    """A pass over rows `[start, stop)` for each seed; `homes` seed what is cached."""
    ranges = np.asarray(ranges, np.int64).reshape(-1, 2)
    key = _fold(_seed_keys(seeds), iteration)
    turn = np.full(len(key), iteration, np.uint64)
    return Segments(ranges[:, 0], ranges[:, 1], key, turn, _seed_keys(homes))


def _seed_keys(seeds: Sequence[int]) -> np.ndarray:
    folded = np.array([int(seed) % (1 << 64) for seed in seeds], np.uint64)
    return _mix(folded ^ np.uint64(0x5851F42D4C957F2D))


def evaluate(pipeline: Pipeline, columns: Any, passes: Segments) -> BatchPlan:
    """The plan of a chain that has a columnar form."""
    if columns.num_rows > np.iinfo(np.int32).max:
        raise NoColumnarPlanError("The columns have more rows than int32 can number.")
    stream = _evaluate(pipeline, columns, passes, None)
    if stream.table is None or stream.counts is None:
        rows = stream.values.astype(np.int32)[:, None]
        counts = np.ones(len(rows), np.int32)
    elif len(stream.values) == len(stream.table) and _is_range(stream.values):
        rows, counts = stream.table, stream.counts
    else:
        rows, counts = stream.table[stream.values], stream.counts[stream.values]
    starts = np.concatenate([[0], np.cumsum(stream.lengths)]).astype(np.int32)
    return BatchPlan(rows, counts, starts)


def _evaluate(
    node: Pipeline, columns: Any, passes: Segments, limit: int | None
) -> _Stream:
    """The first `limit` items of each segment, all if None."""

    def before(most: int | None = limit) -> _Stream:
        return _evaluate(node.parent, columns, passes, most)

    match node.op:
        case None:
            lengths = passes.stop - passes.start
            lengths = lengths if limit is None else np.minimum(lengths, limit)
            return _Stream(_positions(lengths, passes.start), lengths)
        case ops.Map() | ops.Prefetch():
            return before()
        case ops.Cache():
            still = passes._replace(key=passes.home, turn=np.zeros_like(passes.turn))
            return _evaluate(node.parent, columns, still, limit)
        case ops.Take(count):
            if count < 0:
                return before()
            return before(count if limit is None else min(limit, count))
        case ops.Skip(count):
            if count < 0:
                return before(0)
            return _skip(before(None if limit is None else limit + count), count)
        case ops.Batch(batch_size, drop_remainder):
            most = None if limit is None else limit * batch_size
            return _batch(before(most), batch_size, drop_remainder)
        case ops.Shuffle(buffer_size):
            # An element of the first `limit` comes from the first limit + buffer_size.
            most = None if limit is None or buffer_size < 0 else limit + buffer_size
            stream = before(most)
            size = _WHOLE if buffer_size < 0 else buffer_size
            order = windowed_order(stream.lengths, size, _shuffle_keys(node, passes))
            return _head(stream._replace(values=stream.values[order]), limit)
        case ops.Filter():
            return _filter(node, columns, passes, limit)
        case ops.Repeat(count):
            return _repeat(node, columns, passes, limit, count)


def _repeat(
    node: Pipeline,
    columns: Any,
    passes: Segments,
    limit: int | None,
    count: int | None,
) -> _Stream:
    most = math.inf if count is None else count
    if limit is None:
        if count is None:
            raise NoColumnarPlanError("`repeat()` without an end needs a `take`.")
        if count * (passes.stop - passes.start).max(initial=0) > _MOST_ITEMS:
            raise NoColumnarPlanError(_TOO_LONG)
        epochs = np.full(len(passes.start), count)
        return _joined_epochs(node, columns, passes, epochs, None)
    first = _evaluate(node.parent, columns, passes, limit).lengths
    # An empty first epoch ends an endless repeat, as in tf.data.
    wanted = np.where(first > 0, -(-limit // np.maximum(first, 1)), 1)
    while True:
        epochs = np.minimum(wanted, most).astype(np.int64)
        if (epochs * first).max(initial=0) > _MOST_ITEMS:
            raise NoColumnarPlanError(_TOO_LONG)
        stream = _joined_epochs(node, columns, passes, epochs, limit)
        # Epochs differ in length where a filter follows a shuffle and a take.
        short = (stream.lengths < limit) & (epochs < most) & (first > 0)
        if not short.any():
            return _head(stream, limit)
        wanted = np.where(short, 2 * epochs, epochs)


def _joined_epochs(
    node: Pipeline,
    columns: Any,
    passes: Segments,
    epochs: np.ndarray,
    limit: int | None,
) -> _Stream:
    """Each segment `epochs` times, one after another."""
    source = np.repeat(np.arange(len(epochs)), epochs)
    epoch = _positions(epochs, np.zeros_like(epochs)).astype(np.uint64)
    salt = np.uint64(node.repeats << 32)
    several = Segments(*(field[source] for field in passes))
    several = several._replace(
        key=_fold(several.key, epoch, salt), turn=_fold(several.turn, epoch, salt)
    )
    stream = _evaluate(node.parent, columns, several, limit)
    ends = np.concatenate([[0], np.cumsum(stream.lengths)])
    borders = ends[np.concatenate([[0], np.cumsum(epochs)])]
    return stream._replace(lengths=np.diff(borders))


def _shuffle_keys(node: Pipeline, passes: Segments) -> np.ndarray:
    op = node.op
    salt = np.uint64(node.shuffles)
    if op.seed is not None:
        own = np.full(len(passes.key), int(op.seed) % (1 << 64), np.uint64)
        again = passes.turn if op.reshuffle_each_iteration else np.uint64(0)
        return _mix(_mix(own) + _mix(again))
    if op.reshuffle_each_iteration:
        return _mix(passes.key + salt)
    # One order for ever: it can rest on nothing but the client.
    return _mix(_mix(passes.start.astype(np.uint64)) + salt)


def windowed_order(
    lengths: np.ndarray, buffer_size: int, keys: np.ndarray
) -> np.ndarray:
    """The order in which a shuffle buffer lets the items of each segment out.

    A buffer holds the first `buffer_size` items; each time a random one leaves, the next
    item takes its slot; at the end the rest leaves in random order. What leaves slot s
    at time p is what entered s last: item p' + buffer_size, where p' is the last time
    before p at which s was drawn, or item s if there is none. A sort finds those.

    Args:
        lengths: Items of each segment.
        buffer_size: Slots of the buffer.
        keys: The randomness of each segment.

    Returns:
        Positions in the flat array of all segments.
    """
    longest = int(lengths.max(initial=0))
    position_bits = max(longest - 1, 0).bit_length()
    segment_bits = max(len(lengths) - 1, 0).bit_length()
    if segment_bits + position_bits + _DRAW_BITS > 64:
        # Draws keep their bits whatever the group, or its size would change the order.
        half = len(lengths) // 2
        left = windowed_order(lengths[:half], buffer_size, keys[:half])
        right = windowed_order(lengths[half:], buffer_size, keys[half:])
        return np.concatenate([left, right + lengths[:half].sum()])
    starts = np.cumsum(lengths) - lengths
    segment = np.repeat(np.arange(len(lengths)), lengths)
    position = _positions(lengths, np.zeros_like(lengths))
    golden = np.uint64(0x9E3779B97F4A7C15)
    draws = keys[segment] + (position.astype(np.uint64) + np.uint64(1)) * golden
    draws = _mix(draws) >> np.uint64(64 - _DRAW_BITS)
    shift = np.uint64(position_bits)
    mask = np.uint64((1 << position_bits) - 1)
    steady_lengths = np.maximum(lengths - buffer_size, 0)
    if not steady_lengths.any():
        packed = segment.astype(np.uint64) << np.uint64(_DRAW_BITS)
        packed = ((packed | draws) << shift) | position.astype(np.uint64)
        packed.sort()
        return (packed & mask).astype(np.int64) + starts[segment]

    order = np.empty(len(position), np.int64)
    rest_lengths = lengths - steady_lengths
    rest_starts = np.cumsum(rest_lengths) - rest_lengths
    left = _positions(rest_lengths, np.zeros_like(rest_lengths))  # what slots hold

    steady = np.flatnonzero(position < steady_lengths[segment])
    slot = (draws[steady] * np.uint64(buffer_size)) >> np.uint64(_DRAW_BITS)
    # Only segments longer than the buffer are here: slots have no more bits than items.
    where = (segment[steady].astype(np.uint64) << shift) | slot
    packed = (where << shift) | position[steady].astype(np.uint64)
    packed.sort()
    time = (packed & mask).astype(np.int64)
    where = packed >> shift
    slot = (where & mask).astype(np.int64)
    segment_of = (where >> shift).astype(np.int64)
    again = np.empty(len(where), bool)
    again[0], again[1:] = False, where[1:] == where[:-1]
    before = np.empty_like(time)
    before[0], before[1:] = 0, time[:-1]
    order[starts[segment_of] + time] = np.where(again, before + buffer_size, slot)
    last = np.append(~again[1:], True)
    held = rest_starts[segment_of[last]] + slot[last]
    left[held] = time[last] + buffer_size

    rest = np.flatnonzero(position >= steady_lengths[segment])
    packed = segment[rest].astype(np.uint64) << np.uint64(_DRAW_BITS)
    slot = (position[rest] - steady_lengths[segment[rest]]).astype(np.uint64)
    packed = ((packed | draws[rest]) << shift) | slot
    packed.sort()
    order[rest] = left[(packed & mask).astype(np.int64) + rest_starts[segment[rest]]]
    return order + starts[segment]


def _batch(stream: _Stream, batch_size: int, drop_remainder: bool) -> _Stream:
    if drop_remainder:
        stream = _head(stream, stream.lengths // batch_size * batch_size)
    lengths = stream.lengths
    batches = -(-lengths // batch_size)
    width = _width(batch_size, int(lengths.max(initial=0)))
    lines = np.cumsum(batches) - batches
    position = _positions(lengths, np.zeros_like(lengths))
    table = np.full((int(batches.sum()), width), -1, np.int32)
    line, place = np.divmod(position, batch_size)
    table[line + np.repeat(lines, lengths), place] = stream.values
    counts = np.full(len(table), batch_size, np.int32)
    some = batches > 0
    final = (lines + batches - 1)[some]
    counts[final] = (lengths - (batches - 1) * batch_size)[some]
    return _Stream(np.arange(len(table)), batches, table, counts)


def _width(batch_size: int, longest: int) -> int:
    """The batch size; for one far beyond any client a power of two, so few shapes."""
    if batch_size <= 128:
        return batch_size
    return min(batch_size, max(128, 1 << max(longest - 1, 0).bit_length()))


def _filter(
    node: Pipeline, columns: Any, passes: Segments, limit: int | None
) -> _Stream:
    wanted = limit
    while True:
        stream = _evaluate(node.parent, columns, passes, wanted)
        keep = _mask(node, columns, stream.values)
        kept = np.concatenate([[0], np.cumsum(keep)])
        borders = np.concatenate([[0], np.cumsum(stream.lengths)])
        found = _Stream(stream.values[keep], np.diff(kept[borders]))
        if limit is None or wanted is None:
            return found
        short = (found.lengths < limit) & (stream.lengths == wanted)
        if not short.any():
            return _head(found, limit)
        tried = wanted * _LEAST_KEPT > limit + (passes.stop - passes.start)
        if (tried & short).any():
            raise NoColumnarPlanError(
                f"`filter({node.op.fn.name})` keeps too few rows of an endless repeat."
            )
        wanted *= 2


_masks: "weakref.WeakKeyDictionary[MapFn, Any]" = weakref.WeakKeyDictionary()
_masks_lock = threading.Lock()


def _mask(node: Pipeline, columns: Any, rows: np.ndarray) -> np.ndarray:
    """Whether the filter keeps each of the rows; a row is looked at once."""
    predicate = node.op.fn
    with _masks_lock:
        of_columns = _masks.setdefault(predicate, weakref.WeakKeyDictionary())
        by_maps = of_columns.setdefault(columns, {})
        # 0: not known yet, 1: dropped, 2: kept
        names = tuple(fn.key for fn in node.form.row_maps)
        known = by_maps.setdefault(names, np.zeros(columns.num_rows, np.uint8))
    new = np.unique(rows[known[rows] == 0])
    for i in range(0, len(new), _FILTER_ROWS):
        chunk = new[i : i + _FILTER_ROWS]
        kept = by_row((*node.form.row_maps, predicate), columns.gather(chunk)).numpy()
        known[chunk] = 1 + kept.astype(np.uint8)
    return known[rows] == 2


def _skip(stream: _Stream, count: int) -> _Stream:
    position = _positions(stream.lengths, np.zeros_like(stream.lengths))
    lengths = np.maximum(stream.lengths - count, 0)
    return stream._replace(values=stream.values[position >= count], lengths=lengths)


def _head(stream: _Stream, limit: Any) -> _Stream:
    """The first `limit` items of each segment (a number, or one for each)."""
    if limit is None or not (stream.lengths > limit).any():
        return stream
    position = _positions(stream.lengths, np.zeros_like(stream.lengths))
    lengths = np.minimum(stream.lengths, limit)
    keep = position < np.repeat(lengths, stream.lengths)
    return stream._replace(values=stream.values[keep], lengths=lengths)


def _positions(lengths: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """`first, first + 1, ...` for each length, one after another."""
    offsets = firsts - (np.cumsum(lengths) - lengths)
    return np.arange(int(lengths.sum())) + np.repeat(offsets, lengths)


def _is_range(values: np.ndarray) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _fold(key: np.ndarray, number: Any, salt: Any = 0) -> np.ndarray:
    """A key for the `number`-th time; the first time has the key itself."""
    number = np.asarray(number, np.uint64)
    return np.where(number == 0, key, _mix(key + _mix(number + np.uint64(salt))))


def _mix(x: Any) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al., 2014): 64 bits to 64 bits."""
    x = np.atleast_1d(np.asarray(x, np.uint64))  # NumPy scalars warn of overflow
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
