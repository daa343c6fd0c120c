"""Taps: what chosen clients got and gave in one call, to look at and to run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np

from fedcore import ir
from fedcore.computation import ConcreteComputation, pack_args
from fedcore.context import get_context_stack
from fedcore.types import CLIENTS, FederatedType, StructType, Type
from fedsim._debug import DebugContext, PythonReference
from fedsim._described import described, leaves
from fedsim._traced import traced
from fedsim.runtime._context import number_of_clients
from fedsim.runtime._ordered import restart
from fedsim.runtime._reference import _arguments
from fedsim.runtime._seeds import fold
from fedsim.runtime._values import Placed, from_python, to_python

_LONG = 300
_WORK = ("federated_map", "federated_eval")
# Operators that take a client's value, first of their arguments, to the server.
_SENDS = (
    "federated_aggregate",
    "federated_max",
    "federated_mean",
    "federated_min",
    "federated_secure_modular_sum",
    "federated_secure_sum",
    "federated_secure_sum_bitwidth",
    "federated_sum",
)


@attrs.frozen(eq=False, repr=False)
class Step:
    """What one client did in one step.

    Attributes:
        client: The client's index in the call.
        operator: The federated operator, such as `federated_map`.
        function: The names of the traced functions that ran; empty for an aggregation.
        input: What the client had: for an aggregation, what it sends.
        input_type: The type of that; None for `federated_eval`.
        output: What it made; None for an aggregation, and if it failed.
        output_type: The type of that; None for an aggregation.
        error: What it raised, if it failed.
    """

    client: int
    operator: str
    function: str
    input: Any
    input_type: Type | None
    output: Any
    output_type: Type | None
    error: Exception | None = None
    _run: Callable[[], Any] | None = None

    def __repr__(self) -> str:
        name = f" of {self.function}" if self.function else ""
        lines = [f"client {self.client}: {self.operator}{name}"]
        sides = [("in", self.input, self.input_type)]
        sides += [("out", self.output, self.output_type)]
        for side, value, type_ in sides:
            if type_ is not None and not (side == "out" and self.error):
                lines += [f"  {side:<4}{line}" for line in described(value, type_)]
        if self.error is not None:
            text = f"{type(self.error).__name__}: {self.error}".split("\n")[0]
            lines.append(f"  {text[:_LONG]}{'...' if len(text) > _LONG else ''}")
        return "\n".join(lines)


class Recording:
    """A computation to be called once, with taps at clients; see `fedsim.record`."""

    def __init__(
        self,
        computation: ConcreteComputation,
        clients: frozenset[int] | None,
        seed: int,
        default_num_clients: int,
    ):
        self._computation = computation
        self._chosen = clients
        self._seed = seed
        self._default_num_clients = default_num_clients
        self._reference: _Tapped | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the computation on the reference runtime, and keeps what the taps see.

        Args:
            *args: The computation's arguments.
            **kwargs: The same, by name.

        Returns:
            The computation's result.
        """
        comp = self._computation
        type_, argument = comp.type_signature, None
        if type_.parameter is not None:
            packed = pack_args(type_.parameter, args, kwargs, comp.__name__)
            argument = from_python(packed, type_.parameter)
        clients = number_of_clients(
            argument, type_.parameter, self._default_num_clients
        )
        outside = sorted(c for c in self._chosen or () if not 0 <= c < clients)
        if outside:
            raise ValueError(
                f"`record` needs clients of the call, which has {clients}, found "
                f"{outside[0]}."
            )
        self._reference = _Tapped(
            comp.__name__, clients, fold(self._seed, 0), self._chosen
        )
        self._reference.eager = _debugging()
        result = self._reference.run(comp.node, argument)
        return to_python(result, type_.result)

    @property
    def steps(self) -> list[Step]:
        """What the taps saw, step by step, in each step client by client.

        Also of a call that failed: the last step is the one that did.
        """
        if self._reference is None:
            raise ValueError(
                "Nothing is recorded yet.\nCall the recording as you would call "
                f"`{self._computation.__name__}`."
            )
        return list(self._reference.steps)

    def client(self, index: int) -> list[Step]:
        """The steps of one client.

        Args:
            index: The client's index in the call.

        Returns:
            Its steps, in order.
        """
        found = [step for step in self.steps if step.client == index]
        if not found:
            raise ValueError(
                f"Client {index} was not recorded.\nName it in `clients`, or leave that out."
            )
        return found

    def replay(self, client: int) -> list[Step]:
        """Does the work of one client again, alone, each step on its recorded input.

        The same bits come out, since draws depend on the client and not on who else
        runs. Inside `with fedsim.debug():` its functions run as plain Python.

        Args:
            client: The client's index in the call.

        Returns:
            The steps anew.

        Raises:
            Exception: What the client's work raises.
        """
        steps = self.client(client)
        self._reference.eager = _debugging()
        return [
            step if step._run is None else attrs.evolve(step, output=step._run())
            for step in steps
        ]

    def not_finite(self) -> list[tuple[int, str, str]]:
        """Where recorded values hold NaN or infinity.

        Returns:
            `(client, operator, path)` for each such tensor, the path beginning with
            `input` or `output`; the first of a client is where it began.
        """
        return [
            (step.client, step.operator, path)
            for step in self.steps
            for side, value, type_ in (
                ("input", step.input, step.input_type),
                ("output", step.output, step.output_type),
            )
            if type_ is not None
            for path, leaf in leaves(value, type_, side)
            if isinstance(leaf, np.ndarray | np.generic)
            and leaf.dtype.kind in "fc"
            and not np.all(np.isfinite(leaf))
        ]

    def __repr__(self) -> str:
        if self._reference is None:
            return f"<recording of {self._computation.__name__}, not called yet>"
        # A map without a traced function only picks and packs values.
        told = [s for s in self.steps if s.function or s.operator not in _WORK]
        if not self.steps:
            return f"<recording of {self._computation.__name__}: no client took part>"
        return "\n".join(map(repr, told or self.steps))


