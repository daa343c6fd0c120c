"""Computations as Python objects: decorating, tracing once per type, and calling."""

from __future__ import annotations

import abc
import functools
import inspect
import threading
import types as python_types
from collections.abc import Callable
from typing import Any

import attrs

from fedcore import ir, structure
from fedcore.context import get_context_stack
from fedcore.types import (
    FunctionType,
    StructType,
    Type,
    TypedObject,
    TypeRelation,
    infer_unplaced_type,
    to_type,
    type_mismatch_error_message,
)


class ComputationReturnedNoneError(ValueError):
    """A traced function returned None; a computation always has a result."""

    def __init__(self, fn: Callable[..., Any]):
        name, source = describe(fn)
        where = f" ({source})" if source else ""
        super().__init__(
            f"A computation needs a result, found None returned by `{name}`{where}.\n"
            "Return a value; is a `return` missing?"
        )


class Computation(TypedObject):
    """A typed, pure function that a context gives a meaning to when it is called."""

    @property
    @abc.abstractmethod
    def type_signature(self) -> FunctionType:
        """The type of the function, for example `({float32}@CLIENTS -> float32@SERVER)`."""

    @abc.abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the computation in the current context."""


class ConcreteComputation(Computation):
    """A computation of one type: a tree of the IR with a name for people."""

    def __init__(self, node: ir.Node, name: str = "computation", source: str = ""):
        if not isinstance(node.type, FunctionType):
            raise TypeError(
                f"A computation needs a tree of functional type, found `{node.type}`."
            )
        self.node = node
        self._type_signature: FunctionType = node.type
        self.source = source
        self.__name__ = name

    @property
    def type_signature(self) -> FunctionType:
        return self._type_signature

    def to_building_block(self) -> ir.Node:
        """The computation's tree in the intermediate representation."""
        return self.node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arg = pack_args(self.type_signature.parameter, args, kwargs, self.__name__)
        return get_context_stack().current.invoke(self, arg)

    def __repr__(self) -> str:
        where = f", defined at {self.source}" if self.source else ""
        return f"<computation {self.__name__}: {self.type_signature}{where}>"


class PolymorphicComputation:
    """A function without declared types: traced once for each type of argument."""

    def __init__(self, fn: Callable[..., Any], trace: Callable[..., Computation]):
        functools.update_wrapper(self, fn, updated=())
        self._trace = trace
        self._traced: dict[Any, Computation] = {}
        self._lock = threading.RLock()

    def fn_for_argument_type(self, arg_type: Type | None) -> Computation:
        """The computation for an argument of `arg_type`.

        Args:
            arg_type: Anything `to_type` takes, or None for no argument.

        Returns:
            The `Computation` of that type, traced on first use.
        """
        arg_type = to_type(arg_type)
        with self._lock:
            if arg_type not in self._traced:
                self._traced[arg_type] = self._trace(arg_type)
            return self._traced[arg_type]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        packed, arg_type = _infer_args(args, kwargs)
        computation = self.fn_for_argument_type(arg_type)
        return get_context_stack().current.invoke(computation, packed)

    def __repr__(self) -> str:
        _, source = describe(self.__wrapped__)
        where = f", defined at {source}" if source else ""
        return (
            f"<polymorphic computation {self.__name__}: traced for {len(self._traced)} "
            f"types{where}>"
        )


@attrs.frozen
class Unpack:
    """Which elements of a parameter go to which arguments of the Python function."""

    positional: tuple[int, ...]
    keyword: tuple[tuple[str, int], ...]

    def call(self, fn: Callable[..., Any], elements: list[Any]) -> Any:
        args = [elements[i] for i in self.positional]
        return fn(*args, **{name: elements[i] for name, i in self.keyword})


Trace = Callable[[Callable[..., Any], Type | None, "Unpack | None", str], Computation]


