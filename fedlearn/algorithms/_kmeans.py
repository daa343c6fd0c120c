"""Federated k-means: clients sum their points by nearest centroid."""

from __future__ import annotations

import numbers
import random
from collections import OrderedDict
from typing import Any

import tensorflow as tf

from fedcore.aggregators import SumFactory, UnweightedAggregationFactory
from fedcore.computation import Computation
from fedcore.federated import (
    federated_computation,
    federated_eval,
    federated_map,
    federated_sum,
    federated_value,
    federated_zip,
    sequence_reduce,
)
from fedcore.tensorflow import tf_computation
from fedcore.types import SERVER, SequenceType, TensorType, at_clients, to_type
from fedlearn.templates import (
    DistributionProcess,
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    build_broadcast_process,
)
from fedlearn.templates._compose import weights_computations


def build_fed_kmeans(
    num_clusters: int,
    data_shape: tuple[int, ...],
    random_seed: tuple[int, int] | None = None,
    distributor: DistributionProcess | None = None,
    sum_aggregator: UnweightedAggregationFactory | None = None,
) -> LearningProcess:
    """Builds a process that finds centroids of all clients' points together.

    Each client assigns its points to the nearest of the centroids c₁..c_k and sums them
    (sᵢ, nᵢ points); the server keeps how many points a centroid stands for, wᵢ, which
    starts at 1:  cᵢ ← (wᵢ cᵢ + Σ sᵢ) / (wᵢ + Σ nᵢ),  wᵢ ← wᵢ + Σ nᵢ.
    A centroid with no points stays where it is. With w = 0 in the state a round is a step
    of Lloyd's algorithm on the pooled data.

    Args:
        num_clusters: k > 0.
        data_shape: The shape of a point.
        random_seed: Two ints; the first centroids are drawn from a standard normal
            distribution with them. If None the seed is drawn when the process is built.
        distributor: Sends the centroids to clients; a plain broadcast if None.
        sum_aggregator: Sums `<float32[k,...],int32[k]>` over clients; `SumFactory()` if
            None.

    Returns:
        A process with client data `{float32[...]*}@CLIENTS` (points, not batches), state
        `<global_model_weights=float32[k,...],distributor=...,client_work=<>,
        aggregator=...,finalizer=int32[k]>` and metrics `<distributor=...,
        client_work=<num_examples=int32>,aggregator=...,finalizer=<>>`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `num_clusters` or a dimension is not positive, or the seed is not
            two numbers.

    References:
        S. P. Lloyd, Least Squares Quantization in PCM, 1982.
        D. Sculley, Web-Scale K-Means Clustering, WWW 2010.
    """
    _check(num_clusters, data_shape, random_seed)
    centroids_type = TensorType(tf.float32, (num_clusters, *data_shape))
    counts_type = TensorType(tf.int32, (num_clusters,))
    if random_seed is None:
        source = random.SystemRandom()
        random_seed = (source.randrange(2**31), source.randrange(2**31))
    distributor = distributor or build_broadcast_process(centroids_type)
    factory = SumFactory() if sum_aggregator is None else sum_aggregator
    if not isinstance(factory, UnweightedAggregationFactory):
        raise TypeError(
            "`sum_aggregator` needs to be an `UnweightedAggregationFactory`, found "
            f"`{type(factory).__name__}`."
        )
    aggregator = factory.create(to_type((centroids_type, counts_type)))
    work = _client_work(centroids_type, counts_type)

    @tf_computation
    def initial_centroids():
        return tf.random.stateless_normal(centroids_type.shape, seed=random_seed)

    @tf_computation
    def initial_counts():
        return tf.ones(counts_type.shape, tf.int32)

    @federated_computation
    def initialize_fn():
        return federated_zip(
            LearningAlgorithmState(
                federated_eval(initial_centroids, SERVER),
                distributor.initialize(),
                federated_value((), SERVER),
                aggregator.initialize(),
                federated_eval(initial_counts, SERVER),
            )
        )

    @tf_computation(centroids_type, counts_type, (centroids_type, counts_type))
    def move(centroids, weights, update):
        sums, counts = update
        new_weights = weights + counts
        old = centroids * _over_points(weights, centroids)
        moved = tf.math.divide_no_nan(old + sums, _over_points(new_weights, centroids))
        stays = tf.cast(_over_points(counts, centroids), tf.int32) == 0
        return tf.where(stays, centroids, moved), new_weights

    state_type = initialize_fn.type_signature.result

    @federated_computation(
        state_type, at_clients(SequenceType(TensorType(tf.float32, data_shape)))
    )
    def next_fn(state, client_data):
        centroids = state.global_model_weights
        sent = distributor.next(state.distributor, centroids)
        update, num_examples = federated_map(work, (sent.result, client_data))
        summed = aggregator.next(state.aggregator, update)
        centroids, weights = federated_map(
            move, (centroids, state.finalizer, summed.result)
        )
        new_state = LearningAlgorithmState(
            centroids, sent.state, state.client_work, summed.state, weights
        )
        metrics = OrderedDict(
            distributor=sent.measurements,
            client_work=OrderedDict(num_examples=federated_sum(num_examples)),
            aggregator=summed.measurements,
            finalizer=federated_value((), SERVER),
        )
        return LearningProcessOutput(federated_zip(new_state), federated_zip(metrics))

    return LearningProcess(
        initialize_fn, next_fn, *weights_computations(state_type.member)
    )


