"""Models inside of computations: both the model's own road and the pure view."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.tensorflow import tf_computation
from fedcore.types import SequenceType, to_type
from fedlearn import models
from fedlearn.models._pure import pure_model

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 5], tf.float32), y=tf.TensorSpec([None, 1], tf.int32)
)
RNG = np.random.default_rng(1)
BATCHES = [
    collections.OrderedDict(
        x=RNG.normal(size=(n, 5)).astype("f"),
        y=RNG.integers(0, 3, size=(n, 1)).astype("int32"),
    )
    for n in (4, 4, 3)
]


def model_fn(*layers, initializer="ones", metrics=None):
    return models.from_keras_model(
        keras.Sequential(
            [
                keras.Input((5,)),
                *layers,
                keras.layers.Dense(
                    3, kernel_initializer=initializer, kernel_regularizer="l2"
                ),
            ]
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        SPEC,
        metrics=metrics or [keras.metrics.SparseCategoricalAccuracy()],
    )


def trained_by_its_own_variables(make):
    weights_type = models.weights_type_from_model(make)

    @tf_computation(weights_type, SequenceType(SPEC))
    def train(weights, dataset):
        model = make()
        variables = model.trainable_variables
        weights.assign_weights_to(model)
        for batch in dataset:
            with tf.GradientTape() as tape:
                output = model.forward_pass(batch)
            gradients = tape.gradient(output.loss, variables)
            for variable, gradient in zip(variables, gradients):
                variable.assign_sub(0.1 * gradient)
        return (
            models.ModelWeights.from_model(model),
            model.report_local_unfinalized_metrics(),
        )

    return train


def trained_by_the_pure_view(make):
    pure = pure_model(make)

    @tf_computation(pure.weights_type, SequenceType(SPEC))
    def train(weights, dataset):
        initial = weights, pure.begin_local(), pure.begin_metrics()

        def step(flat, batch):  # a dataset would stack the lists
            weights, local, metrics = tf.nest.pack_sequence_as(initial, flat)
            with tf.GradientTape() as tape:
                tape.watch(weights.trainable)
                output, non_trainable, local = pure.forward(weights, local, batch, True)
            gradients = tape.gradient(output.loss, weights.trainable)
            trainable = [w - 0.1 * g for w, g in zip(weights.trainable, gradients)]
            weights = models.ModelWeights(trainable, non_trainable)
            metrics = pure.update_metrics(metrics, batch, output)
            return tuple(tf.nest.flatten((weights, local, metrics)))

        flat = dataset.reduce(tuple(tf.nest.flatten(initial)), step)
        weights, _, metrics = tf.nest.pack_sequence_as(initial, flat)
        return weights, metrics

    return train


def initial_weights(make):
    return tf_computation(pure_model(make).initial_weights)


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b))
    )


def test_both_roads_give_the_same_weights_and_metrics():
    weights = initial_weights(model_fn)()
    assert isinstance(weights, models.ModelWeights)
    own = trained_by_its_own_variables(model_fn)
    pure = trained_by_the_pure_view(model_fn)
    assert own.type_signature.result.is_equivalent_to(pure.type_signature.result)
    own_weights, own_metrics = own(weights, BATCHES)
    pure_weights, pure_metrics = pure(weights, BATCHES)
    assert own_metrics["num_examples"] == [11]
    for a, b in zip(
        tf.nest.flatten((own_weights.trainable, own_metrics)),
        tf.nest.flatten((pure_weights.trainable, pure_metrics)),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_each_run_starts_fresh():
    train = trained_by_its_own_variables(model_fn)
    weights = initial_weights(model_fn)()
    assert equal(train(weights, BATCHES), train(weights, BATCHES))


def test_unseeded_initial_weights_differ_between_runs():
    initialize = initial_weights(lambda: model_fn(initializer="glorot_uniform"))
    assert not equal(initialize().trainable[0], initialize().trainable[0])
    seeded = initial_weights(
        lambda: model_fn(initializer=keras.initializers.GlorotUniform(seed=1))
    )
    assert equal(seeded().trainable, seeded().trainable)


def test_unseeded_dropout_differs_between_runs_and_a_seeded_one_does_not():
    weights = initial_weights(model_fn)()
    unseeded = trained_by_the_pure_view(lambda: model_fn(keras.layers.Dropout(0.5)))
    first, second = (unseeded(weights, BATCHES)[0].trainable for _ in range(2))
    assert not equal(first, second)
    seeded = trained_by_the_pure_view(
        lambda: model_fn(keras.layers.Dropout(0.5, seed=1))
    )
    first, second = (seeded(weights, BATCHES)[0].trainable for _ in range(2))
    assert equal(first, second)
    own = trained_by_its_own_variables(
        lambda: model_fn(keras.layers.Dropout(0.5, seed=1))
    )
    np.testing.assert_allclose(
        own(weights, BATCHES)[0].trainable[0], first[0], rtol=1e-5
    )


def test_metrics_with_late_variables_and_many_thresholds():
    def make():
        return models.from_keras_model(
            keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, "sigmoid")]),
            keras.losses.BinaryCrossentropy(),
            SPEC,
            metrics=[keras.metrics.F1Score(threshold=0.5), keras.metrics.AUC()],
        )

    @tf_computation(SPEC)
    def metrics_of(batch):
        model = make()
        model.forward_pass(batch)
        unfinalized = model.report_local_unfinalized_metrics()
        finalized = collections.OrderedDict(
            (name, finalizer(unfinalized[name]))
            for name, finalizer in model.metric_finalizers().items()
        )
        return unfinalized, finalized

    batch = BATCHES[0] | {"y": np.array([[0], [1], [1], [0]], "int32")}
    unfinalized, finalized = metrics_of(batch)
    assert list(finalized) == ["f1_score", "auc", "loss", "num_examples", "num_batches"]
    assert [v.shape for v in unfinalized["f1_score"]] == [(1,)] * 4
    assert finalized["num_examples"] == 4
    assert metrics_of(batch)[0]["num_batches"] == [1]


def test_functional_keras_model_in_a_computation():
    model = models.functional_model_from_keras(
        keras.Sequential(
            [keras.Input((5,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        SPEC,
        metrics_constructor=lambda: collections.OrderedDict(
            accuracy=keras.metrics.SparseCategoricalAccuracy()
        ),
    )

    @tf_computation(models.weights_type_from_model(model), SPEC)
    def evaluate(weights, batch):
        output = model.forward_pass(weights, batch, training=False)
        state = model.update_metrics_state(
            model.initialize_metrics_state(), batch["y"], output.predictions
        )
        return output.loss, state, model.finalize_metrics(state)

    weights = models.ModelWeights(*model.initial_weights)
    loss, state, metrics = evaluate(weights, BATCHES[0])
    expected = model.forward_pass(weights, BATCHES[0], training=False)
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-6)
    assert state["accuracy"][1] == 4.0
    assert metrics["accuracy"] == state["accuracy"][0] / 4.0


def test_model_from_functional_in_a_computation():
    functional = models.functional_model_from_keras(
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        SPEC,
    )

    def make():
        return models.model_from_functional(
            functional, [keras.metrics.SparseCategoricalAccuracy]
        )

    weights_type = models.weights_type_from_model(make)
    assert str(weights_type) == (
        "<trainable=<float32[5,3],float32[3]>,non_trainable=<>>"
    )
    _, metrics = trained_by_its_own_variables(make)(
        models.ModelWeights(list(functional.initial_weights[0]), []), BATCHES
    )
    assert metrics["loss"][1] == 11.0


@pytest.mark.parametrize("spec", [SPEC, tuple(SPEC.values())])
def test_input_spec_is_the_type_of_a_batch(spec):
    model = models.from_keras_model(
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        to_type(spec),
    )
    assert to_type(model.input_spec) is to_type(spec)
