import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedlearn import models
from fedlearn.models._pure import pure_model

RNG = np.random.default_rng(7)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MSE = keras.losses.MeanSquaredError()


def spec_of(batch):
    return tf.nest.map_structure(
        lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), batch
    )


def batch_of(x, y):
    return collections.OrderedDict(x=x, y=y)


def classes(n=6):
    return RNG.integers(0, 4, size=(n, 1)).astype("int32")


def floats(*shape):
    return RNG.normal(size=shape).astype("float32")


def build(*layers, shape, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def dense():
    model = build(
        keras.layers.Dense(8, "relu", kernel_regularizer="l2"),
        keras.layers.Dense(4, activity_regularizer="l2"),
        shape=(5,),
    )
    return model, SPARSE, batch_of(floats(6, 5), classes())


def cnn():
    model = build(
        keras.layers.Conv2D(3, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
        shape=(8, 8, 1),
    )
    return model, SPARSE, batch_of(floats(6, 8, 8, 1), classes())


def batch_normalization():
    model = build(
        keras.layers.Dense(3),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(4),
        shape=(5,),
    )
    return model, SPARSE, batch_of(floats(6, 5), classes())


def seeded_dropout():
    model = build(
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(8),
        keras.layers.GaussianNoise(0.3, seed=2),
        keras.layers.Dense(4),
        shape=(5,),
    )
    return model, SPARSE, batch_of(floats(6, 5), classes())


def lstm():
    model = build(
        keras.layers.Embedding(10, 3, mask_zero=True),
        keras.layers.LSTM(4, return_sequences=True),
        keras.layers.Dense(4),
        shape=(None,),
        dtype="int32",
    )
    x = RNG.integers(0, 10, size=(6, 7)).astype("int32")
    y = RNG.integers(0, 4, size=(6, 7)).astype("int32")
    return model, SPARSE, batch_of(x, y)


def two_outputs():
    x = keras.Input((5,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(2)(x)])
    return model, [MSE, MSE], batch_of(floats(6, 5), [floats(6, 1), floats(6, 2)])


def frozen():
    model = build(
        keras.layers.Dense(3, trainable=False), keras.layers.Dense(4), shape=(5,)
    )
    return model, SPARSE, batch_of(floats(6, 5), classes())


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.5, seed=4)
        self.dense = keras.layers.Dense(4)

    def call(self, x):  # takes no `training`: Keras hands it on by itself
        self.add_loss(0.1 * tf.reduce_mean(tf.square(x)))
        return self.dense(self.dropout(x))


def subclassed():
    model = Subclassed()
    model(floats(1, 5))
    return model, SPARSE, batch_of(floats(6, 5), classes())


CASES = [
    dense,
    cnn,
    batch_normalization,
    seeded_dropout,
    lstm,
    two_outputs,
    frozen,
    subclassed,
]


def make_model_fn(case, metrics=()):
    keras.utils.set_random_seed(3)
    keras_model, loss, batch = case()

    def model_fn():
        # Every call must give the same weights here, so that roads can be compared.
        if isinstance(keras_model, Subclassed):
            copy, _, _ = subclassed()
            copy.set_weights(keras_model.get_weights())
        else:
            copy = keras.models.clone_model(keras_model)
            copy.set_weights(keras_model.get_weights())
        return models.from_keras_model(
            copy, loss, spec_of(batch), metrics=[m() for m in metrics] or None
        )

    return model_fn, batch


def as_arrays(nest):
    return tf.nest.map_structure(lambda t: tf.convert_to_tensor(t).numpy(), nest)


def assert_close(found, expected, rtol=1e-5):
    tf.nest.assert_same_structure(found, expected)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected)):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Batch normalisation")
