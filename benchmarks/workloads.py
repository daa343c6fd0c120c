"""The rounds that are measured, as NumPy arrays: every framework gets the same work."""

import collections
import itertools

import numpy as np

# name -> clients, epochs of a client, model; a step is a batch of BATCH_SIZE.
Workload = collections.namedtuple("Workload", "clients epochs model sizes")
BATCH_SIZE = 20
SHUFFLE_BUFFER = 100
CLIENT_RATE = 0.02
SERVER_RATE = 1.0


def about(mean, deviation):
    return lambda rng, n: rng.normal(mean, deviation, n).round().astype(int)


def log_normal(rng, n):
    """Uneven sizes with mean 100; the largest client has some six times as much."""
    return np.maximum(1, (100 * np.exp(rng.normal(-0.18, 0.6, n))).round().astype(int))


WORKLOADS = {
    "W1": Workload(10, 5, "softmax", about(97, 10)),
    "W2": Workload(100, 1, "softmax", log_normal),
    "W3": Workload(10, 1, "cnn", about(100, 10)),
    "W2-1000": Workload(1000, 1, "softmax", log_normal),
    "W2-10000": Workload(10_000, 1, "softmax", log_normal),
}


def examples(name, seed=0):
    """All clients' examples, one client after another.

    Args:
        name: Of a workload.
        seed: Of sizes and contents.

    Returns:
        `(pixels, labels, offsets)`: `float32[n, 28, 28]`, `int32[n]`, and where each
        client begins, `int64[clients + 1]`.
    """
    work = WORKLOADS[name]
    sizes = work.sizes(np.random.default_rng(seed), work.clients)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rng = np.random.default_rng(seed + 1)
    pixels = rng.random((offsets[-1], 28, 28), dtype=np.float32)
    labels = rng.integers(0, 10, offsets[-1]).astype(np.int32)
    return pixels, labels, offsets


def clients(name, seed=0):
    """`(pixels, labels)` of each client."""
    pixels, labels, offsets = examples(name, seed)
    return [
        (pixels[start:stop], labels[start:stop])
        for start, stop in itertools.pairwise(offsets)
    ]


def examples_a_round(name, seed=0):
    """How many examples all clients' steps see in a round."""
    work = WORKLOADS[name]
    sizes = work.sizes(np.random.default_rng(seed), work.clients)
    return int(sizes.sum()) * work.epochs
