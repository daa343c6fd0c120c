"""Counts of what should be made once, for tests and for `explain`."""

from __future__ import annotations

import threading


class Counter:
    """How often something was made; safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self) -> None:
        """Counts one."""
        with self._lock:
            self.count += 1
