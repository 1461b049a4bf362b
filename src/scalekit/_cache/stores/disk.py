"""`Disk`: the tier that survives the process and is shared by all processes of a machine.

SQLite in WAL mode, with puts on a queue and reads inline: a read that takes microseconds is done where it is asked for,
also on an event loop, because handing it to a thread costs more and is late more often. What may take long goes to a
thread: large values, a busy database, invalidations, and everything while reads were slow of late.

The parts: disk_row (a row proves itself), disk_change (what a transaction may do), disk_page (memory shared among
processes), disk_clock, disk_files, disk_connections, disk_queue (the writer's thread), disk_keeper (expiry and
eviction), disk_folder (opening), disk_shared (all of it, for one folder). They are imported when a Disk is first used.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from scalekit import _units, settings
from scalekit._cache.stores.base import Later, Record
from scalekit._runtime.base import Runtime
from scalekit.errors import ConfigurationError, warn

if TYPE_CHECKING:
    from scalekit._cache.stores.disk_shared import Shared

__all__ = ["Disk", "DiskStats"]

T = TypeVar("T")

_SLOW: Final = 0.001
_HOT: Final = 200  # two slow reads more than one in a hundred
_MANY: Final = 32
_opened: dict[str, Shared] = {}
_opening = threading.Lock()


class DiskStats(NamedTuple):
    """The figures of one folder. `entries` and `nbytes` (of values) count what all processes keep in it, `used` the
    bytes that this takes on the disk; the others what this process did.

    `expired` are reads that came too late, `evicted` records dropped for room, `corrupt` those whose bytes had changed,
    `refused` puts that were not kept, `pending` puts that wait to be written, `errors` troubles with the disk, and
    `busy` those among them where the database was locked for too long.
    """

    entries: int
    nbytes: int
    used: int
    hits: int
    misses: int
    expired: int
    evicted: int
    corrupt: int
    refused: int
    pending: int
    errors: int
    busy: int


DiskStats.__module__ = "scalekit"


class Disk:
    """A tier on the disk, shared by the processes of one machine.

    `path` is a folder (default: the setting `disk_dir`, else "scalekit" in the user's cache directory); it is made when
    first used, readable by this user only. `max_bytes` bounds what it takes there (default: the setting
    `disk_max_bytes`, 1 GB); what was not read for long leaves first. The write-ahead log comes on top, a few megabytes.

    All Disk objects of one folder share everything in a process; two of them that are given different bounds are a
    `ConfigurationError`, raised when the second is used. Trouble with the disk never raises: it is a miss, counted in
    `stats()` and said in one `ScalekitWarning`. The folder must be on a local disk: SQLite's WAL does not work over a
    network. A value survives the end of its process at any moment once it is written, some milliseconds after its put;
    an invalidation before `invalidate` returns. A power cut may take the last of them.

    >>> import tempfile
    >>> disk = Disk(tempfile.mkdtemp(), max_bytes="100MB")
    >>> disk.stats().entries
    0
    >>> disk.close()
    """

    __module__ = "scalekit"

    tier = "disk"
    proves = True

    def __init__(self, path: str | os.PathLike[str] | None = None, max_bytes: int | str | None = None) -> None:
        self._path = None if path is None else os.path.abspath(os.path.expanduser(os.fsdecode(path)))
        self._max_bytes = None if max_bytes is None else _units.size(max_bytes, "max_bytes")
        self._shared: Shared | None = None
        self._heat = 0

    def __repr__(self) -> str:
        bound = "" if self._max_bytes is None else f", max_bytes={self._max_bytes}"
        return f"Disk({self._path!r}{bound})"

    def __reduce__(self) -> tuple[type[Disk], tuple[str | None, int | None]]:
        return type(self), (self._path, self._max_bytes)

    def _open(self) -> Shared:
        from scalekit._cache.stores.disk_shared import Shared

        path = os.path.realpath(self._path or settings.lookup("disk_dir") or _user_cache())
        bound: int = settings.lookup("disk_max_bytes", self._max_bytes)
        with _opening:
            shared = _opened.get(path)
            if shared is None:
                if not _opened:
                    _watch()
                shared = _opened[path] = Shared(path, bound)
            elif self._max_bytes is not None and shared.max_bytes != bound:
                raise ConfigurationError(
                    f"Disk({path!r}) has max_bytes={shared.max_bytes} elsewhere in this process, and {bound} here: "
                    f"a folder has one bound. Give both the same, or each a folder of its own."
                )
        shared.open()
        self._shared = shared
        return shared

    def now(self) -> int:
        return (self._shared or self._open()).clock.now()

    def generation(self) -> int:
        shared = self._shared or self._open()
        return shared.words[0] + shared.extra

    async def get(self, key: str, runtime: Runtime) -> Record | None:
        shared = self._shared or await self._use(runtime)
        if runtime.blocking:
            record = shared.reader.get(key, False)
        else:
            try:
                record = self._brief(shared.reader.get, key)
            except Later:
                record = await runtime.offload(partial(self._long, shared.reader.get, key))
        if shared.unsaid:
            _say(shared)
        return record

    async def get_many(self, keys: Sequence[str], runtime: Runtime) -> list[Record | None]:
        shared = self._shared or await self._use(runtime)

        if runtime.blocking or len(keys) > _MANY:
            records = await runtime.offload(lambda: [shared.reader.get(key, False) for key in keys])
        else:
            records = [await self.get(key, runtime) for key in keys]
        if shared.unsaid:
            _say(shared)
        return records

    async def put(self, key: str, record: Record, runtime: Runtime) -> str | None:
        shared = self._shared or await self._use(runtime)
        reason = shared.writer.put(key, record)
        if shared.unsaid:
            _say(shared)
        return reason

    async def put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]:
        shared = self._shared or await self._use(runtime)
        reasons = [shared.writer.put(key, record) for key, record in records]
        if shared.unsaid:
            _say(shared)
        return reasons

    async def invalidate(self, keys: Sequence[str], runtime: Runtime) -> bool:
        shared = self._shared or await self._use(runtime)
        found = await runtime.offload(partial(shared.ender.end, keys))
        if shared.unsaid:
            _say(shared)
        return found

    async def mark(self, names: Sequence[str], runtime: Runtime) -> None:
        shared = self._shared or await self._use(runtime)
        await runtime.offload(partial(shared.ender.mark, names))
        if shared.unsaid:
            _say(shared)

    async def check(self, key: str, born: int, marks: Sequence[str], runtime: Runtime) -> bool:
        shared = self._shared or await self._use(runtime)
        if runtime.blocking:
            return shared.reader.check(key, born, marks, False)
        try:
            return self._brief(shared.reader.check, key, born, marks)
        except Later:
            return await runtime.offload(partial(self._long, shared.reader.check, key, born, marks))

    def clear(self) -> None:
        """End everything in the folder, for all processes, before it returns; the room is freed in the background."""
        shared = self._shared or self._open()
        shared.ender.clear()
        if shared.unsaid:
            _say(shared)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was put before is written; False if that takes more than `timeout` seconds."""
        shared = self._shared or self._open()
        done = shared.queue.flush(timeout)
        if shared.unsaid:
            _say(shared)
        return done

    def close(self) -> None:
        """Write what waits and close the folder, for all Disk objects of it; whoever uses one again opens it again."""
        if self._shared is not None:
            self._shared.close(10.0)

    def stats(self) -> DiskStats:
        """The figures of now."""
        shared = self._shared or self._open()
        entries, nbytes, used = shared.totals()
        return DiskStats(
            entries,
            nbytes,
            used,
            shared.hits,
            shared.misses,
            shared.expired,
            shared.evicted,
            shared.corrupt,
            shared.refused,
            len(shared.queue.pending),
            shared.errors,
            shared.busy,
        )

    async def _use(self, runtime: Runtime) -> Shared:
        return await runtime.offload(self._open)

    def _brief(self, read: Callable[..., T], *args: Any) -> T:
        """On an event loop: a read at once as long as that is quick, else Later."""
        if self._heat >= _HOT:
            raise Later
        began = perf_counter()
        result = read(*args, True)
        took = perf_counter() - began
        if took > _SLOW or self._heat:
            self._feel(took)
        return result

    def _long(self, read: Callable[..., T], *args: Any) -> T:
        """The same in a thread."""
        began = perf_counter()
        result = read(*args, False)
        self._feel(perf_counter() - began)
        return result

    def _feel(self, took: float) -> None:
        """More than one read in a hundred that takes above a millisecond lets `_heat` rise."""
        if took > _SLOW:
            self._heat = min(self._heat + 100, 1000)
        elif self._heat:
            self._heat -= 1


def _say(shared: Any) -> None:
    messages, shared.unsaid = shared.unsaid, []
    for message in messages:
        warn(message)


def _user_cache() -> str:
    if sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    elif sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or ""
        base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return os.path.join(base, "scalekit")


def _watch() -> None:
    """Once a store is used: write at exit what waits, and let none of it be shared with a forked child."""
    global _watched
    if not _watched:
        import atexit

        _watched = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


_watched = False
_drained: dict[str, bool] = {}


def _at_exit() -> None:
    for shared in [*_opened.values()]:
        shared.close(2.0)


def _before_fork() -> None:
    _opening.acquire(timeout=1.0)
    for path, shared in _opened.items():
        folder = shared.folder
        _drained[path] = folder is None or folder.connections.pause(1.0)


def _in_parent() -> None:
    for path in _drained:
        folder = _opened[path].folder
        if folder is not None:
            folder.connections.resume()
    _drained.clear()
    _opening.release()


def _in_child() -> None:
    global _opening
    _opening = threading.Lock()
    for path, shared in _opened.items():
        shared.after_fork(_drained.get(path, True))
    _drained.clear()
