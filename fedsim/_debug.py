"""Debug mode: Python functions run as they are, one client at a time."""

from __future__ import annotations

import contextlib
import functools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

import fedcore.context
from fedcore import ir, structure
from fedcore._users_line import users_line
from fedcore.context import ContextError, SyncContext
from fedcore.tensorflow._python import Python
from fedcore.types import FunctionType, SequenceType, StructType, Type
from fedsim.runtime import ClientError, ReferenceContext
from fedsim.runtime._reference import Reference
from fedsim.runtime._seeds import fold
from fedsim.runtime._values import from_python, in_containers, to_dataset


@contextlib.contextmanager
def debug(
    *, seed: int | None = None, default_num_clients: int = 0
) -> Iterator[DebugContext]:
    """Runs computations called in the `with` block as plain Python.

    Each `tf_computation` runs its Python function on eager tensors, one client after
    another in the caller's thread: `print`, `breakpoint()` and `.numpy()` work in it,
    also inside `tf.function`s, and an error shows the user's own line. What a
    `tf.data.Dataset` maps is still run by tf.data. Slow; the results are those of other
    contexts up to rounding, but unseeded draws of Keras are others. While the block runs,
    `tf.function`s run eagerly in the whole process.

    Args:
        seed: The root of unseeded draws; drawn afresh if None.
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.

    Yields:
        The context.
    """
    context = DebugContext(seed=seed, default_num_clients=default_num_clients)
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with fedcore.context.use(context), warnings.catch_warnings():
            # TensorFlow says so for each dataset; the docstring says it once.
            warnings.filterwarnings("ignore", message=".*does not apply to tf.data.*")
            yield context
    finally:
        tf.config.run_functions_eagerly(before)


class DebugContext(ReferenceContext):
    """Runs calls on the reference runtime, graphs as the Python they were traced from.

    Args:
        default_num_clients: How many clients a computation has whose arguments do not
            say it.
        seed: The root of unseeded draws; drawn afresh if None.
    """

    def _reference(self, name: str, clients: int, seed: int) -> Reference:
        return PythonReference(name, clients, seed)


class PythonReference(Reference):
    """Interprets a call; with `eager`, graphs run as Python where that is known."""

    def __init__(self, name: str, clients: int, seed: int, *, eager: bool = True):
        super().__init__(name, clients, seed)
        self.eager = eager

    def _evaluate(self, node: ir.Node, env: dict[str, Any]) -> Any:
        run = super()._evaluate(node, env)
        if not isinstance(node, ir.Compiled) or node.python is None:
            return run
        return functools.partial(self._run_python, node.python, node.type, run)

    def _run_python(
        self,
        python: Python,
        type_: FunctionType,
        run_graph: Callable[[Any], Any],
        argument: Any,
    ) -> Any:
        if not self.eager:
            return run_graph(argument)
        given = None
        if type_.parameter is not None:
            given = _as_given(argument, type_.parameter, python.unpack is not None)
        seed = fold(self._seed, self._place, self._iteration)
        with _seeded(seed), fedcore.context.use(_Inside(self)):
            result = python.call(given, type_.parameter)
        try:
            return from_python(result, type_.result)
        except TypeError as error:
            raise TypeError(
                f"`{python.name}` ({python.source}) returned another value than when it "
                f"was traced: {error}"
            ) from error

    def _failed(self, uri: str, client: int, error: Exception) -> ClientError:
        where = users_line(error)
        line = f"\n{where}" if where and where not in str(error) else ""
        return ClientError(self._name, uri, client, self._clients, error, line)


class _Inside(SyncContext):
    """What a call means in a Python function that runs eagerly: the same, deeper."""

    def __init__(self, reference: PythonReference):
        self._reference = reference

    def invoke(self, comp: Any, arg: Any) -> Any:
        type_ = comp.type_signature
        if not isinstance(comp.node, ir.Compiled):
            raise ContextError(
                "A `tf_computation` can call other tf_computations only, found "
                f"`{comp.__name__}` of type `{type_}`.\n"
                "Call it outside, in a federated_computation, and pass its result in."
            )
        argument = None
        if type_.parameter is not None:
            argument = from_python(arg, type_.parameter)
        result = self._reference.run(comp.node, argument)
        return _as_given(result, type_.result, False)


def _as_given(value: Any, type_: Type, unpacked: bool) -> Any:
    """A value as a Python function gets it: eager, in containers, datasets of tf.data."""
    if unpacked:
        return [_as_given(item, t, False) for item, t in zip(value, type_)]
    return in_containers(_with_datasets(value, type_), type_)


def _with_datasets(value: Any, type_: Type) -> Any:
    if isinstance(type_, SequenceType):
        return to_dataset(value, type_)
    if isinstance(type_, StructType):
        names = structure.name_list_with_nones(type_)
        items = (_with_datasets(item, t) for item, t in zip(value, type_))
        return structure.Struct(list(zip(names, items)))
    return value


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras takes the seeds that users leave out from Python's `random`."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
