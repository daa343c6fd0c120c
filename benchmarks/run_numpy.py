"""The practical limit: softmax regression in NumPy, one thread, in order, no metrics."""

import numpy as np

from benchmarks import timing
from benchmarks.workloads import BATCH_SIZE, CLIENT_RATE, WORKLOADS, clients


def batches_of(pixels, labels, epochs):
    """A client's batches; views of its data where it passes over them once."""
    x, y = pixels.reshape(-1, 784), np.eye(10, dtype=np.float32)[labels]
    if epochs > 1:
        x, y = np.tile(x, (epochs, 1)), np.tile(y, (epochs, 1))
    starts = range(0, len(x), BATCH_SIZE)
    return [(x[i : i + BATCH_SIZE], y[i : i + BATCH_SIZE]) for i in starts]


def trained(batches, weights, bias):
    """One client's weights after its steps, and how many examples it saw."""
    weights, bias, count = weights.copy(), bias.copy(), 0
    for x, y in batches:
        z = x @ weights
        z += bias
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        z -= y
        z *= CLIENT_RATE / len(x)
        weights -= x.T @ z
        bias -= z.sum(axis=0)
        count += len(x)
    return weights, bias, count


def averaged(cohort, weights, bias):
    """The global model after a round: the mean by examples of what clients learnt."""
    weight_sum, bias_sum, total = np.zeros_like(weights), np.zeros_like(bias), 0
    for batches in cohort:
        new_weights, new_bias, count = trained(batches, weights, bias)
        weight_sum += count * (new_weights - weights)
        bias_sum += count * (new_bias - bias)
        total += count
    return weights + weight_sum / total, bias + bias_sum / total, total


def main():
    args = timing.arguments()
    work = WORKLOADS[args.workload]
    data = clients(args.workload)
    cohort = [batches_of(pixels, labels, work.epochs) for pixels, labels in data]
    weights, bias = np.zeros([784, 10], np.float32), np.zeros(10, np.float32)
    total = 0

    def one_round():
        nonlocal weights, bias, total
        weights, bias, total = averaged(cohort, weights, bias)

    times = timing.timed_rounds(one_round, args.seconds)
    timing.write(
        args.result,
        times=times,
        parts={},
        peak=timing.peak_bytes(),
        data=sum(pixels.nbytes + labels.nbytes for pixels, labels in data),
        examples=total,
        version=np.__version__,
    )


if __name__ == "__main__":
    main()
