"""fedlearn: federated learning and evaluation (TFF's `tff.learning`)."""

from fedlearn import (
    algorithms,
    deprecation,
    framework,
    metrics,
    models,
    optimizers,
    reconstruction,
    templates,
)
from fedlearn._autograph import leave_own_modules_alone
from fedlearn.aggregator import (
    compression_aggregator,
    entropy_compression_aggregator,
    robust_aggregator,
    secure_aggregator,
)
from fedlearn.algorithms._averaging_process import (
    build_federated_averaging_process,
    state_with_new_model_weights,
)
from fedlearn.algorithms._evaluation import (
    build_federated_evaluation,
    build_local_evaluation,
)
from fedlearn.algorithms._personalization import build_personalization_eval
from fedlearn.debug_measurements import (
    add_debug_measurements,
    add_debug_measurements_with_mixed_dtype,
)
from fedlearn.metrics import MetricFinalizersType
from fedlearn.metrics._federated_metric import federated_aggregate_keras_metric
from fedlearn.models import BatchOutput, Model, ModelWeights, from_keras_model
from fedlearn.weighting import ClientWeighting

leave_own_modules_alone()

__all__ = [
    "BatchOutput",
    "ClientWeighting",
    "MetricFinalizersType",
    "Model",
    "ModelWeights",
    "add_debug_measurements",
    "add_debug_measurements_with_mixed_dtype",
    "algorithms",
    "build_federated_averaging_process",
    "build_federated_evaluation",
    "build_local_evaluation",
    "build_personalization_eval",
    "compression_aggregator",
    "deprecation",
    "entropy_compression_aggregator",
    "federated_aggregate_keras_metric",
    "framework",
    "from_keras_model",
    "metrics",
    "models",
    "optimizers",
    "reconstruction",
    "robust_aggregator",
    "secure_aggregator",
    "state_with_new_model_weights",
    "templates",
]
