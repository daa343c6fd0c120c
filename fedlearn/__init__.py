"""fedlearn: federated learning and evaluation (TFF's `tff.learning`)."""

from fedlearn import algorithms, framework, metrics, models, optimizers, templates
from fedlearn._autograph import leave_own_modules_alone
from fedlearn.algorithms._averaging_process import build_federated_averaging_process
from fedlearn.algorithms._evaluation import build_federated_evaluation
from fedlearn.metrics import MetricFinalizersType
from fedlearn.models import BatchOutput, Model, ModelWeights, from_keras_model
from fedlearn.weighting import ClientWeighting

leave_own_modules_alone()

__all__ = [
    "BatchOutput",
    "ClientWeighting",
    "MetricFinalizersType",
    "Model",
    "ModelWeights",
    "algorithms",
    "build_federated_averaging_process",
    "build_federated_evaluation",
    "framework",
    "from_keras_model",
    "metrics",
    "models",
    "optimizers",
    "templates",
]
