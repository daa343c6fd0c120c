"""W1 with each algorithm, on columns: milliseconds a round, per unit of FedAvg's work.

    python -m benchmarks.algorithms [--seconds 3] [--only fed_avg,scaffold]

A unit is one pass of a client over its data with a gradient step on each batch, as
Federated Averaging makes one; a pass that only evaluates counts as half. `speed` is that
of the algorithm over that of Federated Averaging, whose rounds are run in turns with its
own, per unit: 1 is as fast, at least 0.5 is wanted.
"""

import argparse
import collections
import statistics
import time

import keras

import fedlearn
import fedsim
from benchmarks import tensorflow_work as work
from benchmarks import timing
from benchmarks.workloads import CLIENT_RATE, SERVER_RATE, WORKLOADS, examples

WORKLOAD = "W1"
CLUSTERS = 3

# What a round of an algorithm is: how it is built, its work in words and in units.
Entry = collections.namedtuple("Entry", "build work units")


def entries(model_fn):
    """The algorithms by name."""
    algorithms, sgdm = fedlearn.algorithms, fedlearn.optimizers.build_sgdm
    client, server = sgdm(CLIENT_RATE), sgdm(SERVER_RATE)
    clients = WORKLOADS[WORKLOAD].clients

    def built(build, *arguments, **options):
        return lambda: build(model_fn, *arguments, **options)

    def keras_sgd():
        return keras.optimizers.SGD(CLIENT_RATE)

    one, two = "one training pass", "a training pass, a pass for the gradient"
    return {
        "fed_avg": Entry(
            built(algorithms.build_weighted_fed_avg, client, server), one, 1
        ),
        "fed_avg, Keras's SGD": Entry(
            built(algorithms.build_weighted_fed_avg, keras_sgd), one, 1
        ),
        "unweighted_fed_avg": Entry(
            built(algorithms.build_unweighted_fed_avg, client, server), one, 1
        ),
        "fed_avg_with_optimizer_schedule": Entry(
            built(
                algorithms.build_weighted_fed_avg_with_optimizer_schedule,
                lambda round_num: CLIENT_RATE,
                sgdm,
                server,
            ),
            one,
            1,
        ),
        "fed_adam": Entry(built(algorithms.build_fed_adam, client), one, 1),
        "fed_yogi": Entry(built(algorithms.build_fed_yogi, client), one, 1),
        "fed_adagrad": Entry(built(algorithms.build_fed_adagrad, client), one, 1),
        "fed_prox": Entry(
            built(algorithms.build_fed_prox, 0.5, client, server), one, 1
        ),
        "fed_sgd": Entry(
            built(algorithms.build_fed_sgd, server), "one pass for the gradient", 1
        ),
        "mime_lite": Entry(
            built(algorithms.build_weighted_mime_lite, sgdm(CLIENT_RATE, 0.9)), two, 2
        ),
        "scaffold": Entry(
            built(algorithms.build_scaffold, CLIENT_RATE, server, num_clients=clients),
            one,
            1,
        ),
        "fed_dyn": Entry(
            built(
                algorithms.build_fed_dyn,
                client,
                regularization=0.1,
                num_clients=clients,
            ),
            one,
            1,
        ),
        "ditto": Entry(
            built(algorithms.build_ditto, client, server, proximal_strength=0.1),
            "two training passes",
            2,
        ),
        "ifca": Entry(
            built(algorithms.build_ifca, client, server, num_clusters=CLUSTERS),
            f"{CLUSTERS} passes that evaluate, a training pass",
            1 + CLUSTERS / 2,
        ),
        "fed_eval": Entry(
            built(algorithms.build_fed_eval), "one pass that evaluates", 0.5
        ),
    }


def columnar_clients():
    """The clients of W1 with its preprocessing."""
    pixels, labels, offsets = examples(WORKLOAD)
    features = collections.OrderedDict(label=labels, pixels=pixels)
    columns = fedsim.datasets.Columns(features, offsets)
    preprocess = work.preprocess_for(WORKLOAD)
    return [preprocess(columns.dataset(client_id)) for client_id in columns.client_ids]


def model_fn_for(clients):
    def model_fn():
        loss, metrics = work.loss_and_metrics()
        return fedlearn.models.from_keras_model(
            work.keras_model(WORKLOAD),
            input_spec=clients[0].element_spec,
            loss=loss,
            metrics=metrics,
        )

    return model_fn


class Runner:
    """A process that goes on from round to round, and the seconds of each."""

    def __init__(self, process, clients):
        self._process, self._clients = process, clients
        self._state, self._kept = process.initialize(), None
        if isinstance(process, fedlearn.templates.StatefulLearningProcess):
            weights = process.get_model_weights(self._state)
            self._kept = [process.initialize_client(weights)] * len(clients)
        self.times = []

    def _arguments(self):
        kept = [] if self._kept is None else [self._kept]
        return self._state, *kept, self._clients

    def round(self):
        begun = time.perf_counter()
        output = self._process.next(*self._arguments())
        self.times.append(time.perf_counter() - begun)
        self._state = output.state
        if self._kept is not None:
            self._kept = output.client_states

    def road(self):
        steps = fedsim.explain(self._process.next, *self._arguments()).steps
        roads = dict.fromkeys(step.road for step in steps if step.place == "clients")
        return "; ".join(roads)


def medians(runners, seconds):
    """Milliseconds a round of each, in turns: whatever slows the machine slows all."""
    for runner in runners:
        for _ in range(timing.WARM_UP + 1):
            runner.round()
        runner.times.clear()
    begun = time.perf_counter()
    while len(runners[0].times) < timing.LEAST_ROUNDS or (
        time.perf_counter() - begun < seconds
    ):
        for runner in runners:
            runner.round()
    return [1000 * statistics.median(runner.times) for runner in runners]


def table(names, seconds):
    """The lines of a Markdown table."""
    clients = columnar_clients()
    algorithms = entries(model_fn_for(clients))
    fed_avg = Runner(algorithms["fed_avg"].build(), clients)
    yield "| algorithm | a client's work | units | ms a round | speed | road |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in names or algorithms:
        entry = algorithms[name]
        runner = Runner(entry.build(), clients)
        base, took = medians([fed_avg, runner], seconds)
        yield (
            f"| {name} | {entry.work} | {entry.units:g} | {took:.1f} | "
            f"{entry.units * base / took:.2f} | {runner.road()} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for an algorithm")
    parser.add_argument("--only", default="", help="names, with commas between")
    args = parser.parse_args()
    for line in table([n for n in args.only.split(",") if n], args.seconds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
