"""The places where computations run."""

from fedcore.backends import native

__all__ = ["native"]
