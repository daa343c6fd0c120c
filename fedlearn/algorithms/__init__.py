"""Learning algorithms, composed of `fedlearn.templates`."""

from fedlearn.algorithms._evaluation import build_fed_eval
from fedlearn.algorithms._fed_avg import (
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
)

__all__ = ["build_fed_eval", "build_unweighted_fed_avg", "build_weighted_fed_avg"]
