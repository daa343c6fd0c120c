"""What one process measures and writes down: it runs alone, for one contestant.

Nothing is imported here that a peer's interpreter may not have.
"""

import argparse
import json
import os
import resource
import time

WARM_UP = 2
LEAST_ROUNDS, MOST_ROUNDS = 5, 50


def arguments():
    """What the command gives to each contestant's script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--way", default="")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--result", required=True)
    return parser.parse_args()


class Stopwatch:
    """Seconds of named parts: `with watch("import"): ...`."""

    def __init__(self):
        self.parts = {}

    def __call__(self, name):
        self._name = name
        return self

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *_):
        self.parts[self._name] = time.perf_counter() - self._start


def timed_rounds(one_round, seconds):
    """Seconds of each round after the warm-up, for about `seconds` in all."""
    for _ in range(WARM_UP):
        one_round()
    times = []
    begun = time.perf_counter()
    while len(times) < LEAST_ROUNDS or (
        len(times) < MOST_ROUNDS and time.perf_counter() - begun < seconds
    ):
        start = time.perf_counter()
        one_round()
        times.append(time.perf_counter() - start)
    return times


def forget_peak():
    """Memory used so far no longer counts for `peak_bytes`, where Linux allows it."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:  # no Linux, or not permitted
        pass


def peak_bytes():
    """The most memory that this process and its living children have had."""
    own = os.getpid()
    if not os.path.isdir("/proc/self"):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            status = _status(entry.name)
            if int(entry.name) == own or status.get("PPid") == str(own):
                peak += 1024 * int(status.get("VmHWM", "0 kB").split()[0])
    return peak


def _status(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            pairs = (line.split(":", 1) for line in file)
            return {name: value.strip() for name, value in pairs}
    except OSError:  # it has ended
        return {}


def write(path, **found):
    """Leaves the result as JSON, all at once."""
    found["load"] = os.getloadavg()[0]
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(found, file)
    os.replace(path + ".part", path)
