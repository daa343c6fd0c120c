"""How far clients' tf.data datasets go: what is known of them before they run."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore.types import SequenceType, type_to_tf_tensor_specs
from fedsim.runtime._kernel import rounded_up
from fedsim.runtime._workers import leaves

_LEAF_BYTES = 1 << 28  # of a leaf, which is stacked as a whole


@attrs.frozen
class Extent:
    """How far the sequences of some clients go.

    Attributes:
        batch_size: How many examples a batch of any of them has at the most; None if
            elements are no batches.
        by_row: Whether all tensors of a batch have a row for each of its examples.
        numbers: How many elements each client has.
    """

    batch_size: int | None
    by_row: bool
    numbers: tuple[int, ...]


class NoStackError(Exception):
    """Why clients' datasets cannot be stacked."""


def extent_of(datasets: Sequence[Any], type_: SequenceType, count: int) -> Extent:
    """The extent of clients' datasets.

    Args:
        datasets: The clients' sequences.
        type_: Their type.
        count: How many clients the call has.

    Raises:
        NoStackError: If they cannot be stacked: says why.
    """
    specs = tf.nest.flatten(type_to_tf_tensor_specs(type_.element))
    for spec in specs:
        if type(spec) is not tf.TensorSpec or spec.shape.rank is None:
            raise NoStackError(f"elements hold `{spec}`")
        if spec.dtype == tf.string or None in spec.shape[1:]:
            raise NoStackError(f"elements hold `{spec.dtype.name}{spec.shape}`")
    if not specs:
        raise NoStackError("elements are empty")
    known = [_known(dataset) for dataset in datasets]
    numbers = tuple(number for number, _ in known)
    if min(numbers, default=0) < 0:
        raise NoStackError("a dataset does not know how many elements it has")
    # A scalar has no rows, and neither has an element of tensors of several lengths.
    lengths = {spec.shape[0] if spec.shape.rank else 0 for spec in specs}
    by_row, batch_size = len(lengths) == 1 and 0 not in lengths, None
    if None in lengths:
        sizes = [size for _, size in known]
        if None in sizes:
            raise NoStackError("a dataset does not know the size of its batches")
        batch_size = max(sizes)
    elif by_row:
        (batch_size,) = lengths
    extent = Extent(batch_size, by_row, numbers)
    each = element_bytes(type_, extent)
    for leaf in leaves(range(count), count):
        if each * sum(numbers[leaf.start : leaf.stop]) > _LEAF_BYTES:
            raise NoStackError("clients have too much data to be stacked")
    return extent


# Datasets are immutable, and often used again in the next round.
_found: weakref.WeakKeyDictionary[Any, tuple[int, int | None]] = (
    weakref.WeakKeyDictionary()
)


def _known(dataset: Any) -> tuple[int, int | None]:
    """The number of elements, negative if not known, and the most rows of a batch."""
    if not isinstance(dataset, tf.data.Dataset):
        raise NoStackError(f"a client has a `{type(dataset).__name__}`")
    known = _found.get(dataset)
    if known is None:
        known = (int(dataset.cardinality()), _batch_size(dataset))
        _found[dataset] = known
    return known


def _batch_size(dataset: tf.data.Dataset) -> int | None:
    """The size that `batch` was last called with, less if there are not so many examples.

    It is where the padding ends, and no more: elements are asked for their true sizes.
    """
    while getattr(dataset, "_batch_size", None) is None:
        inputs = dataset._inputs()
        if len(inputs) != 1:
            return None
        (dataset,) = inputs
    size = tf.get_static_value(dataset._batch_size)
    inputs = dataset._inputs()
    if size is None or len(inputs) != 1:
        return None
    examples = int(inputs[0].cardinality())
    if 0 <= examples < size:
        # Few sizes are compiled, and a batch of everything need not be padded far.
        return min(int(size), rounded_up(examples))
    return int(size)


def element_bytes(type_: SequenceType, extent: Extent) -> int:
    """How much an element takes, padded."""

    def size(spec: tf.TensorSpec) -> int:
        dims = [extent.batch_size if dim is None else dim for dim in spec.shape]
        return int(np.prod(dims, dtype=np.int64)) * spec.dtype.size

    specs = tf.nest.flatten(type_to_tf_tensor_specs(type_.element))
    return max(1, sum(map(size, specs)))
