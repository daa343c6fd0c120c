"""Seeds of unseeded draws: folded from what a draw belongs to, never from scheduling."""

from __future__ import annotations

import hashlib


def fold(*parts: int) -> int:
    """A 63-bit seed that depends on every part and on their order."""
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def as_int32_pair(seed: int) -> tuple[int, int]:
    """The seed as TensorFlow's stateless operations take it: int32[2], both >= 0."""
    return seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF
