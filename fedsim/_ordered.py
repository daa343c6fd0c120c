"""Clients' datasets whose unseeded shuffles follow from a seed, pass by pass."""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

from fedcore import structure
from fedcore.types import CLIENTS, FederatedType, SequenceType, StructType, Type
from fedsim.datasets._client_dataset_maps import by_row
from fedsim.datasets.client_dataset import ClientDataset
from fedsim.runtime._seeds import fold
from fedsim.runtime._values import Placed


class Ordered:
    """A client's dataset; each `to_tf()` is its next pass, in the fast runtime's order.

    Args:
        dataset: One that has a plan.
        seed: The client's.
    """

    def __init__(self, dataset: ClientDataset, seed: int):
        self._dataset = dataset
        self._seed = seed
        self.restart()

    def restart(self) -> None:
        """The next pass is the first."""
        self._passes = itertools.count()

    def to_tf(self) -> tf.data.Dataset:
        """The next pass."""
        dataset, form = self._dataset, self._dataset.form
        plan = dataset.plan(self._seed, next(self._passes))
        own = [
            tf.constant(column[dataset.start : dataset.stop])
            for column in tf.nest.flatten(dataset.columns.features)
        ]

        def read(rows: tf.Tensor, count: tf.Tensor) -> Any:
            rows = rows[0] if form.batch_size is None else rows[:count]
            found = [tf.gather(column, rows - dataset.start) for column in own]
            element = tf.nest.pack_sequence_as(dataset.columns.features, found)
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

        return tf.data.Dataset.from_tensor_slices((plan.rows, plan.counts)).map(read)


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
        _member(member, type_.member, fold(seed, client))
        for client, member in enumerate(value.members)
    )
    return Placed(tuple(members), False)


def _member(value: Any, type_: Type, seed: int) -> Any:
    if isinstance(type_, StructType):
        names = structure.name_list_with_nones(type_)
        items = (_member(item, t, seed) for item, t in zip(value, type_))
        return structure.Struct(list(zip(names, items)))
    if isinstance(type_, SequenceType) and isinstance(value, ClientDataset):
        if value.no_plan_reason is None:
            return Ordered(value, seed)
    return value


def restart(value: Any) -> None:
    """Lets the ordered datasets in a value begin with their first pass again."""
    if isinstance(value, structure.Struct):
        for item in value:
            restart(item)
    elif isinstance(value, Ordered):
        value.restart()
