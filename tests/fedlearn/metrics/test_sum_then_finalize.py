import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedcore.aggregators import SumFactory
from fedcore.types import at_clients, to_type
from fedlearn import metrics

TYPE = to_type(
    collections.OrderedDict(loss=[tf.float32, tf.float32], num_examples=[tf.int64])
)
FINALIZERS = collections.OrderedDict(
    loss=metrics.create_keras_metric_finalizer(keras.metrics.Mean),
    num_examples=metrics.create_keras_metric_finalizer(metrics.NumExamplesCounter),
)


def client(total, count):
    return collections.OrderedDict(
        loss=[np.float32(total), np.float32(count)], num_examples=[np.int64(count)]
    )


CLIENTS = [client(3.0, 2), client(5.0, 2)]


def test_type():
    computation = metrics.sum_then_finalize(FINALIZERS, TYPE)
    assert str(computation.type_signature) == (
        "({<loss=<float32,float32>,num_examples=<int64>>}@CLIENTS -> "
        "<loss=float32,num_examples=int64>@SERVER)"
    )


def test_factory_types():
    process = metrics.SumThenFinalizeFactory(FINALIZERS).create(TYPE)
    assert str(process.initialize.type_signature) == (
        "( -> <<>,<loss=<float32,float32>,num_examples=<int64>>>@SERVER)"
    )
    state = "state=<<>,<loss=<float32,float32>,num_examples=<int64>>>@SERVER"
    finalized = "<loss=float32,num_examples=int64>"
    assert str(process.next.type_signature) == (
        f"(<{state},unfinalized_metrics="
        "{<loss=<float32,float32>,num_examples=<int64>>}@CLIENTS> -> "
        f"<{state},result=<{finalized},{finalized}>@SERVER,measurements=<>@SERVER>)"
    )


def test_sum_then_finalize():
    found = metrics.sum_then_finalize(FINALIZERS, TYPE)(CLIENTS)
    assert isinstance(found, collections.OrderedDict)
    assert found == {"loss": 2.0, "num_examples": 4}


def test_one_function_of_all_metrics():
    def finalize(unfinalized):
        total, count = unfinalized["loss"]
        return collections.OrderedDict(twice=2 * total / count)

    found = metrics.sum_then_finalize(finalize, TYPE)(CLIENTS)
    assert found == {"twice": 4.0}


def test_no_clients_sum_to_zero():
    assert metrics.sum_then_finalize(FINALIZERS, TYPE)([]) == {
        "loss": 0.0,
        "num_examples": 0,
    }


def test_factory_reports_this_round_and_all_rounds():
    process = metrics.SumThenFinalizeFactory(FINALIZERS).create(TYPE)
    output = process.next(process.initialize(), CLIENTS)
    output = process.next(output.state, [client(8.0, 1)])
    current, total = output.result
    assert current == {"loss": 8.0, "num_examples": 1}
    np.testing.assert_allclose(total["loss"], 16.0 / 5.0)
    assert total["num_examples"] == 5


def test_factory_begins_with_the_given_values():
    process = metrics.SumThenFinalizeFactory(
        FINALIZERS, client(1.0, 1), SumFactory()
    ).create(TYPE)
    assert process.initialize()[1] == client(1.0, 1)


@pytest.mark.parametrize(
    ("finalizers", "metrics_type", "error", "match"),
    [
        ([1], TYPE, TypeError, "needs an `OrderedDict`"),
        (collections.OrderedDict(loss=1), TYPE, TypeError, "needs functions by metric"),
        (FINALIZERS, to_type(tf.float32), TypeError, "needs a `StructWithPythonType`"),
        (FINALIZERS, at_clients(TYPE), TypeError, "needs a `StructWithPythonType`"),
        (
            collections.OrderedDict(a=FINALIZERS["loss"]),
            TYPE,
            ValueError,
            "needs a finalizer for each",
        ),
    ],
)
def test_wrong_arguments(finalizers, metrics_type, error, match):
    with pytest.raises(error, match=match):
        metrics.sum_then_finalize(finalizers, metrics_type)
    with pytest.raises(error, match=match):
        metrics.SumThenFinalizeFactory(finalizers).create(metrics_type)


def test_factory_with_other_initial_values_or_inner_factory():
    with pytest.raises(TypeError, match="needs `initial_unfinalized_metrics`"):
        metrics.SumThenFinalizeFactory(
            FINALIZERS, collections.OrderedDict(a=[1.0])
        ).create(TYPE)
    with pytest.raises(TypeError, match="needs an `UnweightedAggregationFactory`"):
        metrics.SumThenFinalizeFactory(FINALIZERS, None, 3)
