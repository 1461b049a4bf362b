"""Opening the folder of a disk store, for the first time, once more, or after something broke.

All processes that open it do so one after the other. What lies in it belongs to one version
of the layout, so another version of scalekit finds a folder of its own:

    <path>/v1/page                  see disk_page.py
    <path>/v1/lock                  held while opening
    <path>/v1/records.db            and SQLite's -wal and -shm
    <path>/v1/values/               large values
    <path>/v1/records.db.corrupt-*  databases that were set aside

Records lie in the order in which they were written: a transaction fills pages from end to end, where records that lay
in the order of their ids, which are hashes, would dirty a page each. (Measured with 140,000 records of 600 bytes: a
quarter of the time, a sixth of the bytes written; a look-up, which goes through the index of the ids, takes 0.2 µs
more.)
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

from scalekit._cache.stores.base import NEVER
from scalekit._cache.stores.disk_clock import Clock, boot, choose, ticks
from scalekit._cache.stores.disk_connections import Connections, begin, code
from scalekit._cache.stores.disk_files import Files
from scalekit._cache.stores.disk_lock import FileLock
from scalekit._cache.stores.disk_page import FLOOR, Page

__all__ = ["Folder", "is_broken"]

VERSION: Final = "v1"
_PATIENCE: Final = 2.0
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS records(place INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, expires INTEGER NOT NULL,
    head BLOB NOT NULL, data BLOB);
CREATE INDEX IF NOT EXISTS expiring ON records(expires) WHERE expires < {NEVER};
CREATE TABLE IF NOT EXISTS touched(place INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS marks(name BLOB PRIMARY KEY, time INTEGER NOT NULL, turn INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS turns ON marks(turn);
CREATE TABLE IF NOT EXISTS totals(one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT, offset INTEGER,
    highest INTEGER DEFAULT 0, floor INTEGER DEFAULT 0, swept INTEGER DEFAULT 0,
    hand INTEGER DEFAULT 0, lap INTEGER DEFAULT 0,
    entries INTEGER DEFAULT 0, nbytes INTEGER DEFAULT 0, filed INTEGER DEFAULT 0);
INSERT OR IGNORE INTO totals(one) VALUES(1);
"""


def is_broken(error: BaseException) -> bool:
    """Whether an error says that the database is none any more: its bytes changed, or its tables are gone."""
    return code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (
        code(error) == sqlite3.SQLITE_ERROR and "no such" in str(error)
    )


class Folder:
    """An open folder. `writable` is False if it can only be read; `aside` names a corrupt database that was found."""

    def __init__(self, path: str, clock: Clock) -> None:
        """Open it, or make it; raises OSError or sqlite3.Error if it can be neither written nor read."""
        self.path = os.path.join(path, VERSION)
        self.database = os.path.join(self.path, "records.db")
        self.files = Files(os.path.join(self.path, "values"))
        self.aside = ""
        self.writable = True
        try:
            self._open(clock)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and code(error) not in (
                sqlite3.SQLITE_READONLY,
                sqlite3.SQLITE_CANTOPEN,
            ):
                raise
            try:
                self._open_to_read(clock)
            except (OSError, sqlite3.Error, TypeError, ValueError):
                raise error from None

    def _open(self, clock: Clock) -> None:
        for path in (os.path.dirname(self.path), self.path, self.files.folder):
            os.makedirs(path, 0o700, exist_ok=True)
        self.page = Page(os.path.join(self.path, "page"))
        try:
            with self._alone():
                try:
                    self._prepare(clock)
                except (sqlite3.DatabaseError, TypeError, ValueError) as error:
                    self.connections.close()
                    if isinstance(error, sqlite3.Error) and not is_broken(error):
                        raise
                    self._move_aside(clock)
                    self._prepare(clock)
        except BaseException:
            self.page.close()
            raise
        self.words = self.page.words
        self.identity = _identity(self.database)

    def _prepare(self, clock: Clock) -> None:
        with suppress(FileExistsError):
            os.close(os.open(self.database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self.connections = Connections(self.database, self.page.words)
        with self.connections.lent() as cursor:
            _create(cursor, self.page.words)
            name, offset, highest, floor = _totals(cursor)
            stored, this = (None if name is None else (name, offset)), boot()
            clock.offset = choose(stored, this, max(highest, self.page.words[FLOOR]), ticks(), time.time_ns())
            if stored != (this, clock.offset):
                cursor.execute("UPDATE totals SET boot=?, offset=?", (this, clock.offset))
            turn = cursor.execute("SELECT max(turn) FROM marks").fetchone()[0] or 0
            if self.page.fresh:  # what the one before knew is lost: nothing that is here can be trusted
                now = clock.now()
                self.page.start(time.time_ns() // 1000 * 2, now, max(turn, now))
            else:
                self.page.start(0, floor, turn)
            self.page.repair()
            cursor.execute("COMMIT")

    def _open_to_read(self, clock: Clock) -> None:
        self.writable = False
        self.page = Page(os.path.join(self.path, "page"), writable=False)
        self.words = self.page.words
        self.connections = Connections(self.database, self.page.words, writable=False)
        try:
            with self.connections.lent() as cursor:
                name, offset, highest, _ = _totals(cursor)
        except BaseException:
            self.close()
            raise
        clock.offset = choose(None if name is None else (name, offset), boot(), highest, ticks(), time.time_ns())
        self.identity = _identity(self.database)

    def current(self) -> bool:
        """Whether this is still what lies at the path, and was not deleted, replaced or set aside."""
        try:
            return (_identity(self.database), _identity(self.page.path)) == (self.identity, self.page.identity)
        except OSError:
            return False

    def set_aside(self, clock: Clock) -> None:
        """Move a corrupt database out of the way, unless another process has done so; ends every record."""
        self.connections.close()
        with self._alone():
            if self.current():
                self._move_aside(clock)

    def _move_aside(self, clock: Clock) -> None:
        aside = f"{self.database}.corrupt-{time.time_ns() // 1_000_000}"
        for suffix in ("-shm", "-wal"):  # before the database: who opens a new one must not find these
            with suppress(OSError):
                os.replace(self.database + suffix, aside + suffix)
        os.replace(self.database, aside)
        self.aside = aside
        now = clock.now()
        self.page.lift(now, now)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Nobody else opens this folder, or sets its database aside."""
        lock = FileLock(os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT, 0o600))
        try:
            with lock.held():
                yield
        finally:
            lock.close()

    def close(self) -> None:
        """Let go of everything; what was lent closes as it comes back."""
        self.connections.close()
        self.page.close()


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _totals(cursor: sqlite3.Cursor) -> tuple[str | None, int, int, int]:
    name, *numbers = cursor.execute("SELECT boot, offset, highest, floor FROM totals").fetchone()
    offset, highest, floor = [int(number or 0) for number in numbers]
    return (None if name is None else str(name)), offset, highest, floor


def _create(cursor: sqlite3.Cursor, words: Any) -> None:
    """Make what is missing, in a transaction that stays open."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:  # another process is doing the same
            if code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() >= deadline:
                raise
            time.sleep(0.002)
    begin(cursor, _PATIENCE, words)
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            cursor.execute(statement)
