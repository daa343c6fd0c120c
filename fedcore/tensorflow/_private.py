"""Every private API of TensorFlow and Keras that tracing needs, each with its reason.

Nothing else in this package imports `tensorflow.python`, `keras.src` or the like: where a
later version moves one of these, it breaks here, at import, and is mended here.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow import image as keras_image
from keras.src.backend.tensorflow import random as keras_random
from keras.src.random import seed_generator
from tensorflow.python.autograph.core import config as autograph_config
from tensorflow.python.autograph.impl import api as autograph_api
from tensorflow.python.autograph.operators import control_flow
from tensorflow.python.data.ops import dataset_ops, iterator_ops, optional_ops
from tensorflow.python.data.util import structure
from tensorflow.python.eager import context, lift_to_graph, record
from tensorflow.python.eager.polymorphic_function import (
    atomic_function,
    autograph_util,
)
from tensorflow.python.framework import (
    func_graph,
    op_def_registry,
    ops,
    type_utils,
)
from tensorflow.python.ops import gen_resource_variable_ops as variable_ops
from tensorflow.python.ops import resource_variable_ops
from tensorflow.python.ops import variables as variables_lib
from tensorflow.python.types import core

from fedcore.tensorflow._keras2 import keras_2_apart

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "fedcore needs Keras on the TensorFlow backend, found "
        f"`{keras.backend.backend()}`.\n"
        'Set the environment variable KERAS_BACKEND="tensorflow" before Keras is imported.'
    )

# The graph of a function under construction. `tf.Graph` will not do: inside one,
# `executing_eagerly_outside_functions()` is False, and then `tensor == 0` silently
# becomes Python's `False`.
FuncGraph = func_graph.FuncGraph

# The class of variables; ours differ only in where their handle is made.
ResourceVariable = resource_variable_ops.ResourceVariable
BaseResourceVariable = resource_variable_ops.BaseResourceVariable
UnliftableError = lift_to_graph.UnliftableError

# The name that marks a resource as anonymous: one for each run, unknown to others.
ANONYMOUS = b"cd2c89b7-88b7-44c8-ad83-06c2a9158347"

_TABLES = [
    "StaticHashTable",
    "StaticVocabularyTable",
    "MutableHashTable",
    "DenseHashTable",
]


class Root(Protocol):
    """What the hooks below ask of the graph that is being traced."""

    def seed_of(self, marker: UnseededInt) -> tf.Tensor: ...

    def next_marker(self) -> int: ...


_thread = threading.local()


def active_root() -> Any:
    """The root graph that this thread is tracing, or None."""
    roots = getattr(_thread, "roots", None)
    return roots[-1] if roots else None


@contextlib.contextmanager
def activate(root: Any) -> Iterator[None]:
    """Makes `root` the graph that the hooks below serve."""
    roots = _thread.__dict__.setdefault("roots", [])
    roots.append(root)
    try:
        yield
    finally:
        roots.pop()


# ---- graphs


def is_eager(value: Any) -> bool:
    """Whether `value` is an eager tensor (`tf.Tensor` is symbolic ones too)."""
    return isinstance(value, core.Value)


def is_symbolic(value: Any) -> bool:
    return isinstance(value, core.Tensor) and not isinstance(value, core.Value)


def default_graph() -> Any:
    return ops.get_default_graph()


def convert_with_autograph(fn: Callable[..., Any]) -> Callable[..., Any]:
    """As `tf.autograph.to_graph`, but with the errors of `tf.function`."""
    return autograph_util.py_func_from_autograph(fn)


def unburied(error: Exception) -> Exception:
    """The error that AutoGraph replaced by one of its own class, or `error` itself.

    AutoGraph makes a user's error anew, with the user's lines in its message, where it
    knows how to; of a class that it cannot make, nothing but the name would be left.
    """
    while type(error) is autograph_api.StagingError:
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, Exception):
            break
        error = cause
    return error


def build(root: Any, body: Callable[[], list[tf.Tensor]]) -> None:
    """Runs `body` in `root` under automatic control dependencies; sets `root.outputs`.

    There is no public way to give `tf.function` a graph class of one's own.
    """
    func_graph.func_graph_from_py_func("computation", body, (), {}, func_graph=root)


@contextlib.contextmanager
def outside_graphs() -> Iterator[None]:
    """The eager context, also inside a graph that is being built.

    `tf.init_scope` will not do: it stops gradient tapes from recording.
    """
    if tf.executing_eagerly():
        yield
        return
    with tf.Graph().as_default(), context.eager_mode():
        yield


@contextlib.contextmanager
def at_root(root: Any) -> Iterator[None]:
    """Adds operations to `root` from anywhere: a loop's body, an inner function."""
    with (
        root.as_default(),
        tf.control_dependencies(None),
        record.stop_recording(),
        ops.colocate_with(None, ignore_existing=True),
    ):
        yield


