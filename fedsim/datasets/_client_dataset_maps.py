"""Functions given to `map` and `filter`: traced once, shared between clients.

A tutorial's `preprocess(dataset)` makes its `batch_format_fn` anew for every client.
Two such functions share one trace if nothing that they can read differs:

- the same code: code objects compare by their bytecode, constants and position;
- equal defaults, closure cells, and globals named in the code (nested functions, and
  the functions among those values, are compared by this same rule);
- numbers, strings, tuples, dtypes and other immutable values compare by type and value;
  lists, sets, dicts and NumPy arrays by their content now, so that a later change gives
  another trace, as tf.data would; plain attributes of an object, and of a module where
  the code names them, likewise; all else (tensors, variables, layers) by identity.

The element's spec belongs to the key. Entries live as long as a dataset uses them. What
a function changes itself while it is traced does not make it another one: its Python
side effects happen once for all clients.
"""

import collections
import functools
import hashlib
import threading
import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

_IMMUTABLE = frozenset({type(None), bool, int, str, bytes, type(Ellipsis)})
_BY_TEXT = (tf.DType, tf.TensorShape, tf.TensorSpec, np.dtype, complex)
# Reading these twice gives the same value: a row's image does not depend on the epoch.
# Ops that TensorFlow calls stateful although they read and change nothing.
_PURE_OPS = frozenset(
    {"Assert", "PartitionedCall", "StatefulPartitionedCall", "If", "While", "Case"}
)
# Reading these again gives the same, unless somebody writes to them in between.
_REPEATABLE_OPS = _PURE_OPS | {
    "ReadVariableOp",
    "ResourceGather",
    "LookupTableFindV2",
    "LookupTableSizeV2",
    "PrintV2",
}


@attrs.frozen(eq=False, repr=False)
class MapFn:
    """A function on elements, traced for one element spec.

    Attributes:
        fn: The Python function.
        input_spec: The element it takes, a nest of `tf.TypeSpec`.
        element_spec: The element it gives.
        key: Equal for functions that share a trace.
        name: For messages.
        pure: Whether it reads nothing but its argument and constants.
        repeatable: Whether it gives the same each time it is run.
    """

    fn: Callable[..., Any]
    input_spec: Any
    element_spec: Any
    key: Hashable
    name: str
    pure: bool
    repeatable: bool
    _graph: Any
    _by_row: dict[tuple["MapFn", ...], Any] = attrs.field(factory=dict, init=False)

    def __call__(self, element: Any) -> Any:
        """Runs the function, eagerly or inside a graph being built."""
        flat = self._graph(*tf.nest.flatten(element, expand_composites=True))
        return tf.nest.pack_sequence_as(self.element_spec, flat, expand_composites=True)

    def on_components(self, *components: Any) -> Any:
        """Runs the function as tf.data calls it: a tuple's components are arguments."""
        return self(components if type(self.input_spec) is tuple else components[0])

    def __repr__(self) -> str:
        return f"MapFn({self.name}: {self.input_spec} -> {self.element_spec})"


_lock = threading.RLock()
_traced: "weakref.WeakValueDictionary[Hashable, MapFn]" = weakref.WeakValueDictionary()


def map_fn(fn: Callable[..., Any], input_spec: Any) -> MapFn:
    """The function traced for elements of `input_spec`, shared where it can be."""
    flat = tuple(tf.nest.flatten(input_spec))
    spec_key = (_structure_key(input_spec), flat)
    with _lock:
        key = (function_key(fn), spec_key)
        found = _traced.get(key)
        if found is None:
            found = _traced[key] = _trace(fn, input_spec, key)
            # What tracing itself changed (a counter, a memo) makes no other function.
            _traced[function_key(fn), spec_key] = found
        return found


def by_row(functions: tuple[MapFn, ...], rows: Any) -> Any:
    """Applies functions, row by row, to a nest of arrays of at least one row."""
    memo = functions[-1]._by_row
    if functions not in memo:
        memo[functions] = _by_row_graph(functions)
    return memo[functions](rows)


def _by_row_graph(functions: tuple[MapFn, ...]) -> Callable[[Any], Any]:
    @tf.function(autograph=False, input_signature=[_rows_spec(functions[0].input_spec)])
    def apply(rows):
        dataset = tf.data.Dataset.from_tensor_slices(rows)
        for fn in functions:
            dataset = dataset.map(fn.on_components)
        count = tf.shape(tf.nest.flatten(rows)[0], out_type=tf.int64)[0]
        return dataset.batch(count).get_single_element()

    return apply


def _rows_spec(spec: Any) -> Any:
    return tf.nest.map_structure(
        lambda s: tf.TensorSpec([None, *s.shape], s.dtype), spec
    )


def _trace(fn: Callable[..., Any], input_spec: Any, key: Hashable) -> MapFn:
    output = []

    def flat_fn(*flat):
        element = tf.nest.pack_sequence_as(input_spec, flat, expand_composites=True)
        # As tf.data: a tuple's components are the arguments, anything else is one.
        result = fn(*element) if type(element) is tuple else fn(element)
        result = _element(tuple(result) if isinstance(result, list) else result)
        output.append(tf.nest.map_structure(tf.type_spec_from_value, result))
        return tf.nest.flatten(result, expand_composites=True)

    specs = tf.nest.flatten(input_spec, expand_composites=True)
    with tf.init_scope():
        graph = tf.function(flat_fn).get_concrete_function(*specs)
    used = _stateful_ops(graph.graph)
    return MapFn(
        fn,
        input_spec,
        output[-1],
        key,
        _name(fn),
        pure=used <= _PURE_OPS,
        repeatable=used <= _REPEATABLE_OPS,
        graph=graph,
    )


