"""A `diskcache.Cache` as a tier.

It reads a row by the row's own word for how: a row that says "pickle" is unpickled, whatever the program stored, and
so whoever can write to the folder can run code. Here a row is read only if it says that it is bytes or text; any other
is a miss. Writing, expiry and eviction are diskcache's own. When something was invalidated stands in a table of its
own in the same database, which its culling and `clear()` do not touch.

SQLite may keep a call waiting for as long as the cache's `timeout` says, and diskcache opens a connection for each
thread and leaves it open. So everything is done in one thread of ours.
"""

from __future__ import annotations

import atexit
import base64
import os
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib import import_module
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from scalekit._cache.stores.adapters import RETENTION, Adapter, awaited, digest, expires_in, of_key, pack
from scalekit._cache.stores.base import Record
from scalekit._runtime.base import Runtime
from scalekit.errors import ConfigurationError

__all__ = ["OnDisk"]

T = TypeVar("T")
_RAW, _BINARY, _TEXT = 1, 2, 3  # diskcache.core.MODE_*; 4 is a pickle
_TABLE: Final = "CREATE TABLE IF NOT EXISTS scalekit_ended(name TEXT PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID"
_ROW: Final = """SELECT rowid, mode, filename, value FROM Cache WHERE key = ? AND raw = ?
    AND (expire_time IS NULL OR expire_time > ?)"""
_END: Final = "INSERT INTO scalekit_ended VALUES(?,?) ON CONFLICT(name) DO UPDATE SET time=max(time,excluded.time)"
_SOME: Final = 500  # variables in one statement


