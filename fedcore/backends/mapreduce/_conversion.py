"""From a computation to its form, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fedcore import ir, structure
from fedcore._containers import build_container
from fedcore.backends._pieces import Levels, levels_of, straight_line
from fedcore.backends.mapreduce._forms import BroadcastForm, MapReduceForm
from fedcore.compiler import leaf_types
from fedcore.computation import Computation, ConcreteComputation
from fedcore.federated import (
    Value,
    federated_aggregate,
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_secure_modular_sum,
    federated_secure_sum,
    federated_secure_sum_bitwidth,
    federated_value,
    federated_zip,
)
from fedcore.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    PlacementLiteral,
    StructType,
    Type,
    at_clients,
    at_server,
    is_tensorflow_compatible_type,
)

Preprocess = Callable[[ir.Node], ir.Node]

# In the order in which `work` gives the values, after those that are aggregated.
_SUMS = {
    "federated_secure_sum_bitwidth": federated_secure_sum_bitwidth,
    "federated_secure_sum": federated_secure_sum,
    "federated_secure_modular_sum": federated_secure_modular_sum,
}


def check_computation_compatible_with_map_reduce_form(
    comp: Computation, *, tff_internal_preprocessing: Preprocess | None = None
) -> ir.Node:
    """Checks the type of a computation that is to be a `MapReduceForm`.

    Args:
        comp: The computation.
        tff_internal_preprocessing: Applied to its tree first, if given.

    Returns:
        Its tree.

    Raises:
        TypeError: If its type is not
            `(<S@SERVER,{D}@CLIENTS> -> <S@SERVER,R@SERVER>)`.
    """
    name = "MapReduceForm"
    type_ = _check_arguments(name, comp)
    result = type_.result
    if not isinstance(result, StructType) or len(result) != 2:
        raise TypeError(
            f"`{name}` needs a computation with two results, the state and an output, "
            f"both at SERVER, found\n    `{result}`"
        )
    for i, what in enumerate(("the state", "the output")):
        _member(result[i], SERVER, f"`{name}` needs {what} that it returns")
    before = _member(type_.parameter[0], SERVER, "")
    after = _member(result[0], SERVER, "")
    if not before.is_assignable_from(after):
        raise TypeError(
            f"`{name}` needs the state that is returned to be one that can be given, "
            f"found\n    given `{before}`\n    returned `{after}`"
        )
    return _tree(comp, tff_internal_preprocessing)


def get_map_reduce_form_for_computation(
    comp: Computation,
    grappler_config: Any = None,
    *,
    tff_internal_preprocessing: Preprocess | None = None,
) -> MapReduceForm:
    """The form of a computation that goes to the clients and back once.

    Args:
        comp: `(<S@SERVER,{D}@CLIENTS> -> <S@SERVER,R@SERVER>)`.
        grappler_config: Accepted for TFF's scripts, without effect.
        tff_internal_preprocessing: Applied to its tree first, if given.

    Returns:
        The form; `get_computation_for_map_reduce_form` of it computes the same.

    Raises:
        TypeError: If the computation's type is another.
        ValueError: If it goes to the clients twice, or the zero of an aggregation or the
            bound of a secure sum depends on the state.
    """
    del grappler_config
    tree = check_computation_compatible_with_map_reduce_form(
        comp, tff_internal_preprocessing=tff_internal_preprocessing
    )
    levels = levels_of(straight_line(tree, secure=True))
    _refuse_second_trip("MapReduceForm", levels)
    program, type_ = levels.program, comp.type_signature
    taken: Any = type_.parameter
    state, data = taken
    split = len(list(leaf_types(state)))
    own, given = program.parameters[:split], program.parameters[split:]
    state = _member(state, SERVER, "")
    after = _member(type_.result[0], SERVER, "")
    output = _member(type_.result[1], SERVER, "")
    data = _member(data, CLIENTS, "")

    folds = levels.aggregates
    values = _unique(n for a in folds for n in _values_of(a, levels))
    sums = [[s for s in levels.sums if s.operator == uri] for uri in _SUMS]
    sent = [values, *([n for s in group for n in s.value] for group in sums)]
    totals = tuple(n for a in folds for n in a.outputs)
    summed = [[n for s in group for n in s.outputs] for group in sums]
    # What clients need of the server: what their lines use, and what goes straight back.
    context = _sent_down(levels, [n for names in sent for n in names], given)

    a_type, v_type = levels.struct(totals), levels.struct(values)
    c_type = levels.struct(context)
    s_types = [levels.struct(names) for names in sent]
    sum_types = [levels.struct(names) for names in summed]
    bounds = [[n for s in group for n in s.bound] for group in sums]
    _check_constants(levels, folds, bounds)

    def constants(name: str, names: list[str]) -> ConcreteComputation:
        return levels.piece(name, (), None, names, levels.struct(names))

    halves = [
        (a.merge.inputs[: len(a.zero)], a.merge.inputs[len(a.zero) :]) for a in folds
    ]
    left = [n for half, _ in halves for n in half]
    right = [n for _, half in halves for n in half]
    fixed = [op for op in program.ops if levels.constants.issuperset(op.outputs)]
    report = [*totals]
    update_inputs = [*own, *totals, *(n for names in summed for n in names)]
    return MapReduceForm(
        FunctionType(
            _as(type_.parameter, (at_server(state), at_clients(data))),
            _as(type_.result, (at_server(after), at_server(output))),
        ),
        prepare=levels.piece("prepare", own, state, context, c_type),
        work=levels.piece(
            "work",
            (*given, *context),
            StructType([data, c_type]),
            [n for names in sent for n in names],
            StructType(s_types),
        ),
        zero=levels.piece("zero", (), None, [n for a in folds for n in a.zero], a_type),
        accumulate=levels.piece(
            "accumulate",
            [*(n for a in folds for n in a.accumulate.inputs), *values],
            StructType([a_type, v_type]),
            [n for a in folds for n in a.accumulate.outputs],
            a_type,
            [*fixed, *(op for a in folds for op in a.accumulate.ops)],
        ),
        merge=levels.piece(
            "merge",
            [*left, *right],
            StructType([a_type, a_type]),
            [n for a in folds for n in a.merge.outputs],
            a_type,
            [*fixed, *(op for a in folds for op in a.merge.ops)],
        ),
        report=levels.piece("report", report, a_type, report, a_type),
        secure_sum_bitwidth=constants("secure_sum_bitwidth", bounds[0]),
        secure_sum_max_input=constants("secure_sum_max_input", bounds[1]),
        secure_modular_sum_modulus=constants("secure_modular_sum_modulus", bounds[2]),
        update=levels.piece(
            "update",
            update_inputs,
            StructType([state, StructType([a_type, *sum_types])]),
            program.results,
            _as(type_.result, (after, output)),
        ),
    )


def get_computation_for_map_reduce_form(mrf: MapReduceForm) -> Computation:
    """The federated computation that a form stands for.

    Args:
        mrf: The form.

    Returns:
        A computation of the form's type.
    """

    def run(argument: Value) -> Any:
        state, data = argument[0], argument[1]
        context = federated_broadcast(federated_map(mrf.prepare, state))
        sent = federated_map(mrf.work, federated_zip((data, context)))
        totals = [
            federated_aggregate(
                sent[0], mrf.zero(), mrf.accumulate, mrf.merge, mrf.report
            )
        ]
        bounds = (
            mrf.secure_sum_bitwidth,
            mrf.secure_sum_max_input,
            mrf.secure_modular_sum_modulus,
        )
        for values, bound, secure_sum in zip(
            (sent[1], sent[2], sent[3]), bounds, _SUMS.values()
        ):
            if len(bound.type_signature.result):
                totals.append(secure_sum(values, bound()))
            else:
                totals.append(federated_value((), SERVER))
        results = federated_map(
            mrf.update, federated_zip((state, federated_zip(tuple(totals))))
        )
        result = mrf.type_signature.result
        names = structure.name_list_with_nones(result)
        pairs = list(zip(names, (results[0], results[1])))
        if result.python_container is None:
            return structure.Struct(pairs)
        return build_container(result.python_container, pairs)

    return federated_computation(run, mrf.type_signature.parameter)


def get_broadcast_form_for_computation(
    comp: Computation,
    grappler_config: Any = None,
    *,
    tff_internal_preprocessing: Preprocess | None = None,
) -> BroadcastForm:
    """The form of a computation that brings nothing back to the server.

    Args:
        comp: `(<S@SERVER,{D}@CLIENTS> -> {R}@CLIENTS)`.
        grappler_config: Accepted for TFF's scripts, without effect.
        tff_internal_preprocessing: Applied to its tree first, if given.

    Returns:
        The form; `get_computation_for_broadcast_form` of it computes the same.

    Raises:
        TypeError: If the computation's type is another.
        ValueError: If it aggregates.
    """
    del grappler_config
    type_ = _check_arguments("BroadcastForm", comp)
    result = _member(
        type_.result, CLIENTS, "`BroadcastForm` needs the result of the computation"
    )
    levels = levels_of(
        straight_line(_tree(comp, tff_internal_preprocessing), secure=True)
    )
    for op in (*levels.aggregates, *levels.sums):
        raise ValueError(
            f"`BroadcastForm` needs a computation without aggregations, found "
            f"`{op.operator}`.\nUse `MapReduceForm` for it."
        )
    program = levels.program
    taken: Any = type_.parameter
    state, data = taken
    split = len(list(leaf_types(state)))
    own, given = program.parameters[:split], program.parameters[split:]
    context = _sent_down(levels, program.results, given)
    c_type, data = levels.struct(context), _member(data, CLIENTS, "")
    labels = structure.name_list_with_nones(type_.parameter)
    return BroadcastForm(
        levels.piece(
            "compute_server_context", own, _member(state, SERVER, ""), context, c_type
        ),
        levels.piece(
            "client_processing",
            (*context, *given),
            StructType([c_type, data]),
            program.results,
            result,
        ),
        *labels,
    )


def get_computation_for_broadcast_form(bf: BroadcastForm) -> Computation:
    """The federated computation that a form stands for.

    Args:
        bf: The form.

    Returns:
        `(<S@SERVER,{D}@CLIENTS> -> {R}@CLIENTS)`.
    """
    server = at_server(bf.compute_server_context.type_signature.parameter)
    clients = at_clients(bf.client_processing.type_signature.parameter[1])
    labels = (bf.server_data_label, bf.client_data_label)

    def run(argument: Value) -> Value:
        context = federated_broadcast(
            federated_map(bf.compute_server_context, argument[0])
        )
        return federated_map(
            bf.client_processing, federated_zip((context, argument[1]))
        )

    elements = [
        (label, type_) if label else type_
        for label, type_ in zip(labels, (server, clients))
    ]
    return federated_computation(run, StructType(elements))


def get_state_initialization_computation_for_map_reduce_form(
    initialize_computation: Computation, grappler_config: Any = None
) -> Computation:
    """What makes the first state, as a TensorFlow computation.

    Args:
        initialize_computation: `( -> S@SERVER)`.
        grappler_config: Accepted for TFF's scripts, without effect.

    Returns:
        `( -> S)`.

    Raises:
        TypeError: If the computation's type is another.
    """
    del grappler_config
    name = "get_state_initialization_computation_for_map_reduce_form"
    _check_traced(name, initialize_computation)
    type_ = initialize_computation.type_signature
    if type_.parameter is not None:
        raise TypeError(
            f"`{name}` needs a computation without a parameter, found one of type "
            f"`{type_.parameter}`."
        )
    member = _member(
        type_.result, SERVER, f"`{name}` needs the result of the computation"
    )
    levels = levels_of(straight_line(initialize_computation.node, secure=False))
    return levels.piece("initialize", (), None, levels.program.results, member)


def parse_tff_to_tf(comp: ir.Node, grappler_config_proto: Any) -> ir.Compiled:
    """A tree that computes at one place, as one graph.

    Args:
        comp: The tree of a function without placements.
        grappler_config_proto: Accepted for TFF's scripts, without effect.

    Returns:
        The graph.

    Raises:
        TypeError: If a type of it holds placements or functions.
    """
    del grappler_config_proto
    for type_ in (comp.type.parameter, comp.type.result):
        if type_ is not None and not is_tensorflow_compatible_type(type_):
            raise TypeError(
                "`parse_tff_to_tf` needs tensors, sequences and structures of them, found "
                f"`{type_}`."
            )
    levels = levels_of(straight_line(comp, secure=False))
    program = levels.program
    piece = levels.piece(
        "computation",
        program.parameters,
        comp.type.parameter,
        program.results,
        comp.type.result,
    )
    node: Any = piece.node
    return node


# --- Checks -------------------------------------------------------------------------


def _check_traced(name: str, comp: Any) -> None:
    if not isinstance(comp, ConcreteComputation):
        raise TypeError(
            f"`{name}` needs a traced computation, found `{type(comp).__name__}`.\n"
            "Declare the types of its parameters in the decorator."
        )


def _check_arguments(name: str, comp: Any) -> FunctionType:
    _check_traced(name, comp)
    parameter = comp.type_signature.parameter
    if not isinstance(parameter, StructType) or len(parameter) != 2:
        raise TypeError(
            f"`{name}` needs a computation with two parameters, the server's at SERVER "
            f"and the clients' at CLIENTS, found\n    `{parameter}`"
        )
    _member(parameter[0], SERVER, f"`{name}` needs the first parameter")
    _member(parameter[1], CLIENTS, f"`{name}` needs the second parameter")
    return comp.type_signature


def _member(type_: Type, placement: PlacementLiteral, needs: str) -> Type:
    """The type of what is placed; of a structure of placed values, the structure."""
    if isinstance(type_, FederatedType) and type_.placement is placement:
        return type_.member
    if isinstance(type_, StructType) and len(type_):
        return _as(type_, [_member(element, placement, needs) for element in type_])
    raise TypeError(f"{needs} to be at {placement.name}, found `{type_}`.")


def _as(type_: StructType, elements: Iterable[Type]) -> StructType:
    """A structure with the names and the container of `type_`."""
    names = structure.name_list_with_nones(type_)
    pairs = [(n, t) if n else t for n, t in zip(names, elements, strict=True)]
    container = type_.python_container
    if container is None:
        return StructType(pairs)
    return type(type_)(pairs, container)


def _tree(comp: ConcreteComputation, preprocess: Preprocess | None) -> ir.Node:
    return comp.node if preprocess is None else preprocess(comp.node)


def _refuse_second_trip(name: str, levels: Levels) -> None:
    for op in levels.program.ops:
        if op.at_clients and levels.level[op.outputs[0]]:
            raise ValueError(
                f"`{name}` needs a computation that goes to the clients and back once, "
                f"found a `{op.operator}` at CLIENTS that uses the result of an "
                "aggregation.\nRun what comes after it as a computation of its own."
            )


def _check_constants(levels: Levels, folds: Any, bounds: list[list[str]]) -> None:
    for what, names in (
        ("the `zero` of an aggregation", [n for a in folds for n in a.zero]),
        ("the bound of a secure sum", [n for group in bounds for n in group]),
    ):
        if not levels.constants.issuperset(names):
            raise ValueError(
                f"`MapReduceForm` needs {what} to be a constant, found one that depends "
                "on the state.\nAdd what depends on the state after the aggregation."
            )


# --- Names --------------------------------------------------------------------------


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _values_of(aggregate: Any, levels: Levels) -> list[str]:
    """What is aggregated: what `accumulate` uses and is not a constant."""
    return [n for n in aggregate.accumulate.free() if n not in levels.constants]


def _sent_down(
    levels: Levels, wanted: Iterable[str], given: Iterable[str]
) -> list[str]:
    """The server's leaves that clients need to make `wanted`, constants left out."""
    at_clients, own = levels.program.at_clients, set(given)
    made = {n: op for op in levels.program.ops for n in op.outputs}
    found: dict[str, None] = {}
    todo, seen = list(wanted), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in at_clients and name in made:
            todo += made[name].uses()
        elif name not in at_clients and name not in own | levels.constants:
            found[name] = None
    return [n for n in levels.program.types if n in found]
