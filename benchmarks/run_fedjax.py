"""FedJAX, jitted, run by an interpreter that has it; clients shuffle all they have."""

from benchmarks import timing
from benchmarks.workloads import (
    BATCH_SIZE,
    CLIENT_RATE,
    SERVER_RATE,
    WORKLOADS,
    clients,
)

WATCH = timing.Stopwatch()


def main():
    args = timing.arguments()
    work = WORKLOADS[args.workload]
    data = clients(args.workload)
    with WATCH("import"):
        import fedjax
        import jax

    with WATCH("datasets"):
        cohort = [
            (
                str(i).encode(),
                fedjax.ClientDataset({"x": pixels[..., None], "y": labels}),
            )
            for i, (pixels, labels) in enumerate(data)
        ]
    emnist = fedjax.models.emnist
    create = (
        emnist.create_conv_model
        if work.model == "cnn"
        else emnist.create_logistic_model
    )
    model = create(only_digits=True)

    def mean_loss(params, batch, rng):
        predictions = model.apply_for_train(params, batch, rng)
        return jax.numpy.mean(model.train_loss(batch, predictions))

    def one_round():
        nonlocal state, number
        number += 1
        keys = jax.random.split(jax.random.PRNGKey(number), len(cohort))
        chosen = [(name, data, key) for (name, data), key in zip(cohort, keys)]
        state, _ = algorithm.apply(state, chosen)
        jax.block_until_ready(state.params)

    with fedjax.for_each_client_backend("jit"):
        with WATCH("build"):
            algorithm = fedjax.algorithms.fed_avg.federated_averaging(
                jax.grad(mean_loss),
                fedjax.optimizers.sgd(CLIENT_RATE),
                fedjax.optimizers.sgd(SERVER_RATE),
                fedjax.ShuffleRepeatBatchHParams(
                    batch_size=BATCH_SIZE, num_epochs=work.epochs
                ),
            )
        number = 0
        with WATCH("initialize"):
            state = algorithm.init(model.init(jax.random.PRNGKey(0)))
        with WATCH("first round"):
            one_round()
        times = timing.timed_rounds(one_round, args.seconds)
    timing.write(
        args.result,
        times=times,
        parts=WATCH.parts,
        peak=timing.peak_bytes(),
        data=sum(pixels.nbytes + labels.nbytes for pixels, labels in data),
        examples=work.epochs * sum(len(labels) for _, labels in data),
        version=f"jax {jax.__version__}",
    )


if __name__ == "__main__":
    main()
