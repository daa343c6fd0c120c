"""Algorithms that come to the same as others, on both roads and both runtimes."""

import collections
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases as cases

import fedcore
import fedlearn
from fedsim import runtime
from fedsim.datasets.columnar import Columns

algorithms = fedlearn.algorithms
sgdm = fedlearn.optimizers.build_sgdm
MODEL_FN = cases.model_fn_of(fedlearn, keras)
RATE = 0.05
UNIFORM = fedlearn.ClientWeighting.UNIFORM


def on_tf_data(arrays):
    return [tf.data.Dataset.from_tensor_slices(features) for features in arrays]


def on_columns(arrays):
    columns = Columns.from_clients((str(k), one) for k, one in enumerate(arrays))
    return [columns.dataset(client_id) for client_id in columns.client_ids]


@pytest.fixture(params=[on_columns, on_tf_data], ids=["columnar", "tf.data"])
def road(request):
    """From a list of features to a list of datasets."""
    return request.param


@pytest.fixture(params=["fused", "reference"], autouse=True)
def context(request):
    make = {"fused": runtime.local_context, "reference": runtime.reference_context}
    with fedcore.context.use(make[request.param](seed=4)):
        yield


def clients(road, batch=3, which=slice(None)):
    """Uneven clients, one of them without data, with last batches that are smaller."""
    arrays = [collections.OrderedDict(x=x, y=y) for x, y in cases.client_arrays()]
    return [dataset.batch(batch) for dataset in road(arrays[which])]


def weights_after(process, data, rounds=2):
    """The server's trainable weights, after some rounds."""
    state = process.initialize()
    if isinstance(process, fedlearn.templates.StatefulLearningProcess):
        kept = [process.initialize_client(process.get_model_weights(state))] * len(data)
        for _ in range(rounds):
            output = process.next(state, kept, data)
            state, kept = output.state, output.client_states
    else:
        for _ in range(rounds):
            state = process.next(state, data).state
    return process.get_model_weights(state)


def gradient_steps(which, steps):
    """Keras itself, descending on the loss over all examples of the clients."""
    pooled = [np.concatenate(parts) for parts in zip(*cases.client_arrays()[which])]
    batch = collections.OrderedDict(zip("xy", pooled))
    model = MODEL_FN()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = model.forward_pass(batch).loss
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables)
        ):
            variable.assign_sub(RATE * gradient)
    return [v.numpy() for v in model.trainable_variables]


def assert_close(found, wanted):
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=2e-6)


@functools.cache
def fed_avg(weighting=fedlearn.ClientWeighting.NUM_EXAMPLES):
    return algorithms.build_weighted_fed_avg(
        MODEL_FN, sgdm(RATE), sgdm(1.0), client_weighting=weighting
    )


# Of each algorithm in a case where it is Federated Averaging: how it is built, the
# weighting of clients, and for how many rounds it is.
AS_FED_AVG = {
    "unweighted fed_avg": (
        lambda: algorithms.build_unweighted_fed_avg(MODEL_FN, sgdm(RATE), sgdm(1.0)),
        UNIFORM,
        2,
    ),
    "constant schedule": (
        lambda: algorithms.build_weighted_fed_avg_with_optimizer_schedule(
            MODEL_FN, lambda round_num: RATE, sgdm, sgdm(1.0)
        ),
        None,
        2,
    ),
    "fed_prox of strength 0": (
        lambda: algorithms.build_fed_prox(MODEL_FN, 0.0, sgdm(RATE), sgdm(1.0)),
        None,
        2,
    ),
    "TFF's fed_prox of strength 0": (
        lambda: algorithms.build_weighted_fed_prox(
            MODEL_FN, 0.0, sgdm(RATE), sgdm(1.0)
        ),
        None,
        2,
    ),
    "unweighted fed_prox of strength 0": (
        lambda: algorithms.build_unweighted_fed_prox(
            MODEL_FN, 0.0, sgdm(RATE), sgdm(1.0)
        ),
        UNIFORM,
        2,
    ),
    "mime_lite without momentum": (
        lambda: algorithms.build_weighted_mime_lite(MODEL_FN, sgdm(RATE)),
        None,
        2,
    ),
    "scaffold with control variates of 0": (
        lambda: algorithms.build_scaffold(MODEL_FN, RATE, sgdm(1.0), num_clients=9),
        UNIFORM,
        1,
    ),
    "ditto's server": (
        lambda: algorithms.build_ditto(
            MODEL_FN, sgdm(RATE), sgdm(1.0), proximal_strength=0.5
        ),
        None,
        2,
    ),
    "fed_avg with frozen weights, of which there are none": (
        lambda: algorithms.build_weighted_fed_avg(
            fedlearn.models.with_frozen_weights(MODEL_FN), sgdm(RATE), sgdm(1.0)
        ),
        None,
        2,
    ),
}


