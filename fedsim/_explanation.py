"""What `fedsim.explain` found, as a table for people and as plain data."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

_WIDTH = 80
_INDENT = 10
_MOST_LINES = 4


@attrs.frozen
class Size:
    """A number of bytes: at least `bytes`, or exactly, if `exact`."""

    bytes: int
    exact: bool = True

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, self.exact and other.exact)

    def times(self, number: int) -> Size:
        """So many times as much."""
        return Size(self.bytes * number, self.exact)

    @property
    def known(self) -> bool:
        """Whether anything is known of it."""
        return self.exact or self.bytes > 0

    def __str__(self) -> str:
        if not self.known:
            return "of unknown size"
        return ("" if self.exact else "at least ") + _bytes(self.bytes)


@attrs.frozen
class StepExplanation:
    """One step.

    Attributes:
        place: `server` or `clients`.
        operators: The federated operators in it, as the user wrote them.
        functions: The names of the traced functions in it, where they are known.
        lines: How many operations of the compiled plan it is.
        down: What each client gets from the server.
        up: What each client sends.
        road: How clients run it, and why not faster; empty at the server.
        why: Why XLA compiles it, and what becomes of smaller batches; empty if it does
            not.
        compiled: Whether XLA compiles it; None if that is not known before it runs.
        memory: What it is expected to take at one time, besides the data.
        programs: How many programs were made of it so far.
        programs_by_xla: How many of these XLA compiled.
    """

    place: str
    operators: tuple[str, ...]
    functions: tuple[str, ...]
    lines: int
    down: Size | None = None
    up: Size | None = None
    road: str = ""
    why: str = ""
    compiled: bool | None = None
    memory: Size | None = None
    programs: int = 0
    programs_by_xla: int = 0


@attrs.frozen(repr=False)
class Explanation:
    """What `fedsim.explain` found; its text is a table of the steps.

    Attributes:
        name: The computation's name.
        type_signature: Its type.
        source: Where it is defined.
        clients: The number of clients of the call, if known.
        data: What the clients' own arguments hold in all; None if they have none.
        steps: The steps, in order.
        traced: How many TensorFlow functions it holds; each was traced once.
        planned_before: Whether its plan had been made before; it is made once.
    """

    name: str
    type_signature: str
    source: str
    clients: int | None
    data: Size | None
    steps: tuple[StepExplanation, ...]
    traced: int
    planned_before: bool

    @property
    def memory(self) -> Size:
        """What the greatest step is expected to take, besides the data."""
        sizes = [step.memory for step in self.steps if step.memory is not None]
        return max(sizes, key=lambda size: size.bytes, default=Size(0))

    @property
    def down(self) -> Size | None:
        """What all clients get in all steps; None without a number of clients."""
        return self._in_all(step.down for step in self.steps)

    @property
    def up(self) -> Size | None:
        """What all clients send in all steps; None without a number of clients."""
        return self._in_all(step.up for step in self.steps)

    def _in_all(self, sizes: Iterable[Size | None]) -> Size | None:
        if self.clients is None:
            return None
        return sum((s for s in sizes if s is not None), Size(0)).times(self.clients)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data: dicts, lists, numbers, text and None.

        Returns:
            A dict that `json` can write.
        """
        totals = {
            name: None if size is None else attrs.asdict(size)
            for name in ("down", "up", "memory")
            for size in [getattr(self, name)]
        }
        listed = [
            {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}
            for found in map(attrs.asdict, self.steps)
        ]
        return {**attrs.asdict(self), "steps": listed, **totals}

    def __repr__(self) -> str:
        counted = "any number of clients"
        if self.clients is not None:
            counted = _counted(self.clients, "client")
        lines = [f"{self.name}: {_counted(len(self.steps), 'step')}, {counted}"]
        lines += _wrapped("type", self.type_signature)
        if self.source:
            lines += _wrapped("from", self.source)
        lines += _wrapped("made", self._made())
        if self.data is not None:
            lines += _wrapped("data", self._data(self.data))
        if self.clients and self.down is not None and self.up is not None:
            cost = f"{self.down} down, {self.up} up"
            if any(step.memory is not None for step in self.steps):
                cost += f", {self.memory} of memory at once"
            lines += _wrapped("cost", cost)
        for number, step in enumerate(self.steps, 1):
            lines += ["", *self._step_lines(number, step)]
        return "\n".join(lines)

    def _made(self) -> str:
        programs = sum(step.programs for step in self.steps)
        by_xla = sum(step.programs_by_xla for step in self.steps)
        text = f"{_counted(self.traced, 'function')} traced, once each; "
        if self.traced < 2:
            text = (
                "1 function traced, once; " if self.traced else "no function traced; "
            )
        text += "plan made before" if self.planned_before else "plan made now, once"
        text += f"; {_counted(programs, 'program')} made so far"
        return text + (f", {by_xla} by XLA" if by_xla else "")

    def _data(self, data: Size) -> str:
        if not self.clients or not data.known:
            return str(data)
        each = Size(round(data.bytes / self.clients), data.exact)
        return f"{each} a client on average, {data} in all"

    def _step_lines(self, number: int, step: StepExplanation) -> Iterator[str]:
        head = f"{number}. {step.place}: {', '.join(step.operators)}"
        yield textwrap.shorten(head, _WIDTH, placeholder=" ...")
        if step.functions:
            yield from _wrapped("runs", ", ".join(step.functions))
        for label, size in (("down", step.down), ("up", step.up)):
            if size is not None:
                yield from _wrapped(label, self._traffic(size))
        if step.road:
            yield from _wrapped("road", step.road)
        if step.why:
            yield from _wrapped("why", step.why)
        if step.memory is not None:
            yield from _wrapped("memory", f"{step.memory}, besides the clients' data")

    def _traffic(self, size: Size) -> str:
        if not size.known:
            return "of unknown size: pass arguments, or their types with all sizes"
        if not size.bytes:
            return "nothing"
        text = f"{size} a client"
        if self.clients is not None:
            text += f", {size.times(self.clients)} in all"
        return text


def _bytes(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    size, units = float(number), iter(("kB", "MB", "GB", "TB"))
    unit = ""
    while size >= 1000 and (unit := next(units)):
        size /= 1000
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# Types have few spaces: they are broken after commas that are not in a shape.
_PIECES = re.compile(r"(?<=[, ])(?![^\[\]]*\])")


def _wrapped(label: str, text: str) -> list[str]:
    width = _WIDTH - _INDENT
    lines, line = [], ""
    for piece in _PIECES.split(text):
        if line and len((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while len(line.rstrip()) > width:
            lines.append(line[:width])
            line = line[width:]
    lines.append(line.rstrip())
    if len(lines) > _MOST_LINES + 1:
        lines = [*lines[:_MOST_LINES], "..."]
    first, *rest = lines
    return [f"   {label:<7}{first}".rstrip(), *(" " * _INDENT + r for r in rest)]
