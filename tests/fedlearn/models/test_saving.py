import collections
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.tensorflow import tf_computation
from fedcore.types import SequenceType, to_type
from fedlearn import models
from fedlearn.models._saved_nest import from_json, to_json

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 3], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
)
BATCH = collections.OrderedDict(
    x=np.ones([4, 3], np.float32), y=np.ones([4, 1], np.float32)
)
LOSS = keras.losses.MeanSquaredError()


def sequential():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dropout(0.999),
            keras.layers.Dense(1, kernel_initializer="ones"),
        ]
    )


def wrapped(spec=SPEC):
    return models.from_keras_model(
        sequential(), LOSS, spec, metrics=[keras.metrics.MeanAbsoluteError()]
    )


def functional():
    return models.functional_model_from_keras(
        sequential(),
        LOSS,
        SPEC,
        lambda: collections.OrderedDict(mae=keras.metrics.MeanAbsoluteError()),
    )


def numbers(nest):
    return tf.nest.map_structure(lambda t: np.asarray(t).tolist(), nest)


def test_saved_model_comes_back(tmp_path):
    models.save(wrapped(), str(tmp_path / "m"))
    model = models.load(str(tmp_path / "m"))
    assert model.input_spec == SPEC
    assert [tuple(v.shape) for v in model.trainable_variables] == [(3, 1), (1,)]
    output = model.forward_pass(BATCH, training=False)
    assert (output.loss.numpy(), output.num_examples.numpy()) == (4.0, 4)
    assert model.forward_pass(BATCH, training=True).loss.numpy() != 4.0
    np.testing.assert_array_equal(model.predict_on_batch(BATCH["x"], False)[0], [3.0])
    unfinalized = model.report_local_unfinalized_metrics()
    names = ["mean_absolute_error", "loss", "num_examples", "num_batches"]
    assert list(unfinalized) == names
    assert numbers(unfinalized["num_examples"]) == [8]
    finalizers = model.metric_finalizers()
    assert list(finalizers) == names
    assert finalizers["loss"]([tf.constant(6.0), tf.constant(3.0)]).numpy() == 2.0
    model.reset_metrics()
    assert numbers(model.local_variables) == [0.0, 0.0, 0.0, 0.0, 0, 0]


def test_metrics_are_saved_as_they_stand(tmp_path):
    model = wrapped()
    model.forward_pass(BATCH, training=False)
    models.save(model, str(tmp_path / "m"))
    unfinalized = models.load(str(tmp_path / "m")).report_local_unfinalized_metrics()
    assert numbers(unfinalized["loss"]) == [16.0, 4.0]


def test_two_loaded_models_share_nothing(tmp_path):
    models.save(wrapped(), str(tmp_path / "m"))
    one, other = (models.load(str(tmp_path / "m")) for _ in range(2))
    one.trainable_variables[0].assign(np.zeros([3, 1]))
    assert one.forward_pass(BATCH, False).loss.numpy() == 1.0
    assert other.forward_pass(BATCH, False).loss.numpy() == 4.0


