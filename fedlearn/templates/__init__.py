"""What learning algorithms are composed of."""

from fedlearn.templates._client_loop import Learner, client_pass, learner
from fedlearn.templates._client_work import (
    build_model_delta_client_work,
    client_optimizer,
    client_result,
    local_training,
    model_delta,
    stateless_client_work,
)
from fedlearn.templates._compose import compose_learning_process
from fedlearn.templates._finalizer import build_apply_optimizer_finalizer
from fedlearn.templates._learning_process import (
    GetModelWeightsTypeSignatureError,
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    LearningProcessOutputError,
    LearningProcessPlacementError,
    LearningProcessSequenceTypeError,
    SetModelWeightsTypeSignatureError,
)
from fedlearn.templates._parts import (
    ClientDataTypeError,
    ClientResult,
    ClientResultTypeError,
    ClientWorkProcess,
    DistributionProcess,
    FinalizerProcess,
    FinalizerResultTypeError,
    build_broadcast_process,
)
from fedlearn.templates._stateful import (
    StatefulClientResult,
    StatefulClientWorkProcess,
    StatefulLearningProcess,
    StatefulLearningProcessOutput,
    compose_stateful_learning_process,
)

__all__ = [
    "ClientDataTypeError",
    "ClientResult",
    "ClientResultTypeError",
    "ClientWorkProcess",
    "DistributionProcess",
    "FinalizerProcess",
    "FinalizerResultTypeError",
    "GetModelWeightsTypeSignatureError",
    "Learner",
    "LearningAlgorithmState",
    "LearningProcess",
    "LearningProcessOutput",
    "LearningProcessOutputError",
    "LearningProcessPlacementError",
    "LearningProcessSequenceTypeError",
    "SetModelWeightsTypeSignatureError",
    "StatefulClientResult",
    "StatefulClientWorkProcess",
    "StatefulLearningProcess",
    "StatefulLearningProcessOutput",
    "build_apply_optimizer_finalizer",
    "build_broadcast_process",
    "build_model_delta_client_work",
    "client_optimizer",
    "client_pass",
    "client_result",
    "compose_learning_process",
    "compose_stateful_learning_process",
    "learner",
    "local_training",
    "model_delta",
    "stateless_client_work",
]
