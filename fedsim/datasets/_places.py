"""Where files are kept, and how long it takes."""

import hashlib
import os
import pathlib
import stat
import sys

from tqdm import auto as tqdm


def is_writable(directory: pathlib.Path) -> bool:
    """Whether files can, and may, be put into a directory."""
    # The mode counts for the superuser too: a read-only directory is meant so.
    mode = stat.S_IMODE(directory.stat().st_mode)
    return bool(mode & 0o222) and os.access(directory, os.W_OK)


def path_key(path: pathlib.Path) -> str:
    """A name for what is made of a file: another one when the file changes."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def progress_bar(
    total: int | None, name: str, start: int = 0, unit: str = "B"
) -> tqdm.tqdm:
    """A bar on a terminal and in a notebook, nothing elsewhere."""
    # None: on a terminal only. A notebook is none, but shows bars.
    disable = False if "ipykernel" in sys.modules else None
    return tqdm.tqdm(
        total=total,
        initial=start,
        desc=name,
        unit=unit,
        unit_scale=unit == "B",
        disable=disable,
    )
