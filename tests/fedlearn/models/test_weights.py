import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.structure import Struct
from fedlearn import models
from fedlearn.models import ModelWeights

SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 3], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
)


def dense():
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")]
    )


def wrapped():
    return models.from_keras_model(dense(), keras.losses.MeanSquaredError(), SPEC)


def zeros():
    return ModelWeights([np.zeros([3, 1], "f"), np.zeros([1], "f")], [])


def test_type_of_a_models_weights():
    expected = "<trainable=<float32[3,1],float32[1]>,non_trainable=<>>"
    for model in (wrapped(), wrapped):
        found = models.weights_type_from_model(model)
        assert str(found) == expected
        assert found.python_container is ModelWeights
        assert found.trainable.python_container is list


def test_type_of_a_functional_models_weights():
    model = models.functional_model_from_keras(
        dense(), keras.losses.MeanSquaredError(), SPEC
    )
    assert str(models.weights_type_from_model(model)) == (
        "<trainable=<float32[3,1],float32[1]>,non_trainable=<>>"
    )


def test_random_states_are_no_weights():
    keras_model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5)])
    weights = ModelWeights.from_model(keras_model)
    assert (weights.trainable, weights.non_trainable) == ([], [])


def test_arrays_and_assignment_round_trip():
    keras_model = dense()
    arrays = ModelWeights.from_model(keras_model).convert_variables_to_arrays()
    assert all(type(a) is np.ndarray for a in arrays.trainable)
    np.testing.assert_array_equal(arrays.trainable[0], np.ones([3, 1]))
    zeros().assign_weights_to(keras_model)
    assert not np.any(keras_model.get_weights()[0])
    arrays.assign_weights_to(keras_model)
    assert np.all(keras_model.get_weights()[0] == 1)


def test_assignment_to_a_model():
    model = wrapped()
    zeros().assign_weights_to(model)
    assert not np.any(model.trainable_variables[0].numpy())


def test_assignment_of_a_computations_tuples_and_tensors():
    keras_model = dense()
    weights = ModelWeights((tf.zeros([3, 1]), tf.zeros([1])), ())
    weights.assign_weights_to(keras_model)
    assert not np.any(keras_model.get_weights()[0])


def test_from_tff_result():
    struct = Struct.named(trainable=Struct.named(a=1, b=2), non_trainable=Struct([]))
    weights = ModelWeights.from_tff_result(struct)
    assert (weights.trainable, weights.non_trainable) == ([1, 2], [])


def test_weights_are_a_nest():
    weights = tf.nest.map_structure(lambda w: w + 1, zeros())
    assert isinstance(weights, ModelWeights)
    np.testing.assert_array_equal(weights.trainable[1], [1.0])


@pytest.mark.parametrize("value", [[1], 3, Struct.named(trainable=1, non_trainable=2)])
def test_from_tff_result_of_something_else(value):
    with pytest.raises(TypeError, match="`from_tff_result` needs"):
        ModelWeights.from_tff_result(value)


def test_from_model_of_something_else():
    with pytest.raises(TypeError, match="needs a `Model` or a Keras model"):
        ModelWeights.from_model(3)


@pytest.mark.parametrize("value", [3, lambda: 3])
def test_type_of_something_else(value):
    with pytest.raises(TypeError, match="`weights_type_from_model` needs"):
        models.weights_type_from_model(value)


def test_assignment_of_other_shapes():
    with pytest.raises(ValueError, match="needs 2 trainable weights"):
        ModelWeights([np.zeros([3, 1])], []).assign_weights_to(dense())
    with pytest.raises(ValueError, match=r"needs shape \(1,\)"):
        ModelWeights([np.zeros([3, 1]), np.zeros([2])], []).assign_weights_to(dense())
    with pytest.raises(TypeError, match="needs a `Model` or a Keras model"):
        zeros().assign_weights_to(3)
