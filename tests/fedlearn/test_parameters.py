"""The parts that users may give to an algorithm do, in each of them, what they say."""

import collections
import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases

import fedcore
import fedlearn
from fedcore.aggregators import (
    MeanFactory,
    SumFactory,
    UnweightedMeanFactory,
    add_measurements,
    clipping_factory,
)
from fedcore.templates import MeasuredProcessOutput
from fedcore.tensorflow import tf_computation
from fedcore.types import CLIENTS, SERVER, TensorType, at_clients, at_server, to_type
from fedlearn import algorithms, reconstruction, templates

pytestmark = pytest.mark.slow
OD = collections.OrderedDict
sgd = fedlearn.optimizers.build_sgdm(0.05)
model_fn = learning_cases.model_fn_of(fedlearn, keras)
W = fedlearn.models.weights_type_from_model(model_fn)


def rate(round_num):
    return 0.05


# By name: the builder without the parameters at hand, and whether it takes weights.
BUILDERS = {
    "weighted_fed_avg": (
        lambda **parts: algorithms.build_weighted_fed_avg(model_fn, sgd, **parts),
        True,
    ),
    "unweighted_fed_avg": (
        lambda **parts: algorithms.build_unweighted_fed_avg(model_fn, sgd, **parts),
        False,
    ),
    "schedule": (
        lambda **parts: algorithms.build_weighted_fed_avg_with_optimizer_schedule(
            model_fn, rate, lambda r: keras.optimizers.SGD(r), **parts
        ),
        True,
    ),
    "weighted_fed_prox": (
        lambda **parts: algorithms.build_weighted_fed_prox(model_fn, 0.1, sgd, **parts),
        True,
    ),
    "unweighted_fed_prox": (
        lambda **parts: algorithms.build_unweighted_fed_prox(
            model_fn, 0.1, sgd, **parts
        ),
        False,
    ),
    "fed_sgd": (lambda **parts: algorithms.build_fed_sgd(model_fn, **parts), True),
    "weighted_mime_lite": (
        lambda **parts: algorithms.build_weighted_mime_lite(model_fn, sgd, **parts),
        True,
    ),
    "unweighted_mime_lite": (
        lambda **parts: algorithms.build_unweighted_mime_lite(model_fn, sgd, **parts),
        False,
    ),
    "mime_lite_schedule": (
        lambda **parts: algorithms.build_mime_lite_with_optimizer_schedule(
            model_fn, rate, sgd, **parts
        ),
        True,
    ),
}


@functools.cache
def plain(name):
    """The process without any of the parts."""
    build, _ = BUILDERS[name]
    return build()


def after_a_round(process):
    state = process.initialize()
    output = process.next(state, learning_cases.client_data())
    return process.get_model_weights(output.state).trainable, output


def counting_zeros(weights_type):
    """Sends zeros in place of the weights, and counts in its state how often."""
    zeros = tf_computation(
        lambda weights: tf.nest.map_structure(tf.zeros_like, weights), weights_type
    )
    one_more = tf_computation(lambda count: count + 1, tf.int32)

    @fedcore.federated_computation
    def initialize():
        return fedcore.federated_value(0, SERVER)

    @fedcore.federated_computation(at_server(tf.int32), at_server(weights_type))
    def next_fn(count, weights):
        sent = fedcore.federated_broadcast(fedcore.federated_map(zeros, weights))
        count = fedcore.federated_map(one_more, count)
        return MeasuredProcessOutput(count, sent, count)

    return templates.DistributionProcess(initialize, next_fn)


@pytest.mark.parametrize("name", BUILDERS)
def test_model_distributor_decides_what_clients_get(name):
    build, _ = BUILDERS[name]
    _, output = after_a_round(build(model_distributor=counting_zeros(W)))
    assert output.metrics["distributor"] == 1
    assert output.state.distributor == 1
    # Of weights that are 0 predictions are 0: the errors are the labels.
    labels = np.concatenate([y for _, y in learning_cases.client_arrays()])
    first = output.metrics["client_work"]["train"]
    if name == "fed_sgd":
        np.testing.assert_allclose(
            first["mean_absolute_error"], np.mean(np.abs(labels)), rtol=1e-5
        )
    _, usual = after_a_round(plain(name))
    assert first["loss"] != usual.metrics["client_work"]["train"]["loss"]


