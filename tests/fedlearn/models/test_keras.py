import collections
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.types import to_type
from fedlearn import metrics as fl_metrics
from fedlearn import models

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


def two_outputs():
    x = keras.Input((3,))
    a = keras.layers.Dense(1, kernel_initializer="ones", name="a")(x)
    b = keras.layers.Dense(1, kernel_initializer="zeros", name="b")(x)
    return x, a, b


def wrap(keras_model=None, loss=LOSS, spec=SPEC, **kwargs):
    return models.from_keras_model(keras_model or dense(), loss, spec, **kwargs)


def values(model):
    return {
        name: [v.numpy() for v in tensors]
        for name, tensors in model.report_local_unfinalized_metrics().items()
    }


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.999)
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x):
        return self.dense(self.dropout(x))


def test_forward_pass_gives_loss_predictions_and_count():
    output = wrap().forward_pass(BATCH)
    assert output.loss.numpy() == 4.0
    np.testing.assert_array_equal(output.predictions, np.full([4, 1], 3.0))
    assert output.num_examples.numpy() == 4


def test_regularisation_is_in_the_loss_but_not_in_the_loss_metric():
    model = wrap(dense(kernel_regularizer=keras.regularizers.L2(0.5)))
    assert model.forward_pass(BATCH).loss.numpy() == pytest.approx(5.5)
    assert values(model)["loss"] == [16.0, 4.0]


def test_metrics_are_the_users_then_loss_and_counts():
    model = wrap(metrics=[keras.metrics.MeanAbsoluteError()])
    model.forward_pass(BATCH)
    model.forward_pass(collections.OrderedDict(x=BATCH["x"][:1], y=BATCH["y"][:1]))
    assert values(model) == {
        "mean_absolute_error": [10.0, 5.0],
        "loss": [20.0, 5.0],
        "num_examples": [5],
        "num_batches": [2],
    }
    assert list(values(model)) == [
        "mean_absolute_error",
        "loss",
        "num_examples",
        "num_batches",
    ]
    unfinalized = model.report_local_unfinalized_metrics()
    finalized = {
        name: finalizer(unfinalized[name]).numpy()
        for name, finalizer in model.metric_finalizers().items()
    }
    assert finalized == {
        "mean_absolute_error": 2.0,
        "loss": 4.0,
        "num_examples": 5,
        "num_batches": 2,
    }


def test_unfinalized_metrics_have_tffs_type():
    model = wrap()
    unfinalized = model.report_local_unfinalized_metrics()
    as_types = collections.OrderedDict(
        (name, [to_type(t.dtype) for t in tensors])
        for name, tensors in unfinalized.items()
    )
    assert str(to_type(as_types)) == (
        "<loss=<float32,float32>,num_examples=<int64>,num_batches=<int64>>"
    )


def test_reset_metrics_sets_local_variables_to_zero():
    model = wrap(metrics=[keras.metrics.MeanAbsoluteError])
    model.forward_pass(BATCH)
    model.reset_metrics()
    assert [v.numpy() for v in model.local_variables] == [0.0, 0.0, 0.0, 0.0, 0, 0]


def test_user_metric_named_like_a_default_replaces_it():
    model = wrap(metrics=[keras.metrics.MeanAbsoluteError("num_examples")])
    assert list(values(model)) == ["num_examples", "loss", "num_batches"]
    assert len(values(model)["num_examples"]) == 2


def test_own_counter_under_another_name_stands_beside_the_default():
    model = wrap(metrics=[fl_metrics.NumExamplesCounter("n")])
    assert list(values(model)) == ["n", "loss", "num_examples", "num_batches"]


def test_variables_are_lists_without_random_states():
    model = wrap(
        keras.Sequential(
            [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        )
    )
    assert [tuple(v.shape) for v in model.trainable_variables] == [(3, 1), (1,)]
    assert model.non_trainable_variables == []


def test_frozen_layers_are_non_trainable():
    keras_model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, trainable=False),
            keras.layers.Dense(1),
        ]
    )
    model = wrap(keras_model)
    assert [tuple(v.shape) for v in model.trainable_variables] == [(2, 1), (1,)]
    assert [tuple(v.shape) for v in model.non_trainable_variables] == [(3, 2), (2,)]


