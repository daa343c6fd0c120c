"""TensorFlow Federated 0.87, run by an interpreter that has it.

Ways: tf.data, hand-written (a model on `tf.Variable`s).
"""

import os
import sys

from benchmarks import timing
from benchmarks.workloads import CLIENT_RATE, SERVER_RATE, clients

WATCH = timing.Stopwatch()


def main():
    args = timing.arguments()
    data = clients(args.workload)
    with WATCH("import"):
        import collections

        import tensorflow as tf
        import tensorflow_federated as tff

        from benchmarks import tensorflow_work as work

    preprocess = work.preprocess_for(args.workload)
    with WATCH("datasets"):
        datasets = [
            preprocess(
                tf.data.Dataset.from_tensor_slices(
                    collections.OrderedDict(label=labels, pixels=pixels)
                )
            )
            for pixels, labels in data
        ]

    def model_fn():
        loss, metrics = work.loss_and_metrics()
        return tff.learning.models.from_keras_model(
            work.keras_model(args.workload),
            input_spec=datasets[0].element_spec,
            loss=loss,
            metrics=metrics,
        )

    if args.way == "hand-written":
        models = tff.learning.models
        model_fn = work.hand_written(models.VariableModel, models.BatchOutput)
    sgd = tff.learning.optimizers.build_sgdm
    with WATCH("build"):
        process = tff.learning.algorithms.build_weighted_fed_avg(
            model_fn,
            client_optimizer_fn=sgd(CLIENT_RATE),
            server_optimizer_fn=sgd(SERVER_RATE),
        )
    with WATCH("initialize"):
        state = process.initialize()
    with WATCH("first round"):
        output = process.next(state, datasets)

    def one_round():
        nonlocal output
        output = process.next(output.state, datasets)

    times = timing.timed_rounds(one_round, args.seconds)
    train = output.metrics["client_work"]["train"]
    timing.write(
        args.result,
        times=times,
        parts=WATCH.parts,
        peak=timing.peak_bytes(),
        data=sum(pixels.nbytes + labels.nbytes for pixels, labels in data),
        examples=int(train["num_examples"]),
        loss=float(train["loss"]),
        version=tff.__version__,
    )
    sys.stdout.flush()
    # Its worker process may keep the interpreter from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