def measured(factory):
    def clients(value, weight=None):
        return OD(clients=fedcore.federated_sum(fedcore.federated_value(1, CLIENTS)))

    if isinstance(factory, fedcore.aggregators.WeightedAggregationFactory):
        return add_measurements(factory, client_measurement_fn=clients)
    return add_measurements(factory, client_measurement_fn=lambda value: clients(value))


@pytest.mark.parametrize("name", BUILDERS)
def test_model_aggregator_brings_updates_together(name):
    build, weighted = BUILDERS[name]
    mean = MeanFactory() if weighted else UnweightedMeanFactory()
    _, output = after_a_round(build(model_aggregator=measured(mean)))
    assert output.metrics["aggregator"]["clients"] == 4


@pytest.mark.parametrize("name", [n for n in BUILDERS if "unweighted" in n])
def test_a_sum_takes_longer_steps_than_a_mean(name):
    build, _ = BUILDERS[name]
    start = fedlearn.ModelWeights.from_model(model_fn()).convert_variables_to_arrays()
    mean, _ = after_a_round(plain(name))
    total, _ = after_a_round(build(model_aggregator=SumFactory()))
    for w, m, t in zip(start.trainable, mean, total):
        np.testing.assert_allclose(t - w, 4 * (m - w), rtol=1e-3, atol=1e-5)


MOMENTUM = fedlearn.optimizers.build_sgdm(0.05, 0.9)
MIME = {
    "weighted": (algorithms.build_weighted_mime_lite, [MOMENTUM], MeanFactory),
    "unweighted": (
        algorithms.build_unweighted_mime_lite,
        [MOMENTUM],
        UnweightedMeanFactory,
    ),
    "schedule": (
        algorithms.build_mime_lite_with_optimizer_schedule,
        [rate, MOMENTUM],
        MeanFactory,
    ),
}


@pytest.mark.parametrize("name", MIME)
def test_full_gradient_aggregator_brings_gradients_together(name):
    build, arguments, mean = MIME[name]

    def momentum(**parts):
        _, output = after_a_round(build(model_fn, *arguments, **parts))
        flat = learning_cases.flat(output.state.client_work)
        return [v for path, v in flat.items() if "accumulator" in path]

    assert np.max(np.abs(np.concatenate(momentum()))) > 0.1
    # Gradients clipped to almost nothing leave no momentum.
    clipped = momentum(full_gradient_aggregator=clipping_factory(1e-6, mean()))
    assert 0 < np.max(np.abs(np.concatenate(clipped))) < 1e-5


def greatest_loss(finalizers, metrics_type):
    """In place of sums: the greatest loss of a client, and its number of metrics."""
    loss = tf_computation(
        lambda metrics: tf.math.divide_no_nan(metrics["loss"][0], metrics["loss"][1]),
        metrics_type,
    )

    @fedcore.federated_computation(at_clients(metrics_type))
    def aggregate(metrics):
        return fedcore.federated_zip(
            OD(
                greatest=fedcore.federated_max(fedcore.federated_map(loss, metrics)),
                known=fedcore.federated_value(len(finalizers), SERVER),
            )
        )

    return aggregate


@pytest.mark.parametrize("name", BUILDERS)
def test_metrics_aggregator_makes_the_training_metrics(name):
    build, _ = BUILDERS[name]
    _, output = after_a_round(build(metrics_aggregator=greatest_loss))
    train = output.metrics["client_work"]["train"]
    assert list(train) == ["greatest", "known"]
    assert train["known"] == 4
    losses, process = [], plain(name)
    for data in learning_cases.client_data():
        alone = process.next(process.initialize(), [data])
        losses.append(alone.metrics["client_work"]["train"]["loss"])
    np.testing.assert_allclose(train["greatest"], max(losses), rtol=1e-5)


def test_evaluation_takes_a_distributor_and_an_aggregator():
    weights = fedlearn.ModelWeights.from_model(model_fn())
    data = learning_cases.client_data()
    evaluate = fedlearn.build_federated_evaluation(
        model_fn, metrics_aggregator=greatest_loss
    )
    assert list(evaluate(weights, data)["eval"]) == ["greatest", "known"]
    with pytest.raises(ValueError, match="`broadcast_process` needs to be stateless"):
        fedlearn.build_federated_evaluation(model_fn, counting_zeros(W))
    process = algorithms.build_fed_eval(model_fn, counting_zeros(W))
    output = process.next(process.initialize(), data)
    labels = np.concatenate([y for _, y in learning_cases.client_arrays()])
    found = output.metrics["client_work"]["eval"]["current_round_metrics"]
    np.testing.assert_allclose(
        found["mean_absolute_error"], np.mean(np.abs(labels)), rtol=1e-5
    )
    assert output.metrics["distributor"] == 1


