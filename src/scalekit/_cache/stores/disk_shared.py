"""What all `Disk` objects of one folder share in a process: the open folder, its queue and thread, the figures.

It opens itself when first used. Everything here blocks, briefly; `Disk` decides what is called on an event loop and
what in a thread. Nothing raises because of the disk's trouble: it is counted, each kind is said once, and the store
goes on without:

    full disk, long lock     a write is refused, and none is tried for some seconds; invalidations raise the floor
    corrupt database         it is set aside as *.corrupt-<time>, and a new one begins
    folder deleted           it is made anew, within two seconds
    read-only                reads go on if they can; invalidations hold in this process, and are tried again
    nothing works            every read is a miss; opening is tried again every half minute
"""

from __future__ import annotations

import sqlite3
import threading
import time
from array import array
from typing import Final

from scalekit._cache.stores.disk_clock import Clock
from scalekit._cache.stores.disk_connections import Closed, code
from scalekit._cache.stores.disk_ender import Ender
from scalekit._cache.stores.disk_folder import Folder, is_broken
from scalekit._cache.stores.disk_keeper import EVERY, Keeper, used
from scalekit._cache.stores.disk_queue import Queue
from scalekit._cache.stores.disk_reader import Reader
from scalekit._cache.stores.disk_writer import Writer

__all__ = ["Shared"]

_REOPEN_EVERY: Final = 30.0
_REFUSE_FOR: Final = 5.0
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Shared:
    """The store of one folder in this process."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.clock = Clock()
        self.words = memoryview(array("Q", [0] * 8))
        self.extra = 0  # generations that only this process knows of
        self.unsaid: list[str] = []
        self.hits = self.misses = self.expired = self.evicted = self.corrupt = self.refused = self.errors = (
            self.busy
        ) = 0
        self.tight = False  # the room is short: note what is read, by its place
        self.touched: set[int] = set()
        self._said: dict[str, str] = {}
        self.queue = Queue(lambda batch: self.writer.write(batch), self.tick, EVERY)
        self._begin()

    def _begin(self) -> None:
        self.folder: Folder | None = None
        self.opening = threading.RLock()
        self.reader = Reader(self)
        self.writer = Writer(self)
        self.ender = Ender(self)
        self.keeper = Keeper(self)
        self._retry_at = 0.0

    def open(self) -> Folder | None:
        """The open folder; None while it cannot be opened."""
        if self.folder is not None or time.monotonic() < self._retry_at:
            return self.folder
        with self.opening:
            if self.folder is None and time.monotonic() >= self._retry_at:
                try:
                    folder = Folder(self.path, self.clock)
                except (OSError, sqlite3.Error) as error:
                    self._retry_at = time.monotonic() + _REOPEN_EVERY
                    self.errors += 1
                    self.say("open", f"cannot be opened, so nothing is kept in it: {error}.")
                    return None
                if folder.aside:
                    self._say_aside(folder, "was found corrupt")
                if not folder.writable:
                    self._retry_at = time.monotonic() + _REOPEN_EVERY
                    self.say("read-only", "can only be read: what is in it is served, nothing is added.")
                self.words = folder.page.words
                self.reader.seen = -1
                self.reader.learn(folder)
                self.folder = folder
                self.queue.wake()
            return self.folder

    def reopen(self) -> Folder | None:
        """Open it anew: what lay at the path is gone, or was replaced, or can perhaps be written now."""
        with self.opening:
            folder, self.folder = self.folder, None
            if folder is not None:
                folder.close()
            self.extra += 2
            return self.open()

    def close(self, timeout: float) -> None:
        """Write what waits, and let go of the folder; the next use opens it again."""
        self.queue.flush(timeout)
        self.queue.stop(timeout)
        with self.opening:
            folder, self.folder = self.folder, None
            if folder is not None:
                folder.close()

    def trouble(self, error: BaseException, doing: str) -> None:
        """Count it, say it once, and mend what can be mended."""
        if isinstance(error, Closed):
            return
        self.errors += 1
        folder = self.folder
        if folder is not None and folder.writable and is_broken(error):
            self._set_aside(folder, error)
        elif code(error) in _BUSY:
            self.busy += 1
        else:
            if doing != "read":
                self.writer.refuse_until = time.monotonic() + _REFUSE_FOR
            self.say(doing, f"could not be {doing} ({error}). Calls go on without it.")
            if folder is not None and not folder.current():
                self.reopen()

    def _set_aside(self, folder: Folder, error: BaseException) -> None:
        with self.opening:
            if self.folder is not folder:
                return
            try:
                folder.set_aside(self.clock)
            except OSError as failed:
                self.say("aside", f"is corrupt ({error}), and cannot be set aside: {failed}.")
                self._retry_at = time.monotonic() + _REOPEN_EVERY
            else:
                if folder.aside:
                    self._say_aside(folder, f"was found corrupt ({error})")
            self.reopen()

    def _say_aside(self, folder: Folder, found: str) -> None:
        self.corrupt += 1
        self.say(folder.aside, f"{found}. It is set aside as {folder.aside}, and a new one is begun.")

    def say(self, kind: str, message: str) -> None:
        """Let the next caller warn of it, once."""
        said = f"Disk: the store at {self.path} {message}"
        if self._said.setdefault(kind, said) is said:
            self.unsaid.append(said)

    def tick(self) -> None:
        """Keep order; called in the queue's thread."""
        folder = self.folder
        if folder is None:
            return
        try:
            if not folder.current() or (not folder.writable and time.monotonic() >= self._retry_at):
                folder = self.reopen()
            if folder is not None and folder.writable:
                self.keeper.tick(folder)
                self.ender.make_up()
        except Exception as error:
            self.trouble(error, "kept in order")

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

    def after_fork(self, drained: bool) -> None:
        """In a forked child: what waits is the parent's, and no thread is here."""
        folder, reader, retry_at = self.folder, self.reader, self._retry_at
        self.queue.reset()
        self._begin()
        self.reader.marks, self.reader.ended, self.reader.floor = reader.marks, reader.ended, reader.floor
        self._retry_at = retry_at
        if folder is not None:
            folder.page.renew_lock()
            folder.close()
        if not drained:
            self._retry_at = float("inf")
            self.say("fork", "was in use while this process was forked, and is left alone in it.")
