"""Evaluations: what they are refused, and personalisation with optimizers of Keras."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases

import fedcore
import fedlearn
from fedcore.aggregators import SumFactory
from fedlearn import algorithms

OD = collections.OrderedDict
model_fn = learning_cases.model_fn_of(fedlearn, keras)
UNFINALIZED = fedcore.types.type_from_tensors(
    model_fn().report_local_unfinalized_metrics()
)


def sums(type_):
    return SumFactory().create(type_)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: algorithms.build_fed_eval(
                model_fn, metrics_aggregation_process=sums(UNFINALIZED)
            ),
            TypeError,
            "`metrics_aggregation_process` needs to give a pair",
        ),
        (
            lambda: algorithms.build_fed_eval(
                model_fn, metrics_aggregation_process=sums(fedcore.to_type(tf.int32))
            ),
            TypeError,
            "`metrics_aggregation_process` needs to take the model's unfinalized",
        ),
        (
            lambda: algorithms.build_fed_eval(model_fn, metrics_aggregation_process=3),
            TypeError,
            "`metrics_aggregation_process` needs to be an `AggregationProcess`",
        ),
        (
            lambda: fedlearn.build_federated_evaluation(model_fn, broadcast_process=3),
            TypeError,
            "`broadcast_process` needs to be a `DistributionProcess`, found `int`",
        ),
        (
            lambda: fedlearn.build_local_evaluation(
                model_fn,
                fedlearn.models.weights_type_from_model(model_fn),
                tf.TensorSpec([3]),
            ),
            TypeError,
            "`build_local_evaluation` needs at `batch_type` the model's",
        ),
    ],
)
def test_arguments_of_evaluations(build, error, message):
    with pytest.raises(error, match=message):
        build()


def build_strategy():
    optimizer = keras.optimizers.Adam(0.1)

    @tf.function
    def train(model, train_data, test_data):
        for batch in train_data.batch(4):
            with tf.GradientTape() as tape:
                loss = model.forward_pass(batch).loss
            variables = model.trainable_variables
            gradients = tape.gradient(loss, variables)
            optimizer.apply(gradients, variables)

    def personalize(model, train_data, test_data):
        optimizer.build(model.trainable_variables)
        train(model, train_data, test_data)
        return evaluate_all(model, test_data)

    return personalize


@tf.function
def evaluate_all(model, dataset):
    total, count = tf.constant(0.0), tf.constant(0.0)
    for batch in dataset.batch(100):
        total += model.forward_pass(batch, training=False).loss
        count += 1.0
    return OD(loss=tf.math.divide_no_nan(total, count))


def personalization(strategies, **arguments):
    arguments = {"baseline_evaluate_fn": evaluate_all, **arguments}
    return fedlearn.build_personalization_eval(
        arguments.pop("model_fn", model_fn), strategies, **arguments
    )


def test_a_strategy_may_have_a_keras_optimizer():
    evaluation = personalization(OD(adam=build_strategy), max_num_clients=10)
    weights = fedlearn.ModelWeights.from_model(model_fn())
    clients = []
    for data in learning_cases.client_data()[:2]:
        examples = data.unbatch()
        clients.append(OD(train_data=examples.repeat(20), test_data=examples))
    found = evaluation(weights, clients)
    assert found["baseline_metrics"]["loss"].shape == (2,)
    assert np.all(found["adam"]["loss"] < found["baseline_metrics"]["loss"])


@pytest.mark.parametrize(
    ("strategies", "arguments", "error", "message"),
    [
        (5, {}, TypeError, "needs functions by name at `personalize_fn_dict`"),
        (OD(a=5), {}, TypeError, "needs functions by name at `personalize_fn_dict`"),
        (OD(a=lambda: 5), {}, TypeError, "that `a` makes `int`"),
        (
            OD(baseline_metrics=build_strategy),
            {},
            ValueError,
            "needs strategies of other names than `baseline_metrics`",
        ),
        (OD(), {"baseline_evaluate_fn": 5}, TypeError, "at `baseline_evaluate_fn`"),
        (OD(), {"max_num_clients": 0}, ValueError, "needs `max_num_clients` > 0"),
        (OD(), {"max_num_clients": 2.5}, TypeError, "an integer at `max_num_clients`"),
        (
            OD(),
            {"context_tff_type": 5},
            TypeError,
            "needs a type at `context_tff_type`",
        ),
        (OD(), {"model_fn": 5}, TypeError, "needs a function that makes a `Model`"),
    ],
)
def test_arguments_of_personalization(strategies, arguments, error, message):
    with pytest.raises(error, match=message):
        personalization(strategies, **arguments)


def test_a_functional_model_is_not_personalized_as_it_is():
    functional = fedlearn.models.functional_model_from_keras(
        keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]),
        keras.losses.MeanSquaredError(),
        learning_cases.INPUT_SPEC,
    )
    with pytest.raises(TypeError, match="needs a function that makes a `Model`"):
        personalization(OD(), model_fn=functional)
    evaluation = personalization(
        OD(same=lambda: lambda model, train, test: evaluate_all(model, test)),
        model_fn=lambda: fedlearn.models.model_from_functional(functional),
    )
    data = learning_cases.client_data()[0].unbatch()
    weights = fedlearn.ModelWeights(
        [np.ones([3, 1], np.float32), np.zeros([1], np.float32)], []
    )
    found = evaluation(weights, [OD(train_data=data, test_data=data)])
    np.testing.assert_array_equal(
        found["same"]["loss"], found["baseline_metrics"]["loss"]
    )
