import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedlearn import models
from fedlearn.models._functional import (
    CallableNotTensorFlowFunctionError,
    KerasFunctionalModelError,
    ValueMustNotBeTFError,
)
from fedlearn.models._pure import pure_model

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 3], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
)
BATCH = collections.OrderedDict(
    x=np.ones([4, 3], np.float32), y=np.ones([4, 1], np.float32)
)
LOSS = keras.losses.MeanSquaredError()


def dense(**kwargs):
    layer = keras.layers.Dense(1, kernel_initializer="ones", **kwargs)
    return keras.Sequential([keras.Input((3,)), layer])


def of_keras(keras_model=None, **kwargs):
    return models.functional_model_from_keras(
        keras_model or dense(), LOSS, SPEC, **kwargs
    )


@tf.function
def predict_linear(model_weights, x, training=True):
    del training
    trainable, _ = model_weights
    return x @ trainable["kernel"] + trainable["bias"]


@tf.function
def forward_linear(model_weights, batch, training=True):
    predictions = predict_linear(model_weights, batch["x"], training)
    loss = tf.reduce_mean(tf.square(predictions - batch["y"]))
    return models.BatchOutput(loss, predictions, tf.shape(predictions)[0])


def linear(**kwargs):
    weights = collections.OrderedDict(
        kernel=np.ones([3, 1], np.float32), bias=np.zeros([1], np.float32)
    )
    arguments = {
        "initial_weights": (weights, ()),
        "forward_pass_fn": forward_linear,
        "predict_on_batch_fn": predict_linear,
        "input_spec": SPEC,
    }
    return models.FunctionalModel(**(arguments | kwargs))


def test_functional_model_calls_its_functions():
    model = linear()
    output = model.forward_pass(model.initial_weights, BATCH)
    assert (output.loss.numpy(), output.num_examples.numpy()) == (4.0, 4)
    predictions = model.predict_on_batch(model.initial_weights, BATCH["x"], False)
    np.testing.assert_array_equal(predictions, np.full([4, 1], 3.0))
    assert model.input_spec == SPEC
    assert model.initialize_metrics_state() == {}
    assert model.update_metrics_state(collections.OrderedDict(), 1.0, 2.0) == {}
    assert model.finalize_metrics(collections.OrderedDict()) == {}


def test_model_weights_stand_for_the_pair():
    model = linear()
    weights = models.ModelWeights(*model.initial_weights)
    assert model.forward_pass(weights, BATCH).loss.numpy() == 4.0
    assert linear(initial_weights=weights).initial_weights == model.initial_weights


def test_functions_need_tf_function():
    with pytest.raises(CallableNotTensorFlowFunctionError, match="`forward_pass_fn`"):
        linear(forward_pass_fn=lambda *args: args)


@pytest.mark.parametrize("weight", [tf.ones([2]), tf.Variable(1.0)])
def test_initial_weights_need_to_be_arrays(weight):
    with pytest.raises(ValueMustNotBeTFError, match="needs NumPy arrays"):
        linear(initial_weights=((weight,), ()))


def test_keras_model_becomes_functional():
    model = of_keras()
    (kernel, bias), non_trainable = model.initial_weights
    np.testing.assert_array_equal(kernel, np.ones([3, 1]))
    assert (bias.tolist(), non_trainable) == ([0.0], ())
    output = model.forward_pass(model.initial_weights, BATCH)
    assert (output.loss.numpy(), output.num_examples.numpy()) == (4.0, 4)
    twice = ((2 * kernel, bias), ())
    np.testing.assert_array_equal(model.predict_on_batch(twice, BATCH["x"])[0], [6.0])
    constructed = of_keras(dense)
    np.testing.assert_array_equal(constructed.initial_weights[0][0], kernel)


def test_functional_loss_is_without_regularisation():
    model = of_keras(dense(kernel_regularizer="l2"))
    assert model.forward_pass(model.initial_weights, BATCH).loss.numpy() == 4.0


def test_functional_gradients_equal_those_of_keras():
    keras_model = dense()
    model = of_keras(keras_model)
    weights = tf.nest.map_structure(tf.constant, model.initial_weights)
    with tf.GradientTape() as tape:
        tape.watch(weights[0])
        loss = model.forward_pass(weights, BATCH).loss
    found = tape.gradient(loss, weights[0])
    with tf.GradientTape() as tape:
        loss = LOSS(BATCH["y"], keras_model(BATCH["x"]))
    expected = tape.gradient(loss, [v.value for v in keras_model.trainable_weights])
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_dropout_draws_anew_in_each_pass():
    keras_model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5)])
    model = of_keras(keras_model)
    x = np.ones([20, 3], np.float32)
    weights = model.initial_weights
    first, second = (model.predict_on_batch(weights, x).numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(model.predict_on_batch(weights, x, False), x)


@pytest.mark.parametrize(
    ("constructor", "state"),
    [
        (
            lambda: collections.OrderedDict(mae=keras.metrics.MeanAbsoluteError()),
            collections.OrderedDict(mae=(8.0, 4.0)),
        ),
        (keras.metrics.MeanAbsoluteError, (8.0, 4.0)),
        (lambda: [keras.metrics.MeanAbsoluteError()], [(8.0, 4.0)]),
    ],
)
def test_metrics_in_each_container(constructor, state):
    model = of_keras(metrics_constructor=constructor)
    found = model.initialize_metrics_state()
    assert tf.nest.map_structure(float, found) == tf.nest.map_structure(
        lambda _: 0.0, state
    )
    found = model.update_metrics_state(found, BATCH["y"], 3 * BATCH["y"])
    assert tf.nest.map_structure(float, found) == state
    finalized = tf.nest.flatten(model.finalize_metrics(found))
    assert [float(v) for v in finalized] == [2.0]


def test_metrics_take_sample_weights():
    model = of_keras(metrics_constructor=keras.metrics.MeanAbsoluteError)
    weights = np.array([[1.0], [1.0], [0.0], [0.0]], np.float32)
    state = model.update_metrics_state(
        model.initialize_metrics_state(), BATCH["y"], 3 * BATCH["y"], weights
    )
    assert [float(v) for v in state] == [4.0, 2.0]


def test_keras_models_that_cannot_be_functional():
    batch_norm = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization()]
    )
    with pytest.raises(KerasFunctionalModelError, match="found batch normalisation"):
        of_keras(batch_norm)
    with pytest.raises(ValueError, match="needs a built model"):
        of_keras(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="needs a Keras model or a function"):
        of_keras(3)
    with pytest.raises(TypeError, match="needs to make a Keras metric"):
        of_keras(metrics_constructor=lambda: 3)


