"""What all `Disk` objects of one folder share in a process: the open folder, the queue, the marks, the figures.

It opens itself when first used. Everything here blocks, briefly; `Disk` decides what is called on an event loop and
what in a thread. Nothing raises because of the disk's trouble: it is counted, each kind is said once, and the store
goes on without:

    full disk, long lock     a write is refused, and none is tried for some seconds; invalidations raise the floor
    corrupt database         it is set aside as *.corrupt-<time>, and a new one begins
    folder deleted           it is made anew
    read-only                reads go on if they can; invalidations hold in this process, and are tried again
    nothing works            every read is a miss; opening is tried again every half minute
"""

from __future__ import annotations

import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Final

from scalekit._cache.stores.base import Record
from scalekit._cache.stores.disk_change import RETENTION, Change
from scalekit._cache.stores.disk_clock import Clock
from scalekit._cache.stores.disk_connections import code
from scalekit._cache.stores.disk_files import LARGE
from scalekit._cache.stores.disk_folder import Folder, is_broken
from scalekit._cache.stores.disk_keeper import EVERY, Keeper, used
from scalekit._cache.stores.disk_page import FLOOR, TURN
from scalekit._cache.stores.disk_queue import Batch, Queue
from scalekit._cache.stores.disk_row import FILED, TOMBSTONE, identify, is_of, label, read_head, read_record

__all__ = ["Later", "Shared"]

PATIENCE: Final = 0.25  # seconds that a read waits for a busy database
_PATIENCE_TO_END: Final = 2.0
_REOPEN_EVERY: Final = 30.0
_REFUSE_FOR: Final = 5.0
_SLOW: Final = 0.001
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SHORT: Final = "SELECT head, CASE WHEN length(data) <= 65536 THEN data END FROM records WHERE id=?"
_WHOLE: Final = "SELECT head, data FROM records WHERE id=?"
_HEAD: Final = "SELECT head FROM records WHERE id=?"


class Later(Exception):
    """This read would hold up an event loop: do it in a thread."""


