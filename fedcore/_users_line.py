"""The line of the user's own code that an error went through, for messages."""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import traceback
from collections.abc import Iterator

import keras
import tensorflow as tf

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = tuple(
    os.path.join(_ROOT, name) + os.sep for name in ("fedcore", "fedlearn", "fedsim")
)
_OTHERS = tuple(
    os.path.dirname(path) + os.sep
    for path in (tf.__file__, keras.__file__, functools.__file__)
)


def users_line(error: BaseException | None) -> str:
    """The innermost line of the user's own code that an error went through, or nothing."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    for frame in reversed(frames):
        if _is_the_users(frame.filename):
            code = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n    {code}'
    return ""


def _is_the_users(filename: str) -> bool:
    if filename.startswith("<"):  # generated, but for the cells of a notebook
        return filename.startswith("<ipython-input")
    if "__autograph_generated_file" in filename:
        return False
    return not filename.startswith((*_OURS, *_OTHERS))


@contextlib.contextmanager
def users_line_told() -> Iterator[None]:
    """Adds the user's line to the message of an error that is raised in these packages."""
    try:
        yield
    except (TypeError, ValueError) as error:
        innermost = traceback.extract_tb(error.__traceback__)[-1].filename
        message = error.args[0] if len(error.args) == 1 else None
        line = users_line(error)
        if innermost.startswith(_OURS) and isinstance(message, str) and line:
            if '  File "' not in message:
                error.args = (f"{message}\n{line}",)
        raise
