"""Every Keras metric, aggregated over clients, is that of the pooled data.

Each is evaluated on clients of unequal size, the last batch of a client a smaller one, on
the fused runtime's roads and the reference runtime.
"""

import collections
import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import fedlearn
from fedcore.context import use
from fedsim.datasets import TestClientData
from fedsim.runtime import reference_context

SIZES = (11, 4, 0, 7)
CLASSES = 3
FEATURES = 4


def absolute_difference(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


# By kind of problem: the last layer, and labels of n examples.
PROBLEMS = {
    "binary": (
        lambda: keras.layers.Dense(1, "sigmoid"),
        lambda draw, n: draw.randint(0, 2, [n, 1]).astype(np.float32),
    ),
    "one_hot": (
        lambda: keras.layers.Dense(CLASSES, "softmax"),
        lambda draw, n: np.eye(CLASSES, dtype=np.float32)[draw.randint(0, CLASSES, n)],
    ),
    "sparse": (
        lambda: keras.layers.Dense(CLASSES, "softmax"),
        lambda draw, n: draw.randint(0, CLASSES, [n, 1]).astype(np.int32),
    ),
    "regression": (
        lambda: keras.layers.Dense(CLASSES, "softplus"),
        lambda draw, n: draw.uniform(0.1, 2.0, [n, CLASSES]).astype(np.float32),
    ),
    "signs": (
        lambda: keras.layers.Dense(1, "tanh"),
        lambda draw, n: np.where(draw.rand(n, 1) < 0.5, -1, 1).astype(np.float32),
    ),
    "rounded": (
        lambda: keras.layers.Dense(1, tf.round),
        lambda draw, n: draw.randint(-1, 2, [n, 1]).astype(np.float32),
    ),
}
M = keras.metrics
# By name: the kind of problem and the metric.
CASES = {
    "AUC": ("binary", lambda: M.AUC(50)),
    "AUC_multi_label": ("one_hot", lambda: M.AUC(50, multi_label=True)),
    "AUC_precision_recall": ("binary", lambda: M.AUC(50, curve="PR")),
    "Accuracy": ("rounded", M.Accuracy),
    "BinaryAccuracy": ("binary", M.BinaryAccuracy),
    "BinaryCrossentropy": ("binary", M.BinaryCrossentropy),
    "BinaryIoU": ("binary", lambda: M.BinaryIoU([0, 1], 0.5)),
    "CategoricalAccuracy": ("one_hot", M.CategoricalAccuracy),
    "CategoricalCrossentropy": ("one_hot", M.CategoricalCrossentropy),
    "CategoricalHinge": ("one_hot", M.CategoricalHinge),
    "ConcordanceCorrelation": ("regression", M.ConcordanceCorrelation),
    "CosineSimilarity": ("regression", M.CosineSimilarity),
    "F1Score": ("one_hot", lambda: M.F1Score(threshold=0.4)),
    "F1Score_macro": ("one_hot", lambda: M.F1Score("macro")),
    "FBetaScore": ("one_hot", lambda: M.FBetaScore("micro", beta=2.0)),
    "FalseNegatives": ("binary", M.FalseNegatives),
    "FalsePositives": ("binary", M.FalsePositives),
    "Hinge": ("signs", M.Hinge),
    "IoU": ("sparse", lambda: M.IoU(CLASSES, [0, 2], sparse_y_pred=False)),
    "KLDivergence": ("one_hot", M.KLDivergence),
    "LogCoshError": ("regression", M.LogCoshError),
    "MeanAbsoluteError": ("regression", M.MeanAbsoluteError),
    "MeanAbsolutePercentageError": ("regression", M.MeanAbsolutePercentageError),
    "MeanIoU": ("sparse", lambda: M.MeanIoU(CLASSES, sparse_y_pred=False)),
    "MeanMetricWrapper": (
        "regression",
        lambda: M.MeanMetricWrapper(absolute_difference, name="wrapped"),
    ),
    "MeanSquaredError": ("regression", M.MeanSquaredError),
    "MeanSquaredLogarithmicError": ("regression", M.MeanSquaredLogarithmicError),
    "OneHotIoU": ("one_hot", lambda: M.OneHotIoU(CLASSES, [0, 1])),
    "OneHotMeanIoU": ("one_hot", lambda: M.OneHotMeanIoU(CLASSES)),
    "PearsonCorrelation": ("regression", M.PearsonCorrelation),
    "Poisson": ("regression", M.Poisson),
    "Precision": ("binary", M.Precision),
    "Precision_top_k": ("one_hot", lambda: M.Precision(top_k=2)),
    "PrecisionAtRecall": ("binary", lambda: M.PrecisionAtRecall(0.6)),
    "R2Score": ("regression", M.R2Score),
    "R2Score_of_each": ("regression", lambda: M.R2Score(class_aggregation=None)),
    "Recall": ("binary", M.Recall),
    "RecallAtPrecision": ("binary", lambda: M.RecallAtPrecision(0.6)),
    "RootMeanSquaredError": ("regression", M.RootMeanSquaredError),
    "SensitivityAtSpecificity": ("binary", lambda: M.SensitivityAtSpecificity(0.4)),
    "SparseCategoricalAccuracy": ("sparse", M.SparseCategoricalAccuracy),
    "SparseCategoricalCrossentropy": ("sparse", M.SparseCategoricalCrossentropy),
    "SparseTopKCategoricalAccuracy": (
        "sparse",
        lambda: M.SparseTopKCategoricalAccuracy(2),
    ),
    "SpecificityAtSensitivity": ("binary", lambda: M.SpecificityAtSensitivity(0.4)),
    "SquaredHinge": ("signs", M.SquaredHinge),
    "TopKCategoricalAccuracy": ("one_hot", lambda: M.TopKCategoricalAccuracy(2)),
    "TrueNegatives": ("binary", M.TrueNegatives),
    "TruePositives": ("binary", M.TruePositives),
}
# Not defined for the labels and predictions of a model.
NOT_OF_A_MODEL = {
    "Mean": "takes values and their weights",
    "Sum": "takes values and their weights",
    "Metric": "abstract",
}


def named(name):
    metric = CASES[name][1]()
    metric.name = name.lower()
    return metric


def arrays(problem):
    draw = np.random.RandomState(5)
    _, labels = PROBLEMS[problem]
    clients = []
    for size in SIZES:
        x = draw.normal(size=[size, FEATURES]).astype(np.float32)
        clients.append(collections.OrderedDict(x=x, y=labels(draw, size)))
    return clients


def keras_model(problem):
    make, _ = PROBLEMS[problem]
    keras.utils.set_random_seed(7)
    return keras.Sequential([keras.layers.Input((FEATURES,)), make()])


def evaluate(problem, datasets):
    names = [name for name in CASES if CASES[name][0] == problem]
    spec = tf.nest.map_structure(
        lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), arrays(problem)[0]
    )

    def model_fn():
        return fedlearn.from_keras_model(
            keras_model(problem),
            loss=keras.losses.MeanSquaredError(),
            input_spec=spec,
            metrics=[functools.partial(named, name) for name in names],
        )

    evaluation = fedlearn.build_federated_evaluation(model_fn)
    weights = fedlearn.ModelWeights.from_model(keras_model(problem))
    return evaluation(weights, datasets)["eval"]