def test_loaded_model_trains_inside_a_computation(tmp_path):
    model = models.from_keras_model(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), LOSS, SPEC
    )
    weights = models.ModelWeights.from_model(model).convert_variables_to_arrays()
    models.save(model, str(tmp_path / "m"))

    def train_with(make):
        @tf_computation(models.weights_type_from_model(make), SequenceType(SPEC))
        def train(weights, dataset):
            model = make()
            variables = model.trainable_variables
            weights.assign_weights_to(model)
            for batch in dataset:
                with tf.GradientTape() as tape:
                    output = model.forward_pass(batch)
                gradients = tape.gradient(output.loss, variables)
                for variable, gradient in zip(variables, gradients):
                    variable.assign_sub(0.1 * gradient)
            return (
                models.ModelWeights.from_model(model),
                model.report_local_unfinalized_metrics(),
            )

        return train(weights, [BATCH, BATCH])

    def fresh():
        keras_model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return models.from_keras_model(keras_model, LOSS, SPEC)

    found = train_with(lambda: models.load(str(tmp_path / "m")))
    expected = train_with(fresh)
    for a, b in zip(
        tf.nest.flatten((found[0].trainable, found[1])),
        tf.nest.flatten((expected[0].trainable, expected[1])),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_type_of_the_input_of_predict_on_batch(tmp_path):
    input_type = to_type(tf.TensorSpec([2, 3], tf.float32))
    models.save(wrapped(), str(tmp_path / "m"), input_type)
    model = models.load(str(tmp_path / "m"))
    assert model.predict_on_batch(BATCH["x"][:2]).shape == (2, 1)


def test_input_spec_as_a_pair(tmp_path):
    models.save(wrapped(tuple(SPEC.values())), str(tmp_path / "m"))
    model = models.load(str(tmp_path / "m"))
    assert model.input_spec == tuple(SPEC.values())
    assert model.forward_pass(tuple(BATCH.values()), False).loss.numpy() == 4.0


def test_saved_functional_model_comes_back(tmp_path):
    models.save_functional_model(functional(), str(tmp_path / "f"))
    model = models.load_functional_model(str(tmp_path / "f"))
    assert isinstance(model, models.FunctionalModel)
    assert model.input_spec == SPEC
    assert numbers(model.initial_weights) == (([[1.0]] * 3, [0.0]), ())
    weights = model.initial_weights
    assert model.forward_pass(weights, BATCH, False).loss.numpy() == 4.0
    first, second = (
        model.predict_on_batch(weights, np.ones([9000, 3], "f")) for _ in range(2)
    )
    assert not np.array_equal(first, second)
    state = model.update_metrics_state(
        model.initialize_metrics_state(), BATCH["y"], 3 * BATCH["y"]
    )
    assert numbers(state) == {"mae": (8.0, 4.0)}
    assert numbers(model.finalize_metrics(state)) == {"mae": 2.0}


def test_loaded_functional_model_inside_a_computation(tmp_path):
    models.save_functional_model(functional(), str(tmp_path / "f"))
    model = models.load_functional_model(str(tmp_path / "f"))

    @tf_computation(models.weights_type_from_model(model), SPEC)
    def step(weights, batch):
        with tf.GradientTape() as tape:
            tape.watch(weights.trainable)
            loss = model.forward_pass(weights, batch, False).loss
        return loss, tape.gradient(loss, weights.trainable)

    loss, gradients = step(models.ModelWeights(*model.initial_weights), BATCH)
    assert loss == 4.0
    np.testing.assert_allclose(gradients[1], [4.0])


def test_another_process_needs_no_class_of_this_one(tmp_path):
    class Own(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    keras_model = keras.Sequential(
        [keras.Input((3,)), Own(), keras.layers.Dense(1, kernel_initializer="ones")]
    )
    models.save(models.from_keras_model(keras_model, LOSS, SPEC), str(tmp_path / "m"))
    program = (
        "import numpy as np; from fedlearn import models\n"
        f"m = models.load({str(tmp_path / 'm')!r})\n"
        "print(m.predict_on_batch(np.ones([1, 3], 'f')).numpy().tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[[6.0]]"


def test_keras_file_of_trained_weights(tmp_path):
    keras_model = sequential()
    models.ModelWeights([np.zeros([3, 1]), np.ones([1])], []).assign_weights_to(
        keras_model
    )
    keras_model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(BATCH["x"]), np.ones([4, 1]))


def test_wrong_arguments(tmp_path):
    with pytest.raises(TypeError, match="`save` needs a `Model`"):
        models.save(3, str(tmp_path / "m"))
    with pytest.raises(TypeError, match="needs a `FunctionalModel`"):
        models.save_functional_model(3, str(tmp_path / "m"))
    for call in (
        lambda: models.save(wrapped(), ""),
        lambda: models.load(""),
        lambda: models.save_functional_model(functional(), ""),
        lambda: models.load_functional_model(""),
    ):
        with pytest.raises(ValueError, match="needs a non-empty string at `path`"):
            call()
    with pytest.raises(FileNotFoundError, match=r"found no structures\.json"):
        models.load(str(tmp_path / "nothing"))


def test_the_other_kind_of_model(tmp_path):
    models.save(wrapped(), str(tmp_path / "m"))
    with pytest.raises(ValueError, match=r"needs a saved fedlearn\.FunctionalModel"):
        models.load_functional_model(str(tmp_path / "m"))


@pytest.mark.parametrize(
    "nest",
    [
        tf.TensorSpec([None, 2], tf.int32),
        tf.TensorSpec(None, tf.string),
        [],
        (),
        {"b": tf.TensorSpec([]), "a": [(tf.TensorSpec([3], tf.bool),)]},
        collections.OrderedDict(b=tf.TensorSpec([]), a=()),
    ],
)
def test_structures_round_trip_through_json(nest):
    found = from_json(json.loads(json.dumps(to_json(nest))))
    assert found == nest
    assert type(found) is type(nest)
    if isinstance(nest, dict):
        assert list(found) == list(nest)


def test_structures_that_json_cannot_hold():
    with pytest.raises(TypeError, match="needs tensors in dicts"):
        to_json({"a": "text"})
    with pytest.raises(TypeError, match="needs strings as keys"):
        to_json({1: tf.TensorSpec([])})
    for value in (3, {"set": []}, {"dtype": 3, "shape": []}):
        with pytest.raises(ValueError, match="structure of tensors was expected"):
            from_json(value)
