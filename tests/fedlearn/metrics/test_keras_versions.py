import sys
import types

import keras
import pytest

from fedlearn import models, reconstruction
from fedlearn.metrics._keras_versions import is_keras_2


class Layer:
    """Stands for `tf_keras.layers.Layer`: models and metrics derive from it."""


class Loss:
    """Stands for `tf_keras.losses.Loss`."""


@pytest.fixture
def tf_keras(monkeypatch):
    module = types.ModuleType("tf_keras")
    module.layers = types.SimpleNamespace(Layer=Layer)
    module.losses = types.SimpleNamespace(Loss=Loss)
    monkeypatch.setitem(sys.modules, "tf_keras", module)


def test_nothing_is_of_keras_2_when_it_was_never_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "tf_keras", raising=False)
    assert not is_keras_2(Layer())
    assert "tf_keras" not in sys.modules


def test_objects_of_keras_2_are_recognised(tf_keras):
    assert is_keras_2(Layer())
    assert is_keras_2(Loss())
    assert not is_keras_2(3)


def test_objects_of_keras_2_are_refused_with_advice(tf_keras):
    with pytest.raises(TypeError, match=r"of tf_keras \(Keras 2\) at `keras_model`"):
        models.functional_model_from_keras(
            Layer(), keras.losses.MeanSquaredError(), None
        )
    with pytest.raises(TypeError, match=r"of tf_keras \(Keras 2\) at `loss_fn`"):
        models.functional_model_from_keras(None, Loss(), None)
    with pytest.raises(TypeError, match=r"of tf_keras \(Keras 2\) at `local_layers`"):
        reconstruction.from_keras_model(
            None, global_layers=[], local_layers=[Layer()], input_spec=None
        )