@contextlib.contextmanager
def init_scope_is(root: Any) -> Iterator[None]:
    """While active, `tf.init_scope()` enters `root`; lookup tables need it.

    Not left on while the user's code runs: see `FuncGraph` above.
    """
    with root.as_default():
        switches = context.context().context_switches
        switches.push(False, root.as_default, root._device_function_stack)
        try:
            yield
        finally:
            switches.pop()


def lift_constant(tensor: tf.Tensor, root: Any) -> tf.Tensor:
    """Copies a constant expression to `root`, or raises `UnliftableError`.

    Some optimizers (Nadam) make the constants they start a variable with inside a loop.
    """
    return lift_to_graph.lift_to_graph([tensor], root)[tensor]


def check_in_scope(graph: Any, tensor: tf.Tensor) -> None:
    """Raises TensorFlow's own error where `tensor` leaks out of an inner graph."""
    graph._validate_in_scope(tensor)


def owner_of(handle: tf.Tensor) -> Any:
    """The variable or table that a resource tensor belongs to, or None."""
    reference = getattr(handle, "_parent_trackable", None)
    return reference() if callable(reference) else None


# ---- variables and tables


def new_handle(shape: tf.TensorShape, dtype: tf.DType, name: str) -> tf.Tensor:
    """A `VarHandleOp` in the current graph, with its shape and dtype recorded."""
    return resource_variable_ops._variable_handle_from_shape_and_dtype(
        shape=shape, dtype=dtype, shared_name=None, name=name, graph_mode=False
    )


def assign(handle: tf.Tensor, value: tf.Tensor) -> None:
    variable_ops.assign_variable_op(handle, value)


def read(handle: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return variable_ops.read_variable_op(handle, dtype)


def is_initialized(handle: tf.Tensor) -> tf.Tensor:
    return variable_ops.var_is_initialized_op(handle)


def name_for(name: str | None) -> Any:
    """The name scope of a variable, as `tf.Variable` opens it."""
    return ops.name_scope(name, "Variable", skip_on_eager=False)


def handle_name(scope: str) -> str:
    return ops.name_from_scope_name(scope)


def unique_number() -> int:
    """A number of the process's own, for the Python name of a variable."""
    return ops.uid()


def check_variable_options(
    synchronization: Any, aggregation: Any, trainable: bool | None, name: str | None
) -> tuple[Any, Any, bool | None]:
    """Fills in defaults of `tf.Variable` and checks them."""
    return variables_lib.validate_synchronization_aggregation_trainable(
        synchronization, aggregation, trainable, name
    )


def table_creator_scope(creator: Callable[..., Any]) -> Any:
    """Lets `creator` make every lookup table; `tf.variable_creator_scope` for tables."""
    return ops.resource_creator_scope(_TABLES, creator)


def called_from_keras() -> bool:
    """Whether Keras makes this variable: it builds layers and slots lazily, in a loop."""
    frame: Any = sys._getframe(2)
    for _ in range(16):
        frame = frame.f_back
        if frame is None:
            return False
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("keras.src.backend", "tf_keras.src.")):
            return True
    return False


def is_repeated(graph: Any, root: Any) -> bool:
    """Whether `graph`, or one around it inside `root`, is the body of a loop."""
    while graph is not None and graph is not root:
        kind = type(graph).__name__
        if kind in ("WhileBodyFuncGraph", "WhileCondFuncGraph"):
            return True
        if "Dataset_" in getattr(graph, "name", ""):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


# ---- running


_register_lock = threading.Lock()


