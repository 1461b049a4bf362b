"""The page: a few words of memory that all processes of a folder share, so that asking "was anything invalidated?"
costs nanoseconds and no system call.

    [0] generation   another number after each invalidation; odd while one is being made (a seqlock)
    [1] floor        what was born at or before it is dead
    [2] turn         another number when there are new marks, or another database: whoever reads must catch up first
    [3] commits      another number after each commit: an older read transaction is out of date
    [4] wanted       when somebody last waited for the write lock: who writes in the background lets others go first

An invalidation makes the generation odd inside its transaction and even after the commit. A process that is killed in
between leaves it odd: everybody then asks the database, until the next invalidation or housekeeping makes it even.

The floor needs no room on the disk. So where the database takes no write any more (a full disk refuses deletes too),
an invalidation raises the floor: everything is computed anew, and nothing stale is served.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from scalekit._cache.stores.disk_lock import FileLock

__all__ = ["COMMITS", "FLOOR", "GENERATION", "TURN", "WANTED", "Page"]

GENERATION, FLOOR, TURN, COMMITS, WANTED = range(5)
_SIZE: Final = 4096


class Page:
    """The words, and the lock under which they change."""

    def __init__(self, path: str, writable: bool = True) -> None:
        """Open the page of a folder, or make it; raises OSError."""
        self.path = path
        self.writable = writable
        file = os.open(path, os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY, 0o600)
        self._lock = FileLock(file)
        try:
            with self._lock.held():
                if os.fstat(file).st_size != _SIZE:
                    if not writable:
                        raise OSError(f"{path} is not a page of scalekit")
                    os.ftruncate(file, 0)
                    os.write(file, bytes(_SIZE))  # not a hole: writing into one on a full disk kills the process
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(file, _SIZE, access=access)
        except BaseException:
            self._lock.close()
            raise
        self.words = memoryview(self._map)[:64].cast("Q")  # an index into it is one aligned load or store
        found = os.fstat(file)
        self.identity = (found.st_dev, found.st_ino)

    @property
    def fresh(self) -> bool:
        """Whether nobody has started it yet."""
        return bool(self.words[GENERATION] == 0)

    def begin(self) -> int:
        """Something is being ended; to be called inside its transaction."""
        with self._lock.held():
            odd = (self.words[GENERATION] + 1) | 1
            self.words[GENERATION] = odd
        return odd

    def end(self, odd: int, floor: int = 0, turn: int = 0) -> None:
        """It was ended. Another one may have begun meanwhile: then that one makes the generation even."""
        with self._lock.held():
            self._raise(FLOOR, floor)
            self._raise(TURN, turn)
            now = self.words[GENERATION]
            if now % 2 == 0:  # repaired, or lifted, by somebody who could not know of this one
                self.words[GENERATION] = now + 2
            elif now <= odd:
                self.words[GENERATION] = odd + 1

    def lift(self, floor: int, turn: int = 0) -> None:
        """End all that was born at `floor` or before, without a transaction."""
        with self._lock.held():
            self._raise(FLOOR, floor)
            self._raise(TURN, turn)
            self.words[GENERATION] = (self.words[GENERATION] | 1) + 1

    def start(self, generation: int, floor: int, turn: int) -> None:
        """Give a fresh page its first words, or an old one what the database knows better."""
        with self._lock.held():
            self._raise(GENERATION, generation)
            self._raise(FLOOR, floor)
            self._raise(TURN, turn)

    def repair(self) -> None:
        """Make the generation even; only for who holds the write lock of the database."""
        with self._lock.held():
            if self.words[GENERATION] % 2:
                self.words[GENERATION] += 1

    def _raise(self, word: int, value: int) -> None:
        if self.words[word] < value:
            self.words[word] = value

    def close(self) -> None:
        """Let go of the file; the words can still be used."""
        self._lock.close()

    def renew_lock(self) -> None:
        """In a forked child: the thread that held it is not here."""
        self._lock = FileLock(self._lock.file)