def test_pure_steps_equal_the_models_own(case, training):
    """Three SGD steps on both roads: losses, predictions, weights, states, metrics."""
    metrics = () if case is two_outputs else (keras.metrics.SparseCategoricalAccuracy,)
    model_fn, batch = make_model_fn(case, metrics)
    pure, model = pure_model(model_fn), model_fn()
    weights, local = pure.initial_weights(), pure.begin_local()
    unfinalized = pure.begin_metrics()
    for rows in (6, 6, 2):  # the last batch is a partial one
        part = tf.nest.map_structure(lambda a: tf.constant(a[:rows]), batch)
        with tf.GradientTape() as tape:
            tape.watch(weights.trainable)
            output, non_trainable, local = pure.forward(weights, local, part, training)
        gradients = tape.gradient(output.loss, weights.trainable)
        unfinalized = pure.update_metrics(unfinalized, part, output)

        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            expected = model.forward_pass(part, training)
        expected_gradients = tape.gradient(expected.loss, [v.value for v in variables])

        assert_close(as_arrays(output.loss), as_arrays(expected.loss))
        assert_close(as_arrays(output.predictions), as_arrays(expected.predictions))
        assert output.num_examples.numpy() == rows
        assert_close(
            [tf.convert_to_tensor(g) for g in gradients],
            [tf.convert_to_tensor(g) for g in expected_gradients],
            rtol=1e-4,
        )
        weights = models.ModelWeights(
            [
                w - 0.1 * tf.convert_to_tensor(g)
                for w, g in zip(weights.trainable, gradients)
            ],
            non_trainable,
        )
        for variable, value in zip(variables, weights.trainable):
            variable.assign(value)
        assert_close(
            as_arrays(non_trainable), as_arrays(list(model.non_trainable_variables))
        )
    assert_close(
        as_arrays(unfinalized), as_arrays(model.report_local_unfinalized_metrics())
    )


def test_every_client_begins_with_the_same_seeded_state():
    model_fn, _ = make_model_fn(seeded_dropout)
    pure = pure_model(model_fn)
    assert_close(as_arrays(pure.begin_local()), as_arrays(pure.begin_local()))
    assert [list(v) for v in as_arrays(pure.begin_local())] == [[1, 0], [2, 0]]


def test_unseeded_random_states_are_drawn_afresh():
    def model_fn():
        keras_model = build(
            keras.layers.Dropout(0.5), keras.layers.Dense(1), shape=(5,)
        )
        spec = spec_of(batch_of(floats(1, 5), floats(1, 1)))
        return models.from_keras_model(keras_model, MSE, spec)

    pure = pure_model(model_fn)
    first, second = as_arrays(pure.begin_local()), as_arrays(pure.begin_local())
    assert first[0].shape == (2,)
    assert first[0][0] != second[0][0]


def test_initial_weights_are_drawn_afresh():
    def model_fn():
        keras_model = build(keras.layers.Dense(4), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), classes(1)))
        return models.from_keras_model(keras_model, SPARSE, spec)

    pure = pure_model(model_fn)
    first, second = pure.initial_weights(), pure.initial_weights()
    assert isinstance(first, models.ModelWeights)
    assert not np.array_equal(first.trainable[0], second.trainable[0])


def test_pure_model_names_types_spec_and_metrics():
    model_fn, batch = make_model_fn(dense, (keras.metrics.SparseCategoricalAccuracy,))
    pure = pure_model(model_fn)
    assert str(pure.weights_type) == (
        "<trainable=<float32[5,8],float32[8],float32[8,4],float32[4]>,non_trainable=<>>"
    )
    assert pure.input_spec == spec_of(batch)
    names = ["sparse_categorical_accuracy", "loss", "num_examples", "num_batches"]
    assert list(pure.metric_finalizers) == names
    assert list(pure.begin_metrics()) == names


def test_metrics_have_the_same_names_in_each_call_of_model_fn():
    def model_fn():
        keras_model = build(keras.layers.Dense(1, "sigmoid"), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), floats(1, 1)))
        loss = keras.losses.BinaryCrossentropy()
        return models.from_keras_model(
            keras_model, loss, spec, metrics=[keras.metrics.AUC()]
        )

    for _ in range(2):
        assert next(iter(pure_model(model_fn).metric_finalizers)) == "auc"


def test_metric_that_makes_its_variables_late():
    def model_fn():
        keras_model = build(keras.layers.Dense(3, "softmax"), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), floats(1, 3)))
        return models.from_keras_model(
            keras_model,
            keras.losses.CategoricalCrossentropy(),
            spec,
            metrics=[keras.metrics.F1Score(average="macro"), keras.metrics.R2Score()],
        )

    pure, model = pure_model(model_fn), model_fn()
    labels = np.eye(3, dtype="f")[[0, 2, 1, 1]]
    batch = batch_of(floats(4, 5), labels)
    state = pure.begin_metrics()
    assert [v.shape for v in state["f1_score"]] == [(3,)] * 4
    output, _, _ = pure.forward(pure.initial_weights(), [], batch, False)
    state = pure.update_metrics(state, batch, output)
    reference = keras.metrics.F1Score(average="macro")
    reference.update_state(labels, output.predictions)
    np.testing.assert_allclose(
        pure.metric_finalizers["f1_score"](state["f1_score"]), reference.result()
    )
    model.forward_pass(batch)
    assert len(model.report_local_unfinalized_metrics()["r2_score"]) == 5


