"""Connections to the database: lent one at a time, made when none is free, and all closed before a fork.

A pool and not one connection per thread: there are as many as ever worked at the same time, and threads may come and
go. Before a fork every one is closed, because SQLite keeps its file locks in the memory of the process: a child that
inherited an open one would believe in locks that it does not hold.

Durability: WAL with synchronous=NORMAL. A committed transaction survives the end of the process at any moment; after a
power cut the last ones may be missing, but the database is whole.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from scalekit._cache.stores.base import NEVER

__all__ = ["Connections", "begin", "code", "create"]

_PATIENCE: Final = 2.0
_KEEP: Final = 8  # connections that stay open while nobody uses them
_PRAGMAS: Final = (
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=0",  # the writer's affair: no caller pays for one
    "PRAGMA cache_size=-4096",
    "PRAGMA cell_size_check=ON",
)
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS records(id INTEGER PRIMARY KEY, expires INTEGER NOT NULL, head BLOB NOT NULL, data BLOB);
CREATE INDEX IF NOT EXISTS expiring ON records(expires) WHERE expires < {NEVER};
CREATE TABLE IF NOT EXISTS touched(id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS marks(name TEXT PRIMARY KEY, time INTEGER NOT NULL, turn INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS turns ON marks(turn);
CREATE TABLE IF NOT EXISTS totals(one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT, offset INTEGER,
    highest INTEGER DEFAULT 0, floor INTEGER DEFAULT 0, swept INTEGER DEFAULT 0, hand INTEGER DEFAULT {-(2**63)},
    entries INTEGER DEFAULT 0, nbytes INTEGER DEFAULT 0, filed INTEGER DEFAULT 0);
INSERT OR IGNORE INTO totals(one) VALUES(1);
"""


def code(error: BaseException) -> int:
    """SQLite's primary result code of an error; 0 if it has none."""
    found = getattr(error, "sqlite_errorcode", 0)
    return found & 0xFF if isinstance(found, int) else 0


def begin(cursor: sqlite3.Cursor, patience: float) -> None:
    """Take the write lock, waiting at most `patience` seconds; raises what SQLite raises (SQLITE_BUSY: in vain)."""
    deadline, pause = time.monotonic() + patience, 0.0002
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)


def create(cursor: sqlite3.Cursor, patience: float) -> None:
    """Make the tables, inside a transaction that stays open."""
    deadline = time.monotonic() + patience
    while True:
        try:
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:  # another process is doing the same
            if code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() >= deadline:
                raise
            time.sleep(0.002)
    begin(cursor, patience)
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            cursor.execute(statement)


class Connections:
    """The pool of one database file. `database` is a path, or with `uri` a URI."""

    def __init__(self, database: str, uri: bool = False) -> None:
        self.database = database
        self._uri = uri
        self._lock = threading.Lock()
        self._free: list[sqlite3.Cursor] = []
        self._open = 0
        self._paused = False
        self.shut = False

    def take(self) -> sqlite3.Cursor:
        """A cursor on a connection that nobody else uses; raises sqlite3.Error."""
        if not self._paused:
            try:
                return self._free.pop()
            except IndexError:
                pass
        deadline = time.monotonic() + _PATIENCE
        while self._paused and not self.shut and time.monotonic() < deadline:
            time.sleep(0.0005)
        return self._connect()

    def give(self, cursor: sqlite3.Cursor) -> None:
        """Give it back in working order, with no transaction open."""
        if self._paused or len(self._free) >= _KEEP:
            self.drop(cursor)
        else:
            self._free.append(cursor)
            if self._paused:
                self._drain(0.0)

    def drop(self, cursor: sqlite3.Cursor) -> None:
        """Close it: it is no longer needed, or not to be trusted after an error."""
        try:
            cursor.connection.close()
        except sqlite3.Error:
            pass
        with self._lock:
            self._open -= 1

    def close(self) -> None:
        """Close all, now and as they come back; for good."""
        self.shut = self._paused = True
        self._drain(0.0)

    def pause(self, patience: float) -> bool:
        """Close all, and lend none until `resume`; False if some are still in use after `patience` seconds."""
        self._paused = True
        return self._drain(patience)

    def resume(self) -> None:
        self._paused = self.shut

    def _drain(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while True:
            while self._free:
                try:
                    cursor = self._free.pop()
                except IndexError:
                    break
                self.drop(cursor)
            if self._open <= 0:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.0002)

    @contextmanager
    def lent(self) -> Generator[sqlite3.Cursor]:
        """A cursor for the block; raises sqlite3.Error."""
        cursor = self.take()
        try:
            yield cursor
        except BaseException:
            self.drop(cursor)
            raise
        self.give(cursor)

    @contextmanager
    def transaction(self, patience: float) -> Generator[sqlite3.Cursor]:
        """A write transaction, committed at the end of the block; raises sqlite3.Error."""
        cursor = self.take()
        try:
            begin(cursor, patience)
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            self.drop(cursor)  # which rolls back
            raise
        self.give(cursor)

    def _connect(self) -> sqlite3.Cursor:
        with self._lock:
            if self._paused:
                raise sqlite3.OperationalError("the store is closed")
            self._open += 1
        try:
            connection = sqlite3.connect(
                self.database, timeout=0.0, isolation_level=None, check_same_thread=False, uri=self._uri
            )
        except BaseException:
            with self._lock:
                self._open -= 1
            raise
        cursor = connection.cursor()
        try:
            for pragma in _PRAGMAS:
                cursor.execute(pragma)
        except BaseException:
            self.drop(cursor)
            raise
        return cursor
