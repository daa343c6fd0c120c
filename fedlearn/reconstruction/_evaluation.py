"""Evaluation by reconstruction under its first name, as one computation."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import keras

from fedcore.computation import Computation
from fedcore.federated import federated_computation, federated_map, federated_zip
from fedcore.templates import MeasuredProcess
from fedcore.types import at_clients, at_server
from fedlearn.algorithms._fed_recon import evaluation_work, recon_distributor
from fedlearn.algorithms._recon_client import reconstruction
from fedlearn.metrics import sum_then_finalize
from fedlearn.models._reconstruction import (
    ReconstructionDatasetSplitFn,
    ReconstructionModel,
)
from fedlearn.optimizers import Optimizer

_SGD_01 = functools.partial(keras.optimizers.SGD, 0.1)


def build_federated_evaluation(
    model_fn: Callable[[], ReconstructionModel],
    *,
    loss_fn: Callable[[], Any],
    metrics_fn: Callable[[], list[Any]] | None = None,
    reconstruction_optimizer_fn: Optimizer | Callable[[], Any] = _SGD_01,
    dataset_split_fn: ReconstructionDatasetSplitFn | None = None,
    broadcast_process: MeasuredProcess | None = None,
) -> Computation:
    """Builds the computation that evaluates global variables, the local reconstructed.

    Each client fits its local variables on its support batches, as in training, and
    evaluates the model on its query batches in inference mode.

    Args:
        model_fn: A function without arguments that makes a `reconstruction.Model`.
        loss_fn: A function without arguments that makes a `keras.losses.Loss`.
        metrics_fn: A function without arguments that makes a list of Keras metrics; the
            mean `loss` is added to them.
        reconstruction_optimizer_fn: An optimizer of `fedlearn.optimizers`, or a function
            without arguments that makes a Keras optimizer.
        dataset_split_fn: From a client's dataset to a pair of them, for the
            reconstruction and the evaluation; if None they have every other batch.
        broadcast_process: Sends the weights to clients; it must be stateless. A plain
            broadcast if None.

    Returns:
        `(<server_model_weights=W@SERVER,federated_dataset={D*}@CLIENTS> ->
        <broadcast=...,eval=M>@SERVER)`.

    Raises:
        TypeError: If an argument is of another kind than said.
        ValueError: If `broadcast_process` has a state.

    References:
        K. Singhal et al., Federated Reconstruction: Partially Local Federated Learning,
        NeurIPS 2021. arXiv:2102.03448.
    """
    recon = reconstruction(
        model_fn, loss_fn, metrics_fn, dataset_split_fn, loss_first=True
    )
    broadcast = recon_distributor("broadcast_process", broadcast_process, recon)
    state = broadcast.state_type.member
    if not (state.is_struct() and len(state) == 0):
        raise ValueError(
            f"`broadcast_process` needs to be stateless, found a state of type `{state}`."
        )
    work = evaluation_work(recon, reconstruction_optimizer_fn)
    aggregate = sum_then_finalize(recon.metric_finalizers, recon.metrics_type)

    @federated_computation(at_server(recon.weights_type), at_clients(recon.data_type))
    def evaluate(server_model_weights, federated_dataset):
        sent = broadcast.next(broadcast.initialize(), server_model_weights)
        metrics = federated_map(work, (sent.result, federated_dataset))
        return federated_zip(
            OrderedDict(
                [("broadcast", sent.measurements), ("eval", aggregate(metrics))]
            )
        )

    return evaluate
