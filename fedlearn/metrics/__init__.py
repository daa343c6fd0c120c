"""Metrics: counters, finalizers, and how clients' metrics become the cohort's."""

from fedlearn.metrics._counters import NumBatchesCounter, NumExamplesCounter
from fedlearn.metrics._finalizers import (
    MetricFinalizersType,
    create_keras_metric_finalizer,
)
from fedlearn.metrics._quantization_ranges import (
    create_default_secure_sum_quantization_ranges,
)
from fedlearn.metrics._secure_sum import SecureSumFactory, secure_sum_then_finalize
from fedlearn.metrics._sum_then_finalize import (
    SumThenFinalizeFactory,
    sum_then_finalize,
)

__all__ = [
    "MetricFinalizersType",
    "NumBatchesCounter",
    "NumExamplesCounter",
    "SecureSumFactory",
    "SumThenFinalizeFactory",
    "create_default_secure_sum_quantization_ranges",
    "create_keras_metric_finalizer",
    "secure_sum_then_finalize",
    "sum_then_finalize",
]
