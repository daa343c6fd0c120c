"""Tracing: a Python function with TensorFlow and Keras code becomes graph bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from fedcore.computation import ComputationReturnedNoneError, Unpack, describe
from fedcore.context import use
from fedcore.tensorflow import _dataset_loop, _private, _values
from fedcore.tensorflow._context import TracingContext
from fedcore.tensorflow._graph import Unpacked, pack
from fedcore.tensorflow._keras2 import says_generations_mixed
from fedcore.tensorflow._ops import PYTHON_OPS, op_names
from fedcore.tensorflow._root import RootGraph, TracingError
from fedcore.tensorflow._variables import local_state
from fedcore.types import FunctionType, StructType, Type

# Enough of a message to recognise it in what TensorFlow, AutoGraph or Keras made of it.
_RECOGNISED = 60

NewInput = Callable[[tf.DType, tf.TensorShape], tf.Tensor]

_dataset_loop.drain_in_loops()


def trace(
    fn: Callable[..., Any],
    parameter_type: Type | None = None,
    unpack: Unpack | None = None,
    name: str | None = None,
) -> tuple[bytes, FunctionType]:
    """Runs `fn` once on symbolic values and keeps what it did.

    Args:
        fn: Python code with TensorFlow and Keras; AutoGraph converts it.
        parameter_type: The type of its argument, or None for no argument.
        unpack: How a structure is handed to the arguments of `fn`; None: as one.
        name: What to call `fn` in messages.

    Returns:
        The graph's bytes, the same for two traces of one function, and the type of the
        function, with the Python containers that `fn` returned.

    Raises:
        TracingError: If `fn` depends on state outside of it, or on Python at run time.
        ComputationReturnedNoneError: If `fn` returns None.
        TypeError: If the parameter or the result is not made of tensors and datasets.
    """
    name = name or describe(fn)[0]
    for _ in _values.leaves(parameter_type):  # refuse functions and placements first
        continue
    results: list[_values.Result] = []

    def body(new_input: NewInput) -> list[tf.Tensor]:
        result = _call(fn, parameter_type, unpack, new_input)
        if result is None:
            raise ComputationReturnedNoneError(fn)
        results.append(_values.flatten(result))
        return results[0].flat

    return build(name, body), FunctionType(parameter_type, results[0].type)


def build(name: str, body: Callable[[NewInput], list[tf.Tensor]]) -> bytes:
    """The bytes of the graph that `body` makes: new inputs go in, its results come out."""
    inputs: list[tf.Tensor] = []

    def new_input(dtype: tf.DType, shape: tf.TensorShape) -> tf.Tensor:
        tensor = tf.compat.v1.placeholder(dtype, shape, name=f"arg_{len(inputs)}")
        inputs.append(tensor)
        return tensor

    with _private.outside_graphs():  # a trace inside another is apart from it
        root = RootGraph(name)

        def in_root() -> list[tf.Tensor]:
            with local_state(root), use(TracingContext(name)):
                return body(new_input)

        _run(root, in_root)
    graph_def = root.as_graph_def(add_shapes=False)
    _refuse_python_ops(name, graph_def)
    seed = None if root.seed_input is None else root.seed_input.name
    input_names = tuple(tensor.name for tensor in inputs)
    output_names = tuple(tensor.name for tensor in root.outputs)
    return pack(Unpacked(graph_def, input_names, output_names, seed))


def _refuse_python_ops(name: str, graph_def: graph_pb2.GraphDef) -> None:
    python_ops = sorted(op_names(graph_def) & PYTHON_OPS)
    if python_ops:
        raise TracingError(
            f"`{name}` needs TensorFlow operations alone, found Python code to call when "
            f"it runs: `tf.py_function` or `tf.numpy_function` ({python_ops[0]}).\n"
            "Write that part with TensorFlow operations."
        )


def _call(
    fn: Callable[..., Any],
    parameter_type: Type | None,
    unpack: Unpack | None,
    new_input: NewInput,
) -> Any:
    converted = _private.convert_with_autograph(fn)
    if parameter_type is None:
        return converted()
    if unpack is None:
        return converted(_values.argument(parameter_type, new_input))
    assert isinstance(parameter_type, StructType)
    elements = [_values.argument(element, new_input) for element in parameter_type]
    return unpack.call(converted, elements)


def _run(root: RootGraph, body: Callable[[], list[tf.Tensor]]) -> None:
    with _private.keras_globals_apart(), _private.activate(root):
        try:
            _private.build(root, body)
        except Exception as error:
            first = root.first_error
            if first is not None and str(first)[:_RECOGNISED] in str(error):
                raise first from (None if first is error else error)
            raise _advised(_private.unburied(error), root.fn_name) from None


def _advised(error: Exception, name: str) -> Exception:
    """The error itself, or one that says what to do where a value was wanted."""
    if says_generations_mixed(error):
        return TypeError(
            f"`{name}` needs objects of one Keras, found some of keras (Keras 3) and of "
            "tf_keras (Keras 2) together.\n"
            "Make model, layers, optimizer and metrics with `keras`, or all of them with "
            f"`tf_keras`.\n{error}"
        )
    wants_value = (
        isinstance(error, NotImplementedError) and "a symbolic" in str(error)
    ) or (isinstance(error, AttributeError) and "SymbolicTensor" in str(error))
    if not wants_value:
        return error
    return TracingError(
        f"`{name}` needs TensorFlow operations alone, found NumPy or Python code that "
        "wants the value of a tensor while there is none: the function is traced.\n"
        "Use the TensorFlow function of that name; to look at values, call it in "
        f"`with fedsim.debug():` after it is traced.\n{error}"
    )
