"""The command: what it runs, what it prints, what it writes."""

import json

import pytest

from benchmarks import report, rounds

PEERS = ("FEDSIM_BENCH_TFF087", "FEDSIM_BENCH_FEDJAX", "FEDSIM_BENCH_PFL")


@pytest.fixture(autouse=True)
def _no_peers(monkeypatch):
    for name in PEERS:
        monkeypatch.delenv(name, raising=False)


def run(tmp_path, *more):
    output = tmp_path / "results.json"
    summary = rounds.main(["--seconds", "0", "--output", str(output), *more])
    return summary, json.loads(output.read_text())


def test_numpy_alone(tmp_path, capsys):
    summary, written = run(
        tmp_path, "--workloads", "W1", "--contestants", "numpy", "FedJAX"
    )
    assert list(summary["W1"]) == ["numpy"]
    assert 0 < summary["W1"]["numpy"]["round"] < 60
    assert len(written["runs"]["W1"]["numpy"][0]["times"]) == 5
    assert "| numpy |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["columnar", "tf.data", "hand-written"])
def test_ours(tmp_path, way):
    summary, _ = run(tmp_path, "--workloads", "W1", "--contestants", way)
    entry = summary["W1"][way]
    assert entry["first"] > entry["parts"]["first round"] > 0
    assert 0 < entry["loss"] < 2.5
    assert entry["peak"] > entry["beyond"] > 0


def test_a_contestant_that_fails_is_left_out_and_says_why(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("FEDSIM_BENCH_FEDJAX", "/bin/false")
    summary, _ = run(tmp_path, "--workloads", "W1", "--contestants", "FedJAX")
    assert summary == {}
    assert "W1, FedJAX: no result (exit code 1)" in capsys.readouterr().out


def test_a_contestant_that_takes_too_long_is_stopped(tmp_path, capsys, monkeypatch):
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("FEDSIM_BENCH_PFL", str(hangs))
    arguments = ["--workloads", "W1", "--contestants", "pfl", "--timeout", "0.2"]
    summary, _ = run(tmp_path, *arguments)
    assert summary == {}
    assert "no result (stopped after 0 s)" in capsys.readouterr().out


def entry(seconds, **more):
    return {
        "round": seconds,
        "first": 10 * seconds,
        "parts": {},
        "peak": 3 << 20,
        "beyond": 2 << 20,
        "load": 0.5,
        **more,
    }


def test_tables():
    parts = {"import": 2.0, "first round": 0.25}
    summary = {
        "W1": {
            "columnar": entry(0.005, parts=parts),
            "numpy": entry(0.004),
            "FedJAX": entry(0.02),
        },
        "W2": {"columnar": entry(0.25, load=1.25)},
        "opening": {"EMNIST, opened again": entry(0.0015)},
    }
    assert report.markdown(summary).splitlines() == [
        "| median of a round | W1 | W2 |",
        "| --- | --- | --- |",
        "| columnar | 5 ms | 250 ms |",
        "| numpy | 4 ms |  |",
        "| FedJAX | 20 ms |  |",
        "| (highest load of the machine) | 0.5 | 1.2 |",
        "",
        "| ratio | asked | measured | reached |",
        "| --- | --- | --- | --- |",
        "| W1: columnar, times as fast as FedJAX | at least 1.8 | 4 | yes |",
        "| W1: columnar, times as long as NumPy | at most 1.5 | 1.25 | yes |",
        "",
        "|  | fresh start | import | data sets | build | initialize | first round "
        "| in all | peak memory | beyond the data |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| W1 | columnar | 2 s |  |  |  | 250 ms | 50 ms | 3 MB | 2 MB |",
        "",
        "| once | time |",
        "| --- | --- |",
        "| EMNIST, opened again | 1.5 ms |",
    ]


def test_a_target_that_is_missed():
    summary = {"W1": {"columnar": entry(0.02), "FedJAX": entry(0.03)}}
    assert "| at least 1.8 | 1.5 | no |" in report.markdown(summary)
