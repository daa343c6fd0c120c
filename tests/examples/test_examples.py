"""Every example runs on generated digits, and leaves its pictures."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(example, tmp_path, *flags):
    command = [
        sys.executable,
        str(ROOT / "examples" / example),
        "--dataset=synthetic",
        f"--output_dir={tmp_path}",
        *flags,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_fedavg(tmp_path):
    flags = ["--rounds=4", "--rounds_per_evaluation=2", "--clients_per_round=5"]
    out = run("emnist_fedavg.py", tmp_path, *flags)
    losses = [float(x) for x in re.findall(r"held-out loss ([0-9.]+)", out)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert "generated digits" in out
    assert {"clients.png", "history.png", "logs"} <= {
        p.name for p in tmp_path.iterdir()
    }
    # The same seed gives the same run.
    again = run("emnist_fedavg.py", tmp_path, *flags)
    assert re.findall(r"round .*", again) == re.findall(r"round .*", out)


@pytest.mark.slow
def test_custom_algorithm(tmp_path):
    out = run("emnist_custom_algorithm.py", tmp_path, "--rounds=6")
    losses = [float(x) for x in re.findall(r"loss ([0-9.]+)", out)]
    assert losses[-1] < losses[0]
    assert (tmp_path / "custom_algorithm.png").exists()


@pytest.mark.slow
def test_a_flag_out_of_range_is_refused_with_its_name(tmp_path):
    with pytest.raises(AssertionError, match="rounds"):
        run("emnist_fedavg.py", tmp_path, "--rounds=0")


@pytest.mark.slow
def test_scaffold_is_ahead_of_fedavg_where_clients_differ(tmp_path):
    flags = ["--rounds=12", "--writers=30", "--clients=20"]
    out = run("emnist_scaffold.py", tmp_path, *flags)
    ((fed_avg, scaffold),) = re.findall(r"round  12  FedAvg (\S+)  SCAFFOLD (\S+)", out)
    assert float(scaffold) > max(0.6, float(fed_avg))
    assert (tmp_path / "scaffold.png").exists()
    assert len(list((tmp_path / "control_variates").glob("client-*"))) > 10
    # The same seed gives the same run, though an earlier one has left its states.
    again = run("emnist_scaffold.py", tmp_path, *flags)
    assert re.findall(r"round .*", again) == re.findall(r"round .*", out)


@pytest.mark.slow
def test_personalization_helps_those_whom_one_model_does_not_fit(tmp_path):
    flags = ["--rounds=30", "--writers=30"]
    out = run("emnist_personalization.py", tmp_path, *flags)
    means = re.findall(
        r"(\d+) with .*: baseline_metrics (\S+), fine-tuned (\S+), Ditto (\S+)", out
    )
    assert [int(group[0]) for group in means] == [20, 10]
    server, tuned, ditto = map(float, means[1][1:])  # white ink
    assert server < tuned
    assert server < ditto
    assert (tmp_path / "personalization.png").exists()


@pytest.mark.slow
def test_custom_algorithm_clips_and_lets_the_rate_decay(tmp_path):
    def losses(*flags):
        out = run("emnist_custom_algorithm.py", tmp_path, "--rounds=5", *flags)
        assert "learning_rate=float32>@SERVER" in out
        return [float(x) for x in re.findall(r"loss ([0-9.]+)", out)]

    first, plain = losses()
    # With a rate that vanishes after the first round, or steps of length nearly 0.
    assert plain < losses("--learning_rate_decay=1e-6")[1] < first
    assert losses("--clip_norm=1e-6")[1] == pytest.approx(first, abs=1e-3)
