"""Training by reconstruction under its first name: `next` gives state and metrics."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import keras

from fedcore.computation import Computation
from fedcore.federated import federated_computation, federated_zip
from fedcore.templates import IterativeProcess, MeasuredProcess
from fedcore.tensorflow import tf_computation
from fedlearn.algorithms._fed_recon import (
    recon_aggregator,
    recon_distributor,
    training_process,
)
from fedlearn.algorithms._recon_client import reconstruction
from fedlearn.framework import ServerState
from fedlearn.metrics import sum_then_finalize
from fedlearn.models._reconstruction import (
    ReconstructionDatasetSplitFn,
    ReconstructionModel,
)
from fedlearn.optimizers import Optimizer
from fedlearn.templates import LearningAlgorithmState
from fedlearn.weighting import Weighting

_SGD_1 = functools.partial(keras.optimizers.SGD, 1.0)
_SGD_01 = functools.partial(keras.optimizers.SGD, 0.1)


@attrs.frozen(eq=False)
class ClientOutput:
    """What a client of a reconstruction algorithm of one's own may return.

    Attributes:
        weights_delta: The update of the global trainable variables.
        client_weight: How much it counts.
        model_output: The client's unfinalized metrics.
    """

    weights_delta: Any
    client_weight: Any
    model_output: Any


class TrainingProcess(IterativeProcess):
    """An `IterativeProcess` with the model's global weights at hand."""

    def __init__(self, initialize_fn: Computation, next_fn: Computation):
        super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)

        @tf_computation(self.state_type.member)
        def get_model_weights(state):
            return state.model

        self._get_model_weights = get_model_weights

    @property
    def get_model_weights(self) -> Computation:
        """`(S -> W)`: the global weights, a `ModelWeights`, in a state."""
        return self._get_model_weights


def build_training_process(
    model_fn: Callable[[], ReconstructionModel],
    *,
    loss_fn: Callable[[], Any],
    metrics_fn: Callable[[], list[Any]] | None = None,
    server_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_1,
    client_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_01,
    reconstruction_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_01,
    dataset_split_fn: ReconstructionDatasetSplitFn | None = None,
    client_weighting: Weighting | None = None,
    broadcast_process: MeasuredProcess | None = None,
    aggregation_factory: Any = None,
) -> TrainingProcess:
    """Builds the training of a model's global variables, the local ones reconstructed.

    The algorithm is that of `fedlearn.algorithms.build_fed_recon`, which new code should
    use; only the shape of state and metrics differs.

    Args:
        model_fn: A function without arguments that makes a `reconstruction.Model`.
        loss_fn: As for `build_fed_recon`, as are all that follow.
        metrics_fn: See there.
        server_optimizer_fn: See there.
        client_optimizer_fn: See there.
        reconstruction_optimizer_fn: See there.
        dataset_split_fn: See there.
        client_weighting: See there.
        broadcast_process: Called `model_distributor` there.
        aggregation_factory: Called `model_aggregator_factory` there.

    Returns:
        A process with next `(<server_state=ServerState@SERVER,federated_dataset=
        {D*}@CLIENTS> -> <ServerState@SERVER,<broadcast=...,aggregation=...,
        train=...>@SERVER>)`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If no global variable is trainable, or an aggregator without weights
            is given together with a weighting other than `UNIFORM`.

    References:
        K. Singhal et al., Federated Reconstruction: Partially Local Federated Learning,
        NeurIPS 2021. arXiv:2102.03448.
    """
    recon = reconstruction(model_fn, loss_fn, metrics_fn, dataset_split_fn)
    process = training_process(
        recon,
        server_optimizer_fn,
        client_optimizer_fn,
        reconstruction_optimizer_fn,
        client_weighting,
        recon_distributor("broadcast_process", broadcast_process, recon),
        recon_aggregator(
            "aggregation_factory", aggregation_factory, client_weighting, recon
        ),
        sum_then_finalize,
    )
    client_data_type = process.next.type_signature.parameter[1]

    @federated_computation
    def initialize_fn():
        return _server_state(process.initialize())

    @federated_computation(initialize_fn.type_signature.result, client_data_type)
    def next_fn(server_state, federated_dataset):
        output = process.next(_learning_state(server_state), federated_dataset)
        metrics = OrderedDict(
            broadcast=output.metrics["distributor"],
            aggregation=output.metrics["aggregator"],
            train=output.metrics["client_work"]["train"],
        )
        return _server_state(output.state), federated_zip(metrics)

    return TrainingProcess(initialize_fn, next_fn)


def _server_state(state: Any) -> Any:
    return federated_zip(
        ServerState(
            state.global_model_weights,
            state.finalizer,
            state.aggregator,
            state.distributor,
        )
    )


def _learning_state(state: Any) -> Any:
    return federated_zip(
        LearningAlgorithmState(
            state.model,
            state.model_broadcast_state,
            (),
            state.delta_aggregate_state,
            state.optimizer_state,
        )
    )
