"""Models: wrapping Keras, models as pure functions, and their weights."""

from fedlearn.models._from_functional import model_from_functional
from fedlearn.models._frozen import with_frozen_weights
from fedlearn.models._functional import FunctionalModel
from fedlearn.models._functional_keras import functional_model_from_keras
from fedlearn.models._keras import from_keras_model
from fedlearn.models._model import BatchOutput, Model
from fedlearn.models._reconstruction import (
    ReconstructionDatasetSplitFn,
    ReconstructionModel,
)
from fedlearn.models._saving import load, save
from fedlearn.models._saving_functional import (
    load_functional_model,
    save_functional_model,
)
from fedlearn.models._weights import ModelWeights, weights_type_from_model

VariableModel = Model

__all__ = [
    "BatchOutput",
    "FunctionalModel",
    "Model",
    "ModelWeights",
    "ReconstructionDatasetSplitFn",
    "ReconstructionModel",
    "VariableModel",
    "from_keras_model",
    "functional_model_from_keras",
    "load",
    "load_functional_model",
    "model_from_functional",
    "save",
    "save_functional_model",
    "weights_type_from_model",
    "with_frozen_weights",
]