def test_model_from_functional():
    model = models.model_from_functional(of_keras(), [keras.metrics.MeanAbsoluteError])
    for _ in range(2):
        output = model.forward_pass(BATCH)
    assert output.loss.numpy() == 4.0
    unfinalized = model.report_local_unfinalized_metrics()
    assert {k: [float(v) for v in vs] for k, vs in unfinalized.items()} == {
        "loss": [32.0, 8.0],
        "mean_absolute_error": [16.0, 8.0],
    }
    finalizers = model.metric_finalizers()
    assert [float(f(unfinalized[k])) for k, f in finalizers.items()] == [4.0, 2.0]
    model.reset_metrics()
    assert [float(v) for v in model.local_variables] == [0.0] * 4
    assert [tuple(v.shape) for v in model.trainable_variables] == [(3, 1), (1,)]
    assert model.non_trainable_variables == ()
    assert model.input_spec == SPEC
    assert model.predict_on_batch(BATCH["x"]).shape == (4, 1)


def test_model_from_functional_with_weights_by_name():
    model = models.model_from_functional(linear())
    assert model.forward_pass(BATCH).loss.numpy() == 4.0
    assert len(model.trainable_variables) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((3,), TypeError, "needs a `FunctionalModel`"),
        ((linear(), [keras.metrics.Mean()]), TypeError, "needs functions that make"),
        ((linear(), [lambda: 3]), TypeError, "needs functions that make"),
        (
            (linear(), [keras.metrics.MeanAbsoluteError] * 2),
            ValueError,
            "found `mean_absolute_error` 2 times",
        ),
    ],
)
def test_wrong_arguments_of_model_from_functional(arguments, error, match):
    with pytest.raises(error, match=match):
        models.model_from_functional(*arguments)


def test_pure_view_of_a_functional_model():
    pure = pure_model(linear())
    assert str(pure.weights_type) == (
        "<trainable=<kernel=float32[3,1],bias=float32[1]>,non_trainable=<>>"
    )
    weights = pure.initial_weights()
    output, non_trainable, local = pure.forward(
        weights, pure.begin_local(), BATCH, True
    )
    assert (output.loss.numpy(), non_trainable, local) == (4.0, (), [])
    assert pure.update_metrics(pure.begin_metrics(), BATCH, output) == {}
    assert pure_model(linear).input_spec == SPEC
    flat = models.ModelWeights(tf.nest.flatten(weights.trainable), [])
    output, _, _ = pure.forward(flat, [], BATCH, True)
    assert output.loss.numpy() == 4.0


def test_pure_view_of_a_functional_keras_model_carries_random_states():
    def make():
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dropout(0.5, seed=5),
                keras.layers.Dense(1),
            ]
        )

    def metrics():
        return collections.OrderedDict(mae=keras.metrics.MeanAbsoluteError())

    pure = pure_model(of_keras(make(), metrics_constructor=metrics))
    weights, local = pure.initial_weights(), pure.begin_local()
    first, _, local = pure.forward(weights, local, BATCH, True)
    second, _, local = pure.forward(weights, local, BATCH, True)
    assert local[0].numpy().tolist() == [5, 2]
    assert not np.array_equal(first.predictions, second.predictions)
    again, _, _ = pure.forward(weights, pure.begin_local(), BATCH, True)
    np.testing.assert_array_equal(first.predictions, again.predictions)
    state = pure.update_metrics(pure.begin_metrics(), BATCH, first)
    assert list(pure.metric_finalizers(state)) == ["mae"]


@pytest.mark.parametrize("make", [linear, of_keras])
def test_pure_view_of_a_model_from_functional(make):
    def model_fn():
        return models.model_from_functional(make(), [keras.metrics.MeanAbsoluteError])

    pure, model = pure_model(model_fn), model_fn()
    assert pure.weights_type is models.weights_type_from_model(model)
    state = pure.begin_metrics()
    for rows in (4, 2):
        batch = tf.nest.map_structure(lambda a, n=rows: a[:n], BATCH)
        output, _, _ = pure.forward(pure.initial_weights(), [], batch, True)
        state = pure.update_metrics(state, batch, output)
        expected = model.forward_pass(batch)
        assert output.loss.numpy() == expected.loss.numpy()
    unfinalized = model.report_local_unfinalized_metrics()
    assert tf.nest.map_structure(float, state) == tf.nest.map_structure(
        float, unfinalized
    )
    assert list(pure.metric_finalizers) == ["loss", "mean_absolute_error"]
