"""The memory tier: a table of entries per function, and a bound that one or several functions share.

A reader takes no lock: `table.entries.get(key)` is one dict access, and an entry never changes its value. Writers hold
the one short lock of the Memory while they link entries and count bytes, never while code of the user's runs: sizes are
estimated before, and what was dropped is let go after (its destructors are the user's). The bounds hold whenever `put`
returns. The keys are canonical trees of builtins and classes, so comparing them under the lock runs no one's `__eq__`.

Which entry leaves is S3-FIFO's choice (s3fifo.py) unless a policy of cachetools is named; those reorder at every hit,
hence `touches`, and the compiled hot path stays closed for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple, Protocol
from weakref import WeakSet

from scalekit import _units, settings
from scalekit._cache.place import path_of
from scalekit._cache.stores.s3fifo import S3Fifo
from scalekit._cache.stores.sizes import sizeof
from scalekit.errors import ConfigurationError

__all__ = ["Entry", "Memory", "MemoryStats", "Table"]

Eviction = Literal["s3fifo", "lru", "lfu", "fifo", "random"]

FOREVER: Final = float("inf")
OVERHEAD: Final = 320  # an Entry with its numbers, and its places in two dicts
_CACHETOOLS: Final = {"lru": "LRUCache", "lfu": "LFUCache", "fifo": "FIFOCache", "random": "RRCache"}


class Entry:
    """One kept answer. `thaw` makes a fresh copy of `value` (None: it is shared). Times are monotonic: from `until` on
    a reader has to think (`life` tells about what; None: nothing, it is over), at `expires` the answer is gone.

    `kind` and `receiver` are the fast index's: the types of the bare arguments (None: it is not there), and the id
    of the object whose method it answers, with a weak reference (when it dies, its part of `fast` goes; asking the
    reference could make us the one who drops it last, under the lock). A reader sets `hit`; what follows is the
    Memory's.
    """

    __slots__ = (
        "expires",
        "hit",
        "key",
        "kind",
        "life",
        "main",
        "newer",
        "older",
        "receiver",
        "size",
        "stored",
        "table",
        "thaw",
        "until",
        "value",
    )

    def __init__(
        self,
        key: Hashable = None,
        value: Any = None,
        thaw: Callable[[Any], Any] | None = None,
        expires: float = FOREVER,
        life: Any = None,
        until: float | None = None,
        stored: float = 0.0,
    ) -> None:
        self.key = key
        self.value = value
        self.thaw = thaw
        self.until = expires if until is None else until
        self.expires = expires
        self.life = life
        self.stored = stored
        self.kind: Any = None
        self.receiver: Any = None
        self.table: Table | None = None
        self.size = 0
        self.hit = False
        self.main = False
        self.older: Entry | None = None
        self.newer: Entry | None = None


class Table:
    """What one function keeps. `evicted` counts the entries that left for want of room; `cleared` how often the fast
    index was closed for all of them.
    """

    __slots__ = ("__weakref__", "cleared", "entries", "evicted", "fast", "home", "nbytes", "places")

    def __init__(self) -> None:
        self.entries: dict[Hashable, Entry] = {}
        self.fast: dict[Any, Any] = {}
        self.places: dict[Any, dict[Any, Any]] = {}
        self.evicted = 0
        self.cleared = 0
        self.nbytes = 0
        self.home: Memory | None = None

    def open_fast(self, entry: Entry) -> None:
        """Put `entry` into the fast index, a dict of dicts; a scope has one of its own."""
        level, path = self._path(entry)
        for part in path[:-1]:
            level = level.setdefault(part, {})
        level[path[-1]] = entry

    def close_fast(self, entry: Entry) -> None:
        """Take it out, and the levels that are empty then. Readers hold no lock, so whoever is faster wins."""
        level, path = self._path(entry)
        levels = [level]
        for part in path[:-1]:
            below = levels[-1].get(part)
            if below is None:
                return
            levels.append(below)
        if levels[-1].get(path[-1]) is not entry:
            return
        for level, part in zip(reversed(levels), reversed(path), strict=True):
            level.pop(part, None)
            if level:
                return

    def _path(self, entry: Entry) -> tuple[dict[Any, Any], tuple[Any, ...]]:
        """The outermost dict, and the subscripts from there."""
        place = None if entry.life is None else entry.life.place
        path = path_of(entry.key, place is not None, None if entry.receiver is None else entry.receiver[0])
        return (self.fast, path) if place is None else (self.places, (place, *path))

    def clear_fast(self) -> None:
        """Empty the fast index: each entry has to be looked at before it may come back."""
        self.cleared += 1
        self.fast.clear()
        self.places.clear()


class MemoryStats(NamedTuple):
    """Figures of one Memory. `refused` counts answers that were larger than all of it."""

    entries: int
    nbytes: int
    max_entries: int
    max_bytes: int
    evicted: int
    refused: int


class _Order(Protocol):
    touches: bool

    def add(self, entry: Entry) -> None: ...
    def discard(self, entry: Entry) -> None: ...
    def replace(self, old: Entry, new: Entry) -> None: ...
    def touch(self, entry: Entry) -> None: ...
    def victim(self, arrived: Entry, now: float, entries: float, nbytes: float) -> Entry: ...


class _Named:
    """An order kept by a class of cachetools, whose own bound is never reached."""

    touches = True

    def __init__(self, name: str) -> None:
        self._cache: Any = getattr(import_module("cachetools"), name)(maxsize=FOREVER)

    def add(self, entry: Entry) -> None:
        self._cache[entry] = None

    def discard(self, entry: Entry) -> None:
        self._cache.pop(entry, None)

    def replace(self, old: Entry, new: Entry) -> None:
        self.discard(old)
        new.hit = old.hit
        self.add(new)

    def touch(self, entry: Entry) -> None:
        if entry in self._cache:
            self._cache[entry]

    def victim(self, arrived: Entry, now: float, entries: float, nbytes: float) -> Entry:
        entry: Entry = self._cache.popitem()[0]
        if entry is not arrived:
            return entry
        other: Entry = self._cache.popitem()[0]
        self.add(arrived)
        return other


class Memory:
    """A bound on what is kept in this process's memory, by one function or by all that are given this object.

    Args:
        max_entries: entries in all. Default: the setting `cache_max_entries`, 10,000.
        max_bytes: an estimate of keys, values and overhead in all, as a number or "64MB". Default: the setting
            `cache_max_bytes`, 64 MB. An answer larger than that is not kept.
        policy: which entry leaves when there is no room: "s3fifo", or "lru", "lfu", "fifo", "random", which are the
            classes of cachetools and make a hit slower.
    """

    __module__ = "scalekit"

    def __init__(
        self,
        max_entries: int | None = None,
        max_bytes: int | str | None = None,
        policy: Eviction = "s3fifo",
    ) -> None:
        if policy != "s3fifo" and policy not in _CACHETOOLS:
            known = ", ".join(map(repr, ["s3fifo", *_CACHETOOLS]))
            raise ConfigurationError(f"Memory: policy={policy!r} is not known: write one of {known}.")
        self._settings = max_entries, max_bytes, policy
        self._max_entries = None if max_entries is None else _units.count(max_entries, "max_entries")
        self._max_bytes = None if max_bytes is None else _units.size(max_bytes, "max_bytes")
        self.policy = policy
        self._tables: WeakSet[Table] = WeakSet()
        self._refused = self._evicted = 0
        self._lock = threading.Lock()
        self._start()

    @property
    def max_entries(self) -> int:
        return self._max_entries or settings.lookup("cache_max_entries")

    @property
    def max_bytes(self) -> int:
        return self._max_bytes or settings.lookup("cache_max_bytes")

    @property
    def touches(self) -> bool:
        """True if every hit must be told by `touch(entry)`."""
        return self._order.touches

    @property
    def nbytes(self) -> int:
        """The estimate of what is kept."""
        return self._nbytes

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True

    def put(self, table: Table, entry: Entry, now: float) -> bool:
        """Keep `entry` in `table` instead of what has its key there; False if it is larger than this Memory."""
        max_entries = self._max_entries or settings.lookup("cache_max_entries")
        max_bytes = self._max_bytes or settings.lookup("cache_max_bytes")
        entry.size = sizeof(entry.key) + sizeof(entry.value) + OVERHEAD
        dropped: list[Entry] = []
        with self._lock:
            old = table.entries.get(entry.key)
            if entry.size > max_bytes:
                self._refused += 1
                if old is not None:
                    self._order.discard(old)
                    self._forget(old)
                return False
            if table.home is not self:
                table.home = self
                self._tables.add(table)
            entry.table = table
            if old is None:
                self._order.add(entry)
            else:
                dropped.append(old)
                entry.key = old.key  # the object that the dict holds
                self._order.replace(old, entry)
                self._forget(old)
            table.entries[entry.key] = entry
            table.nbytes += entry.size
            self._count += 1
            self._nbytes += entry.size
            while self._count > max_entries or self._nbytes > max_bytes:
                entries = max_entries if self._count > max_entries else FOREVER
                one = self._order.victim(entry, now, entries, max_bytes if self._nbytes > max_bytes else FOREVER)
                dropped.append(one)
                self._evicted += 1
                if one.table is not None:
                    one.table.evicted += 1
                self._forget(one)
        return True

    def remove(self, table: Table, entry: Entry) -> bool:
        """Drop `entry`; False if it has left already, or another one has taken its key."""
        with self._lock:
            if entry.table is not table or table.home is not self:
                return False
            self._order.discard(entry)
            self._forget(entry)
            return True

    def clear(self, table: Table) -> int:
        """Drop all that `table` holds; how many they were."""
        with self._lock:
            entries = [*table.entries.values()] if table.home is self else []
            for entry in entries:
                self._order.discard(entry)
                self._forget(entry)
        return len(entries)

    def touch(self, entry: Entry) -> None:
        """A hit, for the policies that reorder."""
        if self._order.touches:
            with self._lock:
                if entry.table is not None:
                    self._order.touch(entry)

    def stats(self) -> MemoryStats:
        """The figures of now."""
        return MemoryStats(self._count, self._nbytes, self.max_entries, self.max_bytes, self._evicted, self._refused)

    def _forget(self, entry: Entry) -> None:
        table = entry.table
        assert table is not None
        del table.entries[entry.key]
        if entry.kind is not None:
            table.close_fast(entry)
        entry.table = None
        table.nbytes -= entry.size
        self._count -= 1
        self._nbytes -= entry.size

    def _start(self) -> None:
        self._order: _Order = S3Fifo() if self.policy == "s3fifo" else _Named(_CACHETOOLS[self.policy])
        self._count = self._nbytes = 0

    def _after_fork(self) -> None:
        """A new lock. If another thread was writing when this process was forked off, its half-done work is dropped."""
        torn = self._lock.locked()
        self._lock = threading.Lock()
        if torn:
            self._start()
            for table in [*self._tables]:
                table.entries.clear()
                table.clear_fast()
                table.nbytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._settings

    def __repr__(self) -> str:
        given = zip(("max_entries", "max_bytes", "policy"), self._settings, strict=True)
        return f"Memory({', '.join([f'{name}={value!r}' for name, value in given if value is not None])})"
