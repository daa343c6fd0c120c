"""Measures rounds of Federated Averaging beside other frameworks, in one run.

    python -m benchmarks.rounds                          # everything that is installed
    python -m benchmarks.rounds --workloads W1 W2 --contestants columnar numpy

Peers are run by the interpreters that FEDSIM_BENCH_TFF087, FEDSIM_BENCH_FEDJAX and
FEDSIM_BENCH_PFL name, and left out where these are not set. Each contestant has a fresh
process for each workload. With --repeats the whole run is done again and the median of
the medians counts. Prints Markdown tables, writes everything to --output.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile

from benchmarks import report
from benchmarks.workloads import WORKLOADS, examples_a_round

ROOT = pathlib.Path(__file__).parents[1]

Contestant = collections.namedtuple("Contestant", "module way python workloads")

SOFTMAX = ("W1", "W2", "W2-1000", "W2-10000")
OURS = None  # this interpreter
ONE_THREAD = {f"{lib}_NUM_THREADS": "1" for lib in ("OMP", "OPENBLAS", "MKL")}
CONTESTANTS = {
    "columnar": Contestant("run_fedlearn", "columnar", OURS, tuple(WORKLOADS)),
    "tf.data": Contestant(
        "run_fedlearn", "tf.data", OURS, ("W1", "W2", "W3", "W2-1000")
    ),
    "hand-written": Contestant("run_fedlearn", "hand-written", OURS, ("W1",)),
    "numpy": Contestant("run_numpy", "", OURS, SOFTMAX),
    "TFF 0.87": Contestant(
        "run_tff087", "tf.data", "FEDSIM_BENCH_TFF087", ("W1", "W2", "W3")
    ),
    "TFF 0.87 hand-written": Contestant(
        "run_tff087", "hand-written", "FEDSIM_BENCH_TFF087", ("W1",)
    ),
    "FedJAX": Contestant(
        "run_fedjax", "", "FEDSIM_BENCH_FEDJAX", ("W1", "W2", "W3", "W2-1000")
    ),
    "pfl": Contestant("run_pfl", "", "FEDSIM_BENCH_PFL", ("W1", "W2", "W3", "W2-1000")),
    "import of ours": Contestant("run_import", "ours", OURS, ("import",)),
    "import of TensorFlow and Keras": Contestant(
        "run_import", "tensorflow", OURS, ("import",)
    ),
    "EMNIST, converted": Contestant("run_opening", "unpacked", OURS, ("opening",)),
    "EMNIST, opened again": Contestant("run_opening", "columns", OURS, ("opening",)),
}


def main(argv=None):
    args = _arguments(argv)
    environment = _environment()
    results = collections.defaultdict(lambda: collections.defaultdict(list))
    with tempfile.TemporaryDirectory() as scratch:
        kinds = [k for k in args.workloads if k != "opening" or _emnist(args, scratch)]
        environment["EMNIST_CACHE"] = scratch
        for _ in range(args.repeats):
            for kind in kinds:
                for name in args.contestants:
                    if kind in CONTESTANTS[name].workloads:
                        found = _run(name, kind, args, environment, scratch)
                        if found is not None:
                            results[kind][name].append(found)
    summary = {
        kind: {name: _summary(runs) for name, runs in by_name.items()}
        for kind, by_name in results.items()
    }
    text = report.markdown(summary)
    print(text)
    about = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "repeats": args.repeats,
    }
    written = {"about": about, "summary": summary, "runs": results}
    pathlib.Path(args.output).write_text(json.dumps(written, indent=1) + "\n")
    print(f"\nWritten to {args.output}.")
    return summary


def _arguments(argv):
    kinds = [*WORKLOADS, "import", "opening"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=kinds, default=kinds)
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=list(CONTESTANTS),
        default=list(CONTESTANTS),
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds, each")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds, each")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", default=str(ROOT / "benchmarks" / "results.json"))
    parser.add_argument(
        "--data_dir",
        default=os.environ.get("FEDSIM_TEST_DATA"),
        help="holds emnist_all.sqlite.lzma; opening it is left out without",
    )
    return parser.parse_args(argv)


def _environment():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return {**defaults, **os.environ, "PYTHONPATH": path}


def _emnist(args, scratch):
    """Brings the packed set into a directory that can be written."""
    packed = pathlib.Path(args.data_dir or "", "emnist_all.sqlite.lzma")
    if not packed.is_file():
        print("opening: left out, --data_dir has no emnist_all.sqlite.lzma")
        return False
    pathlib.Path(scratch, packed.name).write_bytes(packed.read_bytes())
    return True


def _run(name, kind, args, environment, scratch):
    """What a contestant's process writes down; None if there is none."""
    contestant = CONTESTANTS[name]
    python = sys.executable
    if contestant.python is not None:
        python = os.environ.get(contestant.python)
        if not python:
            return None
    result = pathlib.Path(scratch, "result.json")
    result.unlink(missing_ok=True)
    log = pathlib.Path(scratch, "log.txt")
    command = [python, "-m", f"benchmarks.{contestant.module}"]
    command += ["--workload", kind, "--way", contestant.way]
    command += ["--seconds", str(args.seconds), "--result", str(result)]
    if name == "numpy":
        environment = {**environment, **ONE_THREAD}
    ended = _ended(command, environment, log, args.timeout)
    if not result.exists():
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-4:])
        print(f"{kind}, {name}: no result ({ended}).\n  {tail}", flush=True)
        return None
    found = json.loads(result.read_text())
    if kind in WORKLOADS and found["examples"] != examples_a_round(kind):
        print(f"{kind}, {name}: other work, {found['examples']} examples a round.")
        return None
    shown = report.seconds(statistics.median(found["times"]))
    print(f"{kind}, {name}: {shown} (load {found['load']:.1f})", flush=True)
    return found


def _ended(command, environment, log, timeout):
    """Runs a command in a process group of its own, of which nothing is left over."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return f"exit code {process.wait(timeout)}"
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout:.0f} s"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def _summary(runs):
    """One entry of several runs: medians of what each measured."""
    parts = runs[0]["parts"]
    starting = ("import", "datasets", "build", "initialize", "first round")
    return {
        "round": statistics.median(statistics.median(r["times"]) for r in runs),
        "first": statistics.median(
            sum(r["parts"].get(part, 0.0) for part in starting) for r in runs
        ),
        "parts": {
            part: statistics.median(r["parts"][part] for r in runs) for part in parts
        },
        "peak": statistics.median(r["peak"] for r in runs),
        "beyond": statistics.median(r["peak"] - r["data"] for r in runs),
        "load": max(r["load"] for r in runs),
        "version": runs[0].get("version"),
        "loss": runs[0].get("loss"),
    }


if __name__ == "__main__":
    main()
