"""What the algorithms say, or do, when what they are given is not right."""

import collections
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases

import fedlearn
from fedcore.aggregators import SumFactory, UnweightedMeanFactory
from fedcore.context import use
from fedsim.runtime import local_context, reference_context

OD = collections.OrderedDict
SPEC = learning_cases.INPUT_SPEC
FEATURES = learning_cases.FEATURES
build = fedlearn.algorithms.build_weighted_fed_avg
sgd = fedlearn.optimizers.build_sgdm(0.05)
keras_model_fn = learning_cases.model_fn_of(fedlearn, keras)


def mean_squares(y_true, y_pred):
    return tf.reduce_mean((y_true - y_pred) ** 2)


def squares(y_true, y_pred):
    return (y_true - y_pred) ** 2


def an_integer(y_true, y_pred):
    return tf.constant(3)


def a_word(y_true, y_pred):
    return tf.constant("three")


def a_python_float(y_true, y_pred):
    return 3.0


def nothing(y_true, y_pred):
    return None


class HandWritten(fedlearn.Model):
    """A linear model with a variable, and any loss."""

    def __init__(self, loss):
        self.loss = loss
        self.kernel = tf.Variable(tf.ones([FEATURES, 1]))
        self.batches = tf.Variable(0.0, trainable=False)

    @property
    def trainable_variables(self):
        return [self.kernel]

    @property
    def non_trainable_variables(self):
        return []

    @property
    def local_variables(self):
        return [self.batches]

    @property
    def input_spec(self):
        return SPEC

    def predict_on_batch(self, batch_input, training=True):
        return batch_input @ self.kernel

    def forward_pass(self, batch_input, training=True):
        self.batches.assign_add(1.0)
        predictions = self.predict_on_batch(batch_input["x"], training)
        loss = self.loss(batch_input["y"], predictions)
        return fedlearn.BatchOutput(loss, predictions, tf.shape(predictions)[0])

    def report_local_unfinalized_metrics(self):
        return OD(batches=[self.batches.read_value()])

    def metric_finalizers(self):
        return OD(batches=lambda values: values[0])

    def reset_metrics(self):
        self.batches.assign(0.0)


class WithoutBatchOutput(HandWritten):
    def forward_pass(self, batch_input, training=True):
        return tf.constant(1.0)


def functional(loss, output=fedlearn.BatchOutput):
    @tf.function
    def predict(weights, x, training=True):
        return x @ weights[0][0]

    @tf.function
    def forward_pass(weights, batch, training=True):
        predictions = predict(weights, batch["x"])
        value = loss(batch["y"], predictions)
        return output(value, predictions, tf.shape(predictions)[0])

    return fedlearn.models.FunctionalModel(
        initial_weights=((np.ones([FEATURES, 1], np.float32),), ()),
        forward_pass_fn=forward_pass,
        predict_on_batch_fn=predict,
        input_spec=SPEC,
    )


def a_tuple(*parts):
    return parts


