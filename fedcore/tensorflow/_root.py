"""The graph of one computation: owns no captures, freezes constants, hides the seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fedcore.tensorflow import _private

_MAX_SEED = 2**31 - 2


class TracingError(Exception):
    """A function cannot become a self-contained graph.

    Derived from `Exception` and made from one string on purpose: TensorFlow rewrites
    TypeError and ValueError on their way out, and AutoGraph and Keras make the error
    anew from its class and one message.
    """


class RootGraph(_private.FuncGraph):
    """The graph a computation is traced into; its outer context stays eager.

    Eager tensors that the function closes over become constants, what holds state is
    refused: the result is self-contained.
    """

    def __init__(self, name: str):
        self.fn_name = name
        self.first_error: TracingError | None = None
        self.seed_input: tf.Tensor | None = None
        # Tables that Keras makes eagerly (StringLookup), by the id of their handle.
        self.eager_tables: dict[int, Any] = {}
        # Each entry keeps its key's object alive, so that the id stays its own.
        self._frozen: dict[int, tuple[Any, tf.Tensor]] = {}
        self._seeds: dict[int, tuple[Any, tf.Tensor]] = {}
        self._draws = 0
        self._markers = 0
        super().__init__(name)

    def fail(self, message: str) -> TracingError:
        """The error to raise; the first is kept, since others may bury it."""
        error = TracingError(message)
        if self.first_error is None:
            self.first_error = error
        return error

    # ---- captures

    def capture(self, tensor: tf.Tensor, name: Any = None, shape: Any = None) -> Any:
        del name, shape
        if _private.is_eager(tensor):
            if id(tensor) not in self._frozen:
                self._frozen[id(tensor)] = (tensor, self._freeze(tensor))
            return self._frozen[id(tensor)][1]
        if tensor.graph is self:
            return tensor
        graph = tensor.graph
        if isinstance(graph, _private.FuncGraph) and not isinstance(graph, RootGraph):
            _private.check_in_scope(self, tensor)
        raise self.fail(
            f"`{self.fn_name}` uses the tensor {tensor.name!r} of another computation, "
            "which was traced on its own.\n"
            "A model, layer, optimizer or metric built in one computation cannot be used "
            "in another: build it again inside this function."
        )

    def _freeze(self, tensor: tf.Tensor) -> tf.Tensor:
        if id(tensor) in self.eager_tables:
            return self._freeze_table(self.eager_tables[id(tensor)])
        if tensor.dtype == tf.resource:
            raise self.fail(
                f"`{self.fn_name}` captures {_describe_resource(tensor)}, which was "
                "created outside of it; a computation is a pure function.\n"
                "Build models, optimizers, metrics, variables and lookup tables inside "
                "that function, or in one that it calls (such as a `model_fn`), and pass "
                "values in as arguments."
            )
        if tensor.dtype == tf.variant:
            raise self.fail(
                f"`{self.fn_name}` captures a tf.data.Dataset (or another variant) that "
                "was created outside of it.\n"
                "Pass it in as an argument of a SequenceType."
            )
        with _private.at_root(self):
            return tf.constant(tensor.numpy(), dtype=tensor.dtype)

    def _freeze_table(self, table: Any) -> tf.Tensor:
        """Copies the content of an eagerly made table, which never changes, in."""
        with tf.init_scope():
            keys, values = table.export()
            keys, values = keys.numpy(), values.numpy()
        order = np.argsort(keys)  # a table exports its content in any order
        keys, values = keys[order], values[order]
        with _private.at_root(self):
            handle = tf.raw_ops.AnonymousHashTable(
                key_dtype=_table_dtype(keys), value_dtype=_table_dtype(values)
            )
            tf.raw_ops.LookupTableImportV2(
                table_handle=handle, keys=keys, values=values
            )
        return handle

    # ---- randomness

    def next_marker(self) -> int:
        """A Python seed for Keras: a number of its own in each trace, in order."""
        self._markers += 1
        return self._markers

    def seed_of(self, marker: Any) -> tf.Tensor:
        """The seed, `int32[2]`, that stands for one seed that the user left out."""
        if id(marker) not in self._seeds:
            with _private.at_root(self):
                drawn = tf.random.stateless_uniform(
                    [1],
                    seed=self._next_draw(),
                    minval=1,
                    maxval=_MAX_SEED,
                    dtype=tf.int32,
                    alg="philox",
                )
                seed = tf.concat([drawn, tf.zeros([1], tf.int32)], 0)
            self._seeds[id(marker)] = (marker, seed)
        return self._seeds[id(marker)][1]

    def seed_for_call(self, given: Any = None) -> tf.Tensor:
        """A fresh hidden seed for a computation that is called inside this one.

        Args:
            given: What it follows from, if not from the hidden seed: two integers.
        """
        runs_once = _private.default_graph() is self
        with _private.at_root(self):
            seed = self._next_draw() if given is None else tf.constant(given, tf.int32)
            if runs_once:
                return seed
            calls = tf.Variable(lambda: 0, trainable=False, name="calls")
        # In a loop or an inner function one call in the text is many calls in a run.
        return _fold(seed, calls.assign_add(1))

    def _next_draw(self) -> tf.Tensor:
        if self.seed_input is None:
            self.seed_input = tf.compat.v1.placeholder(tf.int32, [2], name="seed")
        self._draws += 1
        return _fold(self.seed_input, self._draws - 1)


def _fold(seed: tf.Tensor, number: Any) -> tf.Tensor:
    # Philox by name: the default algorithm differs between devices and under XLA.
    return tf.random.experimental.stateless_fold_in(seed, number, alg="philox")


def _table_dtype(array: Any) -> Any:
    return tf.string if array.dtype == object else array.dtype


def _describe_resource(handle: tf.Tensor) -> str:
    owner = _private.owner_of(handle)
    if owner is None:
        return "a resource (a variable, table, iterator or random generator)"
    name = getattr(owner, "name", None)
    kind = "tf.Variable" if isinstance(owner, tf.Variable) else type(owner).__name__
    return f"the {kind} {name!r}" if name else f"a {kind}"
