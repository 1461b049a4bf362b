"""Caches that people already have, as tiers: any `cachetools.Cache`, `diskcache.Cache` and cache of aiocache.

What they are given is one sealed text or string of bytes per record, with its key and a checksum in it: they may drop
it when they like, hand back something else, or hold what others put there, and it is a miss. Nothing of theirs is ever
unpickled.

The rule of invalidation (base.py) must hold although they forget: a marker that was evicted would let an old answer
come back. So markers are never entries of theirs that can go unnoticed: they are kept in this process where the cache
is (`Ended`), in a table of their own in diskcache's database, or in a few documents whose loss ends every record that
they spoke for (adapter_aiocache.py).
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from hashlib import blake2b
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary
from zlib import crc32

from scalekit._cache.marks import Ended
from scalekit._cache.stores.base import NEVER, Record, Store
from scalekit._runtime.base import Runtime
from scalekit.errors import ConfigurationError, warn

__all__ = ["Adapter", "AdapterStats", "adapted", "awaited", "pack", "unpack"]

T = TypeVar("T")

MARKS: Final = 100_000
"""Ended names that are remembered one by one."""

RETENTION: Final = 86_400 * 1_000_000_000
"""How long it is known that a key was ended, in nanoseconds; no older record can be put."""

_HEAD: Final = struct.Struct("<BIqqqdI")
_VERSION: Final = 1


def pack(key: str, record: Record) -> bytes:
    """A record, its key and a checksum over all of it (CRC-32) as bytes."""
    name = key.encode("utf-8", "surrogatepass")
    marks = json.dumps(record.marks).encode() if record.marks else b""
    head = _HEAD.pack(_VERSION, len(name), record.born, record.fresh, record.expires, record.cost, len(marks))
    body = head + name + marks + record.data
    return crc32(body).to_bytes(4, "little") + body


def unpack(key: str, packed: Any) -> Record | None:
    """The record of this very key, or None: its bytes have changed, or they are something else."""
    if (
        type(packed) is not bytes
        or len(packed) < 4 + _HEAD.size
        or crc32(packed[4:]).to_bytes(4, "little") != packed[:4]
    ):
        return None
    version, named, born, fresh, expires, cost, marked = _HEAD.unpack_from(packed, 4)
    start = 4 + _HEAD.size
    end = start + named
    if version != _VERSION or packed[start:end] != key.encode("utf-8", "surrogatepass"):
        return None
    marks = tuple(json.loads(packed[end : end + marked])) if marked else ()
    return Record(packed[end + marked :], born, fresh, expires, cost, marks)


def digest(name: str) -> str:
    """A name that every cache takes: short, and of letters and digits."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class AdapterStats(NamedTuple):
    """The figures of one adapter in this process. `foreign` are values that were no records of ours, or were changed;
    `refused` puts that were not kept, `errors` troubles with the cache.
    """

    hits: int
    misses: int
    foreign: int
    refused: int
    errors: int


AdapterStats.__module__ = "scalekit"


def of_key(key: str) -> str:
    """A key's name among the marks."""
    return f"={key}"


