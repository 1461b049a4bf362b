"""What the writer's thread does between batches: expiry, eviction, checkpoints, and mending what others left.

Eviction is CLOCK, the classic second chance. A hand, kept in the database so that all processes move the same one,
goes around the rows in the order in which they were written; those that come during a lap wait for the next one. A
row that was read since the hand last came by is spared once; the others go, until there is room again. What was read is
noted in a table of its own, now and then and only while the room is short, so reading never rewrites a record.
Neighbours go together, so whole pages become free.

The bound is held by what the database uses (its pages less the free ones) plus the files beside it; the write-ahead log
comes on top, a few megabytes that a checkpoint empties.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from scalekit._cache.stores.disk_change import RETENTION, Change
from scalekit._cache.stores.disk_folder import Folder
from scalekit._cache.stores.disk_page import FLOOR, GENERATION
from scalekit._cache.stores.disk_row import TOMBSTONE, read_head

if TYPE_CHECKING:
    from scalekit._cache.stores.disk_shared import Shared

__all__ = ["Keeper"]

MARKS = 100_000
"""More marks than this are not remembered one by one."""

EVERY: Final = 2.0  # seconds between two looks around
_STEP: Final = 200  # rows in a transaction
_LOG: Final = 4 * 1024 * 1024  # a longer write-ahead log gets a checkpoint
_START: Final = 0
_END: Final = 2**63 - 1
_ORPHANS_EVERY: Final = 3600.0
_FIRST_ORPHANS: Final = 60.0
_PATIENCE: Final = 0.5
_SWEEP: Final = "SELECT place, id, head FROM records WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?"


class Keeper:
    """Keeps one folder in order; each method does a bounded piece of work in transactions of its own."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._looked = 0.0
        self._orphans = time.monotonic() + _FIRST_ORPHANS
        self._sweeping, self._sweep_hand = 0, _START
        self._checkpoint_at = 0.0
        self._noted: set[int] = set()
        self._hand: Any = None
        self.doubtful: dict[str, Any] = {}  # rows that a reader found with changed bytes

    def tick(self, folder: Folder) -> None:
        """Look around; raises sqlite3.Error."""
        if self.doubtful:
            self._drop_doubtful(folder)
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            if folder.page.words[GENERATION] % 2:
                with folder.connections.transaction(_PATIENCE):
                    folder.page.repair()
            while self._expire(folder):
                pass
            self._sweep_floor(folder)
            self._bound_marks(folder)
            self._forget_replaced(folder)
            if time.monotonic() >= self._orphans:
                self._orphans = time.monotonic() + _ORPHANS_EVERY
                self._remove_orphans(folder)
        self._hold_bound(folder)
        self._checkpoint(folder)

    @contextmanager
    def _change(self, folder: Folder) -> Generator[Change]:
        with folder.connections.transaction(_PATIENCE) as cursor:
            change = Change(cursor, self.shared.clock.now())
            yield change
            change.settle()
        for row, born in change.gone:
            folder.files.remove(row, born)

    def _drop_doubtful(self, folder: Folder) -> None:
        doubtful, self.doubtful = self.doubtful, {}
        with self._change(folder) as change:
            for key, head in doubtful.items():
                change.distrust(key, head)

    def _expire(self, folder: Folder) -> bool:
        """Drop some rows whose time is over; True if there may be more."""
        with folder.connections.lent() as cursor:
            first = cursor.execute("SELECT min(expires) FROM records WHERE expires < 9223372036854775807").fetchone()[0]
        if first is None or first > self.shared.clock.now():
            return False
        with self._change(folder) as change:
            count = change.expire(_STEP)
        return count == _STEP

    def _sweep_floor(self, folder: Folder) -> None:
        """Drop what a raised floor has ended; a process that comes later goes on where this one stops."""
        floor = folder.page.words[FLOOR]
        with folder.connections.lent() as cursor:
            swept = cursor.execute("SELECT swept FROM totals").fetchone()[0]
        if swept >= floor:
            return
        if floor != self._sweeping:
            self._sweeping, self._sweep_hand = floor, _START
        for _ in range(50):
            with self._change(folder) as change:
                rows = change.cursor.execute(_SWEEP, (self._sweep_hand, _END, _STEP)).fetchall()
                for _, row, sealed in rows:
                    head = read_head(sealed)
                    if head is None or head.born <= floor:
                        change.drop(row, head, max(floor, change.now - RETENTION))
                if len(rows) < _STEP:
                    change.cursor.execute("DELETE FROM marks WHERE time <= ?", (floor,))
                    change.cursor.execute("UPDATE totals SET swept=max(swept,?)", (floor,))
            if len(rows) < _STEP:
                return
            self._sweep_hand = rows[-1][0] + 1
        self._looked = 0.0

    def _bound_marks(self, folder: Folder) -> None:
        """Forget marks that the floor stands for; if they are still too many, let it stand for the older half."""
        reader = self.shared.reader
        for _ in range(2):
            if len(reader.marks) <= MARKS:
                return
            floor = folder.page.words[FLOOR]
            with self.shared.opening:  # in which marks are learned
                reader.marks = {name: time for name, time in reader.marks.items() if time > floor}
            if len(reader.marks) > MARKS:
                with self._change(folder) as change:
                    half = "SELECT time FROM marks ORDER BY time DESC LIMIT 1 OFFSET ?"
                    found = change.cursor.execute(half, (MARKS // 2,)).fetchone()
                    change.floor = 0 if found is None else found[0]
                    change.cursor.execute("DELETE FROM marks WHERE time <= ?", (change.floor,))
                    folder.page.lift(change.floor)

    def _hold_bound(self, folder: Folder) -> None:
        bound = self.shared.max_bytes
        used = self._used(folder)
        self.shared.tight = used > bound // 2
        if self.shared.tight:
            self._note_touched(folder)
        laps = 0  # the rest of this one, one that spares, one that finds nothing to spare, one that takes tombstones
        while used > bound and laps < 4:
            with self._change(folder) as change:
                hand, lap = change.cursor.execute("SELECT hand, lap FROM totals").fetchone()
                if hand == _START:
                    lap = change.cursor.execute("SELECT max(place) FROM records").fetchone()[0] or 0
                rows = change.cursor.execute(_SWEEP, (hand, lap, _STEP)).fetchall()
                rows, last = _enough(rows, used - bound + bound // 50)
                passed = hand, min(last, lap)
                touched = change.cursor.execute("SELECT place FROM touched WHERE place BETWEEN ? AND ?", passed)
                spared = {place for (place,) in touched}
                since = change.now - RETENTION if laps < 3 else change.now
                for place, row, sealed in rows:
                    head = read_head(sealed)
                    if head is None or place not in spared or head.expires <= change.now:
                        lost = change.drop(row, head, since)
                        change.floor = max(change.floor, lost if laps == 3 else 0)
                change.cursor.execute("DELETE FROM touched WHERE place BETWEEN ? AND ?", passed)
                next_hand = _START if last == _END else last + 1
                change.cursor.execute("UPDATE totals SET hand=?, lap=?", (next_hand, lap))
                if change.floor:
                    folder.page.lift(change.floor)  # before the tombstones are gone
            self.shared.evicted += change.dropped
            laps += last == _END
            used = self._used(folder)

    def _note_touched(self, folder: Folder) -> None:
        touched = self.shared.touched
        self.shared.touched = set()
        with folder.connections.lent() as cursor:
            hand = cursor.execute("SELECT hand, lap FROM totals").fetchone()
        if hand != self._hand:  # whoever moved it has spent some of the notes
            self._hand, self._noted = hand, set()
        new = touched - self._noted
        if new:
            with folder.connections.transaction(_PATIENCE) as cursor:
                cursor.executemany("INSERT OR IGNORE INTO touched VALUES(?)", [(place,) for place in new])
            self._noted = new if len(self._noted) > 100_000 else self._noted | new

    def _forget_replaced(self, folder: Folder) -> None:
        """Notes of rows that are gone, which the hand would meet only once it has to move."""
        with folder.connections.lent() as cursor:
            noted = cursor.execute("SELECT count(*) FROM touched").fetchone()[0]
            entries = cursor.execute("SELECT entries FROM totals").fetchone()[0]
        if noted > entries + 1000:
            with folder.connections.transaction(_PATIENCE) as cursor:
                cursor.execute("DELETE FROM touched WHERE place NOT IN (SELECT place FROM records)")

    def _used(self, folder: Folder) -> int:
        with folder.connections.lent() as cursor:
            return used(cursor)

    def _checkpoint(self, folder: Folder) -> None:
        folder.connections.refresh()
        try:
            size = os.stat(folder.database + "-wal").st_size
        except OSError:
            return
        self.shared.writer.log_full = size > max(16 * _LOG, self.shared.max_bytes // 2)
        if size > _LOG and time.monotonic() >= self._checkpoint_at:
            self._checkpoint_at = time.monotonic() + 1.0
            with folder.connections.lent() as cursor:
                for mode in ("PASSIVE", "TRUNCATE"):  # the second holds the write lock, with nothing left to copy
                    cursor.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                free, pages = (
                    cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
                )
                if free > 1000 and free * 4 > pages:
                    cursor.execute("PRAGMA incremental_vacuum(1000)").fetchall()

    def _remove_orphans(self, folder: Folder) -> None:
        with folder.connections.lent() as cursor:

            def named(row: int, born: int) -> bool:
                found = cursor.execute("SELECT head FROM records WHERE id=?", (row,)).fetchone()
                head = None if found is None else read_head(found[0])
                return head is not None and head.kind != TOMBSTONE and head.born == born

            folder.files.sweep(named)


def used(cursor: sqlite3.Cursor) -> int:
    """The bytes that the database and the files beside it use."""
    pages, free = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    size, filed = (
        cursor.execute("PRAGMA page_size").fetchone()[0],
        cursor.execute("SELECT filed FROM totals").fetchone()[0],
    )
    return int((pages - free) * size + filed)


def _enough(rows: list[tuple[int, int, Any]], wanted: int) -> tuple[list[tuple[int, int, Any]], int]:
    """The first of the rows that would free so many bytes, and the place up to which the hand has come then."""
    for at, (place, _, sealed) in enumerate(rows):
        head = read_head(sealed)
        wanted -= 100 if head is None else 100 + head.size
        if wanted <= 0:
            return rows[: at + 1], place
    return rows, rows[-1][0] if len(rows) == _STEP else _END