class ComputationDecorator:
    """`tf_computation` and `federated_computation`: a decorator over one tracer.

    Used bare (`@tf_computation`), with types (`@tf_computation(tf.int32, tf.bool)`), or
    as a function (`tf_computation(fn, tf.int32)`). Several types become one parameter, a
    structure named after the function's own parameters. Without types the computation is
    traced once for each type of argument it is called with.
    """

    def __init__(self, name: str, trace: Trace, doc: str):
        self.__name__ = name
        self.__doc__ = doc
        self._trace = trace

    def __call__(self, *args: Any) -> Any:
        if not args:
            return lambda fn: self._wrap(fn, ())
        first, *rest = args
        if is_function(first):
            return self._wrap(first, tuple(rest))
        self._check_not_callable(first)
        types = tuple(map(to_type, args))
        return lambda fn: self._wrap(fn, types)

    def _wrap(self, fn: Callable[..., Any], specs: tuple[Any, ...]) -> Any:
        self._check_not_callable(fn)
        if not is_function(fn):
            raise TypeError(
                f"`{self.__name__}` needs a function to trace, found "
                f"`{type(fn).__name__}`: {fn!r:.80}."
            )
        if not specs and _takes_arguments(fn):
            trace = functools.partial(self._trace_at, fn, several=False)
            return PolymorphicComputation(fn, trace)
        return self._trace_at(fn, parameter_type(fn, specs), several=len(specs) > 1)

    def _check_not_callable(self, value: Any) -> None:
        """Refuses what can be called and yet is no function: a model, a computation."""
        if isinstance(value, Computation):
            raise TypeError(
                f"`{self.__name__}` needs a function to trace, found {value!r}.\n"
                "Call that in a function of your own, or use it as it is."
            )
        if callable(value) and not is_function(value) and not isinstance(value, type):
            raise TypeError(
                f"`{self.__name__}` needs a function to trace, found an object of "
                f"`{type(value).__name__}` that can be called: {value!r:.80}.\n"
                "Call it in a function, for example `lambda x: model(x)`."
            )

    def _trace_at(
        self, fn: Callable[..., Any], type_: Type | None, *, several: bool
    ) -> Computation:
        name, source = describe(fn)
        unpack = call_shape(fn, type_, several=several)
        if unpack is not None:
            type_ = _named_by(fn, type_)
        computation = self._trace(fn, type_, unpack, name)
        if isinstance(computation, ConcreteComputation):
            computation.source = computation.source or source
            computation.__doc__ = getattr(fn, "__doc__", None)
        return computation

    def __repr__(self) -> str:
        return f"<{self.__name__} decorator>"


def is_function(value: Any) -> bool:
    """Whether `value` is a function to trace, and not a type such as `np.float32`."""
    if isinstance(value, type | TypedObject | Type):
        return False
    if isinstance(value, functools.partial | PolymorphicComputation):
        return True
    if isinstance(
        value,
        python_types.FunctionType
        | python_types.MethodType
        | python_types.BuiltinFunctionType,
    ):
        return True
    # A tf.function object, which has no common public base class over TF versions.
    return hasattr(value, "python_function") and callable(value)


def describe(fn: Callable[..., Any]) -> tuple[str, str]:
    """The name of a function and where it is defined (`file:line`), for messages."""
    inner = inspect.unwrap(getattr(fn, "python_function", fn))
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__name__", type(fn).__name__)
    code = getattr(inner, "__code__", None)
    return name, f"{code.co_filename}:{code.co_firstlineno}" if code else ""


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(getattr(fn, "python_function", fn))
    except ValueError:  # builtins written in C may have none
        any_kind = inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)
        return inspect.Signature([any_kind])


def _takes_arguments(fn: Callable[..., Any]) -> bool:
    """Whether the function has a parameter without a default (or takes `*args`)."""
    return any(
        p.default is p.empty and p.kind is not p.VAR_KEYWORD
        for p in _signature(fn).parameters.values()
    )


def parameter_type(fn: Callable[..., Any], specs: tuple[Any, ...]) -> Type | None:
    """The parameter that declared types make: one type, or a structure of several."""
    if not specs:
        return None
    if len(specs) == 1:
        return to_type(specs[0])
    return StructType([to_type(spec) for spec in specs])