def test_auc_begins_and_finalizes():
    def model_fn():
        keras_model = build(keras.layers.Dense(1, "sigmoid"), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), floats(1, 1)))
        return models.from_keras_model(
            keras_model,
            keras.losses.BinaryCrossentropy(),
            spec,
            metrics=[keras.metrics.AUC(num_thresholds=50, name="auc")],
        )

    pure = pure_model(model_fn)
    labels = np.array([[0.0], [1.0], [1.0], [0.0]], "f")
    batch = batch_of(floats(4, 5), labels)
    output, _, _ = pure.forward(pure.initial_weights(), [], batch, False)
    state = pure.update_metrics(pure.begin_metrics(), batch, output)
    reference = keras.metrics.AUC(num_thresholds=50)
    reference.update_state(labels, output.predictions)
    np.testing.assert_allclose(
        pure.metric_finalizers["auc"](state["auc"]), reference.result(), rtol=1e-6
    )


def test_hand_written_model_has_no_pure_view():
    class Written(models.Model):
        trainable_variables = non_trainable_variables = local_variables = ()
        input_spec = None

        def forward_pass(self, batch_input, training=True):
            raise NotImplementedError

        def predict_on_batch(self, batch_input, training=True):
            raise NotImplementedError

        def report_local_unfinalized_metrics(self):
            return collections.OrderedDict()

        def metric_finalizers(self):
            return collections.OrderedDict()

        def reset_metrics(self):
            return None

    assert pure_model(Written) is None


def test_stateful_rnn_has_no_pure_view():
    def model_fn():
        model = keras.Sequential(
            [
                keras.Input((7, 2), batch_size=6),
                keras.layers.LSTM(3, stateful=True),
                keras.layers.Dense(1),
            ]
        )
        spec = collections.OrderedDict(
            x=tf.TensorSpec([6, 7, 2]), y=tf.TensorSpec([6, 1])
        )
        return models.from_keras_model(model, MSE, spec)

    assert pure_model(model_fn) is None


def test_lookup_table_has_no_pure_view():
    def model_fn():
        model = keras.Sequential(
            [
                keras.Input((2,), dtype="string"),
                keras.layers.StringLookup(vocabulary=["a", "b"]),
                keras.layers.Embedding(4, 2),
                keras.layers.Flatten(),
                keras.layers.Dense(1),
            ]
        )
        spec = collections.OrderedDict(
            x=tf.TensorSpec([None, 2], tf.string), y=tf.TensorSpec([None, 1])
        )
        return models.from_keras_model(model, MSE, spec)

    assert pure_model(model_fn) is None


def test_variable_that_keras_does_not_track_has_no_pure_view():
    class Counting(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.calls = tf.Variable(0.0)

        def call(self, x):
            return x + 0.0 * self.calls

    def model_fn():
        model = build(Counting(), keras.layers.Dense(1), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), floats(1, 1)))
        return models.from_keras_model(model, MSE, spec)

    assert pure_model(model_fn) is None


def test_loss_that_is_no_scalar_is_refused():
    def model_fn():
        model = build(keras.layers.Dense(1), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), floats(1, 1)))
        loss = keras.losses.MeanSquaredError(reduction="none")
        return models.from_keras_model(model, loss, spec)

    with pytest.raises(TypeError, match="needs a loss that is a scalar"):
        pure_model(model_fn)


def test_loss_that_is_no_float_is_refused():
    class Count(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            del y_pred, sample_weight
            return tf.size(y_true)

    def model_fn():
        model = build(keras.layers.Dense(1), shape=(5,))
        spec = spec_of(batch_of(floats(1, 5), floats(1, 1)))
        return models.from_keras_model(model, Count(), spec)

    with pytest.raises(TypeError, match="needs a float scalar as the loss"):
        pure_model(model_fn)


def test_model_that_does_not_fit_its_spec_raises_its_own_error():
    def model_fn():
        model = build(keras.layers.Dense(1), shape=(5,))
        spec = spec_of(batch_of(floats(1, 6), floats(1, 1)))
        return models.from_keras_model(model, MSE, spec)

    with pytest.raises(ValueError, match="shape"):
        pure_model(model_fn)


@pytest.mark.parametrize("value", [3, lambda: 3])
def test_pure_model_of_something_else(value):
    with pytest.raises(TypeError, match="`model_fn` needs"):
        pure_model(value)
