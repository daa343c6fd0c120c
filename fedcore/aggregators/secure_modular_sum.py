"""The sum of clients' integers modulo a number, of which the server learns no more."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from fedcore.aggregators._checks import integer_type_of, positive
from fedcore.aggregators._tensors import flat, leaves, map_types, packed
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.federated import (
    federated_computation,
    federated_map,
    federated_secure_modular_sum,
    federated_value,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, TensorType, Type, at_clients, at_server


class SecureModularSumFactory(UnweightedAggregationFactory):
    """Sums clients' integers securely, modulo a number: Σᵢ xᵢ mod m.

    Clients take their values modulo m too, so that any integer may go in.

    Args:
        modulus: m, an integer > 0.
        symmetric_range: Whether values and result are in (−m, m), then modulo 2m − 1, and
            not in [0, m).

    Raises:
        TypeError: If the modulus is not an integer.
        ValueError: If the modulus is not positive.
    """

    def __init__(self, modulus: int, symmetric_range: bool = False):
        if not isinstance(modulus, int | np.integer) or isinstance(modulus, bool):
            raise TypeError(
                f"`modulus` needs to be an integer, found `{type(modulus).__name__}`."
            )
        self._modulus = int(positive("modulus", modulus))
        self._symmetric = symmetric_range

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that sums values of `value_type`.

        Args:
            value_type: T, a structure of integers.

        Returns:
            A process with next `(<state=<>@SERVER,value={T}@CLIENTS> ->
            <state=<>@SERVER,result=T@SERVER,measurements=<>@SERVER>)`.

        Raises:
            TypeError: If T holds something else than integers.
        """
        value_type = integer_type_of(self, value_type)
        modulus = 2 * self._modulus - 1 if self._symmetric else self._modulus
        symmetric = self._symmetric

        # In int64: the sum of residues may leave the range of int32.
        wide = map_types(lambda t: TensorType(tf.int64, t.shape), value_type)

        @tf_computation(value_type)
        def wrap(value):
            residues = [
                tf.math.floormod(tf.cast(t, tf.int64), modulus) for t in flat(value)
            ]
            return packed(residues, wide)

        @tf_computation(wide)
        def unwrap(value):
            tensors = flat(value)
            if symmetric:
                tensors = [tf.where(t > modulus // 2, t - modulus, t) for t in tensors]
            types = leaves(value_type)
            tensors = [tf.cast(t, to.dtype) for t, to in zip(tensors, types)]
            return packed(tensors, value_type)

        @federated_computation
        def initialize_fn():
            return federated_value((), SERVER)

        @federated_computation(at_server(()), at_clients(value_type))
        def next_fn(state, value):
            total = federated_secure_modular_sum(
                federated_map(wrap, value), np.int64(modulus)
            )
            return MeasuredProcessOutput(
                state, federated_map(unwrap, total), federated_value((), SERVER)
            )

        return AggregationProcess(initialize_fn, next_fn)