@pytest.mark.parametrize(
    ("spec", "batch"),
    [
        (SPEC, BATCH),
        (dict(SPEC), dict(BATCH)),
        ((SPEC["x"], SPEC["y"]), (BATCH["x"], BATCH["y"])),
        ([SPEC["x"], SPEC["y"]], [BATCH["x"], BATCH["y"]]),
        (collections.OrderedDict(y=SPEC["y"], x=SPEC["x"]), BATCH),
    ],
)
def test_input_spec_in_any_container_is_kept(spec, batch):
    model = wrap(spec=spec)
    assert model.input_spec == spec
    assert model.forward_pass(batch).loss.numpy() == 4.0


def test_input_spec_as_a_type_becomes_specs():
    assert wrap(spec=to_type(SPEC)).input_spec == SPEC
    pair = (SPEC["x"], SPEC["y"])
    assert wrap(spec=to_type(pair)).input_spec == pair
    assert wrap(spec=to_type(list(pair))).input_spec == list(pair)


def test_several_outputs_sum_their_weighted_losses():
    x, a, b = two_outputs()
    spec = collections.OrderedDict(x=SPEC["x"], y=[SPEC["y"], SPEC["y"]])
    batch = collections.OrderedDict(x=BATCH["x"], y=[BATCH["y"], BATCH["y"]])
    model = wrap(keras.Model(x, [a, b]), [LOSS, LOSS], spec)
    assert model.forward_pass(batch).loss.numpy() == 5.0
    weighted = wrap(
        keras.Model(x, [a, b]), [LOSS, LOSS], spec, loss_weights=[1.0, 10.0]
    )
    assert weighted.forward_pass(batch).loss.numpy() == 14.0
    assert values(weighted)["loss"] == [56.0, 4.0]
    assert values(weighted)["num_examples"] == [4]


@pytest.mark.parametrize("losses", [[LOSS, LOSS], {"p": LOSS, "q": LOSS}])
def test_outputs_by_name(losses):
    x, a, b = two_outputs()
    spec = collections.OrderedDict(
        x=SPEC["x"], y=collections.OrderedDict(p=SPEC["y"], q=SPEC["y"])
    )
    labels = collections.OrderedDict(p=BATCH["y"], q=3 * BATCH["y"])
    batch = collections.OrderedDict(x=BATCH["x"], y=labels)
    model = wrap(keras.Model(x, {"p": a, "q": b}), losses, spec)
    assert model.forward_pass(batch).loss.numpy() == 4.0 + 9.0


def test_losses_by_layer_name_for_a_list_of_outputs():
    x, a, b = two_outputs()
    spec = collections.OrderedDict(x=SPEC["x"], y=[SPEC["y"], SPEC["y"]])
    batch = collections.OrderedDict(x=BATCH["x"], y=[BATCH["y"], BATCH["y"]])
    losses = {"b": LOSS, "a": LOSS}
    weights = {"a": 1.0, "b": 10.0}
    model = wrap(keras.Model(x, [a, b]), losses, spec, loss_weights=weights)
    assert model.forward_pass(batch).loss.numpy() == 14.0


@pytest.mark.parametrize("container", [list, tuple, dict])
def test_several_inputs(container):
    p, q = keras.Input((3,), name="p"), keras.Input((3,), name="q")
    added = keras.layers.Add()([p, q])
    inputs = {"p": p, "q": q} if container is dict else [p, q]
    keras_model = keras.Model(
        inputs, keras.layers.Dense(1, kernel_initializer="ones")(added)
    )

    def both(value):
        if container is dict:
            return collections.OrderedDict(p=value, q=value)
        return container([value, value])

    spec = collections.OrderedDict(x=both(SPEC["x"]), y=SPEC["y"])
    output = wrap(keras_model, spec=spec).forward_pass(
        collections.OrderedDict(x=both(BATCH["x"]), y=BATCH["y"])
    )
    assert output.loss.numpy() == 25.0
    assert output.num_examples.numpy() == 4


def test_subclassed_model_called_once_is_accepted():
    keras_model = Subclassed()
    keras_model(BATCH["x"])
    model = wrap(keras_model)
    assert model.forward_pass(BATCH, training=False).loss.numpy() == 4.0
    # The layers inside are told that they are being trained.
    assert model.forward_pass(BATCH, training=True).loss.numpy() != 4.0


def test_forward_pass_agrees_with_keras_evaluate():
    rng = np.random.default_rng(0)
    keras_model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(1)]
    )
    x, y = rng.normal(size=(7, 3)).astype("f"), rng.normal(size=(7, 1)).astype("f")
    model = wrap(keras_model, metrics=[keras.metrics.MeanAbsoluteError()])
    for rows in (slice(0, 4), slice(4, 7)):
        model.forward_pass(
            collections.OrderedDict(x=x[rows], y=y[rows]), training=False
        )
    unfinalized = model.report_local_unfinalized_metrics()
    found = {k: f(unfinalized[k]).numpy() for k, f in model.metric_finalizers().items()}
    keras_model.compile(loss=LOSS, metrics=[keras.metrics.MeanAbsoluteError()])
    loss, error = keras_model.evaluate(x, y, batch_size=4, verbose=0)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["mean_absolute_error"] == pytest.approx(error, rel=1e-5)


