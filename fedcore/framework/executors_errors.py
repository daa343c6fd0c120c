"""Errors of running a computation, in the place where TFF's users look for them."""


class CardinalityError(ValueError):
    """The numbers of clients that a call's arguments give do not agree."""


class RetryableError(Exception):
    """A call failed for a reason outside of it: calling again may work.

    The contexts of this machine never raise it. A context of your own, over machines
    that come and go, raises a subclass; the program logic that catches it calls again.
    """


__all__ = ["CardinalityError", "RetryableError"]
