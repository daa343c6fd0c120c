"""Federated k-means: types and figures of TFF, Lloyd's step, edges, errors."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from fedcore.aggregators import MeanFactory, SumFactory
from fedcore.context import use
from fedlearn.algorithms._kmeans import build_fed_kmeans
from fedsim.runtime import reference_context

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens"


def golden_script():
    spec = importlib.util.spec_from_file_location("kmeans", GOLDENS / "kmeans.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def points(*rows):
    values = np.array(rows, np.float32).reshape(-1, 2)
    return tf.data.Dataset.from_tensor_slices(values)


def with_state(process, centroids, weights):
    state = process.initialize()
    state.global_model_weights = np.array(centroids, np.float32)
    state.finalizer = np.array(weights, np.int32)
    return state


def test_types():
    process = build_fed_kmeans(3, (2,))
    state = (
        "<global_model_weights=float32[3,2],distributor=<>,client_work=<>,"
        "aggregator=<>,finalizer=int32[3]>@SERVER"
    )
    assert str(process.initialize.type_signature) == f"( -> {state})"
    assert str(process.next.type_signature) == (
        f"(<state={state},client_data={{float32[2]*}}@CLIENTS> -> <state={state},"
        "metrics=<distributor=<>,client_work=<num_examples=int32>,aggregator=<>,"
        "finalizer=<>>@SERVER>)"
    )
    assert str(process.get_model_weights.type_signature.result) == "float32[3,2]"


@pytest.mark.parametrize("name", ["points", "numbers", "matrices", "one_cluster"])
def test_rounds_equal_those_of_tff(name):
    script = golden_script()
    golden = json.loads((GOLDENS / "kmeans_tff_0_40.json").read_text())[name]
    found = script.run(tf, np, build_fed_kmeans, script.CASES[name])
    assert found["next"] == golden["next"]
    np.testing.assert_allclose(found["initial"], golden["initial"], rtol=1e-5)
    for ours, theirs in zip(found["rounds"], golden["rounds"], strict=True):
        np.testing.assert_allclose(
            ours["centroids"], theirs["centroids"], rtol=1e-5, atol=1e-6
        )
        assert ours["weights"] == theirs["weights"]
        assert ours["num_examples"] == theirs["num_examples"]


def test_a_round_without_weights_is_lloyds_step():
    data = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    centroids = data[:3]
    process = build_fed_kmeans(3, (2,))
    for clients in ([data], [data[:7], data[7:]]):
        state = with_state(process, centroids, [0, 0, 0])
        output = process.next(state, [points(*rows) for rows in clients])
        distances = np.sum((data[:, None] - centroids) ** 2, axis=-1)
        nearest = np.argmin(distances, axis=1)
        expected = [data[nearest == i].mean(axis=0) for i in range(3)]
        np.testing.assert_allclose(
            output.state.global_model_weights, expected, rtol=1e-5
        )
        assert output.state.finalizer.tolist() == np.bincount(nearest).tolist()


@pytest.mark.parametrize("weight", [0, 1, 3])
def test_a_cluster_without_points_keeps_its_centroid(weight):
    process = build_fed_kmeans(2, (2,))
    state = with_state(process, [[0.1, 0.2], [9.3, 9.7]], [weight, weight])
    output = process.next(state, [points([0, 1], [1, 0])])
    kept = output.state.global_model_weights[1]
    np.testing.assert_array_equal(kept, np.float32([9.3, 9.7]))


def test_no_data_changes_nothing():
    process = build_fed_kmeans(2, (2,), random_seed=(1, 2))
    state = process.initialize()
    for clients in ([points(), points()], []):
        output = process.next(state, clients)
        np.testing.assert_array_equal(
            output.state.global_model_weights, state.global_model_weights
        )
        assert output.state.finalizer.tolist() == [1, 1]
        assert output.metrics["client_work"]["num_examples"] == 0


def test_a_tie_goes_to_the_first_centroid():
    process = build_fed_kmeans(2, (2,))
    state = with_state(process, [[-1, 0], [1, 0]], [0, 0])
    output = process.next(state, [points([0, 5])])
    assert output.state.finalizer.tolist() == [1, 0]


def test_nan_stays_in_its_cluster():
    process = build_fed_kmeans(2, (2,), random_seed=(1, 2))
    state = process.initialize()
    output = process.next(state, [points([np.nan, 1])])
    centroids = output.state.global_model_weights
    assert np.isnan(centroids[0, 0])
    assert np.isfinite(centroids[1]).all()
    assert output.state.finalizer.tolist() == [2, 1]


def test_the_reference_runtime_gives_the_same():
    process = build_fed_kmeans(2, (2,), random_seed=(1, 2))
    data = [points([0, 1], [1, 0], [4, 4]), points([-3, 2])]
    fused = process.next(process.initialize(), data)
    with use(reference_context()):
        reference = process.next(process.initialize(), data)
    np.testing.assert_allclose(
        fused.state.global_model_weights,
        reference.state.global_model_weights,
        rtol=1e-5,
    )
    np.testing.assert_array_equal(fused.state.finalizer, reference.state.finalizer)


def test_first_centroids_follow_from_the_seed():
    first = [build_fed_kmeans(2, (3,), random_seed=(1, 2)).initialize() for _ in "ab"]
    np.testing.assert_array_equal(
        first[0].global_model_weights, first[1].global_model_weights
    )
    drawn = [build_fed_kmeans(2, (3,)).initialize() for _ in "ab"]
    assert (drawn[0].global_model_weights != drawn[1].global_model_weights).any()


def test_weights_can_be_set():
    process = build_fed_kmeans(2, (2,))
    state = process.set_model_weights(process.initialize(), np.ones([2, 2], np.float32))
    assert process.get_model_weights(state).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_clusters": 0}, ValueError, "`num_clusters` of 1 or more"),
        ({"num_clusters": 2.0}, TypeError, "an int at `num_clusters`"),
        ({"num_clusters": True}, TypeError, "an int at `num_clusters`"),
        ({"data_shape": 2}, TypeError, "a tuple of ints at `data_shape`"),
        ({"data_shape": (None,)}, TypeError, "a tuple of ints at `data_shape`"),
        ({"data_shape": (0,)}, ValueError, "positive dimensions in `data_shape`"),
        ({"random_seed": 5}, TypeError, "two ints at `random_seed`"),
        ({"random_seed": (5,)}, ValueError, "two ints at `random_seed`"),
        ({"sum_aggregator": MeanFactory()}, TypeError, "`sum_aggregator` needs to be"),
        ({"sum_aggregator": SumFactory}, TypeError, "`sum_aggregator` needs to be"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        build_fed_kmeans(**{"num_clusters": 2, "data_shape": (2,), **arguments})
