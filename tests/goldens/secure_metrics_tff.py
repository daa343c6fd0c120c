"""Writes `secure_metrics_tff_0_40.json`: what real TFF 0.40 does with secure metrics.

Run it with the interpreter of a TFF 0.40 installation, not with the project's:

    timeout 600 /opt/tff040/bin/python tests/goldens/secure_metrics_tff.py

The tests share the cases and `run`. `metrics` is `tff.learning.metrics` or
`fedlearn.metrics`.
"""

import collections
import json
import pathlib

import numpy as np

OD = collections.OrderedDict
ROUNDS = 4


def types(tf):
    """By name, what the types of unfinalized metrics are made of, in no sorted order."""
    return OD(
        mixed=OD(
            num=[tf.int64], loss=[tf.float32, tf.float32], acc=[tf.float32, tf.int32]
        ),
        nested=OD(
            z=[(tf.float32, [3]), tf.float64],
            b=OD(y=tf.float32, x=tf.int32),
            c=(tf.float32, [2, 2]),
        ),
    )


def values(name, client, round_number):
    """A client's metrics; some of them outside of what the ranges allow."""
    n = 1 + client + 10 * round_number
    if name == "mixed":
        return OD(
            num=[np.int64(n if client else 3000000)],
            loss=[np.float32(2.5 * n), np.float32(-400.0 if client == 1 else n)],
            acc=[np.float32(0.25 * n), np.int32(-4 if client == 2 else n)],
        )
    return OD(
        z=[np.array([0.5, -n, 90.0 * n], np.float32), np.float64(1.5 * n)],
        b=OD(y=np.float32(7.25), x=np.int32(n)),
        c=np.full([2, 2], 0.125 * n, np.float32),
    )


# By name: the type, and the ranges; "default" stands for no argument.
RANGES = OD(
    default=("mixed", None),
    one_metric=("mixed", OD(num=[(0, 10)])),
    two_metrics=("mixed", OD(num=[(0, 2)], loss=[(0.0, 5.0), (-3.0, 5.0)])),
    part_of_a_metric=("mixed", OD(acc=[(0.0, 1.0), None])),
    a_metric_left_open=("mixed", OD(acc=None, num=[(-7, 7)])),
    nested=("nested", None),
    nested_ranges=("nested", OD(b=OD(y=(0.0, 2.0)), z=[(-5.0, 5.0), None])),
)


def finalizers(tf, name):
    """Functions of the unfinalized metrics of a type."""

    def first(values):
        return values[0]

    def quotient(values):
        return values[0] / tf.cast(values[1], values[0].dtype)

    if name == "mixed":
        return OD(num=first, loss=quotient, acc=quotient)
    return OD(z=lambda v: v[1], b=lambda v: v["y"], c=tf.reduce_sum)


def run(metrics, tf, to_type, name):
    """Types, and figures of some rounds, of all that sums securely."""
    type_name, ranges = RANGES[name]
    type_ = to_type(types(tf)[type_name])
    functions = finalizers(tf, type_name)
    factory = metrics.SecureSumFactory(ranges)
    over_rounds = metrics.SumThenFinalizeFactory(functions, None, factory)
    at_once = metrics.secure_sum_then_finalize(functions, type_, ranges)
    found = OD(at_once=OD(type=str(at_once.type_signature), rounds=[]))
    for round_number in range(ROUNDS):
        clients = [values(type_name, client, round_number) for client in range(3)]
        found["at_once"]["rounds"].append(flat(at_once(clients)))
    for key, process in [
        ("factory", factory.create(type_)),
        ("over_rounds", over_rounds.create(type_)),
    ]:
        state, rounds = process.initialize(), []
        for round_number in range(ROUNDS):
            clients = [values(type_name, client, round_number) for client in range(3)]
            output = process.next(state, clients)
            state = output.state
            rounds.append(flat([output.result, output.measurements, output.state]))
        types_ = [str(process.initialize.type_signature)]
        types_.append(str(process.next.type_signature))
        found[key] = OD(type=types_, rounds=rounds)
    return found


# Arguments after the type; the third is whether floats' bounds follow the clients.
DEFAULTS = OD(
    given=(),
    wide=(-5, 7.5),
    fixed=(0, 2**20 - 1, False),
    rounded=(-5.5, 7.9, False),
    equal=(5, 5),
    no_integer_between=(1.2, 1.7, False),
    no_number=("a", 3),
)


def default_ranges(metrics, tf, to_type, name):
    """The default ranges, processes by what bound they report first; or the error."""
    type_ = to_type(types(tf)["mixed"])
    create = metrics.create_default_secure_sum_quantization_ranges
    try:
        ranges = create(type_, *DEFAULTS[name])
    except Exception as error:
        return type(error).__name__

    def shown(bound):
        if hasattr(bound, "report"):
            return ["estimated", float(bound.report(bound.initialize()))]
        return [type(bound).__name__, bound]

    return OD(
        (metric, [[shown(bound) for bound in pair] for pair in pairs])
        for metric, pairs in ranges.items()
    )


def flat(value):
    """The numbers in a structure, in order."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif hasattr(value, "__attrs_attrs__"):
        value = [getattr(value, field.name) for field in value.__attrs_attrs__]
    if isinstance(value, collections.abc.Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in flat(part)]
    return np.asarray(value, np.float64).reshape(-1).tolist()


def main():
    import tensorflow as tf
    import tensorflow_federated as tff

    tff.backends.test.set_test_python_execution_context()
    metrics = tff.learning.metrics
    found = OD(
        runs={name: run(metrics, tf, tff.to_type, name) for name in RANGES},
        defaults={
            name: default_ranges(metrics, tf, tff.to_type, name) for name in DEFAULTS
        },
    )
    path = pathlib.Path(__file__).parent / "secure_metrics_tff_0_40.json"
    path.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
