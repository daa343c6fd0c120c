"""The benchmark of the algorithms: all are in it, and a round of each runs."""

import pytest

import fedlearn
from benchmarks import algorithms

# Other models or data than the workload's, or what has the client work of another.
LEFT_OUT = {
    "build_fed_kmeans",
    "build_fed_recon",
    "build_fed_recon_eval",
    "build_mime_lite_with_optimizer_schedule",
    "build_personalization_eval_computation",
    "build_unweighted_fed_prox",
    "build_unweighted_mime_lite",
    "build_weighted_fed_prox",
}


def test_every_algorithm_is_measured():
    measured = set()
    for name in algorithms.entries(lambda: None):
        measured.update({f"build_{name}", f"build_weighted_{name}"})
    missing = set(fedlearn.algorithms.__all__) - measured - LEFT_OUT
    assert missing == set()


@pytest.mark.slow
def test_a_line_says_work_time_and_road(monkeypatch):
    monkeypatch.setattr(algorithms.timing, "LEAST_ROUNDS", 2)
    head, rule, line = algorithms.table(["scaffold"], seconds=0.0)
    assert head.count("|") == rule.count("|") == line.count("|") == 7
    name, work, units, took, speed, road = [c.strip() for c in line.split("|")[1:-1]]
    assert (name, units) == ("scaffold", "1")
    assert work == "one training pass"
    assert float(took) > 0
    assert float(speed) > 0
    assert road == "columnar, XLA (masked)"