class Shared:
    """The store of one folder in this process."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.clock = Clock()
        self.words = memoryview(array("Q", [0] * 8))
        self.extra = 0  # generations of invalidations that only this process knows
        self.marks: dict[str, int] = {}
        self.said: set[str] = set()
        self.unsaid: list[str] = []
        self.hits = self.misses = self.expired = self.corrupt = self.refused = self.errors = self.busy = 0
        self.evicted = self.dropped_expired = 0
        self.tight = False  # the room is short: note what is read
        self.touched: set[int] = set()
        self.doubtful: dict[str, bytes] = {}
        self.heat = 0
        self.queue = Queue(self.write, self.tick, EVERY)
        self._begin()

    def _begin(self) -> None:
        self.folder: Folder | None = None
        self.keeper = Keeper(self)
        self._opening = threading.RLock()
        self._seen = 0
        self._retry_at = 0.0
        self._refuse_until = 0.0
        self._floor = 0
        self._ended: dict[str, int] = {}
        self._kept_back: dict[str, int] = {}

    # Opening and trouble.

    def open(self) -> Folder | None:
        """The open folder; None while it cannot be opened."""
        if self.folder is not None or time.monotonic() < self._retry_at:
            return self.folder
        with self._opening:
            if self.folder is None and time.monotonic() >= self._retry_at:
                try:
                    folder = Folder(self.path, self.clock)
                except (OSError, sqlite3.Error) as error:
                    self._retry_at = time.monotonic() + _REOPEN_EVERY
                    self.errors += 1
                    self._say("open", f"cannot be opened, so nothing is kept in it: {error}.")
                    return None
                if folder.aside:
                    self.corrupt += 1
                    self._say(folder.aside, f"was corrupt. It is set aside as {folder.aside}, and a new one is begun.")
                if not folder.writable:
                    self._retry_at = time.monotonic() + _REOPEN_EVERY
                    self._say("read-only", "can only be read: answers that are in it are served, none is added.")
                self.words = folder.page.words
                self._seen = 0
                self.folder = folder
                self._load_marks(folder)
            return self.folder

    def reopen(self) -> Folder | None:
        """Open it anew: what lay at the path is gone, or was replaced."""
        with self._opening:
            folder, self.folder = self.folder, None
            if folder is not None:
                folder.close()
                self.words = folder.page.words
            self.extra += 2
            return self.open()

    def close(self, timeout: float) -> None:
        """Write what waits, and let go of the folder; the next use opens it again."""
        self.queue.flush(timeout)
        self.queue.stop(timeout)
        with self._opening:
            folder, self.folder = self.folder, None
            if folder is not None:
                folder.close()
                self.words = folder.page.words

    def trouble(self, error: BaseException, doing: str) -> None:
        """Count it, say it once, and mend what can be mended."""
        self.errors += 1
        folder = self.folder
        if is_broken(error) and folder is not None and folder.writable:
            with self._opening:
                if self.folder is folder:
                    try:
                        folder.set_aside(self.clock)
                    except OSError as failed:
                        self._say("aside", f"is corrupt ({error}), and cannot be set aside: {failed}.")
                    else:
                        self.corrupt += 1
                        if folder.aside:
                            self._say(
                                folder.aside,
                                f"was corrupt ({error}). It is set aside as {folder.aside}, and a new one is begun.",
                            )
                    self.reopen()
        elif code(error) in _BUSY:
            self.busy += 1
            self._refuse_until = time.monotonic() + 0.5
        else:
            self._refuse_until = time.monotonic() + _REFUSE_FOR
            self._say("write" if doing != "read" else "read", f"could not be {doing}: {error}. Calls go on without it.")
            if folder is not None and not folder.current():
                self.reopen()

    def _say(self, kind: str, message: str) -> None:
        if kind not in self.said:
            self.said.add(kind)
            self.unsaid.append(f"Disk: the store at {self.path} {message}")

    # Reading.

    def get(self, key: str, inline: bool) -> Record | None:
        """The living record. `inline`: raise Later rather than take long."""
        folder = self.folder or self.open()
        if folder is None:
            self.misses += 1
            return None
        if self.words[TURN] != self._seen:
            folder = self._catch_up(folder)
        waiting = self.queue.pending.get(key)
        name = key.encode("utf-8", "surrogatepass")
        row = identify(name)
        record = self._fetch(folder, key, name, row, inline, None if waiting is None else waiting[0])
        if record is not None and self._lives(key, record):
            self.hits += 1
            if self.tight:
                self.touched.add(row)
            return record
        self.misses += 1
        return None

    def _fetch(
        self, folder: Folder | None, key: str, name: bytes, row: int, inline: bool, waiting: Record | None
    ) -> Record | None:
        found = self._select(folder, _SHORT, row, inline)
        if found is None:
            return waiting
        sealed, data = found
        head = read_head(sealed)
        if head is None:
            self._doubt(key, sealed)
            return None
        if waiting is not None and waiting.born > head.born:
            return waiting
        if head.kind == TOMBSTONE or not is_of(sealed, head, name):
            return None
        if data is None:
            if inline:
                raise Later
            return self._fetch_large(folder, key, name, row)
        record = read_record(sealed, head, data)
        if record is None:
            self._doubt(key, sealed)
        return record

    def _fetch_large(self, folder: Folder | None, key: str, name: bytes, row: int) -> Record | None:
        found = self._select(folder, _WHOLE, row, False)
        head = None if found is None else read_head(found[0])
        if found is None or head is None or head.kind == TOMBSTONE or not is_of(found[0], head, name):
            return None
        sealed, data = found
        if head.kind == FILED and folder is not None:
            data = folder.files.read(row, head.born)
        record = read_record(sealed, head, data)
        if record is None:
            self._doubt(key, sealed)
        return record

    def _select(self, folder: Folder | None, query: str, row: int, inline: bool) -> Any:
        """One row; None if there is none, or it cannot be read."""
        if folder is None:
            return None
        began = perf_counter()
        while True:
            try:
                cursor = folder.connections.take()
                try:
                    found = cursor.execute(query, (row,)).fetchone()
                except BaseException:
                    folder.connections.drop(cursor)
                    raise
                folder.connections.give(cursor)
            except sqlite3.Error as error:
                if code(error) not in _BUSY:
                    self.trouble(error, "read")
                    return None
                if inline:
                    raise Later from None
                if perf_counter() - began > PATIENCE:
                    self.trouble(error, "read")
                    return None
                time.sleep(0.001)
            else:
                if perf_counter() - began > _SLOW:
                    self.heat = min(self.heat + 100, 1000)
                elif self.heat:
                    self.heat -= 1
                return found

    def check(self, key: str, born: int, marks: Sequence[str], inline: bool) -> bool:
        """Whether a copy that was born then may still be served."""
        folder = self.folder or self.open()
        if folder is None:
            return born > self._floor and self._ended.get(key, 0) < born and not self._marked(marks, born)
        if self.words[TURN] != self._seen:
            folder = self._catch_up(folder)
        if not self._stands(key, born, marks):
            return False
        name = key.encode("utf-8", "surrogatepass")
        found = self._select(folder, _HEAD, identify(name), inline)
        old = born <= self.clock.now() - RETENTION  # a tombstone of then may be gone
        if found is None:
            return not old and folder is not None and self.folder is folder
        head = read_head(found[0])
        if head is None:
            self._doubt(key, found[0])
            return False
        if old:
            return head.kind != TOMBSTONE and head.born == born and is_of(found[0], head, name)
        return head.ended < born

    def _lives(self, key: str, record: Record) -> bool:
        if not self._stands(key, record.born, record.marks):
            return False
        if record.expires <= self.clock.now():
            self.expired += 1
            return False
        return True

    def _stands(self, key: str, born: int, marks: Sequence[str]) -> bool:
        """Whether nothing that this process knows by heart ended it."""
        return (
            born > self.words[FLOOR]
            and born > self._floor
            and not (marks and self._marked(marks, born))
            and not (self._ended and self._ended.get(key, 0) >= born)
        )

    def _marked(self, marks: Sequence[str], born: int) -> bool:
        times = self.marks
        return any(times.get(label(mark), 0) >= born for mark in marks) if times else False

    def _doubt(self, key: str, sealed: Any) -> None:
        self.corrupt += 1
        self.doubtful[key] = sealed
        self.queue.wake()

    def _catch_up(self, folder: Folder) -> Folder | None:
        with self._opening:
            if not folder.current():
                return self.reopen()
            if self.words[TURN] != self._seen:
                self._load_marks(folder)
        return folder

    def _load_marks(self, folder: Folder) -> None:
        turn = self.words[TURN]
        try:
            with folder.connections.lent() as cursor:
                rows = cursor.execute("SELECT name, time FROM marks WHERE turn > ?", (self._seen,)).fetchall()
        except sqlite3.Error as error:
            self.trouble(error, "read")
            return
        for name, when in rows:
            if self.marks.get(name, 0) < when:
                self.marks[name] = when
        self._seen = turn

    # Writing.

    def put(self, key: str, record: Record) -> str | None:
        """Keep it soon; or the reason why not."""
        reason = self._refusal(key, record)
        if reason is None:
            reason = self.queue.put(key, record)
        if reason is not None:
            self.refused += 1
        return reason

    def _refusal(self, key: str, record: Record) -> str | None:
        folder = self.folder or self.open()
        if folder is None or not folder.writable:
            return "the disk store cannot be written"
        if len(record.data) > self.max_bytes // 4:
            return f"{len(record.data):,} bytes are more than a quarter of max_bytes={self.max_bytes:,}"
        if not self._stands(key, record.born, record.marks):
            return "it was invalidated meanwhile"
        if self._refuse_until and time.monotonic() < self._refuse_until:
            return "the disk store could not be written a moment ago"
        return None

    def write(self, batch: Batch) -> None:
        """Write what waited, in one transaction."""
        folder = self.folder or self.open()
        if folder is None or not folder.writable:
            self.refused += len(batch)
            return
        filed: list[tuple[int, int]] = []
        try:
            kept = [(key, record) for key, record, _ in batch if self._lives(key, record)]
            for key, record in kept:
                if len(record.data) > LARGE:
                    row = identify(key.encode("utf-8", "surrogatepass"))
                    folder.files.write(row, record.born, record.data)
                    filed.append((row, record.born))
            with folder.connections.transaction(_PATIENCE_TO_END) as cursor:
                change = Change(cursor, self.clock.now())
                count = sum([change.put(key, record) for key, record in kept])
                change.settle()
        except Exception as error:
            self.refused += len(batch)
            self.trouble(error, "written")
            for row, born in filed:
                folder.files.remove(row, born)
            return
        self.refused += len(batch) - count
        self.corrupt += change.corrupt
        for row, born in change.gone:
            folder.files.remove(row, born)

    def end(self, keys: Sequence[str]) -> bool:
        """End these keys, for everybody, before it returns."""
        now = self.clock.now()
        found = [self.queue.discard(key, now) for key in keys]

        def work(change: Change) -> None:
            found.extend([change.end(key, now) for key in keys])

        if not self._make(work, now, 0):
            self._ended.update(dict.fromkeys(keys, now))
            self.extra += 2
        return any(found)

    def mark(self, names: Sequence[str]) -> None:
        """Set marks, for everybody, before it returns."""
        now = self.clock.now()
        labels = [label(name) for name in names]
        turn = 0

        def work(change: Change) -> None:
            nonlocal turn
            turn = max(self.clock.now(), self.words[TURN] + 1)
            change.mark(labels, now, turn)

        if not self._make(work, now, 0, lambda: turn):
            self._kept_back.update(dict.fromkeys(labels, now))
            self.extra += 2
        for name in labels:
            self.marks[name] = max(self.marks.get(name, 0), now)

    def clear(self) -> None:
        """End everything."""
        now = self.clock.now()
        self.queue.clear()

        def work(change: Change) -> None:
            change.floor = now

        if not self._make(work, now, now):
            self._floor = now
            self.extra += 2
        self.queue.wake()

    def _make(self, work: Callable[[Change], None], time: int, floor: int, turn: Callable[[], int] = lambda: 0) -> bool:
        """Make an invalidation known to all; False if only this process can know of it."""
        for _ in range(3):
            folder = self.folder or self.open()
            if folder is None or not folder.writable:
                break
            odd, change = 0, None
            try:
                with folder.connections.transaction(_PATIENCE_TO_END) as cursor:
                    change = Change(cursor, self.clock.now())
                    work(change)
                    change.settle()
                    odd = folder.page.begin()
            except sqlite3.Error as error:
                if odd:
                    folder.page.end(odd)
                self.trouble(error, "written")
                if self.folder is folder or not is_broken(error):
                    folder.page.lift(time)
                    if folder.current():
                        return True
                continue
            folder.page.end(odd, floor, turn())
            for row, born in change.gone:
                folder.files.remove(row, born)
            self.queue.wake()
            if folder.current():
                return True
            self.reopen()
        self._say("local", "takes no writes: what is invalidated here is so in this process only, until it does.")
        return False

    def totals(self) -> tuple[int, int, int]:
        """Entries, bytes of values, and bytes on the disk; zeros while it cannot be read."""
        folder = self.folder or self.open()
        if folder is None:
            return 0, 0, 0
        try:
            with folder.connections.lent() as cursor:
                entries, nbytes = cursor.execute("SELECT entries, nbytes FROM totals").fetchone()
                return int(entries), int(nbytes), used(cursor)
        except (sqlite3.Error, TypeError, ValueError) as error:
            self.trouble(error, "read")
            return 0, 0, 0

    # Behind the scenes.

    def tick(self) -> None:
        """Keep order; called in the writer's thread."""
        folder = self.folder
        if folder is None:
            return
        try:
            if not folder.current():
                self.reopen()
            elif folder.writable:
                self.keeper.tick(folder)
                if self._ended or self._kept_back or self._floor:
                    self._make_up()
        except Exception as error:
            self.trouble(error, "kept in order")

    def _make_up(self) -> None:
        """Tell all what only this process knew."""
        ended, kept_back, floor = self._ended, self._kept_back, self._floor

        def work(change: Change) -> None:
            for key, when in ended.items():
                change.end(key, when)

        newest = max([0, floor, *kept_back.values()])
        if self._make(work, self.clock.now(), newest):
            self._ended, self._kept_back, self._floor = {}, {}, 0

    def after_fork(self, drained: bool) -> None:
        """In a forked child: what waits is the parent's, and no thread is here."""
        folder = self.folder
        self.queue.reset()
        self._begin()
        if folder is not None:
            folder.page.renew_lock()
            folder.close()
            self.words = folder.page.words
        if not drained:
            self._retry_at = float("inf")
            self._say("fork", "was in use when this process was forked, and is left alone in it.")
