"""Types in the serialised form: a table in which each type names earlier ones."""

from __future__ import annotations

import collections
import math

import tensorflow as tf

from fedcore import structure
from fedcore.ir._serialize_wire import Reader, SerializationError, Writer
from fedcore.types import (
    CLIENTS,
    SERVER,
    AbstractType,
    FederatedType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
)

MAX_TYPE_DEPTH = 100
MAX_TYPE_SIZE = 1 << 20
_MAX_WALK = 1 << 24

_ABSTRACT, _TENSOR, _SEQUENCE, _STRUCT, _FUNCTION, _FEDERATED, _PLACEMENT = range(7)

# Position is the code. Any other class would have to be imported on load.
CONTAINERS = (
    None,
    collections.OrderedDict,
    list,
    tuple,
    dict,
    tf.RaggedTensor,
    tf.SparseTensor,
)
_FIELDS = {
    tf.RaggedTensor: ["flat_values", "nested_row_splits"],
    tf.SparseTensor: ["indices", "values", "dense_shape"],
}
PLACEMENTS = (CLIENTS, SERVER)
_MAX_ELEMENTS = 1 << 62
_MAX_RANK = 254


def container_code(container: type | None, names: list[str | None]) -> int:
    """The code of a well-known container that can hold elements of these names."""
    if container not in CONTAINERS or not _can_hold(container, names):
        return 0
    return CONTAINERS.index(container)


def read_container(reader: Reader) -> type | None:
    return CONTAINERS[reader.index(len(CONTAINERS), "container")]


def check_container(container: type | None, names: list[str | None]) -> None:
    if not _can_hold(container, names):
        raise SerializationError(
            f"A `{container.__name__}` needs other names than {names}."
        )


def _can_hold(container: type | None, names: list[str | None]) -> bool:
    if container in (list, tuple):
        return not any(name is not None for name in names)
    if container in (dict, collections.OrderedDict):
        return None not in names
    return container is None or names == _FIELDS[container]


class TypeWriter:
    """Collects the types of one message; equal types are written once."""

    def __init__(self):
        self._indices: dict[Type, int] = {}
        self._entries = bytearray()

    def index(self, type_: Type, depth: int = 1) -> int:
        if depth > MAX_TYPE_DEPTH:
            raise SerializationError(
                f"Serialisation needs types at most {MAX_TYPE_DEPTH} deep, found a "
                "deeper one."
            )
        found = self._indices.get(type_)
        if found is None:
            entry = self._entry(type_, depth)
            found = self._indices[type_] = len(self._indices)
            self._entries += entry
        return found

    def write(self, writer: Writer) -> None:
        writer.uint(len(self._indices))
        writer.data += self._entries

    def _entry(self, type_: Type, depth: int) -> bytes:
        out = Writer()
        match type_:
            case AbstractType():
                out.uint(_ABSTRACT)
                out.text(type_.label)
            case TensorType():
                out.uint(_TENSOR)
                out.uint(type_.dtype.as_datatype_enum)
                out.optional(type_.shape.rank)
                for size in type_.shape.as_list() if type_.shape.rank else ():
                    out.optional(size)
            case SequenceType():
                out.uint(_SEQUENCE)
                out.uint(self.index(type_.element, depth + 1))
            case StructType():
                out.uint(_STRUCT)
                names = structure.name_list_with_nones(type_)
                out.uint(container_code(type_.python_container, names))
                out.uint(len(type_))
                for name, element in structure.iter_elements(type_):
                    write_name(out, name)
                    out.uint(self.index(element, depth + 1))
            case FunctionType():
                out.uint(_FUNCTION)
                parameter = type_.parameter
                out.optional(
                    None if parameter is None else self.index(parameter, depth + 1)
                )
                out.uint(self.index(type_.result, depth + 1))
            case FederatedType():
                out.uint(_FEDERATED)
                out.uint(self.index(type_.member, depth + 1))
                out.uint(PLACEMENTS.index(type_.placement))
                out.uint(type_.all_equal)
            case PlacementType():
                out.uint(_PLACEMENT)
            case _:
                raise TypeError(f"Serialisation needs a type, found `{type_!r}`.")
        return bytes(out.data)


def write_name(out: Writer, name: str | None) -> None:
    """The name of an element; 0 where there is none."""
    encoded = None if name is None else name.encode()
    out.optional(None if encoded is None else len(encoded))
    out.data += encoded or b""


