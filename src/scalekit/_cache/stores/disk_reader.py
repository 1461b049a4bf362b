"""Reading: one look-up by id, and everything that could have ended what it found.

A record that waits to be written is found too, but never without asking the database, which may know of an
invalidation by another process. Marks are known by heart: they are read once, and again when the page's turn says that
there are new ones.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from scalekit._cache.stores.base import NEVER, Later, Record
from scalekit._cache.stores.disk_change import RETENTION
from scalekit._cache.stores.disk_connections import code
from scalekit._cache.stores.disk_folder import Folder
from scalekit._cache.stores.disk_page import FLOOR, TURN
from scalekit._cache.stores.disk_row import (
    FILED,
    TOMBSTONE,
    Corrupt,
    decode,
    encode,
    identify,
    is_of,
    read_head,
    unseal,
)

if TYPE_CHECKING:
    from scalekit._cache.stores.disk_shared import Shared

__all__ = ["Reader"]

PATIENCE: Final = 0.25  # seconds that a read waits for a busy database
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SHORT: Final = "SELECT head, CASE WHEN length(data) <= 65536 THEN data END, place FROM records WHERE id=?"
_WHOLE: Final = "SELECT head, data FROM records WHERE id=?"
_HEAD: Final = "SELECT head FROM records WHERE id=?"


class Reader:
    """Reads for one folder. With `inline` a read raises Later rather than take long."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.pending = shared.queue.pending
        self.marks: dict[str, int] = {}
        self.floor = 0  # what only this process knows of: see Ender
        self.ended: dict[str, int] = {}
        self.seen = -1

    def get(self, key: str, inline: bool) -> Record | None:
        """The living record of a key."""
        shared = self.shared
        folder = shared.folder or shared.open()
        if folder is None:
            shared.misses += 1
            return None
        if folder.words[TURN] != self.seen:
            folder = self._catch_up()
            if folder is None:
                shared.misses += 1
                return None
        waiting = self.pending.get(key)
        name = encode(key)
        row = identify(name)
        found = record = None
        try:
            try:
                found = folder.connections.read(_SHORT, row)
            except sqlite3.Error as error:
                found = self._again(folder, _SHORT, row, inline, error)
            if found is not None and found[1] is not None and waiting is None:
                record = unseal(found[0], found[1], name)
            elif found is not None or waiting is not None:
                record = self._choose(folder, name, row, found, waiting, inline)
        except Corrupt:
            self._doubt(key, found)
        except sqlite3.Error:  # told already
            pass
        if record is None or not self.lives(key, record):
            shared.misses += 1
            return None
        shared.hits += 1
        if shared.tight and found is not None:
            shared.touched.add(found[2])
        return record

    def _choose(
        self,
        folder: Folder,
        name: bytes,
        row: int,
        found: Any,
        waiting: tuple[Record, int] | None,
        inline: bool,
    ) -> Record | None:
        if found is None:
            return waiting[0] if waiting is not None else None
        sealed, data, _ = found
        if waiting is not None:
            head = read_head(sealed)
            if head is not None and waiting[0].born > head.born:
                return waiting[0]
        if data is None:
            head = read_head(sealed)
            if head is not None and head.kind != TOMBSTONE:
                if not is_of(sealed, head, name):
                    return None
                if inline:
                    raise Later
                return self._large(folder, name, row)
        return unseal(sealed, data, name)

    def _large(self, folder: Folder, name: bytes, row: int) -> Record | None:
        before = None
        while True:
            found = self._select(folder, _WHOLE, row, False)
            if found is None:
                return None
            sealed, data = found
            head = read_head(sealed)
            if head is not None and head.kind == FILED:
                data = folder.files.read(row, head.born)
                if data is None and sealed != before:  # replaced in this moment, and its file is gone?
                    before = sealed
                    continue
            return unseal(sealed, data, name)

    def check(self, key: str, born: int, marks: Sequence[str], inline: bool) -> bool:
        """Whether a copy that was born then may still be served."""
        shared = self.shared
        folder, copy = shared.folder or shared.open(), Record(b"", born, marks=tuple(marks))
        if folder is None:
            return self.lives(key, copy)
        if folder.words[TURN] != self.seen:
            folder = self._catch_up()
        if folder is None or not self.lives(key, copy):
            return False
        name = encode(key)
        try:
            found = self._select(folder, _HEAD, identify(name), inline)
        except sqlite3.Error:
            return False
        old = born <= shared.clock.now() - RETENTION  # a tombstone of then may be gone
        if found is None:
            return not old
        head = read_head(found[0])
        if head is None:
            self._doubt(key, found)
            return False
        if old:
            return head.kind != TOMBSTONE and head.born == born and is_of(found[0], head, name)
        return head.ended < born

    def lives(self, key: str, record: Record) -> bool:
        """Whether nothing that is known by heart has ended it, nor time."""
        born, expires, times = record.born, record.expires, self.marks
        if born <= self.shared.words[FLOOR] or born <= self.floor:
            return False
        if times:
            for mark in record.marks:
                if times.get(mark, 0) >= born:
                    return False
        if self.ended and self.ended.get(key, 0) >= born:
            return False
        if expires != NEVER and expires <= self.shared.clock.now():
            self.shared.expired += 1
            return False
        return True

    def _select(self, folder: Folder, query: str, row: int, inline: bool) -> Any:
        try:
            return folder.connections.read(query, row)
        except sqlite3.Error as error:
            return self._again(folder, query, row, inline, error)

    def _again(self, folder: Folder, query: str, row: int, inline: bool, error: sqlite3.Error) -> Any:
        """After an error: wait for a busy database; raises sqlite3.Error when it is of no use."""
        deadline = time.monotonic() + PATIENCE
        while code(error) in _BUSY and time.monotonic() < deadline:
            if inline:
                raise Later
            time.sleep(0.001)
            try:
                return folder.connections.read(query, row)
            except sqlite3.Error as another:
                error = another
        self.shared.trouble(error, "read")
        raise error

    def _doubt(self, key: str, found: Any) -> None:
        """Have a row dropped whose bytes have changed."""
        self.shared.corrupt += 1
        self.shared.keeper.doubtful[key] = found[0]
        self.shared.queue.wake()

    def _catch_up(self) -> Folder | None:
        """Learn the marks that were set meanwhile, or go to the database that is there now."""
        shared = self.shared
        with shared.opening:
            folder = shared.folder
            if folder is None or not folder.current():
                folder = shared.reopen()
            if folder is None or folder.words[TURN] == self.seen or self.learn(folder):
                return folder
            return None

    def learn(self, folder: Folder) -> bool:
        """Read the marks that were set since the last time; False if they cannot be read."""
        turn = folder.page.words[TURN]
        try:
            with folder.connections.lent() as cursor:
                rows = cursor.execute("SELECT name, time FROM marks WHERE turn > ?", (self.seen,)).fetchall()
        except sqlite3.Error as error:
            self.shared.trouble(error, "read")
            return False
        for encoded, when in rows:
            name = decode(encoded)
            if self.marks.get(name, 0) < when:
                self.marks[name] = when
        self.seen = turn
        return True