def register_functions(function_defs: Any) -> None:
    """Makes library functions known to the runtime; importing a graph does not.

    Their names are hashes of their content, so a name that is known is the same function.
    """
    runtime = context.context()
    runtime.ensure_initialized()
    with _register_lock:
        for function_def in function_defs:
            if not runtime.has_function(function_def.signature.name):
                runtime.add_function_def(function_def)


def function_def_of(name: str) -> Any:
    """The definition of a registered function, or None."""
    runtime = context.context()
    if not runtime.has_function(name):
        return None
    return runtime.get_function_def(name)


def op_def(name: str) -> Any:
    """What TensorFlow knows of an operation: is it stateful, what goes out; or None."""
    return op_def_registry.get(name)


class Runnable:
    """A finished graph as one function of the runtime, called with the least overhead.

    `tf.function` would add 100 us a call for the same; this adds 10.
    """

    def __init__(self, graph: Any, name: str):
        # One object for one name: the runtime counts references to names.
        self._function = atomic_function.from_func_graph(
            f"{name}_{ops.uid()}", graph, {}
        )
        self._graph = graph
        self._runtime = context.context()
        self._count = len(graph.outputs)

    def __call__(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        return (
            self._runtime.call_function(self._function.name, inputs, self._count) or []
        )


class FlatCall:
    """A concrete function called with a flat list of eager tensors, as `Runnable` is."""

    def __init__(self, concrete: Any):
        self._concrete = concrete  # keeps the function alive
        self._name = concrete._inference_function.name
        self._captured = list(concrete.captured_inputs)
        self._runtime = context.context()
        self._count = len(concrete.outputs)

    def __call__(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        arguments = [*inputs, *self._captured]
        return self._runtime.call_function(self._name, arguments, self._count) or []


# ---- the loop over a dataset


def iterate_datasets_with(
    make_iterator: Callable[[Any], Any], iterator_class: type
) -> None:
    """Makes AutoGraph run `for batch in dataset` over `make_iterator(dataset)`.

    Its own way, `dataset.reduce`, instantiates the loop's body anew in every call: two
    to eight times slower for the loops of a client. Outside our traces nothing changes.
    """
    registry = control_flow.for_loop_registry._registry
    of_dataset = registry[dataset_ops.DatasetV2]

    def for_stmt(iterated: Any, *args: Any, **kwargs: Any) -> Any:
        if active_root() is None or not ops.get_default_graph().building_function:
            return of_dataset(iterated, *args, **kwargs)
        iterator = make_iterator(iterated)
        return control_flow.for_loop_registry.lookup(iterator)(
            iterator, *args, **kwargs
        )

    registry[dataset_ops.DatasetV2] = for_stmt
    registry[iterator_class] = registry[iterator_ops.OwnedIterator]


def reads_variables() -> bool:
    """Whether a dataset made in the graphs being built may read a variable as it runs.

    Then it matters when its elements are made.
    """
    graph = ops.get_default_graph()
    while graph is not None:
        if any(map(_is_dataset_on_a_variable, graph.get_operations())):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def _is_dataset_on_a_variable(op: Any) -> bool:
    return "Dataset" in op.type and any(
        tensor.dtype == tf.resource and tensor.op.type in ("VarHandleOp", "Placeholder")
        for tensor in op.inputs
    )


def unmade_iterator(spec: Any) -> tf.Tensor:
    """The handle of an iterator that is over no dataset yet."""
    handle = tf.raw_ops.AnonymousIteratorV3(
        output_types=structure.get_flat_tensor_types(spec),
        output_shapes=structure.get_flat_tensor_shapes(spec),
    )
    handle.op.experimental_set_type(type_utils.iterator_full_type_from_spec(spec))
    return handle


def make_iterator(dataset: Any, handle: tf.Tensor) -> None:
    tf.raw_ops.MakeIterator(dataset=dataset._variant_tensor, iterator=handle)


def next_as_optional(handle: tf.Tensor, spec: Any) -> tf.Tensor:
    """The variant of an iterator's next element."""
    return tf.raw_ops.IteratorGetNextAsOptional(
        iterator=handle,
        output_types=structure.get_flat_tensor_types(spec),
        output_shapes=structure.get_flat_tensor_shapes(spec),
    )


def optional_of(variant: tf.Tensor, spec: Any) -> Any:
    """The `tf.experimental.Optional` that a variant stands for."""
    return optional_ops._OptionalImpl(variant, spec)


def _leave_own_modules_alone() -> None:
    """Keeps AutoGraph from converting fedcore's machinery where traced code calls it.

    As it does for TensorFlow's and Keras's own modules; the rules have no public door.
    """
    machinery = (
        "attr",
        "attrs",
        "fedcore._containers",
        "fedcore.computation",
        "fedcore.context",
        "fedcore.ir",
        "fedcore.structure",
        "fedcore.tensorflow",
        "fedcore.types",
    )
    leave_unconverted(*machinery)


def leave_unconverted(*modules: str) -> None:
    """Keeps AutoGraph from converting the functions of modules, and what those call."""
    autograph_config.CONVERSION_RULES = (
        *(autograph_config.DoNotConvert(module) for module in modules),
        *autograph_config.CONVERSION_RULES,
    )


# ---- Keras: its global state and its seeds


@contextlib.contextmanager
def keras_globals_apart() -> Iterator[None]:
    """Gives a trace Keras's global state of its own and restores the old one.

    The counters that name layers decide the bytes, and the global seed generator is a
    variable of the graph. A scope open around a nested trace must not reach into it.
    """
    fresh = {
        "object_name_uids": collections.defaultdict(int),
        "global_seed_generator": None,
        "stateless_scope": None,
        "symbolic_scope": None,
        "autocast_scope": None,
        "name_scope_stack": None,
        "current_call_ctx": None,
    }
    saved = {name: global_state.get_global_attribute(name) for name in fresh}
    _set_keras_globals(fresh)
    try:
        with keras_2_apart(active_root, init_scope_is):
            yield
    finally:
        _set_keras_globals(saved)


def _set_keras_globals(values: dict[str, Any]) -> None:
    for name, value in values.items():
        global_state.set_global_attribute(name, value)


class UnseededInt(int):
    """A seed that Keras chose because the user gave none.

    Keras takes it for the integer that it is; in a trace it stands for a draw from the
    computation's hidden seed, one draw for each object.
    """

    def __copy__(self) -> UnseededInt:
        return self

    def __deepcopy__(self, memo: Any) -> UnseededInt:
        del memo
        return self

    def __reduce__(self) -> Any:
        return int, (int(self),)


def unseeded(initial_value: Any) -> UnseededInt | None:
    """The seed behind the state of an unseeded `keras.random.SeedGenerator`, or None.

    Keras gives `tf.Variable` a closure over `initializer`, here the seed generator's own,
    which is a closure over `seed`.
    """
    initializer = _closure(initial_value).get("initializer")
    seed = _closure(initializer).get("seed")
    return seed if isinstance(seed, UnseededInt) else None


def _closure(fn: Any) -> dict[str, Any]:
    code, cells = getattr(fn, "__code__", None), getattr(fn, "__closure__", None)
    if code is None or not cells:
        return {}
    values = {}
    for name, cell in zip(code.co_freevars, cells):
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            values[name] = cell.cell_contents
    return values


def _draw_unseeded_at_run_time() -> None:
    """Makes unseeded Keras randomness fresh in each run of a computation.

    Keras draws the missing seed in Python: once, when the graph is made, so that every
    run would repeat its dropout masks and initial weights. Outside a trace nothing
    changes but the class of that seed.
    """
    python_seed = seed_generator.make_default_seed
    stock_draw_seed = seed_generator.draw_seed

    def make_default_seed() -> UnseededInt:
        root = active_root()
        # A trace leaves Python's own random state alone.
        return UnseededInt(python_seed() if root is None else root.next_marker())

    def draw_seed(seed: Any) -> Any:
        root = active_root()
        if (
            root is not None
            and isinstance(seed, UnseededInt)
            and not tf.executing_eagerly()
        ):
            return root.seed_of(seed)
        return stock_draw_seed(seed)

    for module in (seed_generator, keras_random):
        _replace(module, "make_default_seed", make_default_seed)
    for module in (seed_generator, keras_random, keras_image):
        _replace(module, "draw_seed", draw_seed)


def _replace(module: Any, name: str, value: Any) -> None:
    getattr(module, name)  # a later Keras may not have it: then fail, do not go on
    setattr(module, name, value)


_leave_own_modules_alone()
_draw_unseeded_at_run_time()
