"""Federated reconstruction as learning processes: both roads, identities, errors."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedlearn
from fedcore.aggregators import SumFactory
from fedcore.context import use
from fedlearn import reconstruction
from fedlearn.algorithms._fed_recon import build_fed_recon, build_fed_recon_eval
from fedlearn.optimizers import build_sgdm
from fedsim.runtime import reference_context

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 1], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
)


def data(x, y, batch=1):
    columns = collections.OrderedDict(
        x=np.array(x, np.float32).reshape(-1, 1),
        y=np.array(y, np.float32).reshape(-1, 1),
    )
    return tf.data.Dataset.from_tensor_slices(columns).batch(batch)


def keras_model(local=True, dropout=False):
    inputs = keras.Input((1,))
    first = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(0.5)
    )
    second = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(0.7)
    )
    hidden = first(inputs)
    if dropout:
        hidden = keras.layers.Dropout(0.5)(hidden)
    model = keras.Model(inputs, second(hidden))
    shared, own = ([first], [second]) if local else ([first, second], [])
    return reconstruction.from_keras_model(
        model, global_layers=shared, local_layers=own, input_spec=SPEC
    )


class HandWritten(reconstruction.Model):
    """As `keras_model`: predictions are g l x, with variables of TensorFlow."""

    def __init__(self):
        self.g, self.l = tf.Variable([[0.5]]), tf.Variable([[0.7]])

    global_trainable_variables = property(lambda self: [self.g])
    global_non_trainable_variables = property(lambda self: [])
    local_trainable_variables = property(lambda self: [self.l])
    local_non_trainable_variables = property(lambda self: [])
    input_spec = property(lambda self: SPEC)

    def forward_pass(self, batch_input, training=True):
        predictions = batch_input["x"] @ self.g @ self.l
        count = tf.shape(predictions)[0]
        return reconstruction.BatchOutput(predictions, batch_input["y"], count)


def mean_squared_error():
    return keras.losses.MeanSquaredError()


def arguments(**changes):
    return {
        "loss_fn": mean_squared_error,
        "client_optimizer_fn": build_sgdm(0.01),
        "reconstruction_optimizer_fn": build_sgdm(0.01),
        **changes,
    }


def evaluation_arguments(**changes):
    return {
        "loss_fn": mean_squared_error,
        "reconstruction_optimizer_fn": build_sgdm(0.01),
        **changes,
    }


CLIENTS = [([1, 2, 3, 4], [1, 2, 3, 5]), ([2, 1], [1, 1])]


def clients():
    return [data(*columns) for columns in CLIENTS]


def expected_round(g):
    """One round in NumPy: a batch of one example at a time, every other one for l."""
    total, weight, squares = 0.0, 0, 0.0
    for x, y in CLIENTS:
        local, own = 0.7, g
        for a, b in list(zip(x, y))[0::2]:
            local -= 0.01 * 2 * (g * local * a - b) * g * a
        for a, b in list(zip(x, y))[1::2]:
            squares += (own * local * a - b) ** 2
            own -= 0.01 * 2 * (own * local * a - b) * local * a
        count = len(x) // 2
        total, weight = total + count * (g - own), weight + count
    return g - total / weight, squares / weight


def test_types():
    process = build_fed_recon(keras_model, **arguments())
    state = (
        "<global_model_weights=<trainable=<float32[1,1]>,non_trainable=<>>,"
        "distributor=<>,client_work=<>,aggregator=<value_sum_process=<>,"
        "weight_sum_process=<>>,finalizer=<learning_rate=float32>>@SERVER"
    )
    assert str(process.next.type_signature) == (
        f"(<state={state},client_data={{<x=float32[?,1],y=float32[?,1]>*}}@CLIENTS> -> "
        f"<state={state},metrics=<distributor=<>,client_work=<train=<loss=float32>>,"
        "aggregator=<mean_value=<>,mean_weight=<>>,"
        "finalizer=<update_non_finite=int32>>@SERVER>)"
    )
    evaluation = build_fed_recon_eval(keras_model, **evaluation_arguments())
    assert str(evaluation.next.type_signature.result.metrics) == (
        "<distributor=<>,client_work=<eval=<current_round_metrics=<loss=float32>,"
        "total_rounds_metrics=<loss=float32>>>,aggregator=<>,finalizer=<>>@SERVER"
    )


@pytest.mark.parametrize("model_fn", [keras_model, HandWritten])
def test_rounds_equal_numpy(model_fn):
    process = build_fed_recon(model_fn, **arguments())
    state, g = process.initialize(), 0.5
    for _ in range(3):
        output = process.next(state, clients())
        state = output.state
        g, loss = expected_round(g)
        train = output.metrics["client_work"]["train"]
        np.testing.assert_allclose(train["loss"], loss, rtol=1e-5)
        weights = process.get_model_weights(state)
        np.testing.assert_allclose(weights.trainable[0], [[g]], rtol=1e-5)


def test_evaluation_counts_rounds_and_keeps_the_weights():
    training = build_fed_recon(keras_model, **arguments())
    process = build_fed_recon_eval(HandWritten, **evaluation_arguments())
    first = training.next(training.initialize(), clients())
    weights = training.get_model_weights(first.state)
    state = process.set_model_weights(process.initialize(), weights)
    g, losses = float(weights.trainable[0][0, 0]), []
    for selected in (slice(0, 2), slice(0, 1)):
        output = process.next(state, clients()[selected])
        state = output.state
        for x, y in CLIENTS[selected]:
            local = 0.7
            for a, b in list(zip(x, y))[0::2]:
                local -= 0.01 * 2 * (g * local * a - b) * g * a
            losses.append([(g * local * a - b) ** 2 for a, b in list(zip(x, y))[1::2]])
        metrics = output.metrics["client_work"]["eval"]
        np.testing.assert_allclose(
            metrics["total_rounds_metrics"]["loss"],
            np.mean(np.concatenate(losses)),
            rtol=1e-5,
        )
    np.testing.assert_allclose(
        metrics["current_round_metrics"]["loss"], np.mean(losses[-1]), rtol=1e-5
    )
    kept = process.get_model_weights(state).trainable[0]
    np.testing.assert_array_equal(kept, weights.trainable[0])


def test_the_reference_runtime_gives_the_same():
    process = build_fed_recon(keras_model, **arguments())
    fused = process.next(process.initialize(), clients())
    with use(reference_context()):
        reference = process.next(process.initialize(), clients())
    np.testing.assert_allclose(
        process.get_model_weights(fused.state).trainable[0],
        process.get_model_weights(reference.state).trainable[0],
        rtol=1e-5,
    )


def test_without_local_variables_it_is_federated_averaging():
    def model_fn():
        model = keras_model(local=False)
        return fedlearn.from_keras_model(
            model.keras_model, loss=mean_squared_error(), input_spec=SPEC
        )

    averaging = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn, build_sgdm(0.01), build_sgdm(1.0)
    )
    process = build_fed_recon(
        lambda: keras_model(local=False),
        **arguments(dataset_split_fn=reconstruction.simple_dataset_split_fn),
    )
    ours = process.next(process.initialize(), clients())
    theirs = averaging.next(averaging.initialize(), clients())
    for a, b in zip(
        process.get_model_weights(ours.state).trainable,
        averaging.get_model_weights(theirs.state).trainable,
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_local_weights_are_drawn_anew_for_each_client():
    def model_fn():
        inputs = keras.Input((1,))
        first = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        second = keras.layers.Dense(1, use_bias=False)
        model = keras.Model(inputs, second(first(inputs)))
        return reconstruction.from_keras_model(
            model, global_layers=[first], local_layers=[second], input_spec=SPEC
        )

    process = build_fed_recon_eval(
        model_fn,
        **evaluation_arguments(
            dataset_split_fn=reconstruction.build_dataset_split_fn(recon_epochs=0)
        ),
    )
    state = process.initialize()
    losses = [
        float(
            process.next(state, [data([1], [0])]).metrics["client_work"]["eval"][
                "current_round_metrics"
            ]["loss"]
        )
        for _ in range(3)
    ]
    assert len(set(losses)) == 3


def test_keras_constraints_hold_on_clients():
    def model_fn():
        inputs = keras.Input((1,))
        first = keras.layers.Dense(
            1, use_bias=False, kernel_initializer="ones", kernel_constraint="non_neg"
        )
        second = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = keras.Model(inputs, second(first(inputs)))
        return reconstruction.from_keras_model(
            model, global_layers=[first], local_layers=[second], input_spec=SPEC
        )

    process = build_fed_recon(
        model_fn,
        **arguments(client_optimizer_fn=lambda: keras.optimizers.SGD(10.0)),
    )
    output = process.next(process.initialize(), [data([1, 1], [1, -9])])
    assert process.get_model_weights(output.state).trainable[0].tolist() == [[0]]


def test_dropout_runs_in_training_and_not_in_evaluation():
    process = build_fed_recon(lambda: keras_model(dropout=True), **arguments())
    trained = process.next(process.initialize(), clients())
    assert np.isfinite(process.get_model_weights(trained.state).trainable[0]).all()
    split = reconstruction.build_dataset_split_fn(recon_epochs=0)
    losses = []
    for dropout in (False, True):
        evaluation = build_fed_recon_eval(
            lambda dropout=dropout: keras_model(dropout=dropout),
            **evaluation_arguments(dataset_split_fn=split),
        )
        output = evaluation.next(evaluation.initialize(), clients())
        losses.append(
            output.metrics["client_work"]["eval"]["current_round_metrics"]["loss"]
        )
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_a_client_with_nan_or_without_data_does_no_harm():
    process = build_fed_recon(keras_model, **arguments())
    alone = process.next(process.initialize(), clients())
    nan = data([1, 2], [1, np.nan])
    output = process.next(process.initialize(), [*clients(), nan, data([], [])])
    np.testing.assert_allclose(
        process.get_model_weights(output.state).trainable[0],
        process.get_model_weights(alone.state).trainable[0],
        rtol=1e-6,
    )
    assert np.isnan(output.metrics["client_work"]["train"]["loss"])
    assert output.metrics["finalizer"]["update_non_finite"] == 0


def test_clients_without_data_leave_the_model():
    process = build_fed_recon(keras_model, **arguments())
    output = process.next(process.initialize(), [data([], []), data([], [])])
    assert process.get_model_weights(output.state).trainable[0].tolist() == [[0.5]]


def test_lazily_built_metrics_and_hyperparameters():
    process = build_fed_recon(
        keras_model,
        **arguments(metrics_fn=lambda: [keras.metrics.R2Score(name="r2")]),
    )
    state = process.initialize()
    output = process.next(state, clients())
    assert list(output.metrics["client_work"]["train"]) == ["r2", "loss"]
    hparams = process.get_hparams(state)
    hparams["finalizer"]["learning_rate"] = 0.0
    output = process.next(process.set_hparams(state, hparams), clients())
    assert process.get_model_weights(output.state).trainable[0].tolist() == [[0.5]]


class WithoutOutput(HandWritten):
    def forward_pass(self, batch_input, training=True):
        return batch_input["x"]


class OnlyLocal(HandWritten):
    global_trainable_variables = property(lambda self: [])
    local_trainable_variables = property(lambda self: [self.g, self.l])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_fn": 5}, TypeError, "`model_fn` needs to be a function"),
        ({"model_fn": lambda: 5}, TypeError, "make a `ReconstructionModel`"),
        ({"model_fn": WithoutOutput}, TypeError, "BatchOutput"),
        ({"model_fn": OnlyLocal}, ValueError, "needs a global trainable variable"),
        ({"loss_fn": mean_squared_error()}, TypeError, "`loss_fn` needs to be a func"),
        ({"loss_fn": lambda: "mse"}, TypeError, "`loss_fn` needs to return"),
        (
            {"loss_fn": lambda: keras.losses.MeanSquaredError(reduction=None)},
            TypeError,
            "needs a loss that is a scalar",
        ),
        ({"metrics_fn": []}, TypeError, "`metrics_fn` needs to be a function"),
        (
            {"metrics_fn": lambda: keras.metrics.MeanSquaredError()},
            TypeError,
            "`metrics_fn` needs to return a list",
        ),
        (
            {"metrics_fn": lambda: [5]},
            TypeError,
            "a list of Keras metrics, found `int`",
        ),
        (
            {"metrics_fn": lambda: [keras.metrics.Mean(name="a") for _ in "12"]},
            ValueError,
            "metrics of different names",
        ),
        ({"dataset_split_fn": 5}, TypeError, "`dataset_split_fn` needs to be"),
        (
            {"dataset_split_fn": lambda dataset: dataset},
            TypeError,
            "`dataset_split_fn` needs to return two datasets",
        ),
        (
            {"dataset_split_fn": lambda dataset: (dataset, dataset.batch(2))},
            TypeError,
            "datasets of the client's batches",
        ),
        ({"client_optimizer_fn": "sgd"}, TypeError, "optimizer"),
        ({"client_weighting": 5}, TypeError, "`client_weighting` needs to be"),
        (
            {"model_aggregator_factory": 5},
            TypeError,
            "`model_aggregator_factory` needs to be",
        ),
        (
            {"model_aggregator_factory": SumFactory()},
            ValueError,
            "`model_aggregator_factory` needs to take weights",
        ),
        ({"model_distributor": 5}, TypeError, "`model_distributor`"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        build_fed_recon(**{"model_fn": HandWritten, **arguments(**changes)})


def test_bad_arguments_of_the_first_names():
    with pytest.raises(TypeError, match="`broadcast_process` needs to be"):
        reconstruction.build_training_process(
            HandWritten, loss_fn=mean_squared_error, broadcast_process=5
        )
    with pytest.raises(TypeError, match="`metrics_aggregation_process` needs to be"):
        build_fed_recon_eval(
            HandWritten, **evaluation_arguments(metrics_aggregation_process=5)
        )


def test_an_unweighted_aggregator_goes_with_uniform_weights():
    process = build_fed_recon(
        HandWritten,
        **arguments(
            model_aggregator_factory=SumFactory(),
            client_weighting=fedlearn.ClientWeighting.UNIFORM,
        ),
    )
    output = process.next(process.initialize(), clients())
    assert output.metrics["aggregator"] == ()