def of_tf_data(problem):
    clients = [
        tf.data.Dataset.from_tensor_slices(client).batch(3)
        for client in arrays(problem)
    ]
    return evaluate(problem, clients)


def of_columns(problem):
    data = TestClientData(
        {str(i): client for i, client in enumerate(arrays(problem)) if len(client["x"])}
    )
    return evaluate(problem, [data.client(i).batch(3) for i in data.client_ids])


def of_the_reference(problem):
    with use(reference_context()):
        return of_tf_data(problem)


_FOUND = {}


@pytest.mark.parametrize("road", [of_tf_data, of_columns, of_the_reference])
@pytest.mark.parametrize("name", CASES)
def test_metric_is_that_of_the_pooled_data(name, road):
    problem, _ = CASES[name]
    if (problem, road) not in _FOUND:  # all metrics of a problem at once
        _FOUND[problem, road] = road(problem)
    found = _FOUND[problem, road][name.lower()]
    clients = arrays(problem)
    x = np.concatenate([client["x"] for client in clients])
    y = np.concatenate([client["y"] for client in clients])
    pooled = named(name)
    pooled.update_state(y, tf.identity(keras_model(problem)(x)))
    wanted = np.asarray(pooled.result())
    assert np.all(np.isfinite(wanted))
    assert not np.all(wanted == 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_every_metric_of_keras_has_its_case():
    exported = {
        name
        for name, value in vars(keras.metrics).items()
        if inspect.isclass(value) and issubclass(value, keras.metrics.Metric)
    }
    tried = {type(make()).__name__ for _, make in CASES.values()}
    assert exported == tried | set(NOT_OF_A_MODEL)
