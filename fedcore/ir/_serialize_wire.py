"""The bytes of the serialised form: numbers, blobs and the frame around a message."""

from __future__ import annotations

import hashlib

MAGIC = b"FEDC"
VERSION = 1
TYPE, NODE, VALUE = b"T", b"N", b"V"
MAX_BYTES = 1 << 30

_DIGEST = 8
_HEAD = len(MAGIC) + 2 + _DIGEST
_MAX_UINT_BYTES = 9


class SerializationError(ValueError):
    """Bytes that are not a serialised type, node or value, or that may not be loaded."""


class Writer:
    """Appends to a growing message."""

    def __init__(self):
        self.data = bytearray()

    def uint(self, value: int) -> None:
        """An unsigned number of at most 63 bits, seven bits a byte, low bits first."""
        if not 0 <= value < 1 << 7 * _MAX_UINT_BYTES:
            raise SerializationError(
                f"Serialisation needs numbers from 0 to 2^63 - 1, found {value}."
            )
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def optional(self, value: int | None) -> None:
        """A number, shifted by one so that 0 says None."""
        self.uint(0 if value is None else value + 1)

    def blob(self, value: bytes) -> None:
        self.uint(len(value))
        self.data += value

    def text(self, value: str) -> None:
        self.blob(value.encode())


class Reader:
    """Takes a message apart; never reads, nor makes room for, what is not there."""

    def __init__(self, data: bytes):
        self._data = data
        self._position = 0

    @property
    def position(self) -> int:
        return self._position

    @property
    def remaining(self) -> int:
        return len(self._data) - self._position

    def raw(self, size: int) -> bytes:
        if size > self.remaining:
            raise SerializationError(
                f"The message needs {size} more bytes, found {self.remaining}."
            )
        start, self._position = self._position, self._position + size
        return self._data[start : self._position]

    def uint(self) -> int:
        value = 0
        for i in range(_MAX_UINT_BYTES):
            byte = self.raw(1)[0]
            value |= (byte & 0x7F) << 7 * i
            if byte <= 0x7F:
                if i and not byte:
                    break
                return value
        raise SerializationError(
            f"The message needs a number in its shortest form at byte {self._position}."
        )

    def optional(self) -> int | None:
        value = self.uint()
        return value - 1 if value else None

    def count(self, *, free: int = 0) -> int:
        """A number of items, each of which takes a byte or more (beyond `free`)."""
        value = self.uint()
        if value > max(self.remaining, free):
            raise SerializationError(
                f"The message claims {value} items, found {self.remaining} bytes."
            )
        return value

    def index(self, below: int, what: str) -> int:
        value = self.uint()
        if value >= below:
            raise SerializationError(
                f"A {what} needs a number below {below}, found {value}."
            )
        return value

    def blob(self) -> bytes:
        return self.raw(self.uint())

    def text(self) -> str:
        try:
            return self.blob().decode()
        except UnicodeDecodeError as e:
            raise SerializationError(f"A text needs UTF-8, found {e.object!r}.") from e

    def finish(self) -> None:
        if self.remaining:
            raise SerializationError(
                f"The message needs to end, found {self.remaining} more bytes."
            )


def seal(kind: bytes, body: bytes) -> bytes:
    """The frame: magic bytes, version, kind, digest, then the body."""
    if len(body) > MAX_BYTES - _HEAD:
        raise SerializationError(
            f"A message needs at most {MAX_BYTES} bytes, found {len(body) + _HEAD}."
        )
    head = MAGIC + bytes([VERSION]) + kind
    return head + _digest(head, body) + body


def unseal(kind: bytes, data: bytes) -> Reader:
    """A reader of the body, once the frame is found to be whole."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise SerializationError(f"A message needs bytes, found {type(data).__name__}.")
    data = bytes(data)
    if len(data) > MAX_BYTES:
        raise SerializationError(
            f"A message needs at most {MAX_BYTES} bytes, found {len(data)}."
        )
    if len(data) < _HEAD or not data.startswith(MAGIC):
        raise SerializationError(
            f"A message needs to start with {MAGIC!r} and a head of {_HEAD} bytes, "
            f"found {data[:_HEAD]!r}."
        )
    version, found = data[len(MAGIC)], data[len(MAGIC) + 1 : len(MAGIC) + 2]
    if version != VERSION:
        raise SerializationError(
            f"A message needs version {VERSION}, found {version}. "
            "Load it with the release that wrote it."
        )
    if found != kind:
        raise SerializationError(
            f"A message needs kind {kind!r}, found {found!r} "
            "(T is a type, N a node, V a value)."
        )
    head, body = data[: len(MAGIC) + 2], data[_HEAD:]
    if _digest(head, body) != data[len(head) : _HEAD]:
        raise SerializationError(
            "A message needs the digest of its body, found another: it was changed or "
            "cut on its way."
        )
    return Reader(body)


def _digest(head: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST, key=head).digest()