def _element(value: Any) -> Any:
    """What a function returned as tf.data takes it: nested lists are tensors."""
    if isinstance(value, collections.abc.Mapping):
        pairs = [(name, _element(item)) for name, item in value.items()]
        if isinstance(value, collections.defaultdict):
            return type(value)(value.default_factory, pairs)
        return type(value)(pairs)
    if isinstance(value, tuple):
        items = [_element(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if attrs.has(type(value)) and not isinstance(value, tf.Variable):
        return attrs.evolve(
            value,
            **{
                f.alias: _element(getattr(value, f.name))
                for f in attrs.fields(type(value))
            },
        )
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor, tf.data.Dataset)):
        return value
    return tf.convert_to_tensor(value)


def _stateful_ops(graph: Any) -> frozenset[str]:
    """The types of the stateful ops of a graph and of the functions it calls."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    bodies = [definition.node, *(function.node_def for function in functions)]
    ops = {node.op for body in bodies for node in body}
    ops -= {function.signature.name for function in functions}
    return frozenset(op for op in ops if graph.op_def_for_type(op).is_stateful)


def _name(fn: Any) -> str:
    if isinstance(fn, functools.partial):
        return _name(fn.func)
    return getattr(fn, "__name__", type(fn).__name__)


class _Same:
    """Compares by identity; keeps the object, so that its id is not used again."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def function_key(fn: Any) -> Hashable:
    """Equal for two functions if this module's rule lets them share a trace."""
    return _key(fn, ())


def _key(value: Any, seen: tuple[int, ...]) -> Hashable:
    kind = type(value)
    if kind in _IMMUTABLE:
        return kind, value
    if kind is float:  # 0.0 == -0.0, and NaN != NaN
        return kind, value.hex()
    if isinstance(value, _BY_TEXT):
        return kind, repr(value)
    if isinstance(value, np.generic):
        return kind, str(value.dtype), value.tobytes()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest = hashlib.sha256(np.ascontiguousarray(value)).digest()
        return kind, str(value.dtype), value.shape, digest
    if isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType)):
        return _Same(value)
    if isinstance(value, (tf.Tensor, tf.Variable)):
        return _Same(value)
    if id(value) in seen:  # a function that calls itself, a list that holds itself
        return "again", seen.index(id(value))
    seen = (*seen, id(value))
    if isinstance(value, (list, tuple)):
        return kind, _items_key(value, seen)
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(_key(item, seen) for item in value)
    if isinstance(value, dict):
        return kind, _items_key(value, seen), _items_key(value.values(), seen)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return kind, tuple(_key(part, seen) for part in parts)
    if isinstance(value, types.MethodType):
        return kind, _key(value.__self__, seen), _key(value.__func__, seen)
    if isinstance(value, types.FunctionType):
        return _python_function_key(value, seen)
    return _Same(value), _attributes_key(value, seen)


def _items_key(items: Any, seen: tuple[int, ...]) -> Hashable:
    kinds = set(map(type, items))
    if len(kinds) == 1 and kinds <= _IMMUTABLE:  # long vocabularies are common
        return kinds.pop(), tuple(items)
    return tuple(_key(item, seen) for item in items)


def _python_function_key(fn: types.FunctionType, seen: tuple[int, ...]) -> Hashable:
    names = _names(fn.__code__)
    cells = tuple(
        _cell_key(cell, names, seen) for cell in getattr(fn, "__closure__", None) or ()
    )
    read = tuple(
        (name, _read_key(fn.__globals__[name], names, seen))
        for name in names
        if name in fn.__globals__
    )
    defaults = (fn.__defaults__, fn.__kwdefaults__)
    return fn.__code__, cells, read, tuple(_key(value, seen) for value in defaults)


def _cell_key(cell: Any, names: tuple[str, ...], seen: tuple[int, ...]) -> Hashable:
    try:
        return _read_key(cell.cell_contents, names, seen)
    except ValueError:  # a name that is not bound yet
        return "unbound"


def _read_key(value: Any, names: tuple[str, ...], seen: tuple[int, ...]) -> Hashable:
    """A module counts with the plain values that the code may read from it."""
    if not isinstance(value, types.ModuleType):
        return _key(value, seen)
    own = vars(value)
    return _Same(value), tuple(
        (name, _plain_key(own[name], seen)) for name in names if name in own
    )


def _attributes_key(value: Any, seen: tuple[int, ...]) -> Hashable:
    """The plain attributes of an object: not a walk through a whole model."""
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict):
        return None
    return tuple(
        (name, _plain_key(item, seen)) for name, item in list(attributes.items())
    )


def _plain_key(value: Any, seen: tuple[int, ...]) -> Hashable:
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        simple = _IMMUTABLE | {float}
        items = value.values() if isinstance(value, dict) else value
        return _key(value, seen) if set(map(type, items)) <= simple else _Same(value)
    if type(value) in _IMMUTABLE or isinstance(value, (float, np.generic, np.ndarray)):
        return _key(value, seen)
    return _Same(value)


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The global and attribute names in a function's code and in those inside it."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_names(constant)))
    return tuple(names)


def _structure_key(spec: Any) -> Hashable:
    if isinstance(spec, collections.abc.Mapping):
        return type(spec), tuple((k, _structure_key(v)) for k, v in spec.items())
    if isinstance(spec, tuple):
        return type(spec), tuple(map(_structure_key, spec))
    return None
