"""How fast rounds are, beside other frameworks: `python -m benchmarks.rounds`."""
