"""A context that runs a call's clients in parts, in several contexts, and merges."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from fedcore import structure
from fedcore.backends._pieces import Levels, levels_of, straight_line
from fedcore.computation import Computation, ConcreteComputation
from fedcore.context import AsyncContext, SyncContext, run_coroutine
from fedcore.federated import (
    Value,
    federated_aggregate,
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_value,
    federated_zip,
)
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    StructType,
    Type,
    at_server,
    type_to_py_container,
)


class MergeableCompExecutionContext(SyncContext):
    """Cuts the clients of a call into parts, runs each in a context, and merges.

    Args:
        async_contexts: The contexts; the parts take turns in them.
        num_subrounds: How many parts; as many as there are contexts if None.
    """

    def __init__(
        self,
        async_contexts: Sequence[AsyncContext],
        num_subrounds: int | None = None,
    ):
        if not async_contexts:
            raise ValueError("`async_contexts` needs at least one context, found none.")
        if num_subrounds is not None and num_subrounds < 1:
            raise ValueError(
                f"`num_subrounds` needs to be >= 1, found {num_subrounds}."
            )
        self._contexts = list(async_contexts)
        self._parts = num_subrounds or len(self._contexts)
        self._forms: weakref.WeakKeyDictionary[Any, _Form] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Runs `comp` on `arg`; see `fedcore.context.SyncContext.invoke`."""
        type_ = comp.type_signature
        if not _holds_clients(type_.parameter):
            return run_coroutine(self._contexts[0].invoke(comp, arg))
        with self._lock:
            if comp not in self._forms:
                self._forms[comp] = _form(comp)
            form = self._forms[comp]
        return run_coroutine(self._run(form, type_, arg))

    async def _run(self, form: _Form, type_: Any, arg: Any) -> Any:
        contexts = itertools.cycle(self._contexts)
        parts = _cut(arg, type_.parameter, self._parts)
        calls = [next(contexts).invoke(form.up_to_merge, part) for part in parts]
        outcomes = await asyncio.gather(*calls)
        total, *others = (outcome[0] for outcome in outcomes)
        for other in others:
            pair = structure.Struct.unnamed(total, other)
            total = await self._contexts[0].invoke(form.merge, pair)
        arguments = structure.Struct.unnamed(parts[0], total)
        at_server_ = iter(await self._contexts[0].invoke(form.after_merge, arguments))
        kept = [list(outcome[1]) for outcome in outcomes]
        joined = iter([list(itertools.chain(*columns)) for columns in zip(*kept)])
        return type_to_py_container(
            _assembled(type_.result, at_server_, joined), type_.result
        )


@attrs.frozen
class _Form:
    """The computations of one call: for each part, between two, and at the end."""

    up_to_merge: Computation
    merge: Computation
    after_merge: Computation


def _holds_clients(type_: Type | None) -> bool:
    if isinstance(type_, FederatedType):
        return type_.placement is CLIENTS and not type_.all_equal
    return isinstance(type_, StructType) and any(map(_holds_clients, type_))


def _federated(type_: Type) -> Iterator[FederatedType]:
    """The placed parts of a type, in order."""
    if isinstance(type_, FederatedType):
        yield type_
    elif isinstance(type_, StructType):
        for element in type_:
            yield from _federated(element)
    else:
        raise TypeError(
            "A computation whose clients are run in parts needs all its parameters and "
            f"results to be placed, found `{type_}`.\n"
            "Place it with `federated_value`."
        )


def _values(value: Value) -> Iterator[Value]:
    if isinstance(value.type_signature, StructType):
        for element in value:
            yield from _values(element)
    else:
        yield value


