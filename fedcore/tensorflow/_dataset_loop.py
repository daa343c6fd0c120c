"""`for batch in dataset` in a traced function: the dataset is run first, in one operation.

AutoGraph makes a loop over an iterator of it, and an iterator costs 10 ms to make: it
copies the functions of the process. So a dataset that says its length and is not long is
drained into padded tensors, from which the loop takes an element at a time, cut to its
true shape. Any other has an iterator, made when the loop is reached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fedcore.tensorflow import _private

_PIECE_BYTES = 1 << 25
_MOST_IN_A_PIECE = 1 << 14
_ASSUMED_SIZE = 32  # of a dimension that the type does not know


def cannot_be_padded(spec: Any) -> str:
    """Why elements of such a spec cannot be stacked, or an empty string."""
    specs = tf.nest.flatten(spec)
    if not specs:
        return "its elements are empty"
    for leaf in specs:
        if type(leaf) is not tf.TensorSpec or leaf.shape.rank is None:
            return f"its elements hold `{leaf}`, which cannot be padded"
    return ""


def most_at_once(spec: Any) -> int:
    """How many elements are drained at once, at the most."""

    def size(leaf: tf.TensorSpec) -> int:
        dims = [_ASSUMED_SIZE if dim is None else dim for dim in leaf.shape]
        return int(np.prod(dims)) * max(leaf.dtype.size, 1)

    most = _PIECE_BYTES // max(1, sum(map(size, tf.nest.flatten(spec))))
    return max(1, min(most, _MOST_IN_A_PIECE))


def padded(dataset: tf.data.Dataset, at_once: Any) -> tf.data.Dataset:
    """Elements as padded tensors with their true shapes, so many at a time."""

    def flat(*element: Any) -> tuple[Any, Any]:
        leaves = tf.nest.flatten(element)
        return tuple(leaves), tuple(tf.shape(leaf) for leaf in leaves)

    return dataset.map(flat).padded_batch(at_once)


def cut(piece: Any, i: tf.Tensor, spec: Any) -> list[tf.Tensor]:
    """The tensors of element `i` of a piece, at their true shapes."""
    return [
        _cut(tensor[i], size[i], leaf.shape)
        for tensor, size, leaf in zip(*piece, tf.nest.flatten(spec))
    ]


def _cut(tensor: tf.Tensor, size: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """What the type knows of an element's shape is static."""
    if shape.is_fully_defined():
        return tf.ensure_shape(tensor, shape)
    if all(dim is not None for dim in shape[1:]):
        return tf.ensure_shape(tensor[: size[0]], shape)
    return tf.ensure_shape(tf.slice(tensor, [0] * shape.rank, size), shape)


class DrainedIterator:
    """What AutoGraph asks of an iterator, over a dataset that is drained if that pays.

    Args:
        dataset: The dataset, in the graph being traced.
    """

    def __init__(self, dataset: tf.data.Dataset):
        self._spec = dataset.element_spec
        self._size = dataset.cardinality()  # negative if endless or not known
        most = most_at_once(self._spec)
        self._fits = tf.logical_and(self._size > 0, self._size <= most)
        self._iterator = _private.unmade_iterator(self._spec)
        self._piece = tf.cond(
            self._fits,
            lambda: padded(dataset, self._size).get_single_element(),
            lambda: self._no_piece(dataset),
        )
        self._next = _private.new_handle(tf.TensorShape([]), tf.int64, "next_element")
        _private.assign(self._next, tf.constant(0, tf.int64))

    def _no_piece(self, dataset: tf.data.Dataset) -> Any:
        """Makes the iterator in the piece's place."""
        _private.make_iterator(dataset, self._iterator)

        def none(leaf: tf.TensorSpec) -> tf.Tensor:
            return tf.zeros([0, *(dim or 0 for dim in leaf.shape)], leaf.dtype)

        specs = tf.nest.flatten(self._spec)
        shapes = (tf.zeros([0, leaf.shape.rank], tf.int32) for leaf in specs)
        return tuple(map(none, specs)), tuple(shapes)

    def get_next_as_optional(self) -> Any:
        """The next element, if there is one."""
        i = _private.read(self._next, tf.int64)
        _private.assign(self._next, i + 1)

        def drained() -> tf.Tensor:
            return tf.cond(
                i < self._size,
                lambda: tf.raw_ops.OptionalFromValue(
                    components=cut(self._piece, i, self._spec)
                ),
                tf.raw_ops.OptionalNone,
            )

        optional = tf.cond(
            self._fits,
            drained,
            lambda: _private.next_as_optional(self._iterator, self._spec),
        )
        return _private.optional_of(optional, self._spec)


def drain_in_loops() -> None:
    """From now on the loops of traced functions drain their datasets."""
    _private.iterate_datasets_with(_iterator_of, DrainedIterator)


def _iterator_of(dataset: tf.data.Dataset) -> Any:
    if cannot_be_padded(dataset.element_spec) or _private.reads_variables():
        return iter(dataset)
    return DrainedIterator(dataset)
