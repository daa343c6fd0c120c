"""Writes `aggregators_tff_0_40.json`: types and figures of real TFF's aggregators.

Run it with the interpreter of a TFF 0.40 installation, not with the project's:

    timeout 600 /opt/tff040/bin/python tests/goldens/aggregators_tff.py

The cases are those of `aggregators_cases.py`, which the tests share.
"""

import collections
import json
import pathlib

import aggregators_cases as cases
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

OD = collections.OrderedDict


def counted(value, weight=None):
    ones = tff.federated_value(1, tff.CLIENTS)
    return OD(clients=tff.federated_sum(ones))


def counted_unweighted(value):
    return counted(value)


def create(factory, value_type):
    if isinstance(factory, tff.aggregators.WeightedAggregationFactory):
        return factory.create(value_type, tff.TensorType(tf.float32))
    return factory.create(value_type)


def types(makers):
    """The text of both types of each process; the class of error where there is none."""
    found = {}
    for name, make in makers.items():
        for type_name, type_ in cases.value_types(tff, tf).items():
            try:
                process = create(make(), type_)
                text = [str(process.initialize.type_signature)]
                text.append(str(process.next.type_signature))
            except Exception as error:
                text = type(error).__name__
            found[cases.key(name, type_name)] = text
    return found


def runs(makers):
    found = []
    for name, dtype, values, rounds in cases.RUNS:
        size = len(values[0]) if values else 3
        factory = makers[name]()
        process = create(factory, tff.TensorType(tf.as_dtype(dtype), [size]))
        state, outputs = process.initialize(), []
        for round_number in range(1, rounds + 1):
            arguments = [cases.rows(values, dtype, round_number)]
            if process.is_weighted:
                arguments.append([np.float32(w) for w in cases.WEIGHTS[: len(values)]])
            output = process.next(state, *arguments)
            state = output.state
            parts = (output.state, output.result, output.measurements)
            outputs.append([cases.flat(part) for part in parts])
        found.append(outputs)
    return found


def quantiles():
    found = []
    for *numbers, secure in cases.QUANTILES:
        process = tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
            *numbers, secure_estimation=secure
        )
        state = process.initialize()
        reports = [process.report(state).item()]
        for values in cases.QUANTILE_ROUNDS:
            state = process.next(state, [np.float32(v) for v in values])
            reports.append(process.report(state).item())
        found.append(reports)
    return found


def rotations():
    """The rotated sum, the result and the next seed, over two rounds."""
    found = []
    for transform, repeats, shapes, numbers in cases.ROTATIONS:
        inner = tff.aggregators.add_measurements(
            tff.aggregators.SumFactory(),
            server_measurement_fn=lambda result: OD(rotated=result),
        )
        factory = getattr(tff.aggregators, transform + "TransformFactory")
        value_type = tff.to_type([(tf.float32, shape) for shape in shapes])
        process = factory(inner, repeats).create(value_type)
        state, outputs = ((), np.array([7, 0], np.int64)), []
        for _ in range(2):
            output = process.next(state, [cases.split(numbers, shapes)])
            state = output.state
            parts = (output.measurements, output.result, output.state)
            outputs.append([cases.flat(part) for part in parts])
        found.append(outputs)
    return found


def quantized_sums():
    found = []
    for dtype, lower, upper, values in cases.QUANTIZED_SUMS:
        value_type = tff.TensorType(tf.as_dtype(dtype), [len(values[0])])
        bounds = np.array([lower, upper], dtype)
        total = tff.federated_computation(
            within(*bounds), tff.type_at_clients(value_type)
        )
        found.append(cases.flat(total(cases.rows(values, dtype, 1))))
    return found


def within(lower, upper):
    def total(value):
        return tff.aggregators.secure_quantized_sum(value, lower, upper)

    return total


def lines(section):
    """JSON with a line for each entry."""
    if isinstance(section, dict):
        pairs = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in section.items()]
        return "{\n" + ",\n".join(pairs) + "\n}"
    return "[\n" + ",\n".join(map(json.dumps, section)) + "\n]"


def main():
    tff.backends.test.set_test_python_execution_context()
    makers = cases.factories(tff.aggregators, tff.learning, counted_unweighted)
    goldens = OD(
        types=types(makers),
        runs=runs(makers),
        quantiles=quantiles(),
        rotations=rotations(),
        quantized_sums=quantized_sums(),
    )
    path = pathlib.Path(__file__).with_name("aggregators_tff_0_40.json")
    sections = [f"{json.dumps(name)}: {lines(part)}" for name, part in goldens.items()]
    path.write_text("{\n" + ",\n".join(sections) + "\n}\n")


main()
