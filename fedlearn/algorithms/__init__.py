"""Learning algorithms, composed of `fedlearn.templates`."""

from fedlearn.algorithms._ditto import build_ditto
from fedlearn.algorithms._evaluation import build_fed_eval
from fedlearn.algorithms._fed_avg import (
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
)
from fedlearn.algorithms._fed_dyn import build_fed_dyn
from fedlearn.algorithms._fed_opt import (
    build_fed_adagrad,
    build_fed_adam,
    build_fed_yogi,
)
from fedlearn.algorithms._fed_prox import (
    build_fed_prox,
    build_unweighted_fed_prox,
    build_weighted_fed_prox,
)
from fedlearn.algorithms._fed_recon import build_fed_recon, build_fed_recon_eval
from fedlearn.algorithms._fed_sgd import build_fed_sgd
from fedlearn.algorithms._ifca import build_ifca
from fedlearn.algorithms._kmeans import build_fed_kmeans
from fedlearn.algorithms._mime_lite import (
    build_mime_lite_with_optimizer_schedule,
    build_unweighted_mime_lite,
    build_weighted_mime_lite,
)
from fedlearn.algorithms._personalization import build_personalization_eval
from fedlearn.algorithms._scaffold import build_scaffold
from fedlearn.algorithms._schedules import (
    build_weighted_fed_avg_with_optimizer_schedule,
)

build_personalization_eval_computation = build_personalization_eval

__all__ = [
    "build_ditto",
    "build_fed_adagrad",
    "build_fed_adam",
    "build_fed_dyn",
    "build_fed_eval",
    "build_fed_kmeans",
    "build_fed_prox",
    "build_fed_recon",
    "build_fed_recon_eval",
    "build_fed_sgd",
    "build_fed_yogi",
    "build_ifca",
    "build_mime_lite_with_optimizer_schedule",
    "build_personalization_eval_computation",
    "build_scaffold",
    "build_unweighted_fed_avg",
    "build_unweighted_fed_prox",
    "build_unweighted_mime_lite",
    "build_weighted_fed_avg",
    "build_weighted_fed_avg_with_optimizer_schedule",
    "build_weighted_fed_prox",
    "build_weighted_mime_lite",
]
