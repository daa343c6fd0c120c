"""Keras 2 (`tf_keras`) inside a `tf_computation`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedcore
import fedsim
from fedcore.tensorflow._private import keras_globals_apart

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras (Keras 2) is not there")

ROWS = fedcore.TensorType(tf.float32, [None, 4])
ONES = np.ones([2, 4], np.float32)
BATCHES = [np.full([2, 4], x, np.float32) for x in (0.1, 0.2, 0.3)]


def dropped(x):
    layers = [tf_keras.layers.Dense(3), tf_keras.layers.Dropout(0.5)]
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), *layers])
    return model(x, training=True)


def trained(optimizer_fn, batches, variables_out):
    """One step for each batch; the same code in a trace and eagerly."""
    ones = {"kernel_initializer": "ones"}
    layers = [
        tf_keras.layers.Input((4,)),
        tf_keras.layers.Dense(3, "tanh", **ones),
        tf_keras.layers.Dense(1, **ones),
    ]
    model, optimizer = tf_keras.Sequential(layers), optimizer_fn()
    for batch in batches:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(batch, training=True) - 1.0) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return variables_out(model.trainable_variables)


def decaying_sgd():
    schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    return tf_keras.optimizers.SGD(schedule, momentum=0.9)


@pytest.mark.parametrize(
    "optimizer_fn",
    [
        lambda: tf_keras.optimizers.SGD(0.1),
        lambda: tf_keras.optimizers.Adam(0.01),
        lambda: tf_keras.optimizers.legacy.RMSprop(0.01),
        decaying_sgd,
    ],
    ids=["SGD", "Adam", "legacy RMSprop", "SGD with a schedule"],
)
def test_training_gives_what_keras_2_gives_eagerly(optimizer_fn):
    @fedcore.tf_computation(fedcore.SequenceType(ROWS))
    def train(batches):
        return trained(optimizer_fn, batches, list)

    eagerly = trained(optimizer_fn, BATCHES, lambda vs: [v.numpy() for v in vs])
    for ours, theirs in zip(train(BATCHES), eagerly):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_metric_is_fresh_in_each_run():
    @fedcore.tf_computation(fedcore.TensorType(tf.int32, [None]), ROWS)
    def accuracy(labels, predictions):
        metric = tf_keras.metrics.SparseCategoricalAccuracy()
        metric.update_state(labels, predictions)
        return metric.result()

    predictions = np.eye(4, dtype=np.float32)[[0, 2]]
    assert [accuracy([0, 1], predictions) for _ in range(2)] == [0.5, 0.5]


def test_two_traces_give_the_same_bytes():
    first, second = (fedcore.tf_computation(dropped, ROWS) for _ in range(2))
    assert first.node.graph == second.node.graph


def test_unseeded_draws_follow_from_the_contexts_seed():
    drawing = fedcore.tf_computation(dropped, ROWS)

    def two_runs(seed):
        with fedcore.context.use(fedsim.local_context(seed=seed)):
            return [drawing(ONES), drawing(ONES)]

    once, again, other = two_runs(1), two_runs(1), two_runs(2)
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once[0], once[1])
    assert not np.array_equal(once[0], other[0])


@pytest.mark.parametrize("seed", [None, 3])
def test_each_iteration_of_a_loop_draws_another_mask(seed):
    @fedcore.tf_computation(fedcore.SequenceType(tf.float32))
    def masks(xs):
        dropout = tf_keras.layers.Dropout(0.5, seed=seed)
        kept = tf.TensorArray(tf.float32, 0, dynamic_size=True)
        for _ in xs:
            mask = dropout(tf.ones([64]), training=True)
            kept = kept.write(kept.size(), mask)
        return kept.stack()

    with fedcore.context.use(fedsim.local_context(seed=1)):
        first, second = masks([1.0, 2.0]), masks([1.0, 2.0])
    assert set(np.unique(first)) == {0.0, 2.0}
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, second) == (seed is not None)


def test_outside_a_trace_keras_2_draws_as_ever():
    generator = tf_keras.initializers.RandomNormal(seed=5)
    fedcore.tf_computation(dropped, ROWS)  # the hooks are in place
    again = tf_keras.initializers.RandomNormal(seed=5)
    np.testing.assert_array_equal(generator([3]), again([3]))
    layer = tf_keras.layers.Dropout(0.5)
    assert layer(tf.ones([8]), training=True).shape == [8]


def test_names_do_not_depend_on_what_was_made_before():
    tf_keras.metrics.AUC()
    with keras_globals_apart():
        assert tf_keras.metrics.AUC().name == "auc"
        assert tf_keras.layers.Dense(1).name == "dense"
    assert tf_keras.metrics.AUC().name != "auc"


def optimizer_of_2_for_a_model_of_3(x):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    tf_keras.optimizers.SGD(0.1).apply_gradients(zip(gradients, variables))
    return loss


def layer_of_2_in_a_model_of_3(x):
    return keras.Sequential([tf_keras.layers.Dense(3)])(x)


def layer_of_3_in_a_model_of_2(x):
    return tf_keras.Sequential([keras.layers.Dense(3)])(x)


def input_of_3_for_a_layer_of_2(x):
    return tf_keras.layers.Dense(3)(keras.Input((4,)))


@pytest.mark.parametrize(
    "mixing",
    [
        optimizer_of_2_for_a_model_of_3,
        layer_of_2_in_a_model_of_3,
        layer_of_3_in_a_model_of_2,
        input_of_3_for_a_layer_of_2,
    ],
)
def test_mixing_the_generations_is_told(mixing):
    with pytest.raises(TypeError, match=r"needs objects of one Keras") as caught:
        fedcore.tf_computation(mixing, ROWS)
    assert "with `keras`, or all of them with `tf_keras`" in str(caught.value)
    assert "test_keras_2.py" in str(caught.value)


def test_a_model_made_outside_is_refused_as_one_of_keras_3_is():
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(3)])
    with pytest.raises(
        fedcore.tensorflow.TracingError, match=r"captures the tf\.Variable"
    ):
        fedcore.tf_computation(lambda x: model(x), ROWS)
