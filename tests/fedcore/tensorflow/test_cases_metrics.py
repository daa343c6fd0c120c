"""Keras metrics inside a computation, against eager execution."""

import collections

import keras
import tensorflow as tf
from keras import metrics

F32 = tf.TensorSpec([], tf.float32)


def test_nine_metrics_and_their_variables(agrees, small_model, batches_spec, batches):
    def fn(ds):
        model = small_model()
        of_labels = [
            metrics.SparseCategoricalAccuracy(),
            metrics.SparseTopKCategoricalAccuracy(2),
            metrics.SparseCategoricalCrossentropy(from_logits=True),
        ]
        mean, total = metrics.Mean(), metrics.Sum()
        squared = metrics.MeanSquaredError()
        binary = [metrics.AUC(), metrics.Recall(), metrics.Precision()]
        for batch in ds:
            logits = model(batch["x"])
            for metric in of_labels:
                metric.update_state(batch["y"], logits)
            mean.update_state(logits)
            total.update_state(logits)
            squared.update_state(logits * 0, logits)
            score = tf.sigmoid(logits[:, 0])
            for metric in binary:
                metric.update_state(tf.cast(batch["y"] > 0, tf.float32), score)
        mean.reset_state()
        every = [*of_labels, mean, total, squared, *binary]
        unfinished = collections.OrderedDict(
            (metric.name, list(metric.variables)) for metric in every
        )
        return [metric.result() for metric in every], unfinished

    agrees(fn, [batches_spec()], [batches()])


def test_a_finalizer_that_assigns_and_takes_the_result(agrees):
    def fn(total, count):
        metric = keras.metrics.Mean()
        assigns = [
            variable.assign(value)
            for variable, value in zip(metric.variables, [total, count])
        ]
        with tf.control_dependencies(assigns):
            return metric.result()

    agrees(fn, [F32, F32], [6.0, 3.0])


def test_a_metric_class_of_the_user(agrees, batches_spec, batches):
    class Count(keras.metrics.Sum):
        def update_state(self, y_true, y_pred, sample_weight=None):
            return super().update_state(tf.shape(y_pred)[0])

    def fn(ds):
        count = Count(name="count", dtype="int64")
        for batch in ds:
            count.update_state(batch["y"], batch["x"])
        return count.result()

    agrees(fn, [batches_spec()], [batches()])
