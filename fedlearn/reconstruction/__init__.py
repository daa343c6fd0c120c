"""Federated reconstruction: models that are partly local (Singhal et al., 2021)."""

from fedlearn.models._reconstruction import (
    BatchOutput,
    build_dataset_split_fn,
    from_keras_model,
    simple_dataset_split_fn,
)
from fedlearn.models._reconstruction import (
    ReconstructionDatasetSplitFn as DatasetSplitFn,
)
from fedlearn.models._reconstruction import ReconstructionModel as Model
from fedlearn.reconstruction._evaluation import build_federated_evaluation
from fedlearn.reconstruction._training import ClientOutput, build_training_process

get_global_variables = Model.get_global_variables
get_local_variables = Model.get_local_variables

__all__ = [
    "BatchOutput",
    "ClientOutput",
    "DatasetSplitFn",
    "Model",
    "build_dataset_split_fn",
    "build_federated_evaluation",
    "build_training_process",
    "from_keras_model",
    "get_global_variables",
    "get_local_variables",
    "simple_dataset_split_fn",
]
