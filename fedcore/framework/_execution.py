"""Execution contexts and executor factories: TFF's names for our contexts.

Scripts write `ExecutionContext(executor_fn=local_executor_factory(...))`. Here a factory
makes a context of `fedsim.runtime`, and an `ExecutionContext` passes calls on to it.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from fedcore.computation import Computation
from fedcore.context import AsyncContext, SyncContext
from fedcore.framework._cardinalities import CardinalitiesType, infer_cardinalities
from fedcore.types import CLIENTS, Type


@attrs.frozen
class SizeInfo:
    """What went over the wire so far, by the number of clients of the calls.

    Keys are cardinalities, such as `(("CLIENTS", 10),)`; an entry of a history is
    `[number of elements, dtype]`, for each tensor and each client. The bits are summed
    for each key, in the order of the keys.
    """

    broadcast_history: dict[Any, list[Any]]
    aggregate_history: dict[Any, list[Any]]
    broadcast_bits: list[int]
    aggregate_bits: list[int]


class ExecutorFactory:
    """Makes the context in which an `ExecutionContext` runs.

    Args:
        make: Takes the number of clients of a call that does not say it.
        default_num_clients: That number, where nobody says another.
    """

    def __init__(self, make: Callable[[int], SyncContext], default_num_clients: int):
        self._make = make
        self._default_num_clients = default_num_clients
        self._made: dict[int, SyncContext] = {}
        self._lock = threading.Lock()

    def context(self, clients: int | None = None) -> SyncContext:
        """The context for calls of `clients` clients; one for each number, kept."""
        clients = self._default_num_clients if clients is None else clients
        with self._lock:
            if clients not in self._made:
                self._made[clients] = self._make(clients)
            return self._made[clients]


class SizingFactory(ExecutorFactory):
    """A factory whose contexts count what goes over the wire."""

    def get_size_info(self) -> SizeInfo:
        """What all calls so far have sent.

        Returns:
            Counts and bits, broadcasts and aggregations apart.
        """
        total = SizeInfo({}, {}, [], [])
        bits: list[dict[Any, int]] = [{}, {}]
        for context in list(self._made.values()):
            for way, found in enumerate(context.traffic()):
                history = (total.broadcast_history, total.aggregate_history)[way]
                for key, (entries, sent) in found.items():
                    history.setdefault(key, []).extend(entries)
                    bits[way][key] = bits[way].get(key, 0) + sent
        return attrs.evolve(
            total,
            broadcast_bits=list(bits[0].values()),
            aggregate_bits=list(bits[1].values()),
        )


def local_executor_factory(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
    server_tf_device: Any = None,
    client_tf_devices: Sequence[Any] = (),
    reference_resolving_clients: bool = True,
    support_sequence_ops: bool = False,
    leaf_executor_fn: Any = None,
    local_computation_factory: Any = None,
    *,
    seed: int | None = None,
) -> ExecutorFactory:
    """What makes contexts of this machine, for an `ExecutionContext`.

    Args:
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.
        max_fanout: Accepted for TFF's scripts; our runtime has no tree of executors.
        clients_per_thread: As `max_fanout`.
        server_tf_device: As `max_fanout`.
        client_tf_devices: As `max_fanout`.
        reference_resolving_clients: As `max_fanout`.
        support_sequence_ops: As `max_fanout`; sequences always work.
        leaf_executor_fn: As `max_fanout`.
        local_computation_factory: As `max_fanout`.
        seed: The root of unseeded draws; drawn afresh if None.

    Returns:
        A factory.
    """
    del max_fanout, clients_per_thread, server_tf_device, client_tf_devices
    del reference_resolving_clients, support_sequence_ops, leaf_executor_fn
    del local_computation_factory

    def make(clients: int) -> SyncContext:
        # The seam that looks up: the runtime stands floors above, and is loaded by name.
        runtime = importlib.import_module("fedsim.runtime")
        return runtime.local_context(default_num_clients=clients, seed=seed)

    return ExecutorFactory(make, default_num_clients)


def sizing_executor_factory(
    default_num_clients: int = 0,
    max_fanout: int = 100,
    clients_per_thread: int = 1,
    leaf_executor_fn: Any = None,
    *,
    seed: int | None = None,
) -> SizingFactory:
    """As `local_executor_factory`, and counts what server and clients send each other.

    Broadcasts are the server's values that the work at the clients uses; what a client
    has from the start (its arguments) is not sent. Aggregations are what the clients'
    values are aggregated from.

    Args:
        default_num_clients: The number of clients of a computation whose arguments do
            not say it.
        max_fanout: Accepted for TFF's scripts, without effect.
        clients_per_thread: As `max_fanout`.
        leaf_executor_fn: As `max_fanout`.
        seed: The root of unseeded draws; drawn afresh if None.

    Returns:
        A factory; `get_size_info()` gives the counts so far.
    """
    del max_fanout, clients_per_thread, leaf_executor_fn

    def make(clients: int) -> SyncContext:
        sizing = importlib.import_module("fedsim.sizing")
        return sizing.SizingContext(default_num_clients=clients, seed=seed)

    return SizingFactory(make, default_num_clients)


class ExecutionContext(SyncContext):
    """Runs computations in a context that `executor_fn` makes.

    Args:
        executor_fn: What `local_executor_factory` or `sizing_executor_factory` returned.
        compiler_fn: Applied once to each computation before it is run, if given; it
            takes and returns a computation.
        cardinality_inference_fn: Says the number of clients of a call from its argument
            and the argument's type.

    Raises:
        TypeError: If `executor_fn` is not such a factory.
    """

    def __init__(
        self,
        executor_fn: ExecutorFactory,
        compiler_fn: Callable[[Computation], Computation] | None = None,
        *,
        cardinality_inference_fn: Callable[
            [Any, Type | None], CardinalitiesType
        ] = infer_cardinalities,
    ):
        if not isinstance(executor_fn, ExecutorFactory):
            raise TypeError(
                "`ExecutionContext` needs `executor_fn` to be a factory, found "
                f"`{type(executor_fn).__name__}`.\n"
                "Pass `fedcore.framework.local_executor_factory()`."
            )
        self._factory = executor_fn
        self._compiler_fn = compiler_fn
        self._infer = cardinality_inference_fn
        self._compiled: weakref.WeakKeyDictionary[Any, Any] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def executor_factory(self) -> ExecutorFactory:
        """The factory that this context was made with."""
        return self._factory

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Runs `comp` on `arg`; see `fedcore.context.SyncContext.invoke`."""
        clients = None
        if self._infer is not infer_cardinalities:
            clients = self._infer(arg, comp.type_signature.parameter).get(CLIENTS)
        if self._compiler_fn is not None:
            if comp not in self._compiled:
                self._compiled[comp] = self._compiler_fn(comp)
            comp = self._compiled[comp]
        return self._factory.context(clients).invoke(comp, arg)


class AsyncExecutionContext(AsyncContext):
    """Runs computations of a sync context in threads, so that calls can be awaited.

    Args:
        context: The context that runs them; many calls may run in it at once.
    """

    def __init__(self, context: SyncContext):
        self._context = context

    async def invoke(self, comp: Any, arg: Any) -> Any:
        """Runs `comp` on `arg`; see `fedcore.context.SyncContext.invoke`.

        Args:
            comp: The computation.
            arg: Its argument.

        Returns:
            The result, when it is awaited.
        """
        return await asyncio.to_thread(self._context.invoke, comp, arg)
