"""Inlines every call and takes every structure apart: a tree becomes a `Program`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from fedcore import ir, structure
from fedcore.compiler._program import (
    Aggregate,
    Constant,
    Graph,
    LeafType,
    Local,
    Op,
    Program,
    Reduce,
    Select,
    SequenceMap,
)
from fedcore.types import (
    CLIENTS,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    Type,
)

# A value while normalising: the name of a leaf, a Struct of values, or a function of
# values. Placed values are their members; where a leaf is, the program's table says.
Value = Any


def normalize(tree: ir.Node) -> Program:
    """The program of a computation's tree, which holds primitive intrinsics alone."""
    line = _Line({}, set(), itertools.count())
    type_ = tree.type
    parameters: list[str] = []
    argument = None
    if type_.parameter is not None:
        argument = line.parameter(type_.parameter, False, parameters)
    result = line.evaluate(tree, {})(argument)
    results = flat(result)
    return Program(
        tuple(parameters),
        _live(line.ops, results),
        tuple(results),
        line.types,
        frozenset(line.at_clients),
    )


def flat(value: Value) -> list[str]:
    """The names of a value's leaves, in flat order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, structure.Struct):
        return [name for item in value for name in flat(item)]
    raise TypeError("A function cannot be part of a computation's argument or result.")


def leaf_types(type_: Type) -> Iterator[LeafType]:
    """The types of the leaves, unplaced, in flat order."""
    if isinstance(type_, FederatedType):
        yield from leaf_types(type_.member)
    elif isinstance(type_, StructType):
        for element in type_:
            yield from leaf_types(element)
    elif isinstance(type_, TensorType | SequenceType):
        yield type_
    else:
        raise TypeError(f"A leaf needs to be a tensor or a sequence, found `{type_}`.")


@attrs.define(eq=False)
class _Line:
    """The line being written, at one place; sub-lines share its tables of names."""

    types: dict[str, LeafType]
    at_clients: set[str]
    counter: Iterator[int]
    ops: list[Op] = attrs.field(factory=list)
    clients: bool = False
    operator: str = "computation"
    origin: str = ""  # of the intrinsic being applied

    # --- Names ----------------------------------------------------------------------

    def leaf(self, type_: LeafType, at_clients: bool) -> str:
        name = f"t{next(self.counter)}"
        self.types[name] = type_
        if at_clients:
            self.at_clients.add(name)
        return name

    def fresh(self, type_: Type, at_clients: bool, names: list[str]) -> Value:
        """A value of `type_` of new leaves, whose names are added to `names`."""
        if isinstance(type_, StructType):
            return structure.Struct(
                [
                    (n, self.fresh(t, at_clients, names))
                    for n, t in structure.iter_elements(type_)
                ]
            )
        names.append(self.leaf(type_, at_clients))
        return names[-1]

    def parameter(self, type_: Type, at_clients: bool, names: list[str]) -> Value:
        if isinstance(type_, FederatedType):
            at_clients = type_.placement is CLIENTS and not type_.all_equal
            return self.parameter(type_.member, at_clients, names)
        if isinstance(type_, StructType):
            return structure.Struct(
                [
                    (n, self.parameter(t, at_clients, names))
                    for n, t in structure.iter_elements(type_)
                ]
            )
        return self.fresh(type_, at_clients, names)

    def local(self, fn: _Function, *types: Type, given: Value = None) -> Local:
        """A local function, called once on new leaves to see what it does.

        `given` is its last argument, a value from around it; no new leaves are made of
        that.
        """
        line = attrs.evolve(self, ops=[])
        inputs: list[str] = []
        items = [(None, line.fresh(t, self.clients, inputs)) for t in types]
        if given is not None:
            items.append((None, given))
        argument = items[0][1] if len(items) == 1 else structure.Struct(items)
        outputs = flat(fn.on(line, argument))
        return Local(tuple(inputs), _live(line.ops, outputs), tuple(outputs))

    def at(self, clients: bool, operator: str) -> _Line:
        """The same line, writing at another place, under a federated operator."""
        return attrs.evolve(self, clients=clients, operator=self.origin or operator)

    # --- Evaluation -----------------------------------------------------------------

    def evaluate(self, node: ir.Node, env: dict[str, Value]) -> Value:
        match node:
            case ir.Reference(name, _):
                return env[name]
            case ir.Selection(source, index):
                return self.evaluate(source, env)[index]
            case ir.Struct(elements, _):
                items = [(name, self.evaluate(item, env)) for name, item in elements]
                return structure.Struct(items)
            case ir.Call(function, argument):
                value = None if argument is None else self.evaluate(argument, env)
                return self.evaluate(function, env).on(self, value)
            case ir.Block(local, result):
                inner = dict(env)
                for name, value in local:
                    inner[name] = self.evaluate(value, inner)
                return self.evaluate(result, inner)
            case ir.Literal(proto, type_):
                name = self.leaf(type_, self.clients)
                self.ops.append(Constant((name,), self.clients, self.operator, proto))
                return name
            case ir.Lambda() | ir.Compiled() | ir.Intrinsic():
                return _Function(node, env, self)
        raise TypeError(f"The compiler has no straight line for `{node}`.")

    def apply(self, node: ir.Node, env: dict[str, Value], argument: Value) -> Value:
        match node:
            case ir.Lambda(None, _, result):
                return self.evaluate(result, env)
            case ir.Lambda(parameter, _, result):
                return self.evaluate(result, {**env, parameter: argument})
            case ir.Compiled(graph, type_):
                inputs = [] if argument is None else flat(argument)
                value, outputs = self.outputs(type_.result)
                self.ops.append(
                    Graph(outputs, self.clients, self.operator, graph, tuple(inputs))
                )
                return value
            case ir.Intrinsic(uri, type_):
                operator = _OPERATORS.get(uri)
                if operator is None:
                    raise TypeError(f"The compiler has no line for `{uri}`: {type_}.")
                return operator(attrs.evolve(self, origin=node.origin), type_, argument)
        raise TypeError(f"The compiler cannot call `{node}`.")

    def outputs(self, type_: Type) -> tuple[Value, tuple[str, ...]]:
        """A value of new leaves for what an operation at this place makes."""
        names: list[str] = []
        value = self.fresh(type_, self.clients, names)
        return value, tuple(names)


@attrs.frozen(eq=False)
class _Function:
    """A function as a value: a node with the values of its free names."""

    node: ir.Node
    env: dict[str, Value]
    line: _Line

    def on(self, line: _Line, argument: Value) -> Value:
        return line.apply(self.node, self.env, argument)

    def __call__(self, argument: Value) -> Value:
        return self.on(self.line, argument)


# --- Intrinsics ---------------------------------------------------------------------


def _pass_on(line: _Line, type_: FunctionType, value: Value) -> Value:
    # What all clients share is the server's value itself.
    return value


def _map(line: _Line, type_: FunctionType, argument: Value) -> Value:
    fn, value = argument
    at_clients = type_.result.placement is CLIENTS
    return fn.on(line.at(at_clients, "federated_map"), value)


def _eval(line: _Line, type_: FunctionType, fn: Value) -> Value:
    at_clients = type_.result.placement is CLIENTS
    return fn.on(line.at(at_clients, "federated_eval"), None)


def _aggregate(line: _Line, type_: FunctionType, argument: Value) -> Value:
    value, zero, accumulate, merge, report = argument
    state = type_.parameter[2].result
    server = line.at(False, "federated_aggregate")
    total, outputs = server.outputs(state)
    line.ops.append(
        Aggregate(
            outputs,
            False,
            server.operator,
            tuple(flat(zero)),
            server.local(accumulate, state, given=value),
            server.local(merge, state, state),
        )
    )
    return report.on(server, total)


def _select(line: _Line, type_: FunctionType, argument: Value) -> Value:
    keys, max_key, value, fn = argument
    clients = line.at(True, "federated_select")
    name = clients.leaf(type_.result.member, True)
    element = type_.parameter[3].parameter
    local = clients.local(fn, element[0], element[1])
    line.ops.append(
        Select(
            (name,),
            True,
            clients.operator,
            (keys,),
            (max_key,),
            tuple(flat(value)),
            local,
        )
    )
    return name


def _sequence_map(line: _Line, type_: FunctionType, argument: Value) -> Value:
    fn, sequence = argument
    name = line.leaf(type_.result, line.clients)
    local = line.local(fn, type_.parameter[1].element)
    line.ops.append(
        SequenceMap((name,), line.clients, line.operator, (sequence,), local)
    )
    return name


def _sequence_reduce(line: _Line, type_: FunctionType, argument: Value) -> Value:
    sequence, zero, op = argument
    state, outputs = line.outputs(type_.result)
    local = line.local(op, type_.result, type_.parameter[0].element)
    line.ops.append(
        Reduce(
            outputs, line.clients, line.operator, (sequence,), tuple(flat(zero)), local
        )
    )
    return state


_OPERATORS: dict[str, Callable[[_Line, FunctionType, Value], Value]] = {
    "federated_aggregate": _aggregate,
    "federated_broadcast": _pass_on,
    "federated_eval": _eval,
    "federated_map": _map,
    "federated_select": _select,
    "federated_value": _pass_on,
    "federated_zip": _pass_on,
    "sequence_map": _sequence_map,
    "sequence_reduce": _sequence_reduce,
}


def _live(ops: Iterable[Op], results: Iterable[str]) -> tuple[Op, ...]:
    """The lines whose values somebody uses."""
    needed = set(results)
    kept: list[Op] = []
    for op in reversed(list(ops)):
        if needed.intersection(op.outputs):
            needed.update(op.uses())
            kept.append(op)
    return tuple(reversed(kept))
