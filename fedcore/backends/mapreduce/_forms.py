"""The forms: a computation as the pieces that a map-reduce system runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedcore import structure
from fedcore.computation import ConcreteComputation
from fedcore.types import FunctionType, StructType, Type, TypedObject


def _check_piece(form: str, name: str, comp: Any) -> None:
    if not isinstance(comp, ConcreteComputation):
        raise TypeError(
            f"`{form}` needs `{name}` to be a traced computation, found "
            f"`{type(comp).__name__}`.\n"
            "Declare the types of its parameters in the decorator."
        )


def _check_takes(
    form: str, taker: str, takes: Type | None, giver: str, gives: Type
) -> None:
    if takes is None or not takes.is_assignable_from(gives):
        raise TypeError(
            f"`{form}` needs {taker} to take what {giver} gives, found\n"
            f"    {taker} takes `{takes}`\n    {giver} gives `{gives}`"
        )


def _element(form: str, name: str, type_: Type | None, index: int, count: int) -> Type:
    if not isinstance(type_, StructType) or len(type_) != count:
        raise TypeError(
            f"`{form}` needs {name} to be a structure of {count} elements, found "
            f"`{type_}`."
        )
    return type_[index]


def _summary(form: Any, names: tuple[str, ...], print_fn: Callable[..., Any]) -> None:
    width = max(map(len, names))
    for name in names:
        print_fn(f"{name.ljust(width)}: {getattr(form, name).type_signature}")


def _label(type_: FunctionType, index: int) -> str | None:
    return structure.name_list_with_nones(type_.parameter)[index]


class MapReduceForm(TypedObject):
    """One round as a map-reduce system runs it: prepare, work, aggregate, update.

    With state `S`, clients' data `D` and result `R`:

        prepare:    (S -> C)                        what is sent to the clients
        work:       (<D,C> -> <V,B,M,N>)            at each client
        zero:       ( -> A)                         V is aggregated:
        accumulate: (<A,V> -> A)
        merge:      (<A,A> -> A)
        report:     (A -> Q)
        secure_sum_bitwidth:        ( -> bits)      B, M and N are summed securely,
        secure_sum_max_input:       ( -> bounds)    with these bounds
        secure_modular_sum_modulus: ( -> moduli)
        update:     (<S,<Q,B,M,N>> -> <S,R>)        at the server

    Args:
        type_signature: `(<S@SERVER,{D}@CLIENTS> -> <S@SERVER,R@SERVER>)`.
        prepare: See above, as all others.
        work: See above.
        zero: See above.
        accumulate: See above.
        merge: See above.
        report: See above.
        secure_sum_bitwidth: See above.
        secure_sum_max_input: See above.
        secure_modular_sum_modulus: See above.
        update: See above.

    Raises:
        TypeError: If a piece is not a traced computation, or does not fit the others.
    """

    _PIECES = (
        "prepare",
        "work",
        "zero",
        "accumulate",
        "merge",
        "report",
        "secure_sum_bitwidth",
        "secure_sum_max_input",
        "secure_modular_sum_modulus",
        "update",
    )

    def __init__(
        self,
        type_signature: FunctionType,
        prepare: ConcreteComputation,
        work: ConcreteComputation,
        zero: ConcreteComputation,
        accumulate: ConcreteComputation,
        merge: ConcreteComputation,
        report: ConcreteComputation,
        secure_sum_bitwidth: ConcreteComputation,
        secure_sum_max_input: ConcreteComputation,
        secure_modular_sum_modulus: ConcreteComputation,
        update: ConcreteComputation,
    ):
        given = (
            prepare,
            work,
            zero,
            accumulate,
            merge,
            report,
            secure_sum_bitwidth,
            secure_sum_max_input,
            secure_modular_sum_modulus,
            update,
        )
        self._pieces = dict(zip(self._PIECES, given, strict=True))
        for name, comp in self._pieces.items():
            _check_piece("MapReduceForm", name, comp)
        self._type_signature = type_signature
        self._check()

    def _check(self) -> None:
        form = "MapReduceForm"
        types = {name: comp.type_signature for name, comp in self._pieces.items()}
        values = types["work"].result
        sent = [_element(form, "the result of `work`", values, i, 4) for i in range(4)]
        takes = types["work"].parameter
        _element(form, "the parameter of `work`", takes, 0, 2)
        accumulator = types["zero"].result
        pairs = [
            ("`work`", takes[1], "`prepare`", types["prepare"].result),
            ("`report`", types["report"].parameter, "`merge`", types["merge"].result),
        ]
        for name, second in (("accumulate", sent[0]), ("merge", accumulator)):
            takes = types[name].parameter
            _element(form, f"the parameter of `{name}`", takes, 0, 2)
            result = types[name].result
            pairs += [
                (f"`{name}`", takes[0], "`zero`", accumulator),
                (f"`{name}`", takes[0], f"`{name}`", result),
                (f"`{name}`", takes[1], "`work`", second),
            ]
        takes = types["update"].parameter
        _element(form, "the parameter of `update`", takes, 0, 2)
        totals = StructType([types["report"].result, *sent[1:]])
        state = _element(form, "the result of `update`", types["update"].result, 0, 2)
        pairs += [
            ("`update`", takes[1], "the aggregation", totals),
            ("`prepare`", types["prepare"].parameter, "`update`", state),
            ("`update`", takes[0], "`update`", state),
        ]
        for taker, takes, giver, gives in pairs:
            _check_takes(form, taker, takes, giver, gives)

    @property
    def type_signature(self) -> FunctionType:
        """The type of the whole."""
        return self._type_signature

    @property
    def prepare(self) -> ConcreteComputation:
        """`(S -> C)`."""
        return self._pieces["prepare"]

    @property
    def work(self) -> ConcreteComputation:
        """`(<D,C> -> <V,B,M,N>)`."""
        return self._pieces["work"]

    @property
    def zero(self) -> ConcreteComputation:
        """`( -> A)`."""
        return self._pieces["zero"]

    @property
    def accumulate(self) -> ConcreteComputation:
        """`(<A,V> -> A)`."""
        return self._pieces["accumulate"]

    @property
    def merge(self) -> ConcreteComputation:
        """`(<A,A> -> A)`."""
        return self._pieces["merge"]

    @property
    def report(self) -> ConcreteComputation:
        """`(A -> Q)`."""
        return self._pieces["report"]

    @property
    def secure_sum_bitwidth(self) -> ConcreteComputation:
        """`( -> bits)`, for each value that is summed below a power of two."""
        return self._pieces["secure_sum_bitwidth"]

    @property
    def secure_sum_max_input(self) -> ConcreteComputation:
        """`( -> bounds)`, for each value that is summed up to a bound."""
        return self._pieces["secure_sum_max_input"]

    @property
    def secure_modular_sum_modulus(self) -> ConcreteComputation:
        """`( -> moduli)`, for each value that is summed modulo a number."""
        return self._pieces["secure_modular_sum_modulus"]

    @property
    def update(self) -> ConcreteComputation:
        """`(<S,<Q,B,M,N>> -> <S,R>)`."""
        return self._pieces["update"]

    @property
    def server_state_label(self) -> str | None:
        """The name of the first parameter, if it has one."""
        return _label(self._type_signature, 0)

    @property
    def client_data_label(self) -> str | None:
        """The name of the second parameter, if it has one."""
        return _label(self._type_signature, 1)

    @property
    def securely_aggregates_tensors(self) -> bool:
        """Whether any value is summed securely."""
        values = self.work.type_signature.result
        return any(len(structure.flatten(part)) for part in values[1:])

    def summary(self, print_fn: Callable[..., Any] = print) -> None:
        """Prints the type of each piece.

        Args:
            print_fn: Takes a line.
        """
        _summary(self, self._PIECES, print_fn)


class BroadcastForm:
    """What clients make of their data and the server's, without an aggregation.

    Args:
        compute_server_context: `(S -> C)`, what is sent to the clients.
        client_processing: `(<C,D> -> R)`, at each client.
        server_data_label: The name of the server's data, if it has one.
        client_data_label: The name of the clients' data, if it has one.

    Raises:
        TypeError: If a piece is not a traced computation, or they do not fit.
    """

    def __init__(
        self,
        compute_server_context: ConcreteComputation,
        client_processing: ConcreteComputation,
        server_data_label: str | None = None,
        client_data_label: str | None = None,
    ):
        form = "BroadcastForm"
        _check_piece(form, "compute_server_context", compute_server_context)
        _check_piece(form, "client_processing", client_processing)
        takes = client_processing.type_signature.parameter
        context = _element(form, "the parameter of `client_processing`", takes, 0, 2)
        gives = compute_server_context.type_signature.result
        _check_takes(
            form, "`client_processing`", context, "`compute_server_context`", gives
        )
        self._compute_server_context = compute_server_context
        self._client_processing = client_processing
        self._server_data_label = server_data_label
        self._client_data_label = client_data_label

    @property
    def compute_server_context(self) -> ConcreteComputation:
        """`(S -> C)`."""
        return self._compute_server_context

    @property
    def client_processing(self) -> ConcreteComputation:
        """`(<C,D> -> R)`."""
        return self._client_processing

    @property
    def server_data_label(self) -> str | None:
        """The name of the server's data, if it has one."""
        return self._server_data_label

    @property
    def client_data_label(self) -> str | None:
        """The name of the clients' data, if it has one."""
        return self._client_data_label

    def summary(self, print_fn: Callable[..., Any] = print) -> None:
        """Prints the type of each piece.

        Args:
            print_fn: Takes a line.
        """
        _summary(self, ("compute_server_context", "client_processing"), print_fn)


