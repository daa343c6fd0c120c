"""Reads the text of types back."""

import re
from typing import Any

import tensorflow as tf

from fedcore.types import _types
from fedcore.types._placements import CLIENTS, SERVER

_PLACEMENTS = {placement.name: placement for placement in (CLIENTS, SERVER)}
_NAME = re.compile(r"([^<>(){}\[\],=@*]*)=")
_WORD = re.compile(r"[^\s<>(){}\[\],=@*'\"-]+")
_UNKNOWN_RANK = re.compile(r"\(\s*shape\s*=\s*None\s*\)")
_DIMENSIONS = re.compile(r"\[\s*((?:\?|\d+)(?:\s*,\s*(?:\?|\d+))*)\s*\]")


def parse(text: str) -> "_types.Type":
    """Reads a type from its compact or formatted text.

    The text does not say the Python containers: structs come back as `StructType`.

    >>> from fedcore.types import parse
    >>> parse("(<{float32[?,784]*}@CLIENTS,w=float32@SERVER> -> float32@SERVER)").result
    FederatedType(TensorType(tf.float32), PlacementLiteral('server'), True)

    Args:
        text: A type in TFF's notation.

    Raises:
        ValueError: If `text` is not the text of a type; the message points at the place.
        TypeError: If the type cannot exist, such as a function at the clients.
    """
    reader = _Reader(text)
    type_spec = reader.type()
    reader.skip_space()
    if reader.position < len(text):
        raise reader.failure("the end of the text")
    return type_spec


class _Reader:
    """A position in a text; each method reads one part of the grammar."""

    def __init__(self, text: str):
        self.text = text
        self.position = 0

    def type(self) -> "_types.Type":
        """`primary`, then any number of `*` and `@PLACEMENT`."""
        read = self.primary()
        while True:
            if self.take("@"):
                read = _types.FederatedType(read, self.placement(), True)
            elif self.take("*"):
                read = _types.SequenceType(read)
            else:
                return read

    def primary(self) -> "_types.Type":
        """A struct, a function, `{T}@PLACEMENT`, a tensor or a label."""
        if self.take("<"):
            return self.struct()
        if self.take("("):
            return self.function()
        if self.take("{"):
            member = self.type()
            self.need("}")
            self.need("@")
            return _types.FederatedType(member, self.placement(), False)
        return self.tensor_or_label()

    def struct(self) -> "_types.StructType":
        elements: list[tuple[str | None, Any]] = []
        while not self.take(">"):
            if elements:
                self.need(",")
            self.skip_space()
            name = self.match(_NAME)
            elements.append((name and name[1].rstrip(), self.type()))
        return _types.StructType(elements)

    def function(self) -> "_types.FunctionType":
        parameter = None
        if not self.take("->"):
            parameter = self.type()
            self.need("->")
        result = self.type()
        self.need(")")
        return _types.FunctionType(parameter, result)

    def tensor_or_label(self) -> "_types.Type":
        self.skip_space()
        start = self.position
        quote = self.take("'")
        word = self.match(_WORD)
        if word is None:
            raise self.failure("a type")
        if quote:
            self.need("'")
        dtype = _dtype(word[0])
        if dtype is None and not quote:
            is_placement = word[0] == "placement"
            return (
                _types.PlacementType() if is_placement else _types.AbstractType(word[0])
            )
        if dtype is None:
            self.position = start
            raise self.failure("a dtype")
        self.skip_space()
        if self.match(_UNKNOWN_RANK):
            return _types.TensorType(dtype, tf.TensorShape(None))
        dimensions = self.match(_DIMENSIONS)
        if dimensions is None:
            return _types.TensorType(dtype)
        shape = [d.strip() for d in dimensions[1].split(",")]
        return _types.TensorType(dtype, [None if d == "?" else int(d) for d in shape])

    def placement(self) -> Any:
        self.skip_space()
        start = self.position
        word = self.match(_WORD)
        if word is None or word[0] not in _PLACEMENTS:
            self.position = start
            raise self.failure(f"one of {list(_PLACEMENTS)}")
        return _PLACEMENTS[word[0]]

    def skip_space(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1

    def take(self, token: str) -> bool:
        """Reads `token`, if it comes next."""
        self.skip_space()
        found = self.text.startswith(token, self.position)
        self.position += len(token) if found else 0
        return found

    def need(self, token: str) -> None:
        if not self.take(token):
            raise self.failure(f"`{token}`")

    def match(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        found = pattern.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return found

    def failure(self, wanted: str) -> ValueError:
        found = self.text[self.position : self.position + 20] or "the end"
        return ValueError(
            f"`parse` needs {wanted} at character {self.position}, found `{found}` in\n"
            f"{self.text}"
        )


def _dtype(word: str) -> "tf.DType | None":
    """The dtype whose name `word` is; aliases such as `float` are none."""
    try:
        dtype = tf.as_dtype(word)
    except TypeError:
        return None
    return dtype if dtype.name == word else None