def read_name(reader: Reader) -> str | None:
    size = reader.optional()
    if size is None:
        return None
    try:
        return reader.raw(size).decode()
    except UnicodeDecodeError as e:
        raise SerializationError(f"A name needs UTF-8, found {e.object!r}.") from e


def read_types(reader: Reader) -> list[Type]:
    """The table of types; bounded in depth and in the size each would print at."""
    types: list[Type] = []
    extent = Extent()
    for _ in range(reader.count()):
        start = reader.position
        try:
            type_ = _read_type(reader, types, extent)
        except SerializationError:
            raise
        except (TypeError, ValueError, OverflowError) as e:
            raise SerializationError(f"Entry {len(types)} is not a type: {e}") from e
        extent.add(type_, reader.position - start)
        types.append(type_)
    return types


class Extent:
    """Depth of types and their size if each part were written where it is used."""

    def __init__(self):
        self._known: dict[Type, tuple[int, int]] = {}
        self._walked = 0

    def add(self, type_: Type, own_size: int) -> None:
        known = [self.measure(part) for part in type_.children()]
        depth = 1 + max((d for d, _ in known), default=0)
        size = own_size + sum(s for _, s in known)
        if depth > MAX_TYPE_DEPTH or size > MAX_TYPE_SIZE:
            raise SerializationError(
                f"A type needs at most {MAX_TYPE_DEPTH} levels and {MAX_TYPE_SIZE} "
                f"bytes with each part in its place, found {depth} and {size}."
            )
        self._known[type_] = depth, size

    def walk(self, type_: Type) -> None:
        """Counts what one walk over all parts of a type costs."""
        self._walked += self.measure(type_)[1]
        if self._walked > _MAX_WALK:
            raise SerializationError(
                f"A message needs at most {_MAX_WALK} bytes of types with each part in "
                f"its place, found {self._walked}."
            )

    def measure(self, type_: Type) -> tuple[int, int]:
        """Depth and size of a type made of types that are known."""
        if type_ not in self._known:
            self.add(type_, 2 + 2 * len(list(type_.children())))
        return self._known[type_]


def _read_type(reader: Reader, types: list[Type], extent: Extent) -> Type:
    def earlier() -> Type:
        return types[reader.index(len(types), "type")]

    tag = reader.uint()
    if tag == _ABSTRACT:
        return AbstractType(reader.text())
    if tag == _TENSOR:
        return _read_tensor(reader)
    if tag == _SEQUENCE:
        element = earlier()
        extent.walk(element)  # as the constructor does
        return SequenceType(element)
    if tag == _STRUCT:
        container = read_container(reader)
        elements = [(read_name(reader), earlier()) for _ in range(reader.count())]
        check_container(container, [name for name, _ in elements])
        if container is None:
            return StructType(elements)
        return StructWithPythonType(elements, container)
    if tag == _FUNCTION:
        parameter = reader.optional()
        if parameter is None:
            return FunctionType(None, earlier())
        if parameter >= len(types):
            raise SerializationError(
                f"A parameter type needs a number below {len(types)}, found "
                f"{parameter}."
            )
        return FunctionType(types[parameter], earlier())
    if tag == _FEDERATED:
        member = earlier()
        extent.walk(member)
        placement = PLACEMENTS[reader.index(len(PLACEMENTS), "placement")]
        return FederatedType(member, placement, bool(reader.index(2, "flag")))
    if tag == _PLACEMENT:
        return PlacementType()
    raise SerializationError(f"A type needs a tag from 0 to 6, found {tag}.")


def _read_tensor(reader: Reader) -> TensorType:
    dtype = tf.dtypes.as_dtype(reader.uint())
    if dtype.as_datatype_enum > 100:
        raise SerializationError(f"A tensor type needs a plain dtype, found {dtype}.")
    rank = reader.optional()
    if rank is None:
        return TensorType(dtype, tf.TensorShape(None))
    if rank > _MAX_RANK:
        raise SerializationError(
            f"A tensor type needs a rank of at most {_MAX_RANK}, found {rank}."
        )
    sizes = [reader.optional() for _ in range(rank)]
    if math.prod(max(size or 1, 1) for size in sizes) > _MAX_ELEMENTS:
        raise SerializationError(
            f"A tensor type needs fewer than 2^62 elements, found shape {sizes}."
        )
    return TensorType(dtype, sizes)