def test_empty_batch_leaves_the_metrics_alone():
    model = wrap(metrics=[keras.metrics.MeanAbsoluteError()])
    model.forward_pass(collections.OrderedDict(x=BATCH["x"][:0], y=BATCH["y"][:0]))
    assert values(model) == {
        "mean_absolute_error": [0.0, 0.0],
        "loss": [0.0, 0.0],
        "num_examples": [0],
        "num_batches": [1],
    }


def test_batch_normalization_warns():
    keras_model = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    with pytest.warns(UserWarning, match="Batch normalisation"):
        model = wrap(keras_model)
    assert len(model.non_trainable_variables) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap()


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"keras_model": 1}, TypeError, "needs a Keras model"),
        ({"spec": None}, TypeError, "mapping of `x` and `y`"),
        ({"spec": (SPEC["x"],) * 3}, ValueError, "exactly two top-level"),
        ({"spec": {"a": SPEC["x"], "y": SPEC["y"]}}, ValueError, "under key `x`"),
        ({"spec": {"x": SPEC["x"], "z": SPEC["y"]}}, ValueError, "under key `y`"),
        ({"spec": (1, 2)}, TypeError, "needs `tf.TensorSpec`s"),
        ({"spec": to_type(tf.float32)}, TypeError, "mapping of `x` and `y`"),
        ({"loss": "mse"}, TypeError, "needs a `keras.losses.Loss`"),
        (
            {"loss": keras.losses.mean_squared_error},
            TypeError,
            "needs a `keras.losses.Loss`",
        ),
        ({"loss": [LOSS, LOSS]}, ValueError, "one loss for each of the model's 1"),
        ({"loss_weights": [1.0]}, ValueError, "needs a list of losses"),
        ({"metrics": keras.metrics.Mean()}, TypeError, "needs a list at `metrics`"),
        ({"metrics": ["mae"]}, TypeError, "needs Keras metrics"),
        (
            {"metrics": [keras.metrics.MeanAbsoluteError(), keras.metrics.AUC]},
            TypeError,
            "found both",
        ),
        ({"metrics": [lambda: 1]}, TypeError, "found `int` made by"),
        (
            {"metrics": [keras.metrics.AUC(name="a"), keras.metrics.AUC(name="a")]},
            ValueError,
            "found `a` 2 times",
        ),
    ],
)
def test_wrong_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        wrap(**kwargs)


@pytest.mark.parametrize(
    ("loss", "loss_weights", "error", "match"),
    [
        ([LOSS] * 3, None, ValueError, "2 outputs, found 3"),
        ((LOSS, LOSS), None, TypeError, "needs a `keras.losses.Loss`"),
        ([LOSS] * 2, [1.0], ValueError, "one loss weight for each of 2"),
        ([LOSS] * 2, [1, 2], TypeError, "needs floats at `loss_weights`"),
        ([LOSS] * 2, (1.0, 2.0), TypeError, "needs a list at `loss_weights`"),
        ({"a": LOSS, "c": LOSS}, None, ValueError, "losses for the outputs"),
    ],
)
def test_wrong_losses_of_several_outputs(loss, loss_weights, error, match):
    x, a, b = two_outputs()
    spec = collections.OrderedDict(x=SPEC["x"], y=[SPEC["y"], SPEC["y"]])
    with pytest.raises(error, match=match):
        wrap(keras.Model(x, [a, b]), loss, spec, loss_weights=loss_weights)


def test_compiled_model_is_refused():
    keras_model = dense()
    keras_model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="not compiled"):
        wrap(keras_model)


@pytest.mark.parametrize(
    "make", [lambda: keras.Sequential([keras.layers.Dense(1)]), Subclassed]
)
def test_unbuilt_model_is_refused(make):
    with pytest.raises(ValueError, match="needs a built model"):
        wrap(make())


def test_metric_without_state_is_refused():
    class Stateless(keras.metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            del y_true, y_pred, sample_weight

        def result(self):
            return 0.0

    with pytest.raises(ValueError, match="metrics with state"):
        wrap(metrics=[Stateless(name="s")])
