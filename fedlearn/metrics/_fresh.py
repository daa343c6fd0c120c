"""Keras objects made apart from whatever is being traced or was made before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from fedcore.tensorflow._private import keras_globals_apart, outside_graphs
from fedlearn.metrics._keras_versions import is_keras_2


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is made inside is eager, and named as if it were the first of its kind.

    Keras numbers the names of a process (`auc`, `auc_1`, ...); the metrics of a model
    must not be called otherwise when the same `model_fn` is called again.
    """
    with keras_globals_apart(), outside_graphs():
        yield


def build_lazy_metric(metric: keras.metrics.Metric, y_true: Any, y_pred: Any) -> None:
    """Lets a metric that makes its variables at the first update make them now.

    `F1Score` is one such. The update itself is dropped.

    Args:
        metric: Any metric; nothing happens to one that has its variables.
        y_true: Specs of a batch of labels; unknown dimensions become 1.
        y_pred: Specs of a batch of predictions.
    """
    if metric.variables and getattr(metric, "_built", True):
        return
    if is_keras_2(metric):
        metric.update_state(*tf.nest.map_structure(_zeros, (y_true, y_pred)))
        metric.reset_state()
        return
    with keras.StatelessScope():
        metric.update_state(*tf.nest.map_structure(_zeros, (y_true, y_pred)))


def _zeros(spec: Any) -> tf.Tensor:
    shape = [1 if size is None else size for size in spec.shape]
    return tf.zeros(shape, spec.dtype)