def _client_work(centroids_type: TensorType, counts_type: TensorType) -> Computation:
    """`(<centroids,points*> -> <<sums,counts>,int32>)`: a client's pass over its points."""

    @tf_computation
    def begin():
        sums = tf.zeros(centroids_type.shape, tf.float32)
        counts = tf.zeros(counts_type.shape, tf.int32)
        return sums, counts

    point_type = TensorType(tf.float32, centroids_type.shape[1:])
    state_type = begin.type_signature.result

    @tf_computation(centroids_type, state_type, point_type)
    def step(centroids, state, point):
        sums, counts = state
        dimensions = list(range(1, centroids.shape.rank))
        distances = tf.reduce_sum(tf.square(centroids - point), axis=dimensions)
        nearest = tf.one_hot(tf.argmin(distances), counts.shape[0], dtype=tf.int32)
        is_nearest = _over_points(nearest, centroids) > 0
        # Chosen, not multiplied by 0: a NaN must stay in the cluster it belongs to.
        return tf.where(is_nearest, sums + point, sums), counts + nearest

    @tf_computation(state_type)
    def finish(state):
        sums, counts = state
        return (sums, counts), tf.reduce_sum(counts)

    @federated_computation(centroids_type, SequenceType(point_type))
    def client_work(centroids, points):
        state = sequence_reduce(
            points, begin(), lambda state, point: step(centroids, state, point)
        )
        return finish(state)

    return client_work


def _over_points(counts: tf.Tensor, centroids: tf.Tensor) -> tf.Tensor:
    """A number for each cluster, as float32, shaped so that it goes with centroids."""
    shape = [-1] + [1] * (centroids.shape.rank - 1)
    return tf.reshape(tf.cast(counts, tf.float32), shape)


def _check(num_clusters: Any, data_shape: Any, random_seed: Any) -> None:
    if not _is_int(num_clusters):
        raise TypeError(
            f"`build_fed_kmeans` needs an int at `num_clusters`, found {num_clusters!r}."
        )
    if num_clusters <= 0:
        raise ValueError(
            f"`build_fed_kmeans` needs `num_clusters` of 1 or more, found {num_clusters}."
        )
    if not isinstance(data_shape, tuple) or not all(_is_int(d) for d in data_shape):
        raise TypeError(
            "`build_fed_kmeans` needs a tuple of ints at `data_shape`, found "
            f"{data_shape!r}.\nIt is the shape of one point, for example (2,)."
        )
    if any(d <= 0 for d in data_shape):
        raise ValueError(
            "`build_fed_kmeans` needs positive dimensions in `data_shape`, found "
            f"{data_shape}."
        )
    if random_seed is None:
        return
    if not isinstance(random_seed, (tuple, list)) or not all(map(_is_int, random_seed)):
        raise TypeError(
            "`build_fed_kmeans` needs a tuple of two ints at `random_seed`, found "
            f"{random_seed!r}."
        )
    if len(random_seed) != 2:
        raise ValueError(
            "`build_fed_kmeans` needs two ints at `random_seed`, found "
            f"{len(random_seed)}: {random_seed}."
        )


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
