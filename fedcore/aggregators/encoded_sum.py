"""Sums of tensors that clients send encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fedcore.aggregators._checks import value_type_of
from fedcore.aggregators._rounding import split_seed
from fedcore.aggregators._tensors import draw_seed, flat, leaves, packed, unit_like
from fedcore.aggregators.encoders import (
    Encoder,
    EncoderFn,
    identity,
    uniform_quantization,
)
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.federated import _arithmetic as arithmetic
from fedcore.federated import (
    federated_aggregate,
    federated_computation,
    federated_map,
    federated_value,
)
from fedcore.templates import AggregationProcess, MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, Type, at_clients


class EncodedSumFactory(UnweightedAggregationFactory):
    """Sums clients' values, each tensor sent encoded: Σᵢ decode(encode(xᵢ)).

    Args:
        encoder_fn: Makes the `fedcore.aggregators.encoders.Encoder` of a tensor, of its
            `tf.TensorSpec`.

    Raises:
        TypeError: If `encoder_fn` is not callable.
    """

    def __init__(self, encoder_fn: EncoderFn):
        if not callable(encoder_fn):
            raise TypeError(
                "`encoder_fn` needs to be a function from a `tf.TensorSpec` to an "
                f"`Encoder`, found `{type(encoder_fn).__name__}`."
            )
        self._encoder_fn = encoder_fn

    @classmethod
    def quantize_above_threshold(
        cls, quantization_bits: int = 8, threshold: int = 20000, **kwargs: Any
    ) -> EncodedSumFactory:
        """Quantises the tensors that have more than a number of elements.

        See `fedcore.aggregators.encoders.uniform_quantization`.

        Args:
            quantization_bits: Bits for each number, 1 to 16.
            threshold: Tensors with at most as many elements are sent as they are.
            **kwargs: Further arguments of `uniform_quantization`.

        Returns:
            An `EncodedSumFactory`.

        Raises:
            ValueError: If a number is out of its range.
        """
        if not isinstance(quantization_bits, int | np.integer) or not (
            1 <= quantization_bits <= 16
        ):
            raise ValueError(
                "`quantization_bits` needs to be an integer from 1 to 16, found "
                f"{quantization_bits!r}."
            )
        if threshold < 0:
            raise ValueError(f"`threshold` needs to be >= 0, found {threshold}.")
        # A wrong argument shows now, not when a process is made.
        uniform_quantization(
            tf.TensorSpec([], tf.float32), int(quantization_bits), **kwargs
        )

        def encoder_fn(spec: tf.TensorSpec) -> Encoder:
            if spec.shape.num_elements() > threshold:
                return uniform_quantization(spec, int(quantization_bits), **kwargs)
            return identity(spec)

        return cls(encoder_fn)

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that sums encoded values of `value_type`.

        Args:
            value_type: T, a structure of numeric tensors.

        Returns:
            A process with next `(<state=S@SERVER,value={T}@CLIENTS> -> <state=S@SERVER,
            result=T@SERVER,measurements=<>@SERVER>)`; S is T with `<>` for each tensor.

        Raises:
            TypeError: If T is not a structure of tensors, or the encoder does not take
                one of them.
        """
        value_type = value_type_of(self, value_type)
        if not all(
            t.dtype.is_floating or t.dtype.is_integer for t in leaves(value_type)
        ):
            raise TypeError(
                "`EncodedSumFactory.create` needs a structure of numbers as "
                f"`value_type`, found `{value_type}`."
            )
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in leaves(value_type)]
        coders = [self._encoder_fn(spec) for spec in specs]

        @tf_computation(value_type)
        def encode(value):
            seed = draw_seed()
            return tuple(
                coder.encode(tensor, split_seed(seed, i))
                for i, (coder, tensor) in enumerate(zip(coders, flat(value)))
            )

        sent_type = encode.type_signature.result
        plus = arithmetic.plus(value_type)

        @tf_computation(value_type, sent_type)
        def accumulate(total, sent):
            decoded = [
                tf.ensure_shape(c.decode(part), spec.shape)
                for c, part, spec in zip(coders, sent, specs)
            ]
            return packed([a + b for a, b in zip(flat(total), decoded)], value_type)

        @federated_computation
        def initialize_fn():
            return federated_value(unit_like(value_type), SERVER)

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(value_type)
        )
        def next_fn(state, value):
            total = federated_aggregate(
                federated_map(encode, value),
                arithmetic.zeros(value_type)(),
                accumulate,
                plus,
                arithmetic.identity(value_type),
            )
            return MeasuredProcessOutput(state, total, federated_value((), SERVER))

        return AggregationProcess(initialize_fn, next_fn)
