"""One write transaction: what is put, ended and dropped in it, and what that does to the totals.

The rules of a row, kept here and nowhere else:

* A record replaces only what was born before it, and never comes to a key that was ended at or after its birth.
* Ending a key leaves a tombstone for a day, else a put that is still on its way would bring the old value back. What is
  older than a day cannot be put any more, so the tombstone can go then.
* A row remembers when its key was last ended also after a new record came; when that record is dropped within the
  day, the tombstone is there again.
* A row whose head has changed bytes might have been any of this: it becomes a tombstone of now.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from scalekit._cache.stores.base import NEVER, Record
from scalekit._cache.stores.disk_files import LARGE
from scalekit._cache.stores.disk_row import (
    FILED,
    INLINE,
    TOMBSTONE,
    Head,
    encode,
    identify,
    read_head,
    seal,
    tombstone,
)

__all__ = ["RETENTION", "Change"]

RETENTION: Final = 86_400 * 1_000_000_000
"""How long a tombstone stays, in nanoseconds; no older record can be put."""

_PUT: Final = "INSERT OR REPLACE INTO records(id, expires, head, data) VALUES(?,?,?,?)"
_TOTALS: Final = """UPDATE totals SET entries=entries+?, nbytes=nbytes+?, filed=filed+?, highest=max(highest,?),
    floor=max(floor,?)"""


class Change:
    """To be `settled` before the commit; `gone` are the files, (row, birth), that nobody needs after it."""

    def __init__(self, cursor: sqlite3.Cursor, now: int) -> None:
        self.cursor = cursor
        self.now = now
        self.highest = now
        self.floor = 0
        self.corrupt = 0
        self.dropped = 0
        self.gone: list[tuple[int, int]] = []
        self._entries = self._nbytes = self._filed = 0

    def put(self, records: Sequence[tuple[str, Record]]) -> int:
        """Keep records, of each what nothing speaks against; how many. Files of large ones are written already."""
        named = [(encode(key), record) for key, record in records]
        rows = [identify(name) for name, _ in named]
        heads = self._heads(rows)
        new: list[tuple[int, int, bytes, bytes | None]] = []
        oldest = self.now - RETENTION
        for row, (name, record) in zip(rows, named, strict=True):
            sealed, ended, filed = heads.get(row), 0, len(record.data) > LARGE
            refused = record.born <= oldest
            if sealed is not None:
                head = read_head(sealed)
                if head is None:
                    self._distrust(row)
                    refused = True
                elif record.born <= head.born or record.born <= head.ended:
                    refused = True
                    filed = filed and (head.kind, head.born) != (FILED, record.born)  # the same record, put twice
                elif not refused:
                    ended = head.ended
                    self._forget(row, head)
            if refused:
                if filed:
                    self.gone.append((row, record.born))
                continue
            heads[row] = sealed = seal(name, record, ended, FILED if filed else INLINE)
            new.append((row, record.expires, sealed, None if filed else record.data))
            self._nbytes += len(record.data)
            self._filed += filed and len(record.data)
            self.highest = max(self.highest, record.born)
        self.cursor.executemany(_PUT, new)
        self._entries += len(new)
        return len(new)

    def end(self, key: str, time: int) -> bool:
        """Leave a tombstone; True if there was a record that had not expired."""
        row = identify(encode(key))
        sealed = self._head(row)
        head = read_head(sealed)
        if head is None:
            self._bury(row, time if sealed is None else self.now)
            return False
        self._forget(row, head)
        self._bury(row, max(time, head.ended, head.born))  # of one born this moment in another process
        return head.kind != TOMBSTONE and head.expires > self.now

    def mark(self, names: Iterable[str], time: int, turn: int) -> None:
        """Set marks; `turn` is higher than that of any mark before."""
        self.cursor.executemany(
            "INSERT INTO marks VALUES(?,?,?) ON CONFLICT(name) DO UPDATE SET"
            " time=max(time,excluded.time), turn=max(turn,excluded.turn)",
            [(encode(name), time, turn) for name in names],
        )

    def distrust(self, key: str, sealed: Any) -> None:
        """Drop a row that was found to have changed bytes, if it is still the same one."""
        row = identify(encode(key))
        if self._head(row) == sealed:
            head = read_head(sealed)
            if head is not None:
                self._forget(row, head)
            self._bury(row, self.now)

    def expire(self, limit: int) -> int:
        """Drop up to so many rows whose time is over; how many they were."""
        rows = self.cursor.execute(
            f"SELECT id, head FROM records WHERE expires < {NEVER} AND expires <= ? LIMIT ?", (self.now, limit)
        ).fetchall()
        for row, sealed in rows:
            self.drop(row, read_head(sealed), self.now - RETENTION)
        return len(rows)

    def drop(self, row: int, head: Head | None, since: int) -> int:
        """Let go of a row. A key that was ended after `since` keeps a tombstone; else when it was ended is told."""
        if head is None:
            self._distrust(row)
            return 0
        if head.kind != TOMBSTONE:
            self.dropped += 1
            self._forget(row, head)
            if head.ended > since:
                self._bury(row, head.ended)
        if head.ended > since:
            return 0
        self.cursor.execute("DELETE FROM records WHERE id=?", (row,))
        return head.ended

    def settle(self) -> None:
        """Bring the totals up to date."""
        self.cursor.execute(_TOTALS, (self._entries, self._nbytes, self._filed, self.highest, self.floor))

    def _head(self, row: int) -> Any:
        found = self.cursor.execute("SELECT head FROM records WHERE id=?", (row,)).fetchone()
        return None if found is None else found[0]

    def _heads(self, rows: Sequence[int]) -> dict[int, Any]:
        places = ",".join("?" * len(rows))
        return dict(self.cursor.execute(f"SELECT id, head FROM records WHERE id IN ({places})", rows).fetchall())

    def _forget(self, row: int, head: Head) -> None:
        if head.kind != TOMBSTONE:
            self._entries -= 1
            self._nbytes -= head.size
        if head.kind == FILED:
            self._filed -= head.size
            self.gone.append((row, head.born))

    def _bury(self, row: int, time: int) -> None:
        until = max(time, self.now) + RETENTION
        self.cursor.execute(_PUT, (row, until, tombstone(time, until), None))

    def _distrust(self, row: int) -> None:
        self.corrupt += 1
        self._bury(row, self.now)