def _cut(arg: Any, type_: Type, parts: int) -> list[Any]:
    """The argument once for each part, with that part's clients."""
    counts = {len(column) for column in _columns(arg, type_)}
    count = min(counts, default=0)
    if len(counts) > 1:
        return [arg]  # the context says what is wrong with it
    parts = max(1, min(parts, count))
    bounds = [count * i // parts for i in range(parts + 1)]
    return [_sliced(arg, type_, slice(*pair)) for pair in itertools.pairwise(bounds)]


def _columns(arg: Any, type_: Type) -> Iterator[Any]:
    if isinstance(type_, StructType):
        for item, element in zip(_elements(arg, type_), type_):
            yield from _columns(item, element)
    elif _holds_clients(type_):
        yield arg


def _sliced(arg: Any, type_: Type, part: slice) -> Any:
    if isinstance(type_, StructType):
        names = structure.name_list_with_nones(type_)
        items = [
            _sliced(item, element, part)
            for item, element in zip(_elements(arg, type_), type_)
        ]
        return structure.Struct(list(zip(names, items)))
    return arg[part] if _holds_clients(type_) else arg


def _elements(arg: Any, type_: StructType) -> list[Any]:
    if isinstance(arg, dict):
        return [arg[name] for name in structure.name_list_with_nones(type_)]
    if not isinstance(arg, structure.Struct):
        arg = structure.from_container(arg)
    return list(arg)


def _form(comp: ConcreteComputation) -> _Form:
    type_ = comp.type_signature
    levels = levels_of(straight_line(comp.node, secure=False))
    _refuse_clients_after(levels)
    program, folds = levels.program, levels.aggregates
    placed = list(_federated(type_.parameter))
    leaves = iter(program.parameters)
    groups = [[next(leaves) for _ in range(_leaf_count(t.member))] for t in placed]
    results = iter(program.results)
    wanted = [
        (t, [next(results) for _ in range(_leaf_count(t.member))])
        for t in _federated(type_.result)
    ]
    to_clients = [w for w in wanted if w[0].placement is CLIENTS]
    to_server = [w for w in wanted if w[0].placement is SERVER]
    # All clients have what is equal at all of them; the server's comes by a broadcast.
    names = [n for group in groups for n in group]
    whole = StructType([t.member for t in placed])
    totals = [n for a in folds for n in a.outputs]
    values = list(dict.fromkeys(n for a in folds for n in a.accumulate.free()))
    a_type, v_type = levels.struct(totals), levels.struct(values)
    kept = [n for _, group in to_clients for n in group]
    kept_type = StructType([t.member for t, _ in to_clients])
    work = levels.piece(
        "work", names, whole, [*values, *kept], StructType([v_type, kept_type])
    )
    own = [
        n for t, group in zip(placed, groups) if t.placement is SERVER for n in group
    ]
    own_type = StructType([t.member for t in placed if t.placement is SERVER])
    zeros = [n for a in folds for n in a.zero]
    zero = levels.piece("zero", own, own_type, zeros, a_type)
    accumulate = levels.piece(
        "accumulate",
        [*(n for a in folds for n in a.accumulate.inputs), *values],
        StructType([a_type, v_type]),
        [n for a in folds for n in a.accumulate.outputs],
        a_type,
        [op for a in folds for op in a.accumulate.ops],
    )
    merge = _merge(levels, a_type)
    after = levels.piece(
        "after_merge",
        [*own, *totals],
        StructType([own_type, a_type]),
        [n for _, group in to_server for n in group],
        StructType([t.member for t, _ in to_server]),
    )

    def up_to_merge(argument: Value) -> tuple[Any, Any]:
        given = list(_values(argument))
        everywhere = [
            federated_broadcast(v) if t.placement is SERVER else v
            for v, t in zip(given, placed)
        ]
        made = federated_map(work, federated_zip(tuple(everywhere)))
        total = federated_aggregate(
            made[0], _server(zero, given, placed), accumulate, merge, _same(a_type)
        )
        return total, [made[1][i] for i in range(len(to_clients))]

    def after_merge(argument: Value, total: Value) -> Any:
        given = [v for v in _values(argument) if v.type_signature.placement is SERVER]
        own_values = federated_zip(tuple(given)) if given else _nothing()
        made = federated_map(after, federated_zip((own_values, total)))
        return [made[i] for i in range(len(to_server))]

    return _Form(
        federated_computation(up_to_merge, type_.parameter),
        merge,
        federated_computation(after_merge, type_.parameter, at_server(a_type)),
    )


def _server(zero: Computation, given: list[Value], placed: list[FederatedType]) -> Any:
    own = [v for v, t in zip(given, placed) if t.placement is SERVER]
    return federated_map(zero, federated_zip(tuple(own)) if own else _nothing())


def _nothing() -> Value:
    return federated_value((), SERVER)


def _leaf_count(type_: Type) -> int:
    if isinstance(type_, StructType):
        return sum(map(_leaf_count, type_))
    return 1


def _merge(levels: Levels, a_type: StructType) -> ConcreteComputation:
    folds = levels.aggregates
    left = [n for a in folds for n in a.merge.inputs[: len(a.zero)]]
    right = [n for a in folds for n in a.merge.inputs[len(a.zero) :]]
    return levels.piece(
        "merge",
        [*left, *right],
        StructType([a_type, a_type]),
        [n for a in folds for n in a.merge.outputs],
        a_type,
        [op for a in folds for op in a.merge.ops],
    )


def _same(type_: StructType) -> Computation:
    return federated_computation(lambda x: x, type_)


def _refuse_clients_after(levels: Levels) -> None:
    for op in levels.program.ops:
        if op.at_clients and levels.level[op.outputs[0]]:
            raise ValueError(
                "Clients can be run in parts only if none needs the result of an "
                f"aggregation, found a `{op.operator}` at CLIENTS that does.\n"
                "Run what comes after it as a computation of its own."
            )


def _assembled(type_: Type, at_server_: Iterator[Any], joined: Iterator[Any]) -> Any:
    if isinstance(type_, FederatedType):
        return next(at_server_ if type_.placement is SERVER else joined)
    return structure.Struct(
        [
            (name, _assembled(element, at_server_, joined))
            for name, element in structure.iter_elements(type_)
        ]
    )
