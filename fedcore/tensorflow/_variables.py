"""Variables and lookup tables that live and die with one run of a computation."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from fedcore.tensorflow import _private
from fedcore.tensorflow._root import RootGraph


class LocalVariable(_private.ResourceVariable):
    """A variable whose handle is an anonymous node of the root graph.

    It is initialised in line, wherever it is made, so that every run starts fresh and
    runs at the same time do not meet.
    """

    def __init__(
        self,
        initial_value: Any,
        root: RootGraph,
        *,
        trainable: bool | None = None,
        name: str | None = None,
        dtype: Any = None,
        shape: Any = None,
        constraint: Any = None,
        validate_shape: bool = True,
        synchronization: Any = None,
        aggregation: Any = None,
        **_options: Any,
    ):
        if initial_value is None:
            raise root.fail("`tf.Variable` needs an `initial_value`, found None.")
        synchronization, aggregation, trainable = _private.check_variable_options(
            synchronization, aggregation, trainable, name
        )
        made_in = _private.default_graph()
        with _private.at_root(root), _private.name_for(name) as scope:
            with tf.name_scope("Initializer"), tf.device(None):
                start, value_graph = _initial_value(initial_value, root, made_in, name)
                if value_graph is root:
                    start = tf.convert_to_tensor(start, dtype, name="initial_value")
            shape = start.shape if shape is None else tf.TensorShape(shape)
            dtype = tf.as_dtype(start.dtype if dtype is None else dtype).base_dtype
            handle = _private.new_handle(shape, dtype, scope)
            handle_name = _private.handle_name(scope)
            handle._name = f"{handle_name}:0"
            handle._unique_id = f"{handle_name}_{_private.unique_number()}"
            if value_graph is root:
                _private.assign(handle, start)
            _private.BaseResourceVariable.__init__(
                self,
                trainable=trainable,
                shape=shape,
                dtype=dtype,
                handle=handle,
                constraint=constraint,
                synchronization=synchronization,
                aggregation=aggregation,
                name=scope,
                unique_id=handle._unique_id,
                handle_name=handle_name,
                in_graph_mode=False,
                validate_shape=validate_shape,
            )
            handle._parent_trackable = weakref.ref(self)
        if value_graph is not root:
            self._initialise_where_the_value_is(start, value_graph, root)

    def _initialise_where_the_value_is(
        self, start: tf.Tensor, graph: Any, root: RootGraph
    ) -> None:
        if _private.is_repeated(graph, root):
            # As in Python: a new variable, hence its initial value, in each iteration.
            _private.assign(self.handle, start)
            return

        def initialise() -> tf.Tensor:
            _private.assign(self.handle, start)
            return tf.constant(True)

        # An inner tf.function keeps the variable it made in its first call.
        tf.cond(
            _private.is_initialized(self.handle), lambda: tf.constant(False), initialise
        )


def _initial_value(
    value: Any, root: RootGraph, made_in: Any, name: str | None
) -> tuple[Any, Any]:
    """The initial value and the graph to assign it in; called with `root` current."""
    literal = not _private.is_symbolic(value)
    if literal:
        _refuse_in_loop(made_in, root, name)
    tensor = value() if callable(value) else value
    graph = getattr(tensor, "graph", root) if _private.is_symbolic(tensor) else root
    if graph is root:
        return tensor, root
    try:
        lifted = _private.lift_constant(tensor, root)
    except _private.UnliftableError:
        return tensor, graph  # it depends on the inner graph's own inputs
    _refuse_in_loop(graph, root, name)
    return lifted, root


def _refuse_in_loop(graph: Any, root: RootGraph, name: str | None) -> None:
    if _private.is_repeated(graph, root) and not _private.called_from_keras():
        raise root.fail(
            f"`{root.fn_name}` creates the tf.Variable {name or 'Variable'!r} inside a "
            "loop, with the same initial value in each iteration.\n"
            "Create it before the loop; or compute its initial value from what the loop "
            "changes, to have a new variable in each iteration."
        )


@contextlib.contextmanager
def local_state(root: RootGraph) -> Iterator[None]:
    """Variables and tables made in this scope belong to a run of `root`."""

    def make_variable(_next_creator: Callable[..., Any], **options: Any) -> Any:
        marker = _private.unseeded(options["initial_value"])
        if marker is not None:
            dtype = options.get("dtype") or tf.int64
            options["initial_value"] = lambda: tf.cast(root.seed_of(marker), dtype)
        return LocalVariable(root=root, **options)

    def make_table(next_creator: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if tf.executing_eagerly():  # Keras makes its tables in tf.init_scope()
            table = next_creator(*args, **options)
            root.eager_tables[id(table.resource_handle)] = table
            return table
        with _private.init_scope_is(root):
            return next_creator(*args, **options)

    with (
        tf.variable_creator_scope(make_variable),
        _private.table_creator_scope(make_table),
    ):
        yield
