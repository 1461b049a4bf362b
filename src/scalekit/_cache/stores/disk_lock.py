"""A lock among the threads and processes that open one file; the system lets go of it when its holder dies.

Locks are taken in one order: the one of opening, the database's write lock, the one of the page. Waiting is bounded,
because a process can be stopped while it holds one: then the others go on without.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: the write lock of the database must do
    fcntl = None

__all__ = ["FileLock"]

_PATIENCE: Final = 2.0


class FileLock:
    """Of an open file that can be written, by its descriptor, which is the lock's to close."""

    def __init__(self, file: int) -> None:
        self.file = file
        self._lock = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Generator[None]:
        """Alone in the block; after two seconds of waiting for another process, or once closed, perhaps not alone."""
        with self._lock:
            locked = self._depth == 0 and self._take()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if locked:
                    fcntl.lockf(self.file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, once nobody is in a block."""
        with self._lock:
            file, self.file = self.file, -1
            if file >= 0:
                os.close(file)

    def _take(self) -> bool:
        if fcntl is None or self.file < 0:
            return False
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.0002)
