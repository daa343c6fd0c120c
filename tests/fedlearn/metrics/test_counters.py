import keras
import numpy as np
import pytest
import tensorflow as tf

from fedlearn.metrics import NumBatchesCounter, NumExamplesCounter


@pytest.mark.parametrize("counter", [NumExamplesCounter, NumBatchesCounter])
def test_counter_is_an_int64_sum(counter):
    metric = counter()
    assert isinstance(metric, keras.metrics.Sum)
    assert [(v.dtype, tuple(v.shape)) for v in metric.variables] == [("int64", ())]
    assert metric.result().dtype == tf.int64


def test_names_and_configs():
    assert NumExamplesCounter().get_config() == {
        "name": "num_examples",
        "dtype": "int64",
    }
    assert NumBatchesCounter().name == "num_batches"
    made = NumExamplesCounter.from_config(
        NumExamplesCounter("n", tf.int32).get_config()
    )
    assert (made.name, made.variables[0].dtype) == ("n", "int32")


@pytest.mark.parametrize(
    "batch",
    [
        np.ones([4, 2], "f"),
        [np.ones([4, 2], "f"), np.ones([4], "f")],
        {"a": np.ones([4], "f"), "b": np.ones([4, 3], "f")},
        tf.ragged.constant([[1.0], [], [2.0, 3.0], [4.0]]),
    ],
)
def test_counts_of_any_structure(batch):
    examples, batches = NumExamplesCounter(), NumBatchesCounter()
    for _ in range(2):
        examples.update_state(batch, batch)
        batches.update_state(batch, batch, sample_weight=np.zeros([4], "f"))
    assert (examples.result().numpy(), batches.result().numpy()) == (8, 2)


def test_reset_state():
    metric = NumExamplesCounter()
    metric.update_state(np.ones([3]), np.ones([3]))
    metric.reset_state()
    assert metric.result().numpy() == 0
