"""Running a computation's plan: its steps in order, values in and out as leaves."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any

from fedcore import structure
from fedcore.compiler import Plan, ServerStep, compile_tree
from fedcore.computation import ConcreteComputation
from fedcore.types import CLIENTS, FederatedType, FunctionType, StructType, Type
from fedsim.runtime._counter import Counter
from fedsim.runtime._errors import EmptyMeanError
from fedsim.runtime._leaves import from_leaves, to_leaves
from fedsim.runtime._lines import Draws, LineError, run_lines
from fedsim.runtime._values import Placed
from fedsim.runtime._workers import Clients, Workers

_plans: weakref.WeakKeyDictionary[ConcreteComputation, Plan] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


plans_made = Counter()


def plan_of(comp: ConcreteComputation) -> Plan:
    """The plan of a computation, made once and kept as long as the computation is."""
    with _lock:
        plan = _plans.get(comp)
        if plan is None:
            plans_made.add()
            plan = _plans[comp] = compile_tree(comp.node)
        return plan


def run_plan(
    plan: Plan,
    workers: Workers,
    type_: FunctionType,
    argument: Any,
    clients: int,
    seed: int,
    name: str,
) -> Any:
    """The result of a call, as `_values` holds it.

    Args:
        plan: The computation's plan.
        workers: Where its client steps run.
        type_: The computation's type.
        argument: The argument, as `_values` holds it.
        clients: The number of clients.
        seed: What the call's unseeded draws are folded from.
        name: The computation's name, for messages.
    """
    if plan.needs_clients and not clients:
        raise EmptyMeanError(name)
    env: dict[str, Any] = {}
    if type_.parameter is not None:
        leaves = _leaves_in(argument, type_.parameter)
        env.update(zip(plan.program.parameters, leaves, strict=True))
    for step in plan.steps:
        if isinstance(step, ServerStep):
            try:
                run_lines(step.ops, env, plan.program.types, Draws(seed))
            except LineError as failed:
                raise failed.__cause__ or failed from None
            continue
        names = dict.fromkeys((*step.shared, *step.zero))
        result = workers.run(
            step,
            {n: env[n] for n in names},
            Clients(clients, {n: env[n] for n in step.inputs}, seed, name),
        )
        env.update(result.totals)
        env.update(result.kept)
    results = iter(plan.program.results)
    return _value_out(results, type_.result, env, plan.program.at_clients, clients)


def _leaves_in(value: Any, type_: Type) -> list[Any]:
    """The leaves of an argument; one at the clients is a list with one for each."""
    if isinstance(type_, FederatedType):
        if type_.all_equal or type_.placement is not CLIENTS:
            return to_leaves(value.at(0), type_.member)
        columns = [to_leaves(member, type_.member) for member in value.members]
        if columns:
            return [list(column) for column in zip(*columns)]
        return [[] for _ in _leaf_count(type_.member)]
    if isinstance(type_, StructType):
        return [leaf for v, t in zip(value, type_) for leaf in _leaves_in(v, t)]
    return [value]


def _leaf_count(type_: Type) -> Iterator[None]:
    if isinstance(type_, StructType):
        for element in type_:
            yield from _leaf_count(element)
    else:
        yield None


def _value_out(
    names: Iterator[str],
    type_: Type,
    env: dict[str, Any],
    at_clients: frozenset[str],
    clients: int,
) -> Any:
    if isinstance(type_, FederatedType):
        leaves = [next(names) for _ in _leaf_count(type_.member)]
        if type_.placement is not CLIENTS or type_.all_equal:
            one = from_leaves(iter([env[name] for name in leaves]), type_.member)
            return Placed((one,), True)
        # A client may pass on what the server sent to all.
        columns = [env[n] if n in at_clients else [env[n]] * clients for n in leaves]
        members = (
            from_leaves(iter([column[i] for column in columns]), type_.member)
            for i in range(clients)
        )
        return Placed(tuple(members), False)
    if isinstance(type_, StructType):
        items = [
            (n, _value_out(names, t, env, at_clients, clients))
            for n, t in structure.iter_elements(type_)
        ]
        return structure.Struct(items)
    return env[next(names)]