class OfTwo(keras.losses.Loss):
    """A Keras loss that is any function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __call__(self, y_true, y_pred, sample_weight=None):
        return self.function(y_true, y_pred)


def keras_model_with(loss, input_spec=SPEC, metrics=None, features=FEATURES):
    return fedlearn.from_keras_model(
        keras.Sequential([keras.layers.Input((features,)), keras.layers.Dense(1)]),
        loss=loss,
        input_spec=input_spec,
        metrics=metrics,
    )


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (an_integer, "`int32`"),
        (a_word, "`string`"),
        (squares, r"`float32\[\?,1\]`"),
    ],
)
@pytest.mark.parametrize("kind", ["hand_written", "functional"])
def test_a_loss_that_is_no_float_scalar(kind, loss, found):
    model_fn = {
        "hand_written": lambda: functools.partial(HandWritten, loss),
        "functional": lambda: functional(loss),
    }[kind]()
    message = f"A model needs a float scalar as the loss of a batch, found {found}"
    with pytest.raises(TypeError, match=message):
        build(model_fn, sgd, sgd)
    with pytest.raises(TypeError, match=message):
        fedlearn.build_federated_evaluation(model_fn)


@pytest.mark.parametrize(
    ("loss", "found"), [(a_python_float, "`float`"), (nothing, "`NoneType`")]
)
def test_a_loss_that_is_no_tensor(loss, found):
    with pytest.raises(TypeError, match=f"needs a float scalar .* found {found}"):
        build(functools.partial(HandWritten, loss), sgd)


@pytest.mark.parametrize("loss", [an_integer, squares])
def test_a_keras_loss_that_is_no_float_scalar(loss):
    with pytest.raises(TypeError, match=r"A model needs a .*scalar"):
        build(lambda: keras_model_with(OfTwo(loss)), sgd)


def test_a_forward_pass_that_gives_something_else():
    with pytest.raises(
        TypeError, match=r"`forward_pass` of a `Model` needs to return a `BatchOutput"
    ):
        build(functools.partial(WithoutBatchOutput, mean_squares), sgd)
    with pytest.raises(
        TypeError,
        match="`forward_pass_fn` of a `FunctionalModel` needs to return a `BatchOutput",
    ):
        build(functional(mean_squares, a_tuple), sgd, sgd)


def test_hand_written_and_functional_models_train_alike():
    data = learning_cases.client_data()
    found = []
    for model_fn in (
        functools.partial(HandWritten, mean_squares),
        functional(mean_squares),
    ):
        process = build(model_fn, sgd, sgd)
        state = process.next(process.initialize(), data).state
        found.append(process.get_model_weights(state).trainable[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert not np.allclose(found[0], 1.0)


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices(OD(x=x, y=y)).batch(3)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


GOOD = dataset(ones(4, FEATURES), ones(4, 1))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            dataset(ones(4, 5), ones(4, 1)),
            r"client_data of client 1(.|\n)*`element.x`: wanted `float32\[\?,3\]`",
        ),
        (
            dataset(ones(4, FEATURES, dtype=np.float64), ones(4, 1)),
            r"client_data of client 1(.|\n)*found `float64\[\?,3\]`",
        ),
        (GOOD.unbatch(), "client_data of client 1"),
        (GOOD.map(lambda batch: OD(a=batch["x"], b=batch["y"])), "client 1"),
    ],
)
def test_a_client_whose_data_are_of_another_shape(other, message):
    process = build(keras_model_fn, sgd)
    with pytest.raises(TypeError, match=message):
        process.next(process.initialize(), [GOOD, other])


def test_an_input_spec_that_the_model_does_not_take():
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have"):
        build(
            lambda: keras_model_with(keras.losses.MeanSquaredError(), features=5), sgd
        )


@pytest.mark.parametrize(
    ("input_spec", "error", "message"),
    [
        (OD(x=SPEC["x"]), ValueError, "`from_keras_model` needs"),
        (OD(a=SPEC["x"], b=SPEC["y"]), ValueError, "`from_keras_model` needs"),
        (OD(x=tf.float32, y=tf.float32), TypeError, "`from_keras_model` needs"),
        (5, TypeError, "`from_keras_model` needs a mapping of `x` and `y`"),
    ],
)
def test_an_input_spec_without_inputs_and_labels(input_spec, error, message):
    with pytest.raises(error, match=message):
        keras_model_with(keras.losses.MeanSquaredError(), input_spec)


@pytest.mark.parametrize(
    ("optimizer", "found"),
    [
        ("sgd", "found str"),
        (None, "found NoneType"),
        (lambda: 3, "found a function that returns int"),
        (keras.optimizers.SGD(0.1), "found the Keras optimizer SGD itself"),
    ],
)
def test_an_optimizer_that_is_not_one(optimizer, found):
    message = f"An optimizer argument needs a `fedlearn.optimizers.Optimizer`.*{found}"
    with pytest.raises(TypeError, match=message):
        build(keras_model_fn, optimizer)
    with pytest.raises(TypeError, match=message):
        build(keras_model_fn, sgd, optimizer)


class WithoutState(keras.metrics.Metric):
    def update_state(self, y_true, y_pred, sample_weight=None):
        pass

    def result(self):
        return tf.constant(1.0)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (
            [WithoutState(name="still")],
            ValueError,
            "`from_keras_model` needs metrics with state, found none in `still`",
        ),
        (["mae"], TypeError, "`from_keras_model` needs Keras metrics"),
        (
            [keras.metrics.Mean(name="loss"), keras.metrics.Sum(name="loss")],
            ValueError,
            "`from_keras_model` needs metrics of different names",
        ),
    ],
)
def test_metrics_that_are_none(metrics, error, message):
    with pytest.raises(error, match=message):
        keras_model_with(keras.losses.MeanSquaredError(), metrics=metrics)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("client_weighting", "uniform", "`client_weighting` needs to be a"),
        ("model_distributor", 3, "needs `model_weights_distributor` to be a"),
        ("model_aggregator", 3, "`model_aggregator` needs to be a `Weighted"),
        (
            "model_aggregator",
            UnweightedMeanFactory(),
            "`model_aggregator` needs to be a `WeightedAggregationFactory`",
        ),
        ("metrics_aggregator", 3, "`metrics_aggregator` needs to be a function of"),
        (
            "metrics_aggregator",
            lambda finalizers, metrics_type: 3,
            "`metrics_aggregator` needs to make a computation of type",
        ),
        (
            "metrics_aggregator",
            lambda finalizers, metrics_type: SumFactory().create(metrics_type).next,
            "`metrics_aggregator` needs to make a computation of type",
        ),
    ],
)
def test_arguments_of_another_kind(argument, value, message):
    with pytest.raises(TypeError, match=message):
        build(keras_model_fn, sgd, **{argument: value})


@pytest.mark.parametrize(
    ("model_fn", "message"),
    [
        (5, "`model_fn` needs to be a function without arguments"),
        (lambda: 5, "`model_fn` needs to make a `Model`, found `int`"),
        (
            lambda: keras.Sequential([keras.layers.Input((1,))]),
            "`model_fn` needs to make a `Model`, found `Sequential`",
        ),
    ],
)
def test_a_model_fn_that_makes_no_model(model_fn, message):
    with pytest.raises(TypeError, match=message):
        build(model_fn, sgd)


SPOILT = dataset(np.full([3, FEATURES], np.nan, np.float32), ones(3, 1))
RUNTIMES = {"fused": local_context, "reference": reference_context}


def weights_after(process, data):
    output = process.next(process.initialize(), data)
    return output, process.get_model_weights(output.state).trainable


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_client_whose_update_is_nan_does_no_harm(runtime):
    process = build(keras_model_fn, sgd)
    with use(RUNTIMES[runtime]()):
        output, weights = weights_after(process, [GOOD, SPOILT])
        _, wanted = weights_after(process, [GOOD])
    for found, value in zip(weights, wanted):
        np.testing.assert_allclose(found, value, rtol=1e-6)
    # Its metrics are counted, as in TFF; the aggregate is finite.
    assert np.isnan(output.metrics["client_work"]["train"]["loss"])
    assert output.metrics["client_work"]["train"]["num_examples"] == 7
    assert output.metrics["finalizer"]["update_non_finite"] == 0


def test_in_an_unweighted_mean_it_counts_as_no_change():
    process = fedlearn.algorithms.build_unweighted_fed_avg(keras_model_fn, sgd)
    start = process.get_model_weights(process.initialize()).trainable
    _, alone = weights_after(process, [GOOD])
    _, diluted = weights_after(process, [GOOD, SPOILT])
    for w, a, d in zip(start, alone, diluted):
        np.testing.assert_allclose(d - w, (a - w) / 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("data", [[SPOILT], [GOOD.take(0)], []])
def test_a_round_without_an_update_leaves_the_model(data):
    process = build(keras_model_fn, sgd)
    start = process.get_model_weights(process.initialize()).trainable
    output, weights = weights_after(process, data)
    for before, after in zip(start, weights):
        np.testing.assert_array_equal(before, after)
    assert output.metrics["finalizer"]["update_non_finite"] == 1


def test_a_client_without_data_does_no_harm():
    process = build(keras_model_fn, sgd)
    output, weights = weights_after(process, [GOOD.take(0), GOOD])
    _, wanted = weights_after(process, [GOOD])
    for found, value in zip(weights, wanted):
        np.testing.assert_array_equal(found, value)
    assert output.metrics["client_work"]["train"]["num_examples"] == 4


def test_a_bare_dataset_in_place_of_a_list():
    process = build(keras_model_fn, sgd)
    with pytest.raises(TypeError, match="A list with one value for each client is"):
        process.next(process.initialize(), GOOD)
