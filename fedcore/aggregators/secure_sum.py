"""The sum of clients' numbers, of which the server learns nothing but the sum."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore.aggregators._checks import value_type_of
from fedcore.aggregators._tensors import flat, leaves
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.aggregators.secure_quantized_sum import secure_quantized_sum
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_secure_sum_bitwidth,
    federated_value,
    federated_zip,
)
from fedcore.templates import (
    AggregationProcess,
    EstimationProcess,
    MeasuredProcessOutput,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import (
    SERVER,
    TensorType,
    Type,
    at_clients,
    at_server,
    is_structure_of_floats,
    is_structure_of_integers,
)

_NUMBERS = (int, float, np.integer, np.floating)


class SecureSumFactory(UnweightedAggregationFactory):
    """Sums clients' values securely, clipped to bounds: Σᵢ clip(xᵢ, a, b).

    Each number is clipped to [a, b] and, if a float, sent as one of 2³² levels in
    between, see `secure_quantized_sum`. How many clients had something to clip is
    measured.

    Args:
        upper_bound_threshold: b: an integer (then values are integers), a float (then
            they are floats), or an `EstimationProcess` that reports it as
            `float32@SERVER` and goes on with each client's greatest value.
        lower_bound_threshold: a, of the same kind; its process goes on with each client's
            least value. −b if None: then an upper process goes on with each client's
            greatest absolute value.

    Raises:
        TypeError: If a threshold is of another kind, or they are not of one kind.
        ValueError: If a is not below b.
    """

    def __init__(
        self,
        upper_bound_threshold: int | float | EstimationProcess,
        lower_bound_threshold: int | float | EstimationProcess | None = None,
    ):
        self._integers = _check_thresholds(upper_bound_threshold, lower_bound_threshold)
        self._upper = upper_bound_threshold
        self._lower = lower_bound_threshold

    def create(self, value_type: Type) -> AggregationProcess:
        """The process that sums values of `value_type`.

        Args:
            value_type: T, a structure of integers or of floats of one dtype D, as the
                thresholds are.

        Returns:
            A process with next `(<state=S@SERVER,value={T}@CLIENTS> -> <state=S@SERVER,
            result=T@SERVER,measurements=<secure_upper_clipped_count=int32,
            secure_lower_clipped_count=int32,secure_upper_threshold=D,
            secure_lower_threshold=D>@SERVER>)`. S is the state of the process that
            estimates the thresholds, of both as a pair, or empty.

        Raises:
            TypeError: If T holds something else.
        """
        value_type = value_type_of(self, value_type)
        dtype = self._check(value_type)
        if not isinstance(self._upper, EstimationProcess):
            return self._with_constants(value_type, dtype)
        if self._lower is None:
            return self._with_one_process(value_type, dtype)
        return self._with_two_processes(value_type, dtype)

    def _check(self, value_type: Type) -> tf.DType:
        is_wanted = (
            is_structure_of_integers if self._integers else is_structure_of_floats
        )
        dtypes = {leaf.dtype for leaf in leaves(value_type)}
        if len(dtypes) != 1 or not is_wanted(value_type):
            kind = "integers" if self._integers else "floats"
            raise TypeError(
                f"`SecureSumFactory.create` with thresholds that are {kind} needs "
                f"{kind} of one dtype as `value_type`, found `{value_type}`."
            )
        return dtypes.pop()

    def _with_constants(self, value_type: Type, dtype: tf.DType) -> AggregationProcess:
        upper = dtype.as_numpy_dtype(self._upper)
        lower = -upper if self._lower is None else dtype.as_numpy_dtype(self._lower)

        @federated_computation
        def initialize_fn():
            return federated_value((), SERVER)

        @federated_computation(at_server(()), at_clients(value_type))
        def next_fn(state, value):
            bounds = federated_value(lower, SERVER), federated_value(upper, SERVER)
            return _output(state, value, *bounds)

        return AggregationProcess(initialize_fn, next_fn)

    def _with_one_process(
        self, value_type: Type, dtype: tf.DType
    ) -> AggregationProcess:
        process = self._upper
        negative = tf_computation(tf.negative, TensorType(dtype))
        greatest = _per_client(
            value_type, lambda xs: _greatest([tf.abs(x) for x in xs])
        )

        @federated_computation(process.state_type, at_clients(value_type))
        def next_fn(state, value):
            upper = federated_map(_cast(dtype), process.report(state))
            following = process.next(state, federated_map(greatest, value))
            return _output(following, value, federated_map(negative, upper), upper)

        return AggregationProcess(process.initialize, next_fn)

    def _with_two_processes(
        self, value_type: Type, dtype: tf.DType
    ) -> AggregationProcess:
        uppers, lowers = self._upper, self._lower
        greatest, least = (
            _per_client(value_type, _greatest),
            _per_client(value_type, _least),
        )

        @federated_computation
        def initialize_fn():
            return federated_zip((uppers.initialize(), lowers.initialize()))

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(value_type)
        )
        def next_fn(state, value):
            upper = federated_map(_cast(dtype), uppers.report(state[0]))
            lower = federated_map(_cast(dtype), lowers.report(state[1]))
            following = federated_zip(
                (
                    uppers.next(state[0], federated_map(greatest, value)),
                    lowers.next(state[1], federated_map(least, value)),
                )
            )
            return _output(following, value, lower, upper)

        return AggregationProcess(initialize_fn, next_fn)


def _output(state: Any, value: Any, lower: Any, upper: Any) -> MeasuredProcessOutput:
    """The sum within bounds at the server, and what was clipped for it."""
    bound = upper.type_signature.member

    @tf_computation(value.type_signature.member, bound, bound)
    def is_clipped(x, a, b):
        tensors = flat(x)
        return (
            tf.cast(tf.reduce_any([tf.reduce_any(t > b) for t in tensors]), tf.int32),
            tf.cast(tf.reduce_any([tf.reduce_any(t < a) for t in tensors]), tf.int32),
        )

    known = [federated_broadcast(lower), federated_broadcast(upper)]
    above, below = federated_map(is_clipped, [value, *known])
    measurements = OrderedDict(
        secure_upper_clipped_count=federated_secure_sum_bitwidth(above, 1),
        secure_lower_clipped_count=federated_secure_sum_bitwidth(below, 1),
        secure_upper_threshold=upper,
        secure_lower_threshold=lower,
    )
    total = secure_quantized_sum(value, lower, upper)
    return MeasuredProcessOutput(state, total, federated_zip(measurements))


def _per_client(value_type: Type, reduce: Any) -> Any:
    @tf_computation(value_type)
    def of_client(value):
        return tf.cast(reduce(flat(value)), tf.float32)

    return of_client


def _greatest(tensors: list[Any]) -> tf.Tensor:
    return tf.reduce_max([tf.reduce_max(t) for t in tensors])


def _least(tensors: list[Any]) -> tf.Tensor:
    return tf.reduce_min([tf.reduce_min(t) for t in tensors])


def _cast(dtype: tf.DType) -> Any:
    return tf_computation(lambda x: tf.cast(x, dtype), tf.float32)


def _check_thresholds(upper: Any, lower: Any) -> bool:
    """Whether values are integers, once the thresholds are known to make sense."""
    for name, value in (("upper", upper), ("lower", lower)):
        if name == "lower" and value is None:
            continue
        if not isinstance(value, (EstimationProcess, *_NUMBERS)) or isinstance(
            value, bool
        ):
            raise TypeError(
                f"`{name}_bound_threshold` needs to be a number or an "
                f"`EstimationProcess`, found `{type(value).__name__}`."
            )
    if lower is not None and _kind(upper) is not _kind(lower):
        raise TypeError(
            "`SecureSumFactory` needs thresholds of one kind, found "
            f"`{type(upper).__name__}` and `{type(lower).__name__}`."
        )
    if isinstance(upper, EstimationProcess):
        return False
    least = -upper if lower is None else lower
    if not least < upper:
        raise ValueError(
            "`SecureSumFactory` needs a lower threshold below the upper, found "
            f"{least} and {upper}."
        )
    return _kind(upper) is int


def _kind(threshold: Any) -> type:
    if isinstance(threshold, EstimationProcess):
        return EstimationProcess
    return int if isinstance(threshold, int | np.integer) else float