class DistributeAggregateForm(TypedObject):
    """One round with federated pieces: distribute, work, aggregate.

    Args:
        type_signature: The type of the whole.
        server_prepare: At the server; gives what is broadcast and what stays there.
        server_to_client_broadcast: Broadcasts the former.
        client_work: At each client.
        client_to_server_aggregation: Aggregates what clients give, with what stayed.
        server_result: At the server, of what stayed and what was aggregated.

    Raises:
        TypeError: If a piece is not a traced computation, or does not fit the others.
    """

    _PIECES = (
        "server_prepare",
        "server_to_client_broadcast",
        "client_work",
        "client_to_server_aggregation",
        "server_result",
    )

    def __init__(
        self,
        type_signature: FunctionType,
        server_prepare: ConcreteComputation,
        server_to_client_broadcast: ConcreteComputation,
        client_work: ConcreteComputation,
        client_to_server_aggregation: ConcreteComputation,
        server_result: ConcreteComputation,
    ):
        form = "DistributeAggregateForm"
        given = (
            server_prepare,
            server_to_client_broadcast,
            client_work,
            client_to_server_aggregation,
            server_result,
        )
        self._pieces = dict(zip(self._PIECES, given, strict=True))
        for name, comp in self._pieces.items():
            _check_piece(form, name, comp)
        self._type_signature = type_signature
        types = {name: comp.type_signature for name, comp in self._pieces.items()}
        prepared = types["server_prepare"].result
        sent = _element(form, "the result of `server_prepare`", prepared, 0, 2)
        takes = types["server_to_client_broadcast"].parameter
        _check_takes(
            form, "`server_to_client_broadcast`", takes, "`server_prepare`", sent
        )
        for name, giver in (
            ("client_work", "server_to_client_broadcast"),
            ("client_to_server_aggregation", "client_work"),
            ("server_result", "client_to_server_aggregation"),
        ):
            takes = _element(
                form, f"the parameter of `{name}`", types[name].parameter, 1, 2
            )
            _check_takes(form, f"`{name}`", takes, f"`{giver}`", types[giver].result)

    @property
    def type_signature(self) -> FunctionType:
        """The type of the whole."""
        return self._type_signature

    @property
    def server_prepare(self) -> ConcreteComputation:
        """What the server does first."""
        return self._pieces["server_prepare"]

    @property
    def server_to_client_broadcast(self) -> ConcreteComputation:
        """What is sent to the clients."""
        return self._pieces["server_to_client_broadcast"]

    @property
    def client_work(self) -> ConcreteComputation:
        """What each client does."""
        return self._pieces["client_work"]

    @property
    def client_to_server_aggregation(self) -> ConcreteComputation:
        """How clients' values come to the server."""
        return self._pieces["client_to_server_aggregation"]

    @property
    def server_result(self) -> ConcreteComputation:
        """What the server does last."""
        return self._pieces["server_result"]

    def summary(self, print_fn: Callable[..., Any] = print) -> None:
        """Prints the type of each piece.

        Args:
            print_fn: Takes a line.
        """
        _summary(self, self._PIECES, print_fn)
