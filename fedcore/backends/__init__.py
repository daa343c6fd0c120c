"""The places where computations run, and the forms in which other systems want them."""

from fedcore.backends import mapreduce, native, test

__all__ = ["mapreduce", "native", "test"]
