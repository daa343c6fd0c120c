"""Clients' datasets whose shuffles follow from a call's seed, iteration by iteration.

The columnar road plans its passes itself. Wherever tf.data runs a `ClientDataset` the
order has to come from the same seed, or one seed would give as many results as calls.
"""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from fedcore import structure
from fedcore.types import CLIENTS, FederatedType, SequenceType, StructType, Type
from fedsim.datasets._client_dataset_maps import by_row
from fedsim.datasets._client_dataset_ops import Shuffle
from fedsim.datasets.client_dataset import (
    BatchPlan,
    ClientDataset,
    NoColumnarPlanError,
)
from fedsim.runtime._seeds import fold
from fedsim.runtime._values import Placed

_TF_SEEDS = 1 << 31


class Ordered:
    """A client's dataset in the orders that the columnar road would give it.

    Args:
        dataset: One that shuffles.
        seed: The client's.
    """

    def __init__(self, dataset: ClientDataset, seed: int):
        self._dataset = dataset
        self._seed = seed
        self._first: BatchPlan | None = None
        self.restart()

    def restart(self) -> None:
        """The next iteration is the first."""
        self._passes = itertools.count()

    def to_tf(self) -> tf.data.Dataset:
        """A dataset each iteration of which is the next pass."""
        dataset = self._dataset
        try:
            self._first = self._first or dataset.plan(self._seed, 0)
        except NoColumnarPlanError:
            return self._seeded()
        form = dataset.form
        rows = dataset.columns.features
        own = [
            tf.constant(c[dataset.start : dataset.stop]) for c in tf.nest.flatten(rows)
        ]

        def passed(_: tf.Tensor) -> tf.data.Dataset:
            wanted, counts = tf.numpy_function(self._plan, [], [tf.int32, tf.int32])
            wanted.set_shape([None, None])
            counts.set_shape([None])
            return tf.data.Dataset.from_tensor_slices((wanted, counts))

        def read(wanted: tf.Tensor, count: tf.Tensor) -> Any:
            wanted = wanted[0] if form.batch_size is None else wanted[:count]
            found = [tf.gather(column, wanted) for column in own]
            element = tf.nest.pack_sequence_as(rows, found)
            if form.row_maps and form.batch_size is not None:
                element = by_row(form.row_maps, element)
            else:
                for fn in form.row_maps:
                    element = fn(element)
            if form.drop_remainder:
                size = form.batch_size
                element = tf.nest.map_structure(
                    lambda t: tf.ensure_shape(t, [size, *t.shape[1:]]), element
                )
            for fn in form.batch_maps:
                element = fn(element)
            return element

        made = tf.data.Dataset.from_tensors(0).flat_map(passed).map(read)
        size = dataset.pipeline.size(dataset.num_examples)
        if size < 0:  # not known before it runs
            return made
        return made.apply(tf.data.experimental.assert_cardinality(size))

    def _plan(self) -> tuple[np.ndarray, np.ndarray]:
        number = next(self._passes)
        plan = self._first if number == 0 else self._dataset.plan(self._seed, number)
        return plan.rows - self._dataset.start, plan.counts

    def _seeded(self) -> tf.data.Dataset:
        """What has no plan: the order is of tf.data's generator, and follows the seed."""
        dataset = self._dataset
        made = tf.data.Dataset.from_tensor_slices(dataset._rows())
        seed = fold(self._seed, next(self._passes))
        for i, op in enumerate(dataset.pipeline.ops):
            if isinstance(op, Shuffle) and op.seed is None:
                op = attrs.evolve(op, seed=fold(seed, i) % _TF_SEEDS)
            made = op.apply(made)
        return made


def ordered(value: Any, type_: Type, seed: int) -> Any:
    """An argument of a call with its clients' datasets in the order of the call's seed."""
    if isinstance(type_, StructType):
        names = structure.name_list_with_nones(type_)
        items = (ordered(item, t, seed) for item, t in zip(value, type_))
        return structure.Struct(list(zip(names, items)))
    if not isinstance(type_, FederatedType) or not isinstance(value, Placed):
        return value
    if type_.placement is not CLIENTS or value.all_equal:
        return value
    members = (
        ordered_member(member, type_.member, fold(seed, client))
        for client, member in enumerate(value.members)
    )
    return Placed(tuple(members), False)


def ordered_member(value: Any, type_: Type, seed: int) -> Any:
    """One client's value with its datasets in the order of the client's seed."""
    if isinstance(type_, StructType):
        names = structure.name_list_with_nones(type_)
        items = (ordered_member(item, t, seed) for item, t in zip(value, type_))
        return structure.Struct(list(zip(names, items)))
    if isinstance(type_, SequenceType) and isinstance(value, ClientDataset):
        if any(isinstance(op, Shuffle) for op in value.pipeline.ops):
            return Ordered(value, seed)
    return value


def restart(value: Any) -> None:
    """Lets the ordered datasets in a value begin with their first pass again."""
    if isinstance(value, structure.Struct):
        for item in value:
            restart(item)
    elif isinstance(value, Ordered):
        value.restart()
