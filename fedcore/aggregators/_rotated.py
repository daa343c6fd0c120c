"""What the two rotations share: seeds in the state, and the inner process around them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedcore.aggregators._checks import (
    inner_factory,
    known_shapes,
    number_type_of,
    result_of,
)
from fedcore.aggregators._tensors import draw_seed, flat, leaves, map_types, packed
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.aggregators.sum import SumFactory
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_zip,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, TensorType, Type, at_clients

# `(vector, seed) -> vector`, of a float32 vector of the padded length.
Rotation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Two numbers: a random one, drawn by `initialize`, and how often it was used already.
SEED_TYPE = TensorType(tf.int64, [2])


class RotatedFactory(UnweightedAggregationFactory):
    """Rotates each tensor of a client's value, aggregates, and rotates back.

    Args:
        name: The name of the inner measurements.
        inner_agg_factory: Aggregates the rotated vectors; `SumFactory()` if None.
        num_repeats: How many rotations, each with signs or angles of its own.
        padded_length: The length a vector is padded to, of the one it has.
        rotate: The rotation.
        rotate_back: Its inverse.
    """

    def __init__(
        self,
        name: str,
        inner_agg_factory: UnweightedAggregationFactory | None,
        num_repeats: int,
        padded_length: Callable[[int], int],
        rotate: Rotation,
        rotate_back: Rotation,
    ):
        self._inner = inner_factory(
            "inner_agg_factory", inner_agg_factory or SumFactory()
        )
        if not isinstance(num_repeats, int) or num_repeats < 1:
            raise ValueError(
                f"`num_repeats` needs to be an integer > 0, found {num_repeats!r}."
            )
        self._name = name
        self._repeats = num_repeats
        self._padded_length = padded_length
        self._rotate = rotate
        self._rotate_back = rotate_back

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that aggregates rotated values of `value_type`.

        Args:
            value_type: T, a structure of floats or of integers, of known shapes.

        Returns:
            A process with next `(<state=<S,int64[2]>@SERVER,value={T}@CLIENTS> ->
            <state=<S,int64[2]>@SERVER,result=T@SERVER,measurements=<M>@SERVER>)`, S the
            state and M the measurements of the inner one, under the rotation's name.

        Raises:
            TypeError: If T holds both floats and integers, or something else.
        """
        value_type = known_shapes(self, number_type_of(self, value_type))
        rotated_type = map_types(self._vector_type, value_type)
        inner = self._inner.create(rotated_type)
        used = len(leaves(value_type)) * self._repeats

        @tf_computation(value_type, SEED_TYPE)
        def rotate(value, seed):
            vectors = []
            for i, tensor in enumerate(flat(value)):
                vector = self._pad(tensor)
                for one in self._seeds(seed, i):
                    vector = self._rotate(vector, one)
                vectors.append(vector)
            return packed(vectors, rotated_type)

        @tf_computation(result_of(inner), SEED_TYPE)
        def rotate_back(value, seed):
            tensors = []
            for i, (vector, type_) in enumerate(zip(flat(value), leaves(value_type))):
                for one in reversed(self._seeds(seed, i)):
                    vector = self._rotate_back(vector, one)
                tensors.append(_cut(vector, type_))
            return packed(tensors, value_type)

        @tf_computation(SEED_TYPE)
        def next_seed(seed):
            return seed + tf.constant([0, used], tf.int64)

        @tf_computation
        def first_seed():
            return tf.stack(
                [tf.cast(draw_seed()[0], tf.int64), tf.constant(0, tf.int64)]
            )

        @federated_computation
        def initialize_fn():
            return federated_zip(
                (inner.initialize(), federated_eval(first_seed, SERVER))
            )

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(value_type)
        )
        def next_fn(state, value):
            inner_state, seed = state
            rotated = federated_map(rotate, (value, federated_broadcast(seed)))
            output = inner.next(inner_state, rotated)
            return MeasuredProcessOutput(
                federated_zip((output.state, federated_map(next_seed, seed))),
                federated_map(rotate_back, (output.result, seed)),
                federated_zip(OrderedDict([(self._name, output.measurements)])),
            )

        return AggregationProcess(initialize_fn, next_fn)

    def _vector_type(self, type_: TensorType) -> TensorType:
        length = self._padded_length(type_.shape.num_elements())
        return TensorType(tf.float32, [length])

    def _pad(self, tensor: tf.Tensor) -> tf.Tensor:
        vector = tf.cast(tf.reshape(tensor, [-1]), tf.float32)
        length = vector.shape.num_elements()
        return tf.pad(vector, [[0, self._padded_length(length) - length]])

    def _seeds(self, seed: tf.Tensor, tensor_index: int) -> list[tf.Tensor]:
        """The seed of each rotation of the tensor of an index."""
        first = seed + tf.constant([0, tensor_index * self._repeats], tf.int64)
        return [first + tf.constant(i, tf.int64) for i in range(self._repeats)]


def _cut(vector: tf.Tensor, type_: TensorType) -> Any:
    """What of a vector was the tensor before it was padded."""
    tensor = tf.reshape(vector[: type_.shape.num_elements()], type_.shape)
    if type_.dtype.is_integer:
        tensor = tf.round(tensor)
    return tf.cast(tensor, type_.dtype)
