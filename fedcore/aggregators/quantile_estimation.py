"""The estimate of a quantile of what clients hold, better from round to round."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import attrs
import tensorflow as tf

from fedcore.aggregators._checks import inner_factory, positive, result_of
from fedcore.aggregators.factory import UnweightedAggregationFactory
from fedcore.aggregators.secure_sum import SecureSumFactory
from fedcore.aggregators.sum import SumFactory
from fedcore.federated import (
    federated_broadcast,
    federated_computation,
    federated_eval,
    federated_map,
    federated_zip,
)
from fedcore.templates import EstimationProcess
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, at_clients, at_server


class QuantileQuery(Protocol):
    """How a quantile is estimated; the methods run inside TensorFlow computations.

    Their names and meaning are those of a query of `tensorflow_privacy`. The estimate
    is `current_estimate` of the state.
    """

    def initial_global_state(self) -> Any:
        """The first state, a structure with the element `current_estimate`."""

    def derive_sample_params(self, global_state: Any) -> Any:
        """What clients need to know of the state to make their records."""

    def preprocess_record(self, params: Any, record: tf.Tensor) -> Any:
        """What a client sends of its value, a float32: a structure that is summed."""

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        """`(result, next global state, ...)` of the sum of records and the state."""


@attrs.frozen
class QuantileState:
    """The state of a quantile's estimate.

    Attributes:
        current_estimate: C, a float32.
        target_quantile: Which quantile is sought, between 0 and 1.
        learning_rate: How fast the estimate follows.
        below_estimate_state: The state of the average of who is below the estimate.
    """

    current_estimate: Any
    target_quantile: Any
    learning_rate: Any
    below_estimate_state: Any = ()


@attrs.frozen
class NoPrivacyQuantileQuery:
    """Estimates a quantile without noise.

    C ← C · exp(−η (b − γ)), b the fraction of clients whose value is at most C
    (Andrew et al., 2021, alg. 1 with σ_b = 0).

    Attributes:
        initial_estimate: C of the first round, > 0.
        target_quantile: γ, between 0 and 1.
        learning_rate: η > 0.

    References:
        G. Andrew et al., Differentially Private Learning with Adaptive Clipping,
        NeurIPS 2021. arXiv:1905.03871.
    """

    initial_estimate: float
    target_quantile: float
    learning_rate: float

    def initial_global_state(self) -> QuantileState:
        """The estimate and the parameters, as tensors."""
        return QuantileState(
            tf.constant(self.initial_estimate, tf.float32),
            tf.constant(self.target_quantile, tf.float32),
            tf.constant(self.learning_rate, tf.float32),
        )

    def derive_sample_params(self, global_state: Any) -> tf.Tensor:
        """The estimate."""
        return global_state.current_estimate

    def preprocess_record(self, params: tf.Tensor, record: tf.Tensor) -> Any:
        """Whether the value is at most the estimate, and 1, as floats."""
        below = tf.cast(record <= params, tf.float32)
        return OrderedDict(below_estimate=below, count=tf.constant(1.0))

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        """The next estimate; the one that is there if no client took part."""
        count = sample_state["count"]
        below = tf.math.divide_no_nan(sample_state["below_estimate"], count)
        factor = tf.exp(
            -global_state.learning_rate * (below - global_state.target_quantile)
        )
        estimate = global_state.current_estimate * tf.where(count > 0, factor, 1.0)
        state = QuantileState(
            estimate,
            global_state.target_quantile,
            global_state.learning_rate,
            global_state.below_estimate_state,
        )
        return estimate, state


class PrivateQuantileEstimationProcess(EstimationProcess):
    """Estimates a quantile of clients' values, one step better in each round.

    Its `next` is `(<state=S@SERVER,value={float32}@CLIENTS> -> S@SERVER)` and its
    `report` `(S@SERVER -> float32@SERVER)`; S is the query's state and the state of the
    records' aggregator.

    Args:
        quantile_estimator_query: A `QuantileQuery`: what clients send of their values and
            how the state follows from its sum.
        record_aggregation_factory: Sums what clients send; `SumFactory()` if None.

    Raises:
        TypeError: If an argument is of another kind than said.
    """

    def __init__(
        self,
        quantile_estimator_query: QuantileQuery,
        record_aggregation_factory: UnweightedAggregationFactory | None = None,
    ):
        query = _checked_query(quantile_estimator_query)
        factory = inner_factory(
            "record_aggregation_factory", record_aggregation_factory or SumFactory()
        )
        initial = tf_computation(query.initial_global_state)
        state_type = initial.type_signature.result
        params = tf_computation(query.derive_sample_params, state_type)
        record = tf_computation(
            query.preprocess_record, params.type_signature.result, tf.float32
        )
        sums = factory.create(record.type_signature.result)

        @tf_computation(result_of(sums), state_type)
        def following(total, state):
            return query.get_noised_result(total, state)[1]

        @federated_computation
        def initialize_fn():
            return federated_zip((federated_eval(initial, SERVER), sums.initialize()))

        @federated_computation(
            initialize_fn.type_signature.result, at_clients(tf.float32)
        )
        def next_fn(state, value):
            known = federated_broadcast(federated_map(params, state[0]))
            total = sums.next(state[1], federated_map(record, (known, value)))
            return federated_zip(
                (federated_map(following, (total.result, state[0])), total.state)
            )

        @federated_computation(initialize_fn.type_signature.result)
        def report_fn(state):
            return state[0].current_estimate

        super().__init__(initialize_fn, next_fn, report_fn)

    @classmethod
    def no_noise(
        cls,
        initial_estimate: float,
        target_quantile: float,
        learning_rate: float,
        multiplier: float = 1.0,
        increment: float = 0.0,
        secure_estimation: bool = False,
    ) -> EstimationProcess:
        """A process that estimates a quantile without noise, see `NoPrivacyQuantileQuery`.

        Args:
            initial_estimate: C of the first round, a float > 0.
            target_quantile: Which quantile is sought, a float between 0 and 1.
            learning_rate: How fast the estimate follows, a float > 0.
            multiplier: A float > 0, by which the reported estimate is multiplied.
            increment: A float >= 0 that is added to the reported estimate after that.
            secure_estimation: Whether clients' records are summed securely.

        Returns:
            An `EstimationProcess` that reports `multiplier` · C + `increment`.

        Raises:
            TypeError: If an argument is not a float.
            ValueError: If an argument is out of its range.
        """
        arguments = {
            "initial_estimate": initial_estimate,
            "target_quantile": target_quantile,
            "learning_rate": learning_rate,
            "multiplier": multiplier,
            "increment": increment,
        }
        for name, value in arguments.items():
            if not isinstance(value, float):
                raise TypeError(
                    f"`{name}` needs to be a float, found `{type(value).__name__}`."
                )
        for name in ("initial_estimate", "learning_rate", "multiplier"):
            positive(name, arguments[name])
        if not 0 <= target_quantile <= 1:
            raise ValueError(
                f"`target_quantile` needs to be between 0 and 1, found {target_quantile}."
            )
        if not increment >= 0:
            raise ValueError(f"`increment` needs to be >= 0, found {increment}.")
        process = cls(
            NoPrivacyQuantileQuery(initial_estimate, target_quantile, learning_rate),
            SecureSumFactory(1.0, 0.0) if secure_estimation else None,
        )
        if multiplier == 1.0 and increment == 0.0:
            return process
        return process.map(_affine(multiplier, increment))


def _affine(multiplier: float, increment: float) -> Any:
    scaled = tf_computation(lambda x: multiplier * x + increment, tf.float32)

    @federated_computation(at_server(tf.float32))
    def affine(estimate):
        return federated_map(scaled, estimate)

    return affine


def _checked_query(query: Any) -> Any:
    methods = (
        "initial_global_state",
        "derive_sample_params",
        "preprocess_record",
        "get_noised_result",
    )
    missing = [name for name in methods if not callable(getattr(query, name, None))]
    if missing:
        raise TypeError(
            "`quantile_estimator_query` needs the methods of a `QuantileQuery`, found "
            f"`{type(query).__name__}` without {', '.join(missing)}."
        )
    return query