def test_a_stateless_broadcast_is_used_in_evaluation():
    zeros = tf_computation(
        lambda weights: tf.nest.map_structure(tf.zeros_like, weights), W
    )

    @fedcore.federated_computation
    def initialize():
        return fedcore.federated_value((), SERVER)

    @fedcore.federated_computation(at_server(()), at_server(W))
    def next_fn(state, weights):
        sent = fedcore.federated_broadcast(fedcore.federated_map(zeros, weights))
        return MeasuredProcessOutput(state, sent, initialize())

    evaluate = fedlearn.build_federated_evaluation(
        model_fn, templates.DistributionProcess(initialize, next_fn)
    )
    weights = fedlearn.ModelWeights.from_model(model_fn())
    found = evaluate(weights, learning_cases.client_data())["eval"]
    labels = np.concatenate([y for _, y in learning_cases.client_arrays()])
    np.testing.assert_allclose(found["loss"], np.mean(labels**2), rtol=1e-5)


def test_kmeans_takes_a_distributor_and_a_sum():
    centroids = TensorType(tf.float32, [2, 2])
    points = tf.data.Dataset.from_tensor_slices(np.ones([3, 2], np.float32))
    process = algorithms.build_fed_kmeans(
        2,
        (2,),
        (1, 2),
        distributor=counting_zeros(centroids),
        sum_aggregator=measured(SumFactory()),
    )
    output = process.next(process.initialize(), [points, points])
    assert output.metrics["distributor"] == 1
    assert output.metrics["aggregator"]["clients"] == 2
    # Both centroids are sent as 0, so all points go to the first.
    np.testing.assert_array_equal(output.state.finalizer, [7, 1])


SPEC = OD(x=tf.TensorSpec([None, 1]), y=tf.TensorSpec([None, 1]))


def reconstruction_model_fn():
    shared, local = keras.layers.Dense(1), keras.layers.Dense(1)
    inputs = keras.Input((1,))
    return reconstruction.from_keras_model(
        keras.Model(inputs, local(shared(inputs))),
        global_layers=[shared],
        local_layers=[local],
        input_spec=SPEC,
    )


@pytest.mark.parametrize("weighted", [True, False])
def test_reconstruction_takes_a_distributor_and_an_aggregator(weighted):
    weights = reconstruction.get_global_variables(reconstruction_model_fn())
    weights_type = to_type(
        tf.nest.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype), weights)
    )
    mean = measured(MeanFactory() if weighted else UnweightedMeanFactory())
    parts = {
        "loss_fn": keras.losses.MeanSquaredError,
        "client_weighting": fedlearn.ClientWeighting.UNIFORM,
    }
    x = np.ones([4, 1], np.float32)
    data = [tf.data.Dataset.from_tensor_slices(OD(x=x, y=x)).batch(2)] * 3
    older = reconstruction.build_training_process(
        reconstruction_model_fn,
        broadcast_process=counting_zeros(weights_type),
        aggregation_factory=mean,
        **parts,
    )
    _, metrics = older.next(older.initialize(), data)
    assert metrics["broadcast"] == 1
    assert metrics["aggregation"]["clients"] == 3
    later = algorithms.build_fed_recon(
        reconstruction_model_fn,
        model_distributor=counting_zeros(weights_type),
        model_aggregator_factory=mean,
        metrics_aggregator=greatest_loss,
        **parts,
    )
    output = later.next(later.initialize(), data)
    assert output.metrics["distributor"] == 1
    assert output.metrics["aggregator"]["clients"] == 3
    assert "greatest" in output.metrics["client_work"]["train"]


def test_every_parameter_of_every_builder_is_described():
    for module in (fedlearn, algorithms, templates, reconstruction):
        for name in module.__all__:
            build = getattr(module, name)
            if not name.startswith(("build_", "compose_")):
                continue
            described = build.__doc__ or ""
            for parameter in inspect.signature(build).parameters:
                assert f"{parameter}:" in described, f"{name}: {parameter}"