@functools.cache
def built(name):
    return AS_FED_AVG[name][0]()


@pytest.mark.parametrize("name", AS_FED_AVG)
def test_it_is_fed_avg(name, road):
    _, weighting, rounds = AS_FED_AVG[name]
    wanted = fed_avg(weighting) if weighting else fed_avg()
    data = clients(road)
    assert_close(
        list(weights_after(built(name), data, rounds).trainable),
        list(weights_after(wanted, data, rounds).trainable),
    )


@functools.cache
def ifca():
    return algorithms.build_ifca(MODEL_FN, sgdm(RATE), sgdm(1.0), num_clusters=1)


def test_ifca_of_one_cluster_is_fed_avg(road):
    data = clients(road)
    (found,) = weights_after(ifca(), data)
    assert_close(list(found.trainable), list(weights_after(fed_avg(), data).trainable))


def test_fed_avg_of_one_client_and_one_batch_is_gradient_descent(road):
    data = clients(road, batch=100, which=slice(0, 1))
    found = weights_after(fed_avg(), data)
    assert_close(list(found.trainable), gradient_steps(slice(0, 1), 2))


def test_fed_avg_of_one_client_is_stochastic_gradient_descent(road):
    """Keras's own fit, on the client's batches in their order."""
    x, y = cases.client_arrays()[0]
    model = MODEL_FN().keras_model
    model.compile(keras.optimizers.SGD(RATE), keras.losses.MeanSquaredError())
    model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
    found = weights_after(fed_avg(), clients(road, which=slice(0, 1)))
    assert_close(list(found.trainable), model.get_weights())


@functools.cache
def fed_sgd():
    return algorithms.build_fed_sgd(MODEL_FN, sgdm(RATE))


@pytest.mark.parametrize("batch", [3, 100])
def test_fed_sgd_is_a_gradient_step_on_all_the_data(batch, road):
    found = weights_after(fed_sgd(), clients(road, batch))
    assert_close(list(found.trainable), gradient_steps(slice(None), 2))


@functools.cache
def first_of_fed_dyn(alpha, num_clients, in_round):
    dyn = algorithms.build_fed_dyn(
        MODEL_FN, sgdm(RATE), regularization=alpha, num_clients=num_clients
    )
    prox = algorithms.build_fed_prox(
        MODEL_FN,
        alpha,
        sgdm(RATE),
        sgdm(1 + in_round / num_clients),
        client_weighting=UNIFORM,
    )
    return dyn, prox


def test_the_first_round_of_fed_dyn_is_fed_prox_that_goes_further(road):
    """With gₖ = h = 0: clients as in FedProx of μ = α, a server's rate of 1 + |P| / N."""
    data = clients(road, which=slice(0, 2))
    dyn, prox = first_of_fed_dyn(0.5, 8, len(data))
    assert_close(
        list(weights_after(dyn, data, 1).trainable),
        list(weights_after(prox, data, 1).trainable),
    )


@functools.cache
def kmeans():
    return algorithms.build_fed_kmeans(3, (2,), random_seed=(1, 2))


def test_kmeans_of_one_client_is_lloyds_step(road):
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    centroids, state = points[:3], kmeans().initialize()
    for _ in range(2):
        state.global_model_weights = centroids
        state.finalizer = np.zeros(3, np.int32)  # the centroids stand for nothing yet
        state = kmeans().next(state, road([points])).state
        distances = np.sum((points[:, None] - centroids) ** 2, axis=-1)
        nearest = np.argmin(distances, axis=1)
        centroids = np.array([points[nearest == k].mean(axis=0) for k in range(3)])
        assert_close(state.global_model_weights, centroids)
