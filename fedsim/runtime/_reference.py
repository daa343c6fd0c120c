"""The reference runtime: interprets the traced tree, one client at a time.

No pass, no fusion, no compiler: slow, short, and the oracle for every other way of
running. Functions are closures, placed values are lists, and each intrinsic is said
once more here, independently of its body in the table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from fedcore import ir, structure
from fedcore.tensorflow._graph import executable
from fedcore.types import (
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    Type,
)
from fedsim.runtime._errors import ClientError, EmptyMeanError
from fedsim.runtime._ordered import ordered, restart
from fedsim.runtime._seeds import as_int32_pair, fold
from fedsim.runtime._values import Elements, Placed, flatten, iterate, unflatten

_SERVER = -1


class Reference:
    """Interprets one call of a computation over `clients` clients.

    Args:
        name: The computation's name, for messages.
        clients: The number of clients.
        seed: What this call's unseeded draws are folded from.
    """

    def __init__(self, name: str, clients: int, seed: int):
        self._name = name
        self._clients = clients
        self._seed = seed
        # Where the interpreter is: a client's index or the server, and the iteration of
        # the innermost sequence_reduce or sequence_map.
        self._place = _SERVER
        self._iteration = 0

    def run(self, function: ir.Node, argument: Any) -> Any:
        """The result of `function` on `argument`, both as `_values` holds them."""
        if isinstance(function.type, FunctionType) and argument is not None:
            argument = ordered(argument, function.type.parameter, self._seed)
        return self._evaluate(function, {})(argument)

    def _evaluate(self, node: ir.Node, env: dict[str, Any]) -> Any:
        match node:
            case ir.Reference(name, _):
                return env[name]
            case ir.Selection(source, index):
                return self._evaluate(source, env)[index]
            case ir.Struct(elements, _):
                items = [(name, self._evaluate(item, env)) for name, item in elements]
                return structure.Struct(items)
            case ir.Call(function, argument):
                value = None if argument is None else self._evaluate(argument, env)
                return self._evaluate(function, env)(value)
            case ir.Lambda(parameter, _, result):
                return lambda value: self._evaluate(result, {**env, parameter: value})
            case ir.Block(local, result):
                inner = dict(env)
                for name, value in local:
                    inner[name] = self._evaluate(value, inner)
                return self._evaluate(result, inner)
            case ir.Compiled(graph, type_):
                return functools.partial(self._run_graph, graph, type_)
            case ir.Literal():
                return tf.constant(node.value, node.type.dtype)
            case ir.Placement(literal):
                return literal
            case ir.Intrinsic(uri, type_):
                operator = getattr(self, f"_{uri}")
                return lambda value: operator(type_, *_arguments(value, uri, type_))
        raise TypeError(f"The reference runtime cannot evaluate `{node}`.")

    def _run_graph(self, graph: bytes, type_: FunctionType, argument: Any) -> Any:
        run = executable(graph)
        tensors = [] if type_.parameter is None else flatten(argument, type_.parameter)
        seed = None
        if run.has_seed:
            seed = as_int32_pair(fold(self._seed, self._place, self._iteration))
        return unflatten(iter(run(tensors, seed)), type_.result)

    # --- Placements -----------------------------------------------------------------

    def _at_each(self, uri: str, result: Any, work: Callable[[int], Any]) -> Placed:
        """Does `work(client)` for each member of `result`; once if it has one for all."""
        if result.all_equal:
            return Placed((work(0),), True)
        members = []
        for client in range(self._clients):
            self._place = client
            try:
                members.append(work(client))
            except Exception as error:
                raise self._failed(uri, client, error) from error
            finally:
                self._place = _SERVER
        return Placed(tuple(members), False)

    def _failed(self, uri: str, client: int, error: Exception) -> ClientError:
        return ClientError(self._name, uri, client, self._clients, error)

    def _members(self, value: Placed) -> Iterator[Any]:
        return (value.at(client) for client in range(self._clients))

    def _federated_value(self, type_: FunctionType, value: Any) -> Placed:
        return Placed((value,), True)

    def _federated_broadcast(self, type_: FunctionType, value: Placed) -> Placed:
        return value

    def _federated_eval(self, type_: FunctionType, fn: Any) -> Placed:
        return self._at_each("federated_eval", type_.result, lambda client: fn(None))

    def _federated_map(self, type_: FunctionType, fn: Any, value: Placed) -> Placed:
        def work(client: int) -> Any:
            given = value.at(client)
            restart(given)
            return fn(given)

        return self._at_each("federated_map", type_.result, work)

    def _federated_zip(self, type_: FunctionType, value: Any) -> Placed:
        def zipped(part: Any, part_type: Type, client: int) -> Any:
            if isinstance(part_type, FederatedType):
                return part.at(client)
            return structure.Struct(
                [
                    (name, zipped(item, element, client))
                    for item, (name, element) in zip(
                        part, structure.iter_elements(part_type)
                    )
                ]
            )

        all_equal = type_.result.all_equal
        places = range(1 if all_equal else self._clients)
        members = tuple(zipped(value, type_.parameter, client) for client in places)
        return Placed(members, all_equal)

    def _federated_select(
        self, type_: FunctionType, keys: Placed, max_key: Placed, value: Placed, fn: Any
    ) -> Placed:
        limit = int(max_key.at(0))

        def slices(client: int) -> Elements:
            wanted = keys.at(client)
            outside = [int(k) for k in wanted if not 0 <= int(k) < limit]
            if outside:
                raise ValueError(
                    f"`federated_select` needs keys in [0, {limit}), found {outside[0]}."
                )
            return Elements(
                tuple(fn(structure.Struct.unnamed(value.at(0), key)) for key in wanted)
            )

        return self._at_each("federated_select", type_.result, slices)

    _federated_secure_select = _federated_select

    # --- Aggregations ---------------------------------------------------------------

    def _federated_aggregate(
        self,
        type_: FunctionType,
        value: Placed,
        zero: Any,
        accumulate: Any,
        merge: Any,
        report: Any,
    ) -> Placed:
        # One accumulator needs no merge; that merging changes nothing is the caller's
        # promise, and what the other runtimes are compared with this one for.
        state = zero.at(0) if isinstance(zero, Placed) else zero
        for member in self._members(value):
            state = accumulate(structure.Struct.unnamed(state, member))
        return Placed((report(state),), True)

    def _fold_tensors(self, type_: FunctionType, value: Placed, op: Any, zero: Any):
        member = type_.result.member
        totals = [zero(spec) for spec in _leaves(member)]
        for item in self._members(value):
            totals = [op(t, x) for t, x in zip(totals, flatten(item, member))]
        return Placed((unflatten(iter(totals), member),), True)

    def _federated_sum(self, type_: FunctionType, value: Placed) -> Placed:
        return self._fold_tensors(type_, value, tf.add, _zeros)

    def _federated_max(self, type_: FunctionType, value: Placed) -> Placed:
        lowest = functools.partial(_filled, lambda dtype: dtype.min)
        return self._fold_tensors(type_, value, tf.maximum, lowest)

    def _federated_min(self, type_: FunctionType, value: Placed) -> Placed:
        highest = functools.partial(_filled, lambda dtype: dtype.max)
        return self._fold_tensors(type_, value, tf.minimum, highest)

    def _federated_mean(
        self, type_: FunctionType, value: Placed, weight: Placed | None = None
    ) -> Placed:
        if not self._clients:
            raise EmptyMeanError(self._name)
        member = type_.result.member
        totals, total_weight = [_zeros(leaf) for leaf in _leaves(member)], None
        for client in range(self._clients):
            w = tf.constant(1.0) if weight is None else weight.at(client)
            total_weight = w if total_weight is None else total_weight + w
            items = flatten(value.at(client), member)
            totals = [t + x * tf.cast(w, x.dtype) for t, x in zip(totals, items)]
        means = [t / tf.cast(total_weight, t.dtype) for t in totals]
        return Placed((unflatten(iter(means), member),), True)

    def _federated_secure_sum(
        self, type_: FunctionType, value: Placed, bound: Any
    ) -> Placed:
        return self._federated_sum(type_, value)

    _federated_secure_sum_bitwidth = _federated_secure_sum

    def _federated_secure_modular_sum(
        self, type_: FunctionType, value: Placed, modulus: Any
    ) -> Placed:
        member = type_.result.member
        totals = flatten(self._federated_sum(type_, value).at(0), member)
        moduli = flatten(modulus, type_.parameter[1])
        moduli = moduli * len(totals) if len(moduli) == 1 else moduli
        remainders = (
            tf.math.floormod(t, tf.cast(m, t.dtype)) for t, m in zip(totals, moduli)
        )
        return Placed((unflatten(remainders, member),), True)

    # --- Sequences ------------------------------------------------------------------

    def _steps(self, value: Any, type_: SequenceType) -> Iterator[Any]:
        """The elements; while one is worked on, unseeded draws are its own."""
        outer = self._iteration
        try:
            for i, element in enumerate(iterate(value, type_)):
                self._iteration = fold(outer, 1 + i)
                yield element
        finally:
            self._iteration = outer

    def _sequence_map(self, type_: FunctionType, fn: Any, value: Any) -> Elements:
        return Elements(tuple(fn(x) for x in self._steps(value, type_.parameter[1])))

    def _sequence_reduce(
        self, type_: FunctionType, value: Any, state: Any, op: Any
    ) -> Any:
        for element in self._steps(value, type_.parameter[0]):
            state = op(structure.Struct.unnamed(state, element))
        return state

    def _sequence_sum(self, type_: FunctionType, value: Any) -> Any:
        totals = [_zeros(leaf) for leaf in _leaves(type_.result)]
        for element in iterate(value, type_.parameter):
            items = flatten(element, type_.result)
            totals = [t + x for t, x in zip(totals, items)]
        return unflatten(iter(totals), type_.result)


# Operators whose one argument may itself be a structure; all others take a structure's
# elements as their arguments.
_ONE_ARGUMENT = ("federated_value", "federated_zip")


def _arguments(value: Any, uri: str, type_: FunctionType) -> tuple[Any, ...]:
    if uri in _ONE_ARGUMENT or not isinstance(type_.parameter, StructType):
        return (value,)
    return tuple(value)


def _leaves(type_: Type) -> list[Type]:
    if not isinstance(type_, StructType):
        return [type_]
    return [leaf for element in type_ for leaf in _leaves(element)]


def _filled(value_of: Callable[[tf.DType], Any], leaf: Any) -> tf.Tensor:
    shape = [0 if size is None else size for size in leaf.shape]
    return tf.fill(shape, tf.constant(value_of(leaf.dtype), leaf.dtype))


_zeros = functools.partial(_filled, lambda dtype: np.zeros((), dtype.as_numpy_dtype))