class Adapter(ABC):
    """What all of them share: figures, the rule, and that trouble is a miss which is told once."""

    tier = ""
    proves = True
    shared = False
    """Whether other processes can end what is in it: then a copy in memory is asked about at each hit."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.hits = self.misses = self.foreign = self.refused = self.errors = 0
        self._generation = 0
        self._last = 0
        self._lock = threading.RLock()
        self._said = False
        self._pending: dict[str, Record] = {}
        """What is on its way, and found meanwhile."""

    def __repr__(self) -> str:
        kind = type(self.cache)
        return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"

    def now(self) -> int:
        """The wall clock, which the processes of a machine share, and never twice the same in this one."""
        with self._lock:
            self._last = max(time.time_ns(), self._last + 1)
            return self._last

    def generation(self) -> int:
        if self.shared:
            with self._lock:
                self._generation += 2
                return self._generation + 1  # odd, and another one each time: nobody can tell without asking
        return self._generation

    def after_fork(self) -> None:
        """In a forked child: a lock that a thread of the parent holds would never be given back."""
        self._lock = threading.RLock()
        self._pending.clear()

    def stats(self) -> AdapterStats:
        return AdapterStats(self.hits, self.misses, self.foreign, self.refused, self.errors)

    def _trouble(self, error: BaseException, doing: str) -> str:
        self.errors += 1
        said = f"{self!r} could not be {doing} ({type(error).__name__}: {error})"
        if not self._said:
            self._said = True
            warn(f"cache: the tier {said}. Calls go on without it.")
        return said

    def _read(self, key: str, packed: Any) -> Record | None:
        """The record in a value of theirs."""
        record = unpack(key, packed) if packed is not None else None
        if record is None and packed is not None:
            self.foreign += 1
        return record

    def _counted(self, records: list[Record | None]) -> list[Record | None]:
        found = sum(record is not None for record in records)
        self.hits += found
        self.misses += len(records) - found
        return records

    async def get(self, key: str, runtime: Runtime) -> Record | None:
        return (await self.get_many([key], runtime))[0]

    async def put(self, key: str, record: Record, runtime: Runtime) -> str | None:
        return (await self.put_many([(key, record)], runtime))[0]

    @abstractmethod
    async def get_many(self, keys: Sequence[str], runtime: Runtime) -> list[Record | None]: ...

    async def put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]:
        self._pending.update(records)
        try:
            reasons = await self._put_many(records, runtime)
        finally:
            for key, record in records:
                if self._pending.get(key) is record:
                    self._pending.pop(key, None)
        self.refused += sum(reason is not None for reason in reasons)
        return reasons

    @abstractmethod
    async def _put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]: ...

    def _newest(self, key: str, stored: Record | None) -> Record | None:
        pending = self._pending.get(key)
        return pending if pending is not None and (stored is None or pending.born > stored.born) else stored


class Mapped(Adapter):
    """A `cachetools.Cache`: a dict of this process with a bound. One lock stands before it, for it has none."""

    tier = "cachetools"

    def __init__(self, cache: Any) -> None:
        super().__init__(cache)
        self._ended = Ended(MARKS)

    async def get_many(self, keys: Sequence[str], runtime: Runtime) -> list[Record | None]:
        with self._lock:
            return self._counted([self._living(key) for key in keys])

    async def _put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]:
        with self._lock:
            return [self._put(key, record) for key, record in records]

    async def invalidate(self, keys: Sequence[str], runtime: Runtime) -> bool:
        with self._lock:
            was = [self._living(key) is not None for key in keys]
            self._end([of_key(key) for key in keys])
            for key in keys:
                try:
                    self.cache.pop(key, None)
                except Exception as error:  # of a subclass of the user's
                    self._trouble(error, "emptied")
        return any(was)

    async def mark(self, names: Sequence[str], runtime: Runtime) -> None:
        with self._lock:
            self._end(names)

    async def check(self, key: str, born: int, marks: Sequence[str], runtime: Runtime) -> bool:
        with self._lock:
            return not self._ended.since((of_key(key), *marks), born)

    def after_fork(self) -> None:
        torn = not self._lock.acquire(blocking=False)
        super().after_fork()
        if torn:
            with suppress(Exception):  # half-written, perhaps
                self.cache.clear()
            self._ended.floor = self.now()  # what was being ended is not known

    def _end(self, names: Iterable[str]) -> None:
        self._ended.end(names, self.now())
        self._generation += 2

    def _living(self, key: str) -> Record | None:
        try:
            packed = self.cache.get(key)
        except Exception as error:
            self._trouble(error, "read")
            return None
        record = self._read(key, packed)
        if (
            record is None
            or record.expires <= self.now()
            or self._ended.since((of_key(key), *record.marks), record.born)
        ):
            return None
        return record

    def _put(self, key: str, record: Record) -> str | None:
        if self._ended.since((of_key(key), *record.marks), record.born):
            return "it was invalidated meanwhile"
        if record.expires <= self.now():
            return "it has expired"
        before = self._living(key)
        if before is not None and before.born >= record.born:
            return "a newer one is there"
        try:
            self.cache[key] = pack(key, record)
        except ValueError:
            return f"{self!r} has no room for {len(record.data):,} bytes"
        except Exception as error:
            return self._trouble(error, "written")
        return None


_KINDS: Final[Sequence[tuple[str, str, str, str]]] = (
    ("cachetools", "Cache", "scalekit._cache.stores.adapters", "Mapped"),
    ("diskcache", "Cache", "scalekit._cache.stores.adapter_diskcache", "OnDisk"),
    ("aiocache.base", "BaseCache", "scalekit._cache.stores.adapter_aiocache", "Awaited"),
)
"""Module and class of a cache (a look into `sys.modules`: who has such an object has imported it), and its adapter."""

_known: WeakValueDictionary[int, Adapter] = WeakValueDictionary()
_knowing = threading.Lock()


def adapted(cache: Any) -> Store | None:
    """The tier that a foreign cache is, always the same for one object; None if it is of no known kind."""
    for module, name, room, adapter in _KINDS:
        loaded: Any = sys.modules.get(module)
        if loaded is None or not isinstance(cache, getattr(loaded, name)):
            continue
        with _knowing:
            known = _known.get(id(cache))
            if known is None or known.cache is not cache:
                make: Callable[[Any], Adapter] = getattr(import_module(room), adapter)
                known = _known[id(cache)] = make(cache)
            return known  # type: ignore[return-value]
    kind = type(cache)
    if kind.__module__.partition(".")[0] == "diskcache":
        raise ConfigurationError(
            f"cache: tiers=[...] takes a diskcache.Cache, not a {kind.__qualname__}: its entries are those of several. "
            f"Give it one, or scalekit.Disk(folder)."
        )
    return None


def _in_child() -> None:
    global _knowing
    _knowing = threading.Lock()
    for adapter in [*_known.values()]:
        adapter.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


async def awaited(future: Future[T], runtime: Runtime) -> T:
    """The result of what runs in another thread, for a caller of any colour."""
    if not runtime.blocking:
        waiter = runtime.waiter()
        wake: Callable[[Any], object] = lambda _: waiter.wake()  # noqa: E731
        future.add_done_callback(wake)
        try:
            await waiter.wait()
        except BaseException:
            future.cancel()
            raise
    return future.result()


def expires_in(record: Record, now: int) -> float | None:
    """Seconds until a record is let go; None: never."""
    return None if record.expires >= NEVER else max(0.0, (record.expires - now) / 1e9)
