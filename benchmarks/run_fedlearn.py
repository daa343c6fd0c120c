"""This project: Federated Averaging on columns, or on `tf.data.Dataset`s.

Ways: columnar, tf.data, hand-written (a model on `tf.Variable`s; tf.data).
"""

import itertools
import os

from benchmarks import timing
from benchmarks.workloads import CLIENT_RATE, SERVER_RATE, examples

WATCH = timing.Stopwatch()


def main():
    args = timing.arguments()
    pixels, labels, offsets = examples(args.workload)
    size = pixels.nbytes + labels.nbytes
    with WATCH("import"):
        import collections

        import tensorflow as tf

        import fedlearn
        import fedsim
        from benchmarks import tensorflow_work as work

    preprocess = work.preprocess_for(args.workload)
    features = collections.OrderedDict(label=labels, pixels=pixels)
    del pixels, labels
    if args.way == "columnar":
        # As it is with a set in an SQLite file, once converted: memory-mapped.
        saved = os.path.join(os.path.dirname(args.result), "columns")
        fedsim.datasets.Columns(features, offsets).save(saved)
        del features
    with WATCH("datasets"):
        if args.way == "columnar":
            columns = fedsim.datasets.Columns.open(saved)
            raw = [columns.dataset(client_id) for client_id in columns.client_ids]
        else:
            raw = [
                tf.data.Dataset.from_tensor_slices(
                    collections.OrderedDict(
                        (name, array[start:stop]) for name, array in features.items()
                    )
                )
                for start, stop in itertools.pairwise(offsets)
            ]
            del features
        clients = [preprocess(dataset) for dataset in raw]
    timing.forget_peak()

    def model_fn():
        loss, metrics = work.loss_and_metrics()
        return fedlearn.models.from_keras_model(
            work.keras_model(args.workload),
            input_spec=clients[0].element_spec,
            loss=loss,
            metrics=metrics,
        )

    if args.way == "hand-written":
        model_fn = work.hand_written(fedlearn.models.Model, fedlearn.models.BatchOutput)
    with WATCH("build"):
        process = fedlearn.algorithms.build_weighted_fed_avg(
            model_fn,
            client_optimizer_fn=fedlearn.optimizers.build_sgdm(CLIENT_RATE),
            server_optimizer_fn=fedlearn.optimizers.build_sgdm(SERVER_RATE),
        )
    with WATCH("initialize"):
        state = process.initialize()
    with WATCH("first round"):
        output = process.next(state, clients)

    def one_round():
        nonlocal output
        output = process.next(output.state, clients)

    times = timing.timed_rounds(one_round, args.seconds)
    train = output.metrics["client_work"]["train"]
    timing.write(
        args.result,
        times=times,
        parts=WATCH.parts,
        peak=timing.peak_bytes(),
        data=size,
        examples=int(train["num_examples"]),
        loss=float(train["loss"]),
        version=tf.__version__,
    )


if __name__ == "__main__":
    main()
