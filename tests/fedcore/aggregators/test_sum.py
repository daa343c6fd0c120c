"""`SumFactory`: the plain sum."""

import collections

import pytest
import tensorflow as tf

from fedcore.aggregators import SumFactory, UnweightedAggregationFactory
from fedcore.federated import SumIncompatibleError
from fedcore.types import SequenceType, TensorType, at_clients, to_type

OD = collections.OrderedDict
NAMED = to_type(OD(a=tf.int32, b=(tf.float32, [2])))


@pytest.mark.parametrize(
    ("value_type", "member"),
    [
        (TensorType(tf.float32), "float32"),
        (NAMED, "<a=int32,b=float32[2]>"),
        (to_type(()), "<>"),
        (tf.int64, "int64"),
    ],
)
def test_types_are_those_of_tff(value_type, member):
    process = SumFactory().create(value_type)
    assert not process.is_weighted
    assert str(process.initialize.type_signature) == "( -> <>@SERVER)"
    assert str(process.next.type_signature) == (
        f"(<state=<>@SERVER,value={{{member}}}@CLIENTS> -> "
        f"<state=<>@SERVER,result={member}@SERVER,measurements=<>@SERVER>)"
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_sum(count):
    process = SumFactory().create(NAMED)
    values = [OD(a=i, b=[i, 2 * i]) for i in range(1, count + 1)]
    output = process.next(process.initialize(), values)
    total = sum(range(count + 1))
    assert (output.state, output.measurements) == ((), ())
    assert output.result["a"] == total
    assert output.result["b"].tolist() == [total, 2 * total]


@pytest.mark.parametrize(
    ("value_type", "error", "message"),
    [
        (TensorType(tf.bool), SumIncompatibleError, "`federated_sum` needs numbers"),
        (
            SequenceType(tf.int32),
            TypeError,
            "`SumFactory.create` needs a structure of ten",
        ),
        (
            at_clients(tf.int32),
            TypeError,
            "`SumFactory.create` needs a structure of tens",
        ),
        ("float32", TypeError, "`to_type` needs what describes a type"),
    ],
)
def test_what_cannot_be_summed(value_type, error, message):
    with pytest.raises(error, match=message):
        SumFactory().create(value_type)


def test_it_is_a_factory_without_weights():
    assert isinstance(SumFactory(), UnweightedAggregationFactory)
