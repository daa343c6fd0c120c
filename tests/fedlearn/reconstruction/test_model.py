"""Reconstruction models of Keras models, and how a client's data is divided."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedlearn import ModelWeights, reconstruction
from fedlearn.models._reconstruction import ReconstructionModel

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 1], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
)


def layers():
    first, second = keras.layers.Dense(1), keras.layers.Dense(1)
    inputs = keras.Input((1,))
    return keras.Model(inputs, second(first(inputs))), first, second


def build(keras_model, shared, local, spec=SPEC):
    return reconstruction.from_keras_model(
        keras_model, global_layers=shared, local_layers=local, input_spec=spec
    )


def test_variables_are_those_of_the_layers():
    keras_model, first, second = layers()
    second.trainable = False
    model = build(keras_model, [first], [second])
    shared = reconstruction.get_global_variables(model)
    local = reconstruction.get_local_variables(model)
    assert isinstance(shared, ModelWeights)
    assert shared.trainable == first.trainable_weights
    assert shared.non_trainable == []
    assert local.trainable == []
    assert local.non_trainable == second.weights
    assert not ReconstructionModel.has_only_global_variables(model)
    assert ReconstructionModel.has_only_global_variables(
        build(keras_model, [first, second], [])
    )


def test_variables_can_be_named_one_by_one():
    keras_model, first, second = layers()
    model = ReconstructionModel.from_keras_model_and_variables(
        keras_model,
        global_trainable_variables=[first.kernel, second.bias],
        global_non_trainable_variables=[],
        local_trainable_variables=[second.kernel, first.bias],
        local_non_trainable_variables=[],
        input_spec=SPEC,
    )
    assert model.global_trainable_variables == [first.kernel, second.bias]
    assert model.local_trainable_variables == [second.kernel, first.bias]


@pytest.mark.parametrize("as_tuple", [False, True])
def test_forward_pass_gives_predictions_labels_and_count(as_tuple):
    keras_model, first, second = layers()
    spec = tuple(SPEC.values()) if as_tuple else SPEC
    model = build(keras_model, [first], [second], spec)
    x, y = np.ones([3, 1], np.float32), np.zeros([3, 1], np.float32)
    output = model.forward_pass((x, y) if as_tuple else {"x": x, "y": y})
    np.testing.assert_allclose(output.predictions, keras_model(x))
    np.testing.assert_array_equal(output.labels, y)
    assert int(output.num_examples) == 3
    assert model.input_spec == spec


def test_a_layer_inside_a_global_one_is_global_once():
    inner = keras.layers.Dense(1)
    outer = keras.Sequential([keras.Input((1,)), inner])
    model = build(keras.Sequential([keras.Input((1,)), outer]), [outer, inner], [])
    assert model.global_trainable_variables == inner.trainable_weights


def test_a_weight_of_no_layer_is_refused():
    keras_model, first, _ = layers()
    with pytest.raises(ValueError, match=r"found neither for .*kernel"):
        build(keras_model, [first], [])


def test_a_layer_that_is_global_and_local_is_refused():
    keras_model, first, second = layers()
    with pytest.raises(ValueError, match=r"found both for .*kernel"):
        build(keras_model, [first, second], [second])


def test_weights_of_another_model_are_refused():
    keras_model, first, second = layers()
    other = keras.layers.Dense(1)
    other.build((None, 1))
    with pytest.raises(ValueError, match="needs weights of the model"):
        build(keras_model, [first, other], [second])


def test_frozen_weights_are_no_trainable_variables():
    keras_model, first, second = layers()
    first.trainable = False
    with pytest.raises(ValueError, match="found frozen ones"):
        ReconstructionModel.from_keras_model_and_variables(
            keras_model,
            global_trainable_variables=first.weights,
            global_non_trainable_variables=[],
            local_trainable_variables=second.weights,
            local_non_trainable_variables=[],
            input_spec=SPEC,
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: (5, SPEC), TypeError, "needs a Keras model at `keras_model`"),
        (lambda m: (m.compile(loss="mse") or m, SPEC), ValueError, "not compiled"),
        (lambda m: (m, SPEC["x"]), TypeError, "at `input_spec`"),
        (lambda m: (m, (SPEC["x"],)), ValueError, "exactly two top-level elements"),
        (lambda m: (m, (1, 2)), TypeError, "needs `tf.TensorSpec`s"),
    ],
)
def test_bad_models_and_specs(change, error, message):
    keras_model, first, second = layers()
    keras_model, spec = change(keras_model)
    with pytest.raises(error, match=message):
        build(keras_model, [first], [second], spec)


def test_layers_need_to_be_layers():
    keras_model, _, second = layers()
    with pytest.raises(TypeError, match="needs Keras layers at `global_layers`"):
        build(keras_model, ["dense"], [second])


def divided(dataset_split_fn, size=5):
    parts = dataset_split_fn(tf.data.Dataset.range(size))
    return tuple([int(x) for x in part] for part in parts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])),
        ((1, None, 1, None, True), ([0, 2, 4], [1, 3])),
        ((2, 3, 2, 3, True), ([0, 2, 4], [1, 3, 1])),
        ((2, 3, 2, 3, False), ([0, 1, 2], [0, 1, 2])),
        ((0, None, 1, 0), ([], [])),
    ],
)
def test_dataset_split(arguments, expected):
    assert divided(reconstruction.build_dataset_split_fn(*arguments)) == expected
    assert divided(ReconstructionModel.build_dataset_split_fn(*arguments)) == expected


def test_simple_split_uses_all_data_twice():
    assert divided(reconstruction.simple_dataset_split_fn, 2) == ([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"recon_epochs": -1}, ValueError),
        ({"recon_epochs": None}, TypeError),
        ({"post_recon_epochs": 1.5}, TypeError),
        ({"recon_steps_max": -1}, ValueError),
        ({"post_recon_steps_max": "2"}, TypeError),
    ],
)
def test_bad_numbers_of_a_split(arguments, error):
    (name,) = arguments
    with pytest.raises(error, match=f"`{name}`"):
        reconstruction.build_dataset_split_fn(**arguments)


def test_a_loss_does_not_find_the_logits_behind_a_softmax():
    keras_model = keras.Sequential(
        [keras.layers.Input((2,)), keras.layers.Dense(2, "softmax")]
    )
    spec = (tf.TensorSpec([None, 2]), tf.TensorSpec([None, 1], tf.int32))
    model = reconstruction.from_keras_model(
        keras_model, global_layers=keras_model.layers, local_layers=[], input_spec=spec
    )
    kernel = np.array([[-500.0, 500.0], [0.0, 0.0]])
    keras_model.set_weights([kernel, np.zeros(2)])
    loss = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def loss_of(x, y):
        output = model.forward_pass((x, y))
        return loss(output.labels, output.predictions)

    # A probability of 0 counts as 1e-7, as in TFF; of the logits it would be 1000.
    found = loss_of(tf.constant([[1.0, 0.0]]), tf.constant([[0]]))
    np.testing.assert_allclose(found, -np.log(1e-7), rtol=1e-3)
