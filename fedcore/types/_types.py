"""The types of values and computations: interned, so equal types are one object."""

import abc
import collections
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import tensorflow as tf
from attrs.exceptions import FrozenInstanceError

from fedcore import _containers, structure
from fedcore.types import _relations, _text
from fedcore.types._placements import PlacementLiteral

_T = TypeVar("_T")
_interned: "weakref.WeakValueDictionary[tuple[Any, ...], Any]" = (
    weakref.WeakValueDictionary()
)
_intern_lock = threading.RLock()


# Types are not attrs classes: `tf.nest` would take them apart as it does attrs objects.
def _intern(cls: type[_T], key: tuple[Any, ...], **fields: Any) -> _T:
    """The one object of class `cls` with `fields`; `key` is hashable and says the same."""
    with _intern_lock:
        found = _interned.get((cls, key))
        if found is None:
            found = object.__new__(cls)
            for name, value in fields.items():
                object.__setattr__(found, name, value)
            _interned[(cls, key)] = found
        return found


class UnexpectedTypeError(TypeError):
    """A type of another kind than the one needed."""

    def __init__(self, expected: type["Type"], actual: "Type"):
        super().__init__(
            f"A {expected.__name__} is needed here, found type `{actual}` "
            f"({type(actual).__name__})."
        )
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expected, self.actual)


class TypedObject(abc.ABC):
    """Anything that has a type."""

    @property
    @abc.abstractmethod
    def type_signature(self) -> "Type":
        """The type of this object."""


