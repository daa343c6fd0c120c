"""Loops over datasets that are drained first: as eager loops, whatever the dataset is."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedcore.tensorflow import _dataset_loop, _graph, _ops

FLOATS = tf.data.DatasetSpec(tf.TensorSpec([None], tf.float32))


def numbers(*lengths):
    """A dataset of vectors of these lengths."""
    ragged = [np.arange(n, dtype=np.float32) + 1 for n in lengths]
    spec = tf.TensorSpec([None], tf.float32)
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(ragged), output_signature=spec
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(len(ragged)))


def weighted_sum(ds):
    """Depends on the order, the number and the shapes of the elements."""
    total, number = tf.constant(0.0), tf.constant(0)
    for x in ds:
        number += 1
        total = total * 0.5 + tf.reduce_sum(x) * tf.cast(
            number + tf.size(x), tf.float32
        )
    return total, number


@pytest.mark.parametrize(
    "dataset",
    [
        lambda: numbers(3, 1, 0, 5),
        lambda: numbers(),
        lambda: numbers(2, 2, 2).filter(lambda x: tf.size(x) > 0),  # of unknown length
        lambda: tf.data.Dataset.range(10, output_type=tf.float32).batch(4),
        lambda: tf.data.Dataset.range(5, output_type=tf.float32).batch(2).repeat(3),
    ],
    ids=["uneven", "empty", "unknown length", "last is smaller", "smaller in between"],
)
def test_every_element_comes_once_with_its_shape(agrees, dataset):
    agrees(weighted_sum, [FLOATS], [dataset()])


def test_a_long_dataset_is_not_drained_at_once(agrees, monkeypatch):
    monkeypatch.setattr(_dataset_loop, "_MOST_IN_A_PIECE", 3)
    agrees(weighted_sum, [FLOATS], [numbers(3, 1, 0, 5)])
    agrees(weighted_sum, [FLOATS], [numbers(3, 1)])


def test_an_endless_dataset_with_a_break(agrees):
    def fn(ds):
        total = 0.0
        for x in ds:
            total += tf.reduce_sum(x)
            if total > 20.0:
                break
        return total

    agrees(fn, [FLOATS], [tf.data.Dataset.from_tensors([1.0, 2.0]).repeat()])
    agrees(fn, [FLOATS], [numbers(2, 2, 9, 2)])


def test_epochs_in_a_loop_around_it(agrees):
    def fn(ds):
        total = tf.Variable(0.0)
        for _ in tf.range(3):
            for x in ds:
                total.assign(total * 0.9 + tf.reduce_sum(x))
        return total

    agrees(fn, [FLOATS], [numbers(2, 0, 3)])


def test_a_dataset_in_an_inner_function_and_a_condition(agrees):
    def fn(ds):
        @tf.function
        def inner(data):
            total = 0.0
            for x in data:
                if tf.size(x) > 1:
                    continue
                total += tf.reduce_sum(x)
            return total

        if tf.cast(ds.cardinality(), tf.int32) > 2:
            return inner(ds)
        return inner(ds) + 100.0

    agrees(fn, [FLOATS], [numbers(1, 4, 1)])
    agrees(fn, [FLOATS], [numbers(1)])


def test_elements_are_structures_with_text_and_scalars(agrees):
    spec = tf.data.DatasetSpec(
        collections.OrderedDict(
            t=tf.TensorSpec([None], tf.string),
            pair=(tf.TensorSpec([], tf.int64), tf.TensorSpec([None, None], tf.int32)),
        )
    )

    def fn(ds):
        total, text = tf.constant(0, tf.int64), tf.constant("")
        for element in ds:
            one, many = element["pair"]
            total += one + tf.cast(tf.reduce_sum(many) + tf.size(many), tf.int64)
            text += tf.strings.reduce_join(element["t"])
        return total, text

    def elements():
        for n in range(4):
            yield collections.OrderedDict(
                t=["ab"] * n, pair=(n, np.full([n, 4 - n], n, np.int32))
            )

    dataset = tf.data.Dataset.from_generator(
        elements, output_signature=spec._element_spec
    )
    known = dataset.apply(tf.data.experimental.assert_cardinality(4))
    agrees(fn, [spec], [dataset])
    agrees(fn, [spec], [known])


def test_ragged_elements_take_an_iterator(agrees):
    spec = tf.data.DatasetSpec(tf.RaggedTensorSpec([None, None], tf.float32))

    def fn(ds):
        total = 0.0
        for x in ds:
            total += tf.reduce_sum(x)
        return total

    rows = tf.ragged.constant([[1.0], [2.0, 3.0], []])
    dataset = tf.data.Dataset.from_tensor_slices(rows).ragged_batch(2)
    agrees(fn, [spec], [dataset])


def test_a_dataset_that_reads_a_variable_is_not_drained_ahead(agrees):
    def fn(ds):
        scale = tf.Variable(1.0)
        scale.assign(3.0)
        total = tf.constant(0.0)
        for x in ds.map(lambda x: x * scale):
            total += tf.reduce_sum(x)
        return total

    graph = agrees(fn, [FLOATS], [numbers(1, 1, 1)]).graph
    names = _ops.op_names(_graph.unpack(graph).graph_def)
    assert "DatasetToSingleElement" not in names


def test_gradients_go_through_an_element(agrees):
    def fn(ds):
        w = tf.Variable([2.0])
        for x in ds:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(x * w * w)
            w.assign_sub(0.1 * tape.gradient(loss, w))
        return w

    agrees(fn, [FLOATS], [numbers(1, 3, 2)])


def test_two_loops_over_one_dataset_shuffle_anew(traced):
    def fn(ds):
        first = tf.zeros([0])
        second = tf.zeros([0])
        for x in ds:
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[(first, tf.TensorShape([None]))]
            )
            first = tf.concat([first, x], 0)
        for x in ds:
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[(second, tf.TensorShape([None]))]
            )
            second = tf.concat([second, x], 0)
        return first, second

    def shuffled():
        dataset = tf.data.Dataset.range(32, output_type=tf.float32)
        return dataset.shuffle(32, seed=1).batch(4)

    dataset = shuffled()
    wanted = [np.concatenate(list(dataset.as_numpy_iterator())) for _ in range(2)]
    found = traced(fn, FLOATS)(shuffled())
    np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(*found)


def test_it_is_drained_by_one_operation(traced):
    graph = traced(weighted_sum, FLOATS).graph
    names = _ops.op_names(_graph.unpack(graph).graph_def)
    assert {"DatasetToSingleElement", "PaddedBatchDatasetV2"} <= names