def record(
    computation: ConcreteComputation,
    *,
    clients: Iterable[int] | None = None,
    seed: int = 0,
    default_num_clients: int = 0,
) -> Recording:
    """Taps chosen clients for one call of a computation.

        recording = fedsim.record(process.next, clients=[2])
        output = recording(state, data)
        print(recording)
        recording.replay(2)

    The call runs on the reference runtime, one client after another.

    Args:
        computation: A traced computation.
        clients: The indices of the clients to keep; all if None. What is kept stays in
            memory.
        seed: The root of unseeded draws of the call.
        default_num_clients: The number of clients, if the arguments do not say it.

    Returns:
        A `Recording`: call it as the computation; then it has `steps`, `client(i)`,
        `replay(i)` and `not_finite()`.

    Raises:
        TypeError: If `computation` is not a traced computation.
    """
    chosen = None if clients is None else _chosen(clients)
    comp = traced("record", computation)
    return Recording(comp, chosen, seed, default_num_clients)


def _chosen(clients: Any) -> frozenset[int]:
    if not isinstance(clients, Iterable) or isinstance(clients, str):
        raise TypeError(
            f"`record` needs a list of clients' indices at `clients`, found {clients!r}.\n"
            f"For one client pass `clients=[{clients!r}]`."
        )
    found = frozenset(clients)
    for client in found:
        if not isinstance(client, int | np.integer):
            raise TypeError(
                f"`record` needs indices at `clients`, found {client!r}.\nThe index is a "
                "client's place in the list that is passed to the call."
            )
    return found


def _debugging() -> bool:
    return isinstance(get_context_stack().current_or_none(), DebugContext)


class _Tapped(PythonReference):
    """The reference runtime with taps at the operators that clients take part in."""

    def __init__(self, name: str, clients: int, seed: int, chosen: frozenset | None):
        super().__init__(name, clients, seed)
        self._chosen = chosen
        self.steps: list[Step] = []

    def _evaluate(self, node: ir.Node, env: dict[str, Any]) -> Any:
        run = super()._evaluate(node, env)
        if isinstance(node, ir.Compiled | ir.Lambda):

            def named(argument: Any) -> Any:
                return run(argument)

            named.node = node
            return named
        if isinstance(node, ir.Intrinsic) and node.uri in (*_WORK, *_SENDS):
            return lambda argument: self._tapped(node, run, argument)
        return run

    def _tapped(self, node: ir.Intrinsic, run: Any, argument: Any) -> Any:
        uri, type_ = node.uri, node.type
        values = _arguments(argument, uri, type_)
        if uri in _SENDS:
            parameter = type_.parameter
            several = isinstance(parameter, StructType)
            self._keep_sent(uri, values[0], parameter[0] if several else parameter)
            return run(argument)
        result_type = type_.result
        if result_type.placement is not CLIENTS:
            return run(argument)
        fn, value, taken = values[0], None, None
        if uri == "federated_map":
            value, taken = values[1], type_.parameter[1].member
        name = function_names(getattr(fn, "node", None))

        def kept(client: int, output: Any, error: Exception | None) -> Step:
            given = None if value is None else value.at(client)
            restart(given)
            return Step(
                client,
                uri,
                name,
                None if taken is None else to_python(given, taken),
                taken,
                None if error else to_python(output, result_type.member),
                result_type.member,
                error,
                lambda: to_python(self._again(fn, given, client), result_type.member),
            )

        try:
            result = run(argument)
        except Exception as error:
            failed = getattr(error, "client", None)
            if failed is not None and self._is_chosen(failed):
                self.steps.append(kept(failed, None, error.__cause__))
            raise
        self.steps += [kept(c, result.at(c), None) for c in self._recorded()]
        return result

    def _keep_sent(self, uri: str, value: Placed, type_: FederatedType) -> None:
        for client in self._recorded():
            sent = to_python(value.at(client), type_.member)
            self.steps.append(Step(client, uri, "", sent, type_.member, None, None))

    def _again(self, fn: Callable[[Any], Any], value: Any, client: int) -> Any:
        before, self._place = self._place, client
        restart(value)
        try:
            return fn(value)
        finally:
            self._place = before

    def _is_chosen(self, client: int) -> bool:
        return self._chosen is None or client in self._chosen

    def _recorded(self) -> list[int]:
        return [c for c in range(self._clients) if self._is_chosen(c)]


def function_names(node: ir.Node | None) -> str:
    """The names of the traced functions in a tree, in order."""
    if node is None:
        return ""
    found = [n.python.name for n in ir.walk(node) if _is_traced(n)]
    return ", ".join(dict.fromkeys(found))


def _is_traced(node: ir.Node) -> bool:
    return isinstance(node, ir.Compiled) and node.python is not None