class Type(abc.ABC):
    """The type of a value or a computation. Two equal types are the same object."""

    @abc.abstractmethod
    def children(self) -> Iterator["Type"]:
        """The types that this one is directly made of."""

    def compact_representation(self) -> str:
        """The type in one line, as `str` gives it."""
        return _text.compact(self)

    def formatted_representation(self) -> str:
        """The type with each element of a struct on a line of its own."""
        return _text.formatted(self)

    def is_abstract(self) -> bool:
        """Whether this is an `AbstractType`."""
        return isinstance(self, AbstractType)

    def is_federated(self) -> bool:
        """Whether this is a `FederatedType`."""
        return isinstance(self, FederatedType)

    def is_function(self) -> bool:
        """Whether this is a `FunctionType`."""
        return isinstance(self, FunctionType)

    def is_placement(self) -> bool:
        """Whether this is a `PlacementType`."""
        return isinstance(self, PlacementType)

    def is_sequence(self) -> bool:
        """Whether this is a `SequenceType`."""
        return isinstance(self, SequenceType)

    def is_struct(self) -> bool:
        """Whether this is a `StructType`."""
        return isinstance(self, StructType)

    def is_struct_with_python(self) -> bool:
        """Whether this is a `StructWithPythonType`."""
        return isinstance(self, StructWithPythonType)

    def is_tensor(self) -> bool:
        """Whether this is a `TensorType`."""
        return isinstance(self, TensorType)

    def check_abstract(self) -> None:
        """Raises `UnexpectedTypeError` unless this is an `AbstractType`."""
        self._check(AbstractType)

    def check_federated(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `FederatedType`."""
        self._check(FederatedType)

    def check_function(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `FunctionType`."""
        self._check(FunctionType)

    def check_placement(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `PlacementType`."""
        self._check(PlacementType)

    def check_sequence(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `SequenceType`."""
        self._check(SequenceType)

    def check_struct(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `StructType`."""
        self._check(StructType)

    def check_struct_with_python(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `StructWithPythonType`."""
        self._check(StructWithPythonType)

    def check_tensor(self) -> None:
        """Raises `UnexpectedTypeError` unless this is a `TensorType`."""
        self._check(TensorType)

    def is_assignable_from(self, source_type: "Type") -> bool:
        """Whether a value of `source_type` can be used where this type is wanted."""
        return isinstance(source_type, Type) and _relations.is_assignable(
            self, source_type
        )

    def is_equivalent_to(self, other: "Type") -> bool:
        """Whether each of the two types can be used for the other."""
        return isinstance(other, Type) and _relations.is_equivalent(self, other)

    def is_identical_to(self, other: "Type") -> bool:
        """Whether the two are the same, Python containers included."""
        return self is other

    def check_assignable_from(self, source_type: "Type") -> None:
        """Raises `TypeNotAssignableError` unless `source_type` is assignable to this."""
        _check_is_type(source_type, "check_assignable_from")
        if not self.is_assignable_from(source_type):
            raise _relations.TypeNotAssignableError(source_type, target_type=self)

    def check_equivalent_to(self, other: "Type") -> None:
        """Raises `TypesNotEquivalentError` unless the two types are equivalent."""
        _check_is_type(other, "check_equivalent_to")
        if not self.is_equivalent_to(other):
            raise _relations.TypesNotEquivalentError(self, other)

    def check_identical_to(self, other: "Type") -> None:
        """Raises `TypesNotIdenticalError` unless the two types are the same."""
        _check_is_type(other, "check_identical_to")
        if not self.is_identical_to(other):
            raise _relations.TypesNotIdenticalError(self, other)

    def _check(self, kind: type["Type"]) -> None:
        if not isinstance(self, kind):
            raise UnexpectedTypeError(kind, self)

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError()

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError()

    def __eq__(self, other: object) -> bool:
        # Never NotImplemented: `tf.DType` thinks itself equal to anything with a dtype.
        return self is other

    __hash__ = object.__hash__

    def __str__(self) -> str:
        return self.compact_representation()

    def __copy__(self) -> "Type":
        return self

    def __deepcopy__(self, memo: object) -> "Type":
        return self


class TensorType(Type):
    """The type of a tensor: `float32`, `int32[?,3]`."""

    dtype: tf.DType
    shape: tf.TensorShape

    def __new__(cls, dtype: Any, shape: Any = None) -> "TensorType":
        """Makes the type of tensors of `dtype` and `shape`.

        Args:
            dtype: A TensorFlow or NumPy dtype.
            shape: A `tf.TensorShape` or what makes one; a scalar if None. A dimension
                of None is unknown, `tf.TensorShape(None)` is a shape of unknown rank.

        Raises:
            TypeError: If `dtype` is no dtype.
        """
        dtype = _as_dtype(dtype)
        try:
            shape = tf.TensorShape([] if shape is None else shape)
        except (TypeError, ValueError) as failure:
            raise TypeError(
                f"`TensorType` needs a shape, found {shape!r}: {failure}"
            ) from None
        dims = None if shape.rank is None else tuple(shape.as_list())
        return _intern(cls, (dtype.as_datatype_enum, dims), dtype=dtype, shape=shape)

    def children(self) -> Iterator[Type]:
        return iter(())

    def __repr__(self) -> str:
        dtype = f"tf.{self.dtype.name}"
        if self.shape.rank is None:
            return f"TensorType({dtype}, shape=None)"
        dims = self.shape.as_list()
        return f"TensorType({dtype}, {dims})" if dims else f"TensorType({dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        dims = tf.TensorShape(None) if self.shape.rank is None else self.shape.as_list()
        return TensorType, (self.dtype, dims)


class SequenceType(Type):
    """The type of a sequence, such as a client's data set: `float32*`."""

    element: Type

    def __new__(cls, element: Any) -> "SequenceType":
        """Makes the type of sequences of `element` (anything `to_type` takes).

        Lists in the element become tuples, as they do in a `tf.data.Dataset`.

        Raises:
            TypeError: If the element holds a function, a sequence or a federated type.
        """
        element = _lists_to_tuples(_member(element, "SequenceType", "element"))
        _check_holds_none_of(
            element, (FunctionType, SequenceType, FederatedType), "SequenceType"
        )
        return _intern(cls, (element,), element=element)

    def children(self) -> Iterator[Type]:
        yield self.element

    def __repr__(self) -> str:
        return f"SequenceType({self.element!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return SequenceType, (self.element,)


class StructType(structure.Struct, Type):
    """The type of a structure: `<a=int32,bool>`. It is a `Struct` of types itself."""

    def __new__(cls, elements: Any, enable_wf_check: bool = True) -> "StructType":
        """Makes the type of structures with `elements`.

        Args:
            elements: An iterable of types or `(name, type)` pairs (anything that `to_type`
                takes is a type), an OrderedDict or a Struct.
            enable_wf_check: Whether to check that the names differ.

        Raises:
            TypeError: If an element is not a type, or `elements` is a plain dict.
            ValueError: If a name occurs twice.
        """
        return _new_struct(cls, elements, None, enable_wf_check)

    def __init__(self, *_: Any, **__: Any):
        """Does nothing: `__new__` gives the interned object."""

    @property
    def python_container(self) -> type[Any] | None:
        """The Python container of the values, None if none was given."""
        return None

    def children(self) -> Iterator[Type]:
        return iter(self._values)

    __setattr__ = Type.__setattr__
    __delattr__ = Type.__delattr__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __str__(self) -> str:
        return self.compact_representation()

    def __repr__(self) -> str:
        elements = ", ".join(
            repr(element) if name is None else f"({name!r}, {element!r})"
            for name, element in structure.iter_elements(self)
        )
        return f"StructType([{elements}])"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_struct, (structure.to_elements(self), self.python_container)


class StructWithPythonType(StructType):
    """A `StructType` that knows the Python container of its values."""

    def __new__(
        cls, elements: Any, container_type: type[Any]
    ) -> "StructWithPythonType":
        """Makes the type of structures that are held in a `container_type`.

        Args:
            elements: As for `StructType`.
            container_type: The class of the container, such as `list` or a namedtuple.
        """
        if not isinstance(container_type, type):
            raise TypeError(
                "`StructWithPythonType` needs a container class, found "
                f"{container_type!r}."
            )
        return _new_struct(cls, elements, container_type, True)

    @property
    def python_container(self) -> type[Any]:
        return self._container

    @classmethod
    def get_container_type(cls, value: "StructWithPythonType") -> type[Any]:
        """The Python container of the type `value`."""
        return value.python_container

    def __repr__(self) -> str:
        return f"{super().__repr__()} as {self.python_container.__name__}"


class FunctionType(Type):
    """The type of a function or a computation: `(int32 -> bool)`, `( -> bool)`."""

    parameter: Type | None
    result: Type

    def __new__(cls, parameter: Any, result: Any) -> "FunctionType":
        """Makes the type of functions from `parameter` (None: no argument) to `result`.

        Both may be anything that `to_type` takes.
        """
        parameter = (
            None
            if parameter is None
            else _member(parameter, "FunctionType", "parameter")
        )
        result = _member(result, "FunctionType", "result")
        return _intern(cls, (parameter, result), parameter=parameter, result=result)

    def children(self) -> Iterator[Type]:
        if self.parameter is not None:
            yield self.parameter
        yield self.result

    def __repr__(self) -> str:
        return f"FunctionType({self.parameter!r}, {self.result!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionType, (self.parameter, self.result)


class AbstractType(Type):
    """A type that is not known yet, as in the signature of an intrinsic: `T`."""

    label: str

    def __new__(cls, label: str) -> "AbstractType":
        """Makes the abstract type of name `label`."""
        if not isinstance(label, str):
            raise TypeError(
                f"`AbstractType` needs a label that is a str, found {label!r}."
            )
        return _intern(cls, (label,), label=label)

    def children(self) -> Iterator[Type]:
        return iter(())

    def __repr__(self) -> str:
        return f"AbstractType({self.label!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return AbstractType, (self.label,)


class PlacementType(Type):
    """The type of placements: `placement`."""

    def __new__(cls) -> "PlacementType":
        """Gives the one placement type."""
        return _intern(cls, ())

    def children(self) -> Iterator[Type]:
        return iter(())

    def __repr__(self) -> str:
        return "PlacementType()"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementType, ()


class FederatedType(Type):
    """The type of a placed value: `{int32}@CLIENTS`, all-equal `int32@SERVER`."""

    member: Type
    placement: PlacementLiteral
    all_equal: bool

    def __new__(
        cls, member: Any, placement: PlacementLiteral, all_equal: bool | None = None
    ) -> "FederatedType":
        """Makes the type of values of `member` at `placement`.

        Args:
            member: The type of one participant's value, anything `to_type` takes.
            placement: Where the value lives.
            all_equal: Whether all participants hold the same value; None takes the
                default of the placement (true at the server, false at the clients).

        Raises:
            TypeError: If the member holds a function or another federated type.
        """
        if not isinstance(placement, PlacementLiteral):
            raise TypeError(
                "`FederatedType` needs a placement, found "
                f"{placement!r}.\nUse fedcore.CLIENTS or fedcore.SERVER."
            )
        if all_equal is None:
            all_equal = placement.default_all_equal
        if not isinstance(all_equal, bool):
            raise TypeError(
                f"`FederatedType` needs `all_equal` True, False or None, found {all_equal!r}."
            )
        member = _member(member, "FederatedType", "member")
        _check_holds_none_of(member, (FunctionType, FederatedType), "FederatedType")
        key = (member, placement, all_equal)
        return _intern(
            cls, key, member=member, placement=placement, all_equal=all_equal
        )

    def children(self) -> Iterator[Type]:
        yield self.member

    def __repr__(self) -> str:
        return f"FederatedType({self.member!r}, {self.placement!r}, {self.all_equal})"

    def __reduce__(self) -> tuple[Any, ...]:
        return FederatedType, (self.member, self.placement, self.all_equal)


def _check_is_type(value: object, function: str) -> None:
    if not isinstance(value, Type):
        raise TypeError(
            f"`{function}` needs a type, found {value!r}.\nMake one with `to_type`."
        )


def _as_dtype(dtype: Any) -> tf.DType:
    from fedcore.types._convert import as_dtype

    found = as_dtype(dtype)
    if found is None:
        raise TypeError(
            f"`TensorType` needs a TensorFlow or NumPy dtype, found {dtype!r}.\n"
            "Use e.g. tf.float32 or np.float32."
        )
    return found


def _member(spec: Any, owner: str, argument: str) -> Type:
    """What the constructor of `owner` was given for `argument`, as a type."""
    from fedcore.types._convert import to_type

    member = to_type(spec)
    if member is None:
        raise TypeError(f"`{owner}` needs a type for `{argument}`, found None.")
    return member


def _new_struct(
    cls: type[Any], elements: Any, container: type[Any] | None, check_names: bool
) -> Any:
    pairs = tuple(
        (name, _member(spec, cls.__name__, name or f"element {position}"))
        for position, (name, spec) in enumerate(_struct_pairs(elements, cls.__name__))
    )
    names = [name for name, _ in pairs if name is not None]
    if check_names and len(set(names)) < len(names):
        raise ValueError(f"`{cls.__name__}` needs names that differ, found {names}.")
    fields: dict[str, Any] = {
        "_names": tuple(name for name, _ in pairs),
        "_values": tuple(element for _, element in pairs),
        "_index": {name: i for i, (name, _) in enumerate(pairs) if name is not None},
    }
    if container is not None:
        fields["_container"] = container
    return _intern(cls, (pairs, container), **fields)


def _struct_pairs(elements: Any, owner: str) -> list[tuple[str | None, Any]]:
    """`elements` as pairs; a pair of a str and something is a named element."""
    if isinstance(elements, structure.Struct):
        return structure.to_elements(elements)
    if isinstance(elements, collections.OrderedDict) or _containers.is_named_tuple(
        elements
    ):
        return _containers.container_elements(elements) or []
    if isinstance(elements, (Mapping, str, bytes)):
        raise TypeError(
            f"`{owner}` needs an ordered list of types or (name, type) pairs, found "
            f"`{type(elements).__name__}`."
        )
    try:
        items = list(elements)
    except TypeError:
        raise TypeError(
            f"`{owner}` needs a list of types or (name, type) pairs, found "
            f"{elements!r}."
        ) from None
    return [item if is_named_pair(item) else (None, item) for item in items]


def is_named_pair(item: Any) -> bool:
    """Whether `item` is a `(name, type)` or `(None, type)` pair."""
    return (
        type(item) in (tuple, list)
        and len(item) == 2
        and (item[0] is None or isinstance(item[0], str))
    )


def _restore_struct(elements: list[Any], container: type[Any] | None) -> StructType:
    """Un-pickles a struct type, one with repeated names as well."""
    cls = StructType if container is None else StructWithPythonType
    return _new_struct(cls, elements, container, False)


def _lists_to_tuples(element: Type) -> Type:
    if not isinstance(element, StructType):
        return element
    pairs = [(n, _lists_to_tuples(e)) for n, e in structure.iter_elements(element)]
    container = element.python_container
    if container is None:
        return StructType(pairs, enable_wf_check=False)
    return StructWithPythonType(pairs, tuple if container is list else container)


_NAMES_OF_KINDS = {
    "FunctionType": "functions",
    "SequenceType": "sequences",
    "FederatedType": "federated types",
}


def _check_holds_none_of(
    member: Type, kinds: tuple[type[Type], ...], owner: str
) -> None:
    """Raises if one of `kinds` stands in `member`, at any depth outside a function."""
    if isinstance(member, kinds):
        what = _NAMES_OF_KINDS[type(member).__name__]
        raise TypeError(f"`{owner}` needs a member without {what}, found `{member}`.")
    for child in member.children():
        _check_holds_none_of(child, kinds, owner)
