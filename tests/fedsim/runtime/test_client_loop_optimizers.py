"""Rounds with each optimizer of Keras, at the clients and at the server."""

import keras
import pytest
from rounds import (
    assert_rounds_are_one,
    dense,
    model_fn,
    sgd,
)

import fedlearn
from fedlearn.algorithms import build_weighted_fed_avg

OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "clipped": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW": lambda: keras.optimizers.AdamW(0.01),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01, centered=True, momentum=0.5),
    "Adadelta": lambda: keras.optimizers.Adadelta(0.5),
    "Nadam": lambda: keras.optimizers.Nadam(0.01),
    "Lion": lambda: keras.optimizers.Lion(0.01),
    "pure Adam": fedlearn.optimizers.build_adam(0.01),
    "pure momentum": fedlearn.optimizers.build_sgdm(0.1, 0.9),
}
QUICK = ("momentum", "Adam", "RMSprop", "Lion")


@pytest.mark.parametrize(
    "optimizer",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in OPTIMIZERS
    ],
)
def test_client_optimizers(optimizer):
    process = build_weighted_fed_avg(model_fn(dense), OPTIMIZERS[optimizer])
    assert_rounds_are_one(process)


@pytest.mark.parametrize("optimizer", ["momentum", "Adam", "Lion"])
def test_server_optimizers(optimizer):
    process = build_weighted_fed_avg(model_fn(dense), sgd, OPTIMIZERS[optimizer])
    assert_rounds_are_one(process)
