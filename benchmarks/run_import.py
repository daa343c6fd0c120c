"""Import time, in a fresh process: ways ours (all three packages), tensorflow."""

from benchmarks import timing

WATCH = timing.Stopwatch()


def main():
    args = timing.arguments()
    with WATCH("import"):
        if args.way == "ours":
            import fedcore  # noqa: F401
            import fedlearn  # noqa: F401
            import fedsim  # noqa: F401
        else:
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
    timing.write(
        args.result,
        times=[WATCH.parts["import"]],
        parts=WATCH.parts,
        peak=timing.peak_bytes(),
        data=0,
        examples=0,
    )


if __name__ == "__main__":
    main()