class OnDisk(Adapter):
    """See the top of the file."""

    tier = "diskcache"
    shared = True

    def __init__(self, cache: Any) -> None:
        super().__init__(cache)
        theirs: Any = import_module("diskcache.core")
        if type(cache.disk) not in (theirs.Disk, theirs.JSONDisk):
            raise ConfigurationError(
                f"cache: the diskcache.Cache in tiers=[...] has a {type(cache.disk).__qualname__}, and what that does "
                f"with stored bytes is not known; scalekit never unpickles. Use diskcache.Disk or JSONDisk."
            )
        self._plain = type(cache.disk) is theirs.Disk
        self._policies: dict[str, dict[str, str | None]] = theirs.EVICTION_POLICY
        self._ready = False
        self._process = 0
        self._tasks: SimpleQueue[Any]

    async def get_many(self, keys: Sequence[str], runtime: Runtime) -> list[Record | None]:
        return self._counted(await self._do(runtime, "read", [None] * len(keys), lambda: self._get_all(keys)))

    async def _put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]:
        failed: list[str | None] = ["the tier could not be written"] * len(records)
        return await self._do(runtime, "written", failed, lambda: self._put_all(records))

    async def invalidate(self, keys: Sequence[str], runtime: Runtime) -> bool:
        def end() -> bool:
            was = [record is not None for record in self._get_all(keys)]
            self._end([of_key(key) for key in keys])
            for key in keys:
                self.cache.delete(digest(key))
            return any(was)

        return await self._do(runtime, "emptied", False, end)

    async def mark(self, names: Sequence[str], runtime: Runtime) -> None:
        await self._do(runtime, "marked", None, lambda: self._end(names))

    async def check(self, key: str, born: int, marks: Sequence[str], runtime: Runtime) -> bool:
        return await self._do(runtime, "read", False, lambda: not self._ended((of_key(key), *marks), born))

    async def _do(self, runtime: Runtime, doing: str, instead: T, work: Callable[[], T]) -> T:
        """`work` in our thread; `instead` if it fails."""

        def working() -> T:
            try:
                if not self._ready:
                    self._sql(_TABLE)
                    self._ready = True
                return work()
            except Exception as error:
                self._trouble(error, doing)
                return instead

        with self._lock:
            if self._process != os.getpid():  # also in a forked child, which has no such thread
                self._process = os.getpid()
                self._tasks = SimpleQueue()
                thread = Thread(target=_run, args=(self._tasks, self.cache), name="scalekit diskcache", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is about to end
                    self._process = 0
                    return working()
                end = weakref.finalize(self, self._tasks.put, None)  # takes no lock that a finalizer might wait for
                end.atexit = False
                _open[thread] = self._tasks
            tasks = self._tasks
        future: Future[T] = Future()
        tasks.put((working, future))
        return await awaited(future, runtime)

    def _sql(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return list(self.cache._sql(statement, values))

    def _end(self, names: Sequence[str]) -> None:
        now = self.now()
        with self.cache.transact():
            for name in names:
                self._sql(_END, (_row_name(name), now))
            self._sql("DELETE FROM scalekit_ended WHERE name LIKE '=%' AND time < ?", (now - RETENTION,))

    def _ended(self, names: Sequence[str], born: int) -> bool:
        for start in range(0, len(names), _SOME):
            some = [_row_name(name) for name in names[start : start + _SOME]]
            places = ",".join("?" * len(some))
            if self._sql(f"SELECT 1 FROM scalekit_ended WHERE name IN ({places}) AND time >= ? LIMIT 1", (*some, born)):
                return True
        return False

    def _get_all(self, keys: Sequence[str]) -> list[Record | None]:
        return [self._get(key) for key in keys]

    def _get(self, key: str) -> Record | None:
        record, now = self._newest(key, self._stored(key)), self.now()
        if record is None or record.expires <= now or self._ended((of_key(key), *record.marks), record.born):
            return None
        return record

    def _stored(self, key: str) -> Record | None:
        """What the row of a key holds. Only rows that are bytes or text are read at all."""
        name, raw = self.cache.disk.put(digest(key))
        rows = self._sql(_ROW, (name, raw, self.now() / 1e9))
        if not rows:
            return None
        row, mode, filename, value = rows[0]
        if mode not in (_RAW, _BINARY, _TEXT) or (filename and (os.path.isabs(filename) or ".." in filename)):
            return self._read(key, b"")
        touch = self._policies[self.cache.eviction_policy]["get"]
        if touch is not None:
            self._sql(f"UPDATE Cache SET {touch.format(now=time.time())} WHERE rowid = ?", (row,))
        try:
            data = self.cache.disk.fetch(mode, filename, value, False)
            return self._read(key, data if self._plain else base64.b64decode(data, validate=True))
        except FileNotFoundError:  # replaced in this moment
            return None
        except (TypeError, ValueError):
            return self._read(key, b"")

    def _put_all(self, records: Sequence[tuple[str, Record]]) -> list[str | None]:
        return [self._put(key, record) for key, record in records]

    def _put(self, key: str, record: Record) -> str | None:
        data: Any = pack(key, record)
        if not self._plain:
            data = base64.b64encode(data).decode()
        with self.cache.transact():
            now = self.now()
            if record.born <= now - RETENTION:
                return "it is older than a day"
            if self._ended((of_key(key), *record.marks), record.born):
                return "it was invalidated meanwhile"
            seconds = expires_in(record, now)
            if seconds == 0.0:
                return "it has expired"
            before = self._stored(key)
            if before is not None and before.born >= record.born:
                return "a newer one is there"
            self.cache.set(digest(key), data, expire=seconds)
        return None


def _row_name(name: str) -> str:
    return f"{'=' if name.startswith('=') else '#'}{digest(name)}"


def _run(tasks: SimpleQueue[Any], cache: Any) -> None:
    """The thread of one adapter, as long as there is one."""
    while (task := tasks.get()) is not None:
        work, future = task
        if future.set_running_or_notify_cancel():
            future.set_result(work())
        del work, future, task
    cache.close()  # the connection of this thread


_open: WeakKeyDictionary[Thread, SimpleQueue[Any]] = WeakKeyDictionary()


@atexit.register
def _at_exit() -> None:
    threads = [*_open.items()]
    for _, tasks in threads:
        tasks.put(None)
    for thread, _ in threads:
        thread.join(1.0)
