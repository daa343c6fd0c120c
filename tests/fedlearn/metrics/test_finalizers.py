import keras
import numpy as np
import pytest
import tensorflow as tf

from fedlearn.metrics import NumExamplesCounter, create_keras_metric_finalizer

METRICS = [
    lambda: keras.metrics.MeanAbsoluteError(name="error"),
    lambda: keras.metrics.SparseCategoricalAccuracy(),
    lambda: keras.metrics.SparseTopKCategoricalAccuracy(k=2),
    lambda: keras.metrics.MeanIoU(num_classes=3, sparse_y_pred=False),
    lambda: NumExamplesCounter(),
]


def updated(metric):
    metric.update_state(np.array([[0], [2], [1]], "i"), np.eye(3, dtype="f")[[0, 1, 1]])
    return metric


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize("as_instance", [True, False])
def test_finalizer_gives_the_result_of_the_values(make, as_instance):
    if make().name == "error":
        metric = make()
        metric.update_state([[1.0], [2.0]], [[2.0], [5.0]])
    else:
        metric = updated(make())
    finalizer = create_keras_metric_finalizer(make() if as_instance else make)
    values = [tf.convert_to_tensor(v) for v in metric.variables]
    np.testing.assert_allclose(finalizer(values), metric.result(), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.metrics.AUC(num_thresholds=20, curve="PR"),
        lambda: keras.metrics.Precision(thresholds=0.4),
        lambda: keras.metrics.Recall(),
        lambda: keras.metrics.FalsePositives(),
        lambda: keras.metrics.F1Score(threshold=0.5),
        lambda: keras.metrics.RootMeanSquaredError(),
        lambda: keras.metrics.R2Score(),
    ],
)
def test_summed_states_of_clients_give_the_metric_of_the_pooled_data(make):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, size=(30, 1)).astype("f")
    scores = rng.uniform(size=(30, 1)).astype("f")
    pooled = make()
    pooled.update_state(labels, scores)
    total = None
    for rows in (slice(0, 4), slice(4, 15), slice(15, 30)):
        client = make()
        client.update_state(labels[rows], scores[rows])
        state = [v.numpy() for v in client.variables]
        total = state if total is None else [a + b for a, b in zip(total, state)]
    found = create_keras_metric_finalizer(make)(total)
    np.testing.assert_allclose(found, pooled.result(), rtol=1e-5)


def test_finalizer_leaves_the_given_metric_alone():
    metric = keras.metrics.MeanAbsoluteError()
    create_keras_metric_finalizer(metric)([tf.constant(4.0), tf.constant(2.0)])
    assert [v.numpy() for v in metric.variables] == [0.0, 0.0]


def test_finalizer_inside_a_graph():
    finalizer = create_keras_metric_finalizer(keras.metrics.MeanAbsoluteError)
    total, count = tf.constant(4.0), tf.constant(2.0)
    traced = tf.function(lambda a, b: finalizer([a, b]))
    assert traced(total, count).numpy() == 2.0
    assert traced(total, count).numpy() == 2.0
    assert not any(
        t.dtype == tf.resource
        for t in traced.get_concrete_function(total, count).captured_inputs
    )


def test_metric_of_several_results():
    class Both(keras.metrics.Mean):
        def result(self):
            return {"mean": super().result(), "count": self.count}

    found = create_keras_metric_finalizer(Both)([tf.constant(6.0), tf.constant(3.0)])
    assert {k: float(v) for k, v in found.items()} == {"mean": 2.0, "count": 3.0}


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ([tf.constant(1.0)], ValueError, "needs 2 values"),
        (tf.constant(1.0), TypeError, "needs a list"),
        ([tf.constant(1), tf.constant(1)], ValueError, "found int32"),
        ([tf.constant([1.0]), tf.constant(1.0)], ValueError, r"found float32\(1,\)"),
    ],
)
def test_values_that_do_not_match_the_variables(values, error, match):
    finalizer = create_keras_metric_finalizer(keras.metrics.MeanAbsoluteError)
    with pytest.raises(error, match=match):
        finalizer(values)


def test_something_that_is_no_metric():
    with pytest.raises(TypeError, match="A metric needs to be"):
        create_keras_metric_finalizer(3)
    with pytest.raises(TypeError, match="found `int` made by"):
        create_keras_metric_finalizer(lambda: 3)([])


def test_metric_that_its_config_does_not_describe():
    class Scaled(keras.metrics.Sum):
        def __init__(self, factor, name="scaled"):
            super().__init__(name)
            self.factor = factor

    with pytest.raises(TypeError, match="needs to be made anew from its config"):
        create_keras_metric_finalizer(Scaled(2.0))
    finalizer = create_keras_metric_finalizer(lambda: Scaled(2.0))
    assert finalizer([tf.constant(3.0)]).numpy() == 3.0