def _named_by(fn: Callable[..., Any], type_: StructType) -> StructType:
    """`type_` with the names of the parameters that its unnamed elements become."""
    names = [
        p.name
        for p in _signature(fn).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if structure.name_list(type_) or len(names) < len(type_):
        return type_
    return StructType(list(zip(names, type_)))


def call_shape(
    fn: Callable[..., Any], type_: Type | None, *, several: bool = False
) -> Unpack | None:
    """How a parameter of type `type_` is handed to `fn`; None: whole, as one argument.

    A structure is unpacked where the types were declared one by one (`several`) or where
    the function cannot be called with one argument. Its names are those of the
    function's parameters, or it has none.

    Raises:
        TypeError: If `fn` can be called neither way.
    """
    signature = _signature(fn)
    if type_ is None:
        if not _binds(signature, 0, []):
            raise _does_not_fit(fn, "is called without an argument")
        return None
    whole = _binds(signature, 1, [])
    if whole and not several:
        return None
    if isinstance(type_, StructType):
        unpack = _unpack(type_)
        keywords = [name for name, _ in unpack.keyword]
        if _binds(signature, len(unpack.positional), keywords):
            return unpack
    if whole:
        return None
    raise _does_not_fit(fn, f"cannot take an argument of type `{type_}`")


def _does_not_fit(fn: Callable[..., Any], how: str) -> TypeError:
    name, source = describe(fn)
    return TypeError(
        f"A function with the parameters `{_signature(fn)}` {how}: "
        f"`{name}`{f' ({source})' if source else ''}.\n"
        "Declare one type for each parameter of the function; the names of a structure "
        "need to be those of the parameters."
    )


def _unpack(type_: StructType) -> Unpack:
    names = structure.name_list_with_nones(type_)
    positional = tuple(i for i, name in enumerate(names) if name is None)
    keyword = tuple((name, i) for i, name in enumerate(names) if name is not None)
    return Unpack(positional, keyword)


def _binds(signature: inspect.Signature, count: int, keywords: list[str]) -> bool:
    try:
        signature.bind(*[None] * count, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


def pack_args(
    type_: Type | None, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> Any:
    """The one argument that a call's positional and keyword arguments make.

    Raises:
        TypeError: If there are too few, too many, or unknown arguments.
    """
    if type_ is None:
        if args or kwargs:
            raise TypeError(
                f"`{name}` takes no argument, found {len(args) + len(kwargs)}."
            )
        return None
    if not args and not kwargs:
        raise TypeError(f"`{name}` needs an argument of type `{type_}`, found none.")
    if len(args) == 1 and not kwargs:
        return args[0]
    if not isinstance(type_, StructType):
        raise TypeError(
            f"`{name}` needs one argument of type `{type_}`, found "
            f"{len(args) + len(kwargs)}."
        )
    return _pack_struct(type_, args, kwargs, name)


def _pack_struct(
    type_: StructType, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> structure.Struct:
    names = structure.name_list_with_nones(type_)
    if len(args) + len(kwargs) != len(names) or len(args) > len(names):
        raise TypeError(
            f"`{name}` needs {len(names)} arguments for `{type_}`, found "
            f"{len(args) + len(kwargs)}."
        )
    unknown = sorted(set(kwargs) - set(names[len(args) :]))
    if unknown:
        raise TypeError(
            f"`{name}` has no free parameter `{unknown[0]}` in `{type_}` after "
            f"{len(args)} positional arguments."
        )
    values = [*args, *(kwargs[n] for n in names[len(args) :])]
    return structure.Struct(list(zip(names, values)))


def _infer_args(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Type | None]:
    if not args and not kwargs:
        return None, None
    if len(args) == 1 and not kwargs:
        return args[0], _infer(args[0])
    elements = [*((None, a) for a in args), *kwargs.items()]
    type_ = StructType([(n, _infer(v)) if n else _infer(v) for n, v in elements])
    return structure.Struct(elements), type_


def _infer(value: Any) -> Type:
    if isinstance(value, TypedObject):
        return value.type_signature
    return infer_unplaced_type(value)


def check_returns_type(*args: Any) -> Any:
    """Decorates a function so that each value it returns is checked to be of a type.

    Used over a function that is traced, it states the type of the result:

        @fedcore.tf_computation(tf.int32)
        @fedcore.check_returns_type(tf.float32)
        def half(x):
            return tf.cast(x, tf.float32) / 2

    Args:
        *args: The type (anything `fedcore.to_type` takes); after the function itself
            where this is called and not used as a decorator.

    Returns:
        The function, checked; or a decorator.

    Raises:
        TypeError: When the function returns a value of another type. Names and Python
            containers count.
        ValueError: If there is not exactly one type.
    """
    if args and is_function(args[0]):
        return check_returns_type(*args[1:])(args[0])
    if len(args) != 1:
        raise ValueError(
            f"`check_returns_type` needs one type, that of the result, found {len(args)}."
        )
    wanted = to_type(args[0])

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def checked(*args: Any, **kwargs: Any) -> Any:
            result = fn(*args, **kwargs)
            if result is None:
                raise ComputationReturnedNoneError(fn)
            found = _infer(result)
            if not wanted.is_identical_to(found):
                raise TypeError(
                    f"`{describe(fn)[0]}` needs to return a value of the type declared "
                    "with `check_returns_type`, found another.\n"
                    + type_mismatch_error_message(
                        found, wanted, TypeRelation.IDENTICAL, second_is_expected=True
                    )
                )
            return result

        return checked

    return decorate
