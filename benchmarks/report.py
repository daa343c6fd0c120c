"""Markdown tables of what was measured, and how it compares with what was asked."""

import collections

from benchmarks.workloads import WORKLOADS

# `over / under` of a measure: at least `bound`, or at most where `most` is set.
Target = collections.namedtuple("Target", "text over under bound most")


def _times_as_fast(ours, peer, bound, *kinds):
    return [
        Target(
            f"{kind}: {ours}, times as fast as {peer}",
            (kind, peer, "round"),
            (kind, ours, "round"),
            bound,
            False,
        )
        for kind, bound in zip(kinds, bound)
    ]


def _of_the_limit(kind):
    return Target(
        f"{kind}: columnar, times as long as NumPy",
        (kind, "columnar", "round"),
        (kind, "numpy", "round"),
        1.5,
        True,
    )


def _ten_times_the_clients(text, measure, bound):
    return Target(
        f"W2, 10,000 clients against 1000: {text}",
        ("W2-10000", "columnar", measure),
        ("W2-1000", "columnar", measure),
        bound,
        True,
    )


TARGETS = [
    *_times_as_fast("columnar", "FedJAX", [1.8, 2.5, 2.5], "W1", "W2", "W2-1000"),
    *_times_as_fast("columnar", "TFF 0.87", [25, 70], "W1", "W2"),
    _of_the_limit("W1"),
    _of_the_limit("W2"),
    *_times_as_fast("tf.data", "TFF 0.87", [7, 17], "W1", "W2"),
    *_times_as_fast("columnar", "TFF 0.87", [1.6], "W3"),
    *_times_as_fast("columnar", "pfl", [1.3], "W3"),
    *_times_as_fast("hand-written", "TFF 0.87 hand-written", [3.5], "W1"),
    _ten_times_the_clients("time", "round", 10.5),
    _ten_times_the_clients("memory beyond the data", "beyond", 1.1),
    Target(
        "W1: a first round after a fresh start, times as fast as TFF 0.87",
        ("W1", "TFF 0.87", "first"),
        ("W1", "columnar", "first"),
        1.0,
        False,
    ),
]


def seconds(value):
    """A time with three figures and its unit."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s"


def markdown(summary):
    """All tables.

    Args:
        summary: For each kind of work, for each contestant, what was measured.

    Returns:
        Markdown text; a table without an entry is left out.
    """
    tables = [
        _rounds(summary),
        _ratios(summary),
        _starts(summary),
        _others(summary),
    ]
    return "\n\n".join(table for table in tables if table)


def _table(head, rows):
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _contestants(summary, kinds):
    return list(dict.fromkeys(name for kind in kinds for name in summary[kind]))


def _rounds(summary):
    kinds = [kind for kind in WORKLOADS if kind in summary]
    rows = []
    for name in _contestants(summary, kinds):
        cells = [
            seconds(summary[kind][name]["round"]) if name in summary[kind] else ""
            for kind in kinds
        ]
        rows.append([name, *cells])
    loads = [f"{max(e['load'] for e in summary[k].values()):.1f}" for k in kinds]
    if rows:
        rows.append(["(highest load of the machine)", *loads])
    return _table(["median of a round", *kinds], rows)


def _ratios(summary):
    rows = []
    for target in TARGETS:
        over, under = (_measured(summary, place) for place in target[1:3])
        if over is None or under is None:
            continue
        ratio = over / under
        kept = ratio <= target.bound if target.most else ratio >= target.bound
        word = "at most" if target.most else "at least"
        rows.append(
            [
                target.text,
                f"{word} {target.bound:g}",
                f"{ratio:.3g}",
                "yes" if kept else "no",
            ]
        )
    return _table(["ratio", "asked", "measured", "reached"], rows)


def _measured(summary, place):
    kind, name, measure = place
    return summary.get(kind, {}).get(name, {}).get(measure)


def _starts(summary):
    rows = []
    for kind in WORKLOADS:
        for name, entry in summary.get(kind, {}).items():
            parts = entry["parts"]
            if "first round" not in parts:
                continue
            shown = [
                seconds(parts[p]) if p in parts else ""
                for p in ("import", "datasets", "build", "initialize", "first round")
            ]
            peak = f"{entry['peak'] / 2**20:.0f} MB"
            beyond = f"{entry['beyond'] / 2**20:.0f} MB"
            rows.append([kind, name, *shown, seconds(entry["first"]), peak, beyond])
    head = ["", "fresh start", "import", "data sets", "build", "initialize"]
    return _table(
        [*head, "first round", "in all", "peak memory", "beyond the data"], rows
    )


def _others(summary):
    rows = [
        [name, seconds(entry["round"])]
        for kind in ("import", "opening")
        for name, entry in summary.get(kind, {}).items()
    ]
    return _table(["once", "time"], rows)
