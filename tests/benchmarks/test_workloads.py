"""The work that every framework gets."""

import numpy as np
import pytest

from benchmarks import run_numpy
from benchmarks.workloads import (
    WORKLOADS,
    clients,
    examples,
    examples_a_round,
)


@pytest.mark.parametrize("name", ["W1", "W2", "W3"])
def test_examples_are_the_same_each_time(name):
    pixels, labels, offsets = examples(name)
    assert pixels.shape == (offsets[-1], 28, 28)
    assert pixels.dtype == np.float32
    assert labels.dtype == np.int32
    assert set(labels) == set(range(10))
    assert len(offsets) == WORKLOADS[name].clients + 1
    assert (np.diff(offsets) > 0).all()
    np.testing.assert_array_equal(pixels, examples(name)[0])
    parts = clients(name)
    np.testing.assert_array_equal(pixels, np.concatenate([x for x, _ in parts]))
    np.testing.assert_array_equal(labels, np.concatenate([y for _, y in parts]))


def test_sizes_are_as_described():
    assert examples_a_round("W1") == 5 * len(examples("W1")[1])
    sizes = np.diff(examples("W2-1000")[2])
    assert 90 < sizes.mean() < 110
    assert sizes.max() > 5 * np.median(sizes)


def test_numpy_steps_are_gradient_descent():
    """Against the derivative of the mean cross-entropy, by finite differences."""
    rng = np.random.default_rng(0)
    x = rng.random((3, 784)).astype(np.float32)
    y = np.array([1, 7, 1])
    ((x_batch, y_batch),) = run_numpy.batches_of(x.reshape(3, 28, 28), y, 1)
    weights = rng.normal(size=(784, 10)).astype(np.float32) / 28
    bias = rng.normal(size=10).astype(np.float32)

    def loss(bias):
        scores = x.astype(np.float64) @ weights + bias
        normal = np.log(np.exp(scores).sum(axis=1))
        return (normal - scores[np.arange(3), y]).mean()

    new, new_bias, count = run_numpy.trained([(x_batch, y_batch)], weights, bias)
    assert count == 3
    small = 1e-5
    for k in range(10):
        step = small * np.eye(10)[k]
        slope = (loss(bias + step) - loss(bias - step)) / (2 * small)
        np.testing.assert_allclose(new_bias[k], bias[k] - 0.02 * slope, atol=1e-5)
    assert (new != weights).any()


def test_numpy_averages_by_examples():
    rng = np.random.default_rng(1)
    data = [
        (rng.random((n, 28, 28)).astype(np.float32), rng.integers(0, 10, n))
        for n in (5, 45)
    ]
    weights, bias = np.zeros([784, 10], np.float32), np.zeros(10, np.float32)
    cohort = [run_numpy.batches_of(x, y, epochs=2) for x, y in data]
    assert [len(batch[0]) for batch in cohort[1]] == [20, 20, 20, 20, 10]
    new, _, total = run_numpy.averaged(cohort, weights, bias)
    alone = [run_numpy.trained(batches, weights, bias)[0] for batches in cohort]
    assert total == 100
    np.testing.assert_allclose(new, 0.1 * alone[0] + 0.9 * alone[1], atol=1e-6)
