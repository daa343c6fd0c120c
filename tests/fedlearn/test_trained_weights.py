"""What a user does with trained weights: into Keras, onto disk, into another process."""

import collections
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from goldens import learning_cases

import fedlearn
from fedcore.structure import Struct
from fedlearn import ModelWeights, models

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Batch normalisation"),
]
sgd = fedlearn.optimizers.build_sgdm(0.05)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def keras_model():
    return keras.Sequential(
        [
            keras.layers.Input((learning_cases.FEATURES,)),
            keras.layers.Dense(4, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


def plain_keras_model():
    return keras.Sequential(
        [keras.layers.Input((learning_cases.FEATURES,)), keras.layers.Dense(1)]
    )


def model_fn():
    return fedlearn.from_keras_model(
        keras_model(),
        loss=keras.losses.MeanSquaredError(),
        input_spec=learning_cases.INPUT_SPEC,
        metrics=[keras.metrics.MeanAbsoluteError()],
    )


def after_two_rounds(process):
    state = process.initialize()
    for _ in range(2):
        state = process.next(state, learning_cases.client_data()).state
    return state


@pytest.fixture(scope="module")
def process():
    return fedlearn.algorithms.build_weighted_fed_avg(model_fn, sgd)


@pytest.fixture(scope="module")
def state(process):
    return after_two_rounds(process)


@pytest.fixture(scope="module")
def weights(process, state):
    return process.get_model_weights(state)


@pytest.fixture(scope="module")
def predictions(weights):
    """Of the trained weights, by NumPy; the statistics of the batches stay 0 and 1."""
    kernel, bias, gamma, beta, last, last_bias = weights.trainable
    hidden = np.maximum(X @ kernel + bias, 0) / np.sqrt(1 + 1e-3) * gamma + beta
    return hidden @ last + last_bias


def test_non_trainable_weights_stay_as_the_server_has_them(weights):
    mean, variance = weights.non_trainable
    np.testing.assert_array_equal(mean, np.zeros(4))
    np.testing.assert_array_equal(variance, np.ones(4))


def test_a_keras_model_takes_them(weights, predictions):
    model = keras_model()
    weights.assign_weights_to(model)
    np.testing.assert_allclose(model(X), predictions, rtol=1e-5)


def test_a_structure_of_a_computation_becomes_weights(weights, predictions):
    parts = [
        (name, Struct([(None, value) for value in getattr(weights, name)]))
        for name in ("trainable", "non_trainable")
    ]
    model = keras_model()
    ModelWeights.from_tff_result(Struct(parts)).assign_weights_to(model)
    np.testing.assert_allclose(model(X), predictions, rtol=1e-5)


def test_training_goes_on_from_them(process, state, weights):
    anew = process.set_model_weights(process.initialize(), weights)
    data = learning_cases.client_data()
    found, wanted = process.next(anew, data), process.next(state, data)
    for ours, theirs in zip(
        process.get_model_weights(found.state).trainable,
        process.get_model_weights(wanted.state).trainable,
    ):
        np.testing.assert_array_equal(ours, theirs)


def in_another_process(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "could not transform" not in done.stderr  # AutoGraph would say so to users
    return np.array(json.loads(done.stdout.strip().splitlines()[-1]))


def test_saved_models_predict_in_another_process(weights, predictions, tmp_path):
    model = model_fn()
    weights.assign_weights_to(model)
    models.save(model, str(tmp_path / "model"))
    for_keras = keras_model()
    weights.assign_weights_to(for_keras)
    for_keras.save(tmp_path / "model.keras")
    program = f"""
import keras, numpy as np, tensorflow as tf
from fedlearn import models
x = np.arange(6, dtype=np.float32).reshape(2, 3)
loaded = models.load({str(tmp_path / "model")!r})
of_keras = keras.models.load_model({str(tmp_path / "model.keras")!r})
found = [loaded.predict_on_batch(tf.constant(x), training=False), of_keras(x)]
print(np.stack(found).tolist())
"""
    found = in_another_process(program)
    np.testing.assert_allclose(found, [predictions] * 2, rtol=1e-5)


def test_a_saved_model_trains_on_in_another_process(process, weights, tmp_path):
    model = model_fn()
    weights.assign_weights_to(model)
    models.save(model, str(tmp_path / "model"))
    program = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parents[1])!r})
from goldens import learning_cases
import fedlearn
from fedlearn import models
process = fedlearn.algorithms.build_weighted_fed_avg(
    lambda: models.load({str(tmp_path / "model")!r}),
    fedlearn.optimizers.build_sgdm(0.05),
)
output = process.next(process.initialize(), learning_cases.client_data())
trained = process.get_model_weights(output.state).trainable
print([float(w.sum()) for w in trained])
"""
    state = process.set_model_weights(process.initialize(), weights)
    output = process.next(state, learning_cases.client_data())
    wanted = [w.sum() for w in process.get_model_weights(output.state).trainable]
    np.testing.assert_allclose(in_another_process(program), wanted, rtol=1e-4)


def test_functional_models_are_saved_with_trained_weights(tmp_path):
    made = plain_keras_model()
    functional = models.functional_model_from_keras(
        made, keras.losses.MeanSquaredError(), learning_cases.INPUT_SPEC
    )
    process = fedlearn.algorithms.build_weighted_fed_avg(functional, sgd, sgd)
    trained = process.get_model_weights(after_two_rounds(process))
    kernel, bias = trained.trainable
    trained.assign_weights_to(made)
    models.save_functional_model(
        models.functional_model_from_keras(
            made, keras.losses.MeanSquaredError(), learning_cases.INPUT_SPEC
        ),
        str(tmp_path / "model"),
    )
    program = f"""
import numpy as np, tensorflow as tf
from fedlearn import models
loaded = models.load_functional_model({str(tmp_path / "model")!r})
x = np.arange(6, dtype=np.float32).reshape(2, 3)
weights = loaded.initial_weights
print(loaded.predict_on_batch(weights, tf.constant(x), training=False).numpy().tolist())
"""
    np.testing.assert_allclose(in_another_process(program), X @ kernel + bias, 1e-5)


def test_weights_of_another_model_are_refused(weights):
    with pytest.raises(
        ValueError, match="`assign_weights_to` needs 2 trainable weights"
    ):
        weights.assign_weights_to(plain_keras_model())


def test_weights_are_arrays(weights):
    assert isinstance(weights, ModelWeights)
    assert all(isinstance(w, np.ndarray) for w in weights.trainable)
    arrays = ModelWeights.from_model(model_fn()).convert_variables_to_arrays()
    assert [a.shape for a in arrays.trainable] == [w.shape for w in weights.trainable]
    nested = collections.OrderedDict(trained=weights)
    assert len(tf.nest.flatten(nested)) == 8
