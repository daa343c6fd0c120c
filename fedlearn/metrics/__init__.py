"""Metrics: counters, finalizers, and how clients' metrics become the cohort's."""

from fedlearn.metrics._counters import NumBatchesCounter, NumExamplesCounter
from fedlearn.metrics._finalizers import (
    MetricFinalizersType,
    create_keras_metric_finalizer,
)
from fedlearn.metrics._sum_then_finalize import (
    SumThenFinalizeFactory,
    sum_then_finalize,
)

__all__ = [
    "MetricFinalizersType",
    "NumBatchesCounter",
    "NumExamplesCounter",
    "SumThenFinalizeFactory",
    "create_keras_metric_finalizer",
    "sum_then_finalize",
]
