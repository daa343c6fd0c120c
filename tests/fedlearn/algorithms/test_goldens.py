"""Agreement with real TFF 0.40 on real handwriting; see the README of the goldens."""

import collections
import json
import pathlib

import keras
import numpy as np
import pytest
import seed_data
import tensorflow as tf

import fedlearn
from fedsim.datasets import emnist

_EPOCHS = 5


@pytest.fixture(scope="module")
def goldens(test_data):
    path = test_data.parent / "goldens" / "tff_0_40_emnist.json"
    if not path.exists():
        pytest.skip(f"the goldens are not there: {path}")
    return json.loads(pathlib.Path(path).read_text())


@pytest.fixture(scope="module")
def emnist_data(test_data):
    return emnist.load_data(cache_dir=str(test_data))


def preprocess(dataset, epochs=_EPOCHS):
    def flatten(element):
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 784]),
            y=tf.reshape(element["label"], [-1, 1]),
        )

    return dataset.repeat(epochs).batch(20).map(flatten)


@pytest.fixture(scope="module", params=seed_data.ROADS.values(), ids=seed_data.ROADS)
def train_data(emnist_data, goldens, request):
    train, _ = emnist_data
    assert sorted(train.client_ids)[:10] == goldens["client_ids"]
    return [preprocess(request.param(train, c)) for c in goldens["client_ids"]]


def model_fn():
    return fedlearn.from_keras_model(
        keras.Sequential(
            [
                keras.layers.Input((784,)),
                keras.layers.Dense(10, kernel_initializer="zeros"),
                keras.layers.Softmax(),
            ]
        ),
        input_spec=collections.OrderedDict(
            x=tf.TensorSpec([None, 784], tf.float32),
            y=tf.TensorSpec([None, 1], tf.int32),
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )


def client_sgd():
    return keras.optimizers.SGD(0.02)


def assert_metrics_agree(found, golden):
    assert found["num_examples"] == golden["num_examples"]
    assert found["num_batches"] == golden["num_batches"]
    np.testing.assert_allclose(found["loss"], golden["loss"], rtol=2e-4)
    differing = golden["num_examples"] * abs(
        found["sparse_categorical_accuracy"] - golden["sparse_categorical_accuracy"]
    )
    assert differing <= 3.01


def assert_rounds_agree(process, data, rounds):
    state = process.initialize()
    for golden in rounds:
        output = process.next(state, data)
        state = output.state
        assert_metrics_agree(output.metrics["client_work"]["train"], golden)
    return state


def test_fed_avg_types_are_those_of_tff_to_the_letter(goldens):
    process = fedlearn.algorithms.build_weighted_fed_avg(model_fn, client_sgd)
    evaluation = fedlearn.build_federated_evaluation(model_fn)
    assert str(process.initialize.type_signature) == goldens["initialize_type"]
    assert str(process.next.type_signature) == goldens["next_type"]
    assert str(evaluation.type_signature) == goldens["eval_type"]


@pytest.mark.slow
def test_fed_avg_and_evaluation_agree_in_all_rounds(goldens, train_data, emnist_data):
    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn, client_sgd, lambda: keras.optimizers.SGD(1.0)
    )
    golden = goldens["fed_avg"]
    state = assert_rounds_agree(process, train_data, golden["rounds"])

    weights = process.get_model_weights(state)
    norms = [np.linalg.norm(w) for w in weights.trainable]
    np.testing.assert_allclose(norms, golden["weights_l2"], rtol=1e-3)

    evaluation = fedlearn.build_federated_evaluation(model_fn)
    on_train = evaluation(weights, train_data)
    assert_metrics_agree(on_train["eval"], golden["eval_train"])
    _, test = emnist_data
    test_data = [
        preprocess(test.create_tf_dataset_for_client(c), epochs=1)
        for c in goldens["client_ids"]
    ]
    on_test = evaluation(weights, test_data)
    assert_metrics_agree(on_test["eval"], golden["eval_test"])


@pytest.mark.slow
def test_unweighted_fed_avg_agrees_in_all_rounds(goldens, train_data):
    process = fedlearn.algorithms.build_unweighted_fed_avg(model_fn, client_sgd)
    assert_rounds_agree(process, train_data, goldens["unweighted_fed_avg"]["rounds"])


@pytest.mark.slow
def test_server_adam_agrees_in_all_rounds(goldens, train_data):
    process = fedlearn.algorithms.build_weighted_fed_avg(
        model_fn,
        fedlearn.optimizers.build_sgdm(0.02),
        fedlearn.optimizers.build_adam(0.01),
    )
    assert_rounds_agree(process, train_data, goldens["fed_avg_server_adam"]["rounds"])


@pytest.mark.slow
def test_fed_prox_agrees_in_all_rounds(goldens, train_data):
    process = fedlearn.algorithms.build_weighted_fed_prox(model_fn, 0.5, client_sgd)
    assert_rounds_agree(process, train_data, goldens["fed_prox"]["rounds"])


@pytest.mark.slow
def test_fed_sgd_agrees_in_all_rounds(goldens, train_data):
    process = fedlearn.algorithms.build_fed_sgd(
        model_fn, lambda: keras.optimizers.SGD(0.1)
    )
    assert_rounds_agree(process, train_data, goldens["fed_sgd"]["rounds"])


@pytest.mark.slow
def test_mime_lite_agrees_in_all_rounds(goldens, train_data):
    process = fedlearn.algorithms.build_weighted_mime_lite(
        model_fn,
        base_optimizer=fedlearn.optimizers.build_sgdm(0.02, 0.9),
        server_optimizer=fedlearn.optimizers.build_sgdm(1.0),
    )
    assert_rounds_agree(process, train_data, goldens["mime_lite"]["rounds"])
