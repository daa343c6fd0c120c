"""Types as text, in one line or in many."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedcore.types._types import Type

_INDENT = "  "


def compact(type_spec: "Type") -> str:
    """The type in one line."""
    return _text(type_spec, None)


def formatted(type_spec: "Type") -> str:
    """The type with each element of a struct on a line of its own."""
    return _text(type_spec, "")


def _text(type_spec: Any, indent: str | None) -> str:
    """The text of a type; `indent` is what its further lines begin with, None: no lines."""
    if type_spec.is_struct():
        return _struct(type_spec, indent)
    if type_spec.is_tensor():
        return _tensor(type_spec)
    if type_spec.is_sequence():
        return f"{_text(type_spec.element, indent)}*"
    if type_spec.is_federated():
        member = _text(type_spec.member, indent)
        placed = member if type_spec.all_equal else f"{{{member}}}"
        return f"{placed}@{type_spec.placement}"
    if type_spec.is_function():
        parameter = type_spec.parameter
        left = "" if parameter is None else _text(parameter, indent)
        return f"({left} -> {_text(type_spec.result, indent)})"
    return "placement" if type_spec.is_placement() else type_spec.label


def _tensor(type_spec: Any) -> str:
    name, shape = type_spec.dtype.name, type_spec.shape
    if shape.rank is None:
        return f"{name!r}(shape=None)"
    if shape.rank == 0:
        return name
    return f"{name}[{','.join('?' if d is None else str(d) for d in shape.as_list())}]"


def _struct(type_spec: Any, indent: str | None) -> str:
    inner = None if indent is None else indent + _INDENT
    elements = [
        ("" if name is None else f"{name}=") + _text(element, inner)
        for name, element in zip(type_spec._names, type_spec._values, strict=True)
    ]
    if inner is None or not elements:
        return f"<{','.join(elements)}>"
    lines = f",\n{inner}".join(elements)
    return f"<\n{inner}{lines}\n{indent}>"
