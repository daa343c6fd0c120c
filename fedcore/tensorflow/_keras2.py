"""Keras 2 (`tf_keras`) in a trace: names and seeds as those of Keras 3.

`tf_keras` is never imported here: what it makes can only be in a trace if somebody else
has imported it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

# What Keras 2 does not find at a variable and at a symbolic tensor of Keras 3.
_MISSED_BY_2 = (
    "has no attribute '_unique_id'",
    "'tuple' object has no attribute 'rank'",
)


@contextlib.contextmanager
def keras_2_apart(
    active_root: Callable[[], Any], init_scope_is: Callable[[Any], Any]
) -> Iterator[None]:
    """Gives a trace the names of Keras 2 anew, and its unseeded draws a hidden seed.

    Args:
        active_root: Gives the root graph that this thread is tracing, or None.
        init_scope_is: A scope in which `tf.init_scope()` enters a root graph.
    """
    if "tf_keras" not in sys.modules:
        yield
        return
    backend = importlib.import_module("tf_keras.src.backend")
    optimizers = importlib.import_module("tf_keras.src.optimizers.optimizer")
    _draw_from_the_root(backend.RandomGenerator, active_root)
    _schedule_in_the_root(optimizers._BaseOptimizer, active_root, init_scope_is)
    names = backend.PER_GRAPH_OBJECT_NAME_UIDS
    with tf.init_scope():
        # What is made eagerly is counted here; a root graph counts for itself.
        graphs = (tf.compat.v1.get_default_graph(), backend.get_graph())
    saved = {graph: names.pop(graph, None) for graph in graphs}
    try:
        yield
    finally:
        for graph, counts in saved.items():
            names.pop(graph, None)
            if counts is not None:
                names[graph] = counts


def says_generations_mixed(error: BaseException) -> bool:
    """Whether an error is what Keras says where objects of both generations meet."""
    text = str(error)
    if "tf_keras" not in sys.modules:
        return False
    by_2 = any("tf_keras" in module for module in _modules(error))
    if by_2 and any(missed in text for missed in _MISSED_BY_2):
        return True
    received = text.partition("eceived")[2]
    of_2 = "tf_keras.src." in received
    of_3 = "keras.src." in received.replace("tf_keras.src.", "")
    return (of_2 and not by_2) or (of_3 and by_2)


def _modules(error: BaseException) -> Iterator[str]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next


_patched: weakref.WeakSet[Any] = weakref.WeakSet()


def _draw_from_the_root(generator: Any, active_root: Callable[[], Any]) -> None:
    """Lets Keras 2's random generators draw from the computation's hidden seed.

    Keras 2 bakes a seed drawn in Python into the graph (initial weights), or uses
    operations whose state is the process's (dropout), or a variable outside of any
    graph. What had a seed still follows from it, and starts anew in each run.
    """
    if generator in _patched:
        return
    _patched.add(generator)
    stock_init = generator._maybe_init
    stock_seed = generator.make_seed_for_stateless_op
    # Of each generator first used in a trace: does it repeat itself, as those of
    # initializers do, and did the user give it a seed?
    first: weakref.WeakKeyDictionary[Any, tuple[bool, bool]] = (
        weakref.WeakKeyDictionary()
    )

    def _maybe_init(self: Any) -> None:
        if active_root() is not None and not self._built:
            repeats = self._rng_type == self.RNG_STATELESS
            first[self] = repeats, self._seed is not None
        if self in first and not tf.executing_eagerly() and first[self] != (True, True):
            self._rng_type, self._generator = self.RNG_STATELESS, None
            self._built = True
        stock_init(self)  # layers do so in tf.init_scope() before they draw

    def make_seed_for_stateless_op(self: Any) -> Any:
        self._maybe_init()
        root = active_root()
        repeats, has_seed = first.get(self, (True, True))
        if root is None or tf.executing_eagerly() or (repeats and has_seed):
            return stock_seed(self)
        if repeats:
            return root.seed_of(self)
        return root.seed_for_call([self.make_legacy_seed(), 0] if has_seed else None)

    generator._maybe_init = _maybe_init
    generator.make_seed_for_stateless_op = make_seed_for_stateless_op


def _schedule_in_the_root(
    optimizer: Any,
    active_root: Callable[[], Any],
    init_scope_is: Callable[[Any], Any],
) -> None:
    """Lets Keras 2's optimizers compute a schedule's first rate where their count is."""
    if optimizer in _patched:
        return
    _patched.add(optimizer)
    stock_build = optimizer._build_learning_rate

    def _build_learning_rate(self: Any, learning_rate: Any) -> Any:
        root = active_root()
        if root is None or tf.executing_eagerly():
            return stock_build(self, learning_rate)
        with init_scope_is(root):
            return stock_build(self, learning_rate)

    optimizer._build_learning_rate = _build_learning_rate
