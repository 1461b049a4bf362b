"""Connections to the database: lent one at a time, made when none is free, and all closed before a fork.

A pool and not one connection per thread: there are as many as ever worked at the same time, and threads may come and
go. Before a fork every one is closed, because SQLite keeps its file locks in the memory of the process: a child that
inherited an open one would believe in locks that it does not hold.

A read costs SQLite two system calls, to begin and to end its transaction, which is more than the look-up itself. So a
connection that reads twice while nobody commits keeps its read transaction open, and goes on in it as long as the
page's word COMMITS stays the same. Old ones are ended within seconds (`refresh`), else they would keep the write-ahead
log from being emptied.

Durability: WAL with synchronous=NORMAL. A committed transaction survives the end of the process at any moment; after a
power cut the last ones may be missing, but the database is whole.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from scalekit._cache.stores.disk_clock import ticks
from scalekit._cache.stores.disk_page import COMMITS, WANTED

__all__ = ["Closed", "Connections", "Lease", "begin", "code"]

_PATIENCE: Final = 2.0
_GAP: Final = 5_000_000
_KEEP: Final = 8  # connections that stay open while nobody uses them
_PRAGMAS: Final = (
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=0",  # the keeper's affair: no caller pays for one
    "PRAGMA cache_size=-16384",
    "PRAGMA cell_size_check=ON",
)


class Closed(sqlite3.OperationalError):
    """These connections are closed; there may be others by now."""


def code(error: BaseException) -> int:
    """SQLite's primary result code of an error; 0 if it has none."""
    found = getattr(error, "sqlite_errorcode", 0)
    return found & 0xFF if isinstance(found, int) else 0


def begin(cursor: sqlite3.Cursor, patience: float, words: Any) -> None:
    """Take the write lock, waiting at most `patience` seconds; raises what SQLite raises (SQLITE_BUSY: in vain)."""
    deadline = time.monotonic() + patience
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        words[WANTED] = ticks()
        time.sleep(0.0003)


class Lease:
    """A connection while it is lent, and the word COMMITS of its last read. `held`: a read transaction is open."""

    __slots__ = ("cursor", "execute", "held", "version")

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.cursor = cursor
        self.execute: Callable[..., sqlite3.Cursor] = cursor.execute
        self.version = -1
        self.held = False

    def renew(self, version: int) -> None:
        """Read what is committed now; keep on reading that if it is still the newest the second time."""
        if self.held:
            self.held = False
            self.execute("COMMIT")
        elif self.version == version:
            self.execute("BEGIN")
            self.held = True
        self.version = version

    def close(self) -> None:
        try:
            self.cursor.connection.close()
        except sqlite3.Error:
            pass


class Connections:
    """The pool of one database file, which must be there; `words` are those of the page."""

    def __init__(self, database: str, words: Any, writable: bool = True) -> None:
        self.words = words
        self.hold = writable
        self.free: list[Lease] = []
        self.paused = False
        self._uri = f"file:{quote(os.fsencode(database))}?mode={'rw' if writable else 'ro'}"
        self._lock = threading.Lock()
        self._open = 0
        self._shut = False

    def read(self, query: str, row: int) -> Any:
        """The row of this id that is committed now, or None; raises sqlite3.Error."""
        try:
            lease = self.free.pop()
        except IndexError:
            lease = self._take()
        version = self.words[COMMITS]
        try:
            if (not lease.held or lease.version != version) and self.hold:
                lease.renew(version)
            found = lease.execute(query, (row,)).fetchone()
        except BaseException:
            self.drop(lease)
            raise
        self.free.append(lease)
        if self.paused or len(self.free) > _KEEP:
            self._trim()
        return found

    @contextmanager
    def lent(self) -> Generator[sqlite3.Cursor]:
        """A cursor for the block; raises sqlite3.Error."""
        lease = self._take()
        try:
            if lease.held:
                lease.renew(-1)
            yield lease.cursor
        except BaseException:
            self.drop(lease)  # which rolls back
            raise
        self.free.append(lease)
        self._trim()

    @contextmanager
    def transaction(self, patience: float, polite: bool = True) -> Generator[sqlite3.Cursor]:
        """A write transaction, committed at the end of the block; raises sqlite3.Error. SQLite has no queue for its
        write lock, so the `polite` leave a gap for those whom a caller waits for."""
        with self.lent() as cursor:
            if polite and ticks() - self.words[WANTED] < _GAP:
                time.sleep(0.001)
            begin(cursor, patience, self.words)
            yield cursor
            cursor.execute("COMMIT")
            self.words[COMMITS] = int.from_bytes(
                os.urandom(8), "little"
            )  # one that it never had: clocks repeat themselves

    def drop(self, lease: Lease) -> None:
        """Close one: it is no longer needed, or not to be trusted after an error."""
        lease.close()
        with self._lock:
            self._open -= 1

    def refresh(self) -> None:
        """End read transactions of an older state."""
        for _ in range(len(self.free)):
            try:
                lease = self.free.pop(0)
            except IndexError:
                return
            try:
                if lease.held and lease.version != self.words[COMMITS]:
                    lease.renew(-1)
            except sqlite3.Error:
                self.drop(lease)
            else:
                self.free.append(lease)
        self._trim()

    def close(self) -> None:
        """Close all, now and as they come back; for good."""
        self._shut = self.paused = True
        self._trim()

    def pause(self, patience: float) -> bool:
        """Close all, and lend none until `resume`; False if some are still in use after `patience` seconds."""
        self.paused = True
        deadline = time.monotonic() + patience
        while True:
            self._trim()
            if self._open <= 0:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.0002)

    def resume(self) -> None:
        self.paused = self._shut

    def _trim(self) -> None:
        while len(self.free) > (0 if self.paused else _KEEP):
            try:
                lease = self.free.pop(0)
            except IndexError:
                return
            self.drop(lease)

    def _take(self) -> Lease:
        deadline = time.monotonic() + _PATIENCE
        while self.paused and not self._shut and time.monotonic() < deadline:
            time.sleep(0.0005)
        try:
            return self.free.pop()
        except IndexError:
            pass
        with self._lock:
            if self.paused:
                raise Closed("the store is closed, or being opened anew")
            self._open += 1
        connection = None
        try:
            connection = sqlite3.connect(
                self._uri, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False
            )
            cursor = connection.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(pragma)
        except BaseException:
            with self._lock:
                self._open -= 1
            if connection is not None:
                connection.close()
            raise
        return Lease(cursor)
