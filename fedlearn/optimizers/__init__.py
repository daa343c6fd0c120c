"""Optimizers as pure functions, for clients and for the server."""

from fedlearn.optimizers._adafactor import build_adafactor
from fedlearn.optimizers._adaptive import (
    build_adagrad,
    build_adam,
    build_adamw,
    build_rmsprop,
    build_yogi,
)
from fedlearn.optimizers._optimizer import (
    LEARNING_RATE_KEY,
    Optimizer,
    check_weights_gradients_match,
    handle_indexed_slices_gradients,
)
from fedlearn.optimizers._scheduling import schedule_learning_rate
from fedlearn.optimizers._sgdm import build_sgdm

__all__ = [
    "LEARNING_RATE_KEY",
    "Optimizer",
    "build_adafactor",
    "build_adagrad",
    "build_adam",
    "build_adamw",
    "build_rmsprop",
    "build_sgdm",
    "build_yogi",
    "check_weights_gradients_match",
    "handle_indexed_slices_gradients",
    "schedule_learning_rate",
]
