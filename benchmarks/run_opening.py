"""Opening real EMNIST: ways unpacked (the SQLite file is there), columns (them too).

The time from `load_data` to the first client's examples in columns. `columns` must run
after `unpacked`, in the same `EMNIST_CACHE`.
"""

import os
import shutil

from benchmarks import timing

WATCH = timing.Stopwatch()


def main():
    args = timing.arguments()
    cache = os.environ["EMNIST_CACHE"]
    if args.way == "unpacked":
        shutil.rmtree(os.path.join(cache, "emnist_all.sqlite.columns"), True)
    with WATCH("import"):
        from fedsim.datasets import emnist

    if args.way == "unpacked":
        emnist.load_data(only_digits=False, cache_dir=cache)
    with WATCH("open"):
        train, _ = emnist.load_data(only_digits=False, cache_dir=cache)
        first = train.client(train.client_ids[0])
        examples = sum(1 for _ in first.as_numpy_iterator())
    timing.write(
        args.result,
        times=[WATCH.parts["open"]],
        parts=WATCH.parts,
        peak=timing.peak_bytes(),
        data=first.columns.num_rows * (28 * 28 * 4 + 4),
        examples=examples,
    )


if __name__ == "__main__":
    main()
