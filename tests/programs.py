"""What programs and plans mean, said shortly: to compare the compiler's passes with.

Values are those of the reference runtime; a value at the clients is a list.
"""

import attrs

from fedcore import structure
from fedcore.compiler import (
    Aggregate,
    Constant,
    Graph,
    Reduce,
    Select,
    SequenceMap,
    ServerStep,
    constant,
)
from fedcore.tensorflow._graph import executable
from fedcore.types import CLIENTS, FederatedType, StructType
from fedsim.runtime._seeds import as_int32_pair, fold
from fedsim.runtime._values import (
    Elements,
    Placed,
    flatten,
    from_python,
    iterate,
    to_python,
    unflatten,
)

_SERVER = -1


def run_program(program, type_, argument, clients, seed):
    """A program's result, line by line; every aggregation merges in order."""
    env = _arguments(program, type_, argument)
    machine = _Machine(program.types, seed)

    def at(client, op):
        return {n: env[n][client] if n in program.at_clients else env[n] for n in op}

    for op in program.ops:
        if isinstance(op, Aggregate):
            around = [at(client, op.uses()) for client in range(clients)]
            zero = [env[n] for n in op.zero]
            totals = [machine.call(op.accumulate, zero, e, _SERVER) for e in around]
            merged = zero
            for total in totals:
                merged = machine.call(op.merge, [*merged, *total], env, _SERVER)
            env.update(zip(op.outputs, merged, strict=True))
        elif op.at_clients:
            envs = [at(client, op.uses()) for client in range(clients)]
            for client, inner in enumerate(envs):
                machine.line(op, inner, client)
            env.update({n: [inner[n] for inner in envs] for n in op.outputs})
        else:
            machine.line(op, env, _SERVER)
    return _result(program, type_, env, clients)


def run_plan(plan, type_, argument, clients, seed):
    """A plan's result; a step sees nothing but what it says it takes."""
    program = plan.program
    env = _arguments(program, type_, argument)
    machine = _Machine(program.types, seed)
    for step in plan.steps:
        if isinstance(step, ServerStep):
            inner = {name: env[name] for name in step.uses()}
            machine.lines(step.ops, inner, _SERVER)
            env.update(inner)
            continue
        shared = {name: env[name] for name in step.shared}
        zero = [env[name] for name in step.zero]
        merged = zero
        kept = {name: [] for name in step.keep}
        for client in range(clients):
            own = {name: env[name][client] for name in step.inputs}
            inner = {**shared, **own}
            machine.lines(step.work, inner, client)
            total = machine.call(step.accumulate, zero, inner, _SERVER)
            merged = machine.call(step.merge, [*merged, *total], shared, _SERVER)
            for name in step.keep:
                kept[name].append(inner[name])
        env.update(zip(step.totals, merged, strict=True))
        env.update(kept)
    return _result(program, type_, env, clients)


@attrs.frozen
class _Machine:
    types: dict
    seed: int

    def lines(self, ops, env, place, iteration=0):
        for op in ops:
            self.line(op, env, place, iteration)

    def line(self, op, env, place, iteration=0):
        values = list(self._values(op, env, place, iteration))
        env.update(zip(op.outputs, values, strict=True))

    def call(self, fn, arguments, env, place, iteration=0):
        inner = {**env, **dict(zip(fn.inputs, arguments, strict=True))}
        self.lines(fn.ops, inner, place, iteration)
        return [inner[name] for name in fn.outputs]

    def _values(self, op, env, place, iteration):
        match op:
            case Constant():
                return [constant(op)]
            case Graph():
                run = executable(op.graph)
                inputs = [t for n in op.inputs for t in flatten(env[n], self.types[n])]
                seed = as_int32_pair(fold(self.seed, place, iteration))
                outputs = run(inputs, seed if run.has_seed else None)
                pairs = zip(op.outputs, outputs, strict=True)
                return [unflatten(iter([t]), self.types[n]) for n, t in pairs]
            case Reduce():
                state = [env[name] for name in op.zero]
                for i, element in enumerate(self._elements(op, env)):
                    inside = fold(iteration, 1 + i)
                    state = self.call(op.step, [*state, *element], env, place, inside)
                return state
            case SequenceMap():
                element = self.types[op.outputs[0]].element
                items = [
                    self.call(op.fn, leaves, env, place, fold(iteration, 1 + i))
                    for i, leaves in enumerate(self._elements(op, env))
                ]
                return [Elements(tuple(_packed(iter(x), element) for x in items))]
            case Select():
                element = self.types[op.outputs[0]].element
                value = [env[name] for name in op.value]
                keys = env[op.keys[0]]
                items = [self.call(op.fn, [*value, k], env, place) for k in keys]
                return [Elements(tuple(_packed(iter(x), element) for x in items))]
        raise TypeError(op)

    def _elements(self, op, env):
        type_ = self.types[op.sequence[0]]
        for element in iterate(env[op.sequence[0]], type_):
            yield _leaves(element, type_.element)


def _leaves(value, type_):
    if not isinstance(type_, StructType):
        return [value]
    return [leaf for item, t in zip(value, type_) for leaf in _leaves(item, t)]


def _packed(leaves, type_):
    if not isinstance(type_, StructType):
        return next(leaves)
    items = [(n, _packed(leaves, t)) for n, t in structure.iter_elements(type_)]
    return structure.Struct(items)


def _arguments(program, type_, argument):
    if type_.parameter is None:
        return {}
    value = from_python(argument, type_.parameter)
    leaves = _placed_leaves(value, type_.parameter)
    return dict(zip(program.parameters, leaves, strict=True))


def _placed_leaves(value, type_):
    if isinstance(type_, FederatedType):
        if type_.all_equal or type_.placement is not CLIENTS:
            return _leaves(value.at(0), type_.member)
        members = [_leaves(member, type_.member) for member in value.members]
        return [list(column) for column in zip(*members)]
    if isinstance(type_, StructType):
        return [x for item, t in zip(value, type_) for x in _placed_leaves(item, t)]
    return [value]


def _result(program, type_, env, clients):
    names = iter(program.results)
    value = _placed(names, type_.result, env, program.at_clients, clients)
    return to_python(value, type_.result)


def _placed(names, type_, env, at_clients, clients):
    if isinstance(type_, FederatedType):
        own = [next(names) for _ in _leaf_types(type_.member)]
        if type_.all_equal or type_.placement is not CLIENTS:
            return Placed((_packed(iter([env[n] for n in own]), type_.member),), True)
        columns = [env[n] if n in at_clients else clients * [env[n]] for n in own]
        members = [iter([column[i] for column in columns]) for i in range(clients)]
        return Placed(tuple(_packed(x, type_.member) for x in members), False)
    if isinstance(type_, StructType):
        items = [
            (n, _placed(names, t, env, at_clients, clients))
            for n, t in structure.iter_elements(type_)
        ]
        return structure.Struct(items)
    return env[next(names)]


def _leaf_types(type_):
    if not isinstance(type_, StructType):
        return [type_]
    return [leaf for element in type_ for leaf in _leaf_types(element)]
