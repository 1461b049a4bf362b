"""A cache of aiocache as a tier: its memory, Redis (and Valkey) and memcached backends, in every colour.

A connection of theirs belongs to the event loop that opened it, and a program may have several loops, or none. So one
loop of ours, in a daemon thread, runs all of it, and callers of every colour wait for that. (Give scalekit a cache
object of its own: a connection that your loop opened cannot be used in another one.)

Whatever serializer the cache has, it is passed by: what goes in is text of ours, and nothing that comes back is
unpickled.

Markers. In the memory backend they are this process's. A server may evict any key at any moment, and two of them at
different moments; so the markers lie in 64 documents, by the hash of the ended name, and a record is alive only if
every document that could speak against it is there and does not. One that is missing was evicted: it is made anew and
says that everything up to now is ended. They are changed by compare-and-swap, so that two processes lose none.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Future
from importlib import import_module
from math import ceil
from typing import Any, Final, TypeVar
from zlib import crc32

from scalekit._cache.marks import Ended
from scalekit._cache.stores.adapters import MARKS, Adapter, awaited, digest, expires_in, of_key, pack
from scalekit._cache.stores.base import Record
from scalekit._runtime.base import Runtime

__all__ = ["Awaited"]

T = TypeVar("T")
DOCUMENTS: Final = 64
ROOM: Final = 128
"""Names in one document; when there are more, the older half is forgotten, and all that was born before it is dead."""
_PATIENCE: Final = 1.0
_REST: Final = 5.0  # seconds without a try after a failure
_MONTH: Final = 30 * 86_400  # seconds; what is longer, memcached takes for a date
_TRIES: Final = 50


class Awaited(Adapter):
    """See the top of the file."""

    tier = "aiocache"

    def __init__(self, cache: Any) -> None:
        super().__init__(cache)
        theirs: Any = import_module("aiocache.backends.memory")
        self.shared = not isinstance(cache, theirs.SimpleMemoryBackend)
        self._ended = Ended(MARKS)
        """Of the memory backend; of a server, what could not be told to it."""
        self._primed = False
        self._priming = threading.Lock()
        self._rests_until = 0
        self._process = os.getpid()

    def after_fork(self) -> None:
        super().after_fork()
        self._priming = threading.Lock()

    def now(self) -> int:
        if self.shared and not self._primed:
            self._prime()
        return super().now()

    async def get_many(self, keys: Sequence[str], runtime: Runtime) -> list[Record | None]:
        return self._counted(await self._do(runtime, "read", [None] * len(keys), self._get_all(keys)))

    async def _put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]:
        failed: list[str | None] = ["the tier could not be written"] * len(records)
        return await self._do(runtime, "written", failed, self._put_all(records))

    async def invalidate(self, keys: Sequence[str], runtime: Runtime) -> bool:
        nothing: list[Record | None] = [None] * len(keys)
        found = await self._do(runtime, "read", nothing, self._get_all(keys))
        names = [of_key(key) for key in keys]
        self._end_here(names)
        await self._do(runtime, "emptied", None, self._end(names, keys), rests=False)
        return any(record is not None for record in found)

    async def mark(self, names: Sequence[str], runtime: Runtime) -> None:
        self._end_here(names)
        await self._do(runtime, "marked", None, self._end(names), rests=False)

    async def check(self, key: str, born: int, marks: Sequence[str], runtime: Runtime) -> bool:
        return await self._do(runtime, "read", False, self._lives(born, [(of_key(key), *marks)]))

    # in the loop of ours ----------------------------------------------------------------------------------------------

    async def _do(
        self, runtime: Runtime, doing: str, instead: T, work: Coroutine[Any, Any, T], rests: bool = True
    ) -> T:
        """`work` in that loop; `instead` if it fails, takes too long, or has failed a moment ago."""
        if self.shared and os.getpid() != self._process:
            work.close()
            self._trouble(RuntimeError("its connections are those of the process that this one was forked from"), doing)
            return instead
        if rests and super().now() < self._rests_until:
            work.close()
            return instead
        try:
            return await awaited(LOOP.run(asyncio.wait_for(work, _PATIENCE)), runtime)
        except Exception as error:
            self._rest(error, doing)
            return instead

    def _rest(self, error: Exception, doing: str) -> None:
        self._rests_until = super().now() + int(_REST * 1e9)
        self._trouble(error, doing)

    async def _get_all(self, keys: Sequence[str]) -> list[Record | None]:
        now = super().now()
        stored = await self._stored(keys)
        found = [self._newest(key, record) for key, record in zip(keys, stored, strict=True)]
        marks = [(of_key(key), *(record.marks if record else ())) for key, record in zip(keys, found, strict=True)]
        documents = await self._documents(
            name for names, record in zip(marks, found, strict=True) if record for name in names
        )
        return [
            record
            if record is not None and record.expires > now and not self._is_ended(names, record.born, documents)
            else None
            for names, record in zip(marks, found, strict=True)
        ]

    async def _stored(self, keys: Sequence[str]) -> list[Record | None]:
        once = [*dict.fromkeys(keys)]
        texts = await self.cache.multi_get([digest(key) for key in once], loads_fn=_as_it_is) if keys else []
        found = {key: self._read(key, _bytes(text)) for key, text in zip(once, texts, strict=True)}
        return [found[key] for key in keys]

    async def _put_all(self, records: Sequence[tuple[str, Record]]) -> list[str | None]:
        found = await self._stored([key for key, _ in records])
        documents = await self._documents(name for key, record in records for name in (of_key(key), *record.marks))
        reasons: list[str | None] = []
        for (key, record), before in zip(records, found, strict=True):
            seconds = expires_in(record, super().now())
            if self._is_ended((of_key(key), *record.marks), record.born, documents):
                reasons.append("it was invalidated meanwhile")
            elif before is not None and before.born >= record.born:
                reasons.append("a newer one is there")
            elif seconds == 0.0:
                reasons.append("it has expired")
            else:
                reasons.append(await self._set(key, record, seconds))
        return reasons

    async def _set(self, key: str, record: Record, seconds: float | None) -> str | None:
        ttl = None if seconds is None else min(max(1, ceil(seconds)), _MONTH)
        text = base64.b64encode(pack(key, record)).decode()
        kept = await self.cache.set(digest(key), text, ttl=ttl, dumps_fn=_as_it_is)
        return None if kept else "the server did not keep it"

    async def _lives(self, born: int, names: Sequence[Sequence[str]]) -> bool:
        return not self._is_ended(names[0], born, await self._documents(names[0]))

    # markers ----------------------------------------------------------------------------------------------------------

    def _is_ended(self, names: Sequence[str], born: int, documents: dict[int, Ended]) -> bool:
        if self._ended.since(names, born):
            return True
        return self.shared and any(documents[_place(name)].since([digest(name)], born) for name in names)

    def _end_here(self, names: Iterable[str]) -> None:
        with self._lock:
            self._ended.end(names, super().now())
            self._generation += 2

    async def _end(self, names: Sequence[str], keys: Sequence[str] = ()) -> None:
        by_place: dict[int, list[str]] = {}
        for name in names if self.shared else ():
            by_place.setdefault(_place(name), []).append(digest(name))
        for place, some in by_place.items():
            await self._change(place, some)
        for key in keys:
            await self.cache.delete(digest(key))

    async def _change(self, place: int, names: Sequence[str]) -> None:
        theirs: Any = import_module("aiocache.lock")
        for _ in range(_TRIES):
            async with theirs.OptimisticLock(self.cache, _name(place)) as lock:
                text = await self.cache.get(_name(place), loads_fn=_as_it_is)
                document = _document(text)
                if document is None or lock._token is None:
                    await self._make(place, text)
                    continue
                document.end(names, super().now())
                try:
                    await lock.cas(_text(document), ttl=None, dumps_fn=_as_it_is)
                except theirs.OptimisticLockError:
                    continue
                return
        raise TimeoutError(f"others changed a document of markers {_TRIES} times in a row")

    async def _documents(self, names: Iterable[str]) -> dict[int, Ended]:
        """Those that could speak against these names."""
        places = sorted({_place(name) for name in names}) if self.shared else []
        return await self._documents_at(places) if places else {}

    async def _documents_at(self, places: Sequence[int]) -> dict[int, Ended]:
        texts = await self.cache.multi_get([_name(place) for place in places], loads_fn=_as_it_is)
        found: dict[int, Ended] = {}
        for place, text in zip(places, texts, strict=True):
            document = _document(text)
            found[place] = document if document is not None else await self._make(place, text)
        return found

    async def _make(self, place: int, broken: Any) -> Ended:
        """A document anew: whatever it said is lost, so everything up to now is ended."""
        document = Ended(ROOM, super().now())
        if broken is not None:
            await self.cache.delete(_name(place))
        try:
            await self.cache.add(_name(place), _text(document), ttl=None, dumps_fn=_as_it_is)
        except ValueError:  # another process was faster
            pass
        return document

    def _prime(self) -> None:
        """Before anything is born, all documents are there. Blocks, once."""
        with self._priming:
            if not self._primed:
                try:
                    LOOP.run(asyncio.wait_for(self._documents_at(range(DOCUMENTS)), _PATIENCE)).result(2 * _PATIENCE)
                except Exception as error:
                    self._rest(error, "read")
                finally:
                    self._primed = True


def _place(name: str) -> int:
    return crc32(name.encode("utf-8", "surrogatepass")) % DOCUMENTS


def _name(place: int) -> str:
    return f"scalekit-ended-{place}"


def _text(document: Ended) -> str:
    return json.dumps([document.floor, document.times])


def _document(text: Any) -> Ended | None:
    try:
        floor, times = json.loads(text)
        document = Ended(ROOM, int(floor))
        document.times = {str(name): int(time) for name, time in times.items()}
    except (TypeError, ValueError, AttributeError):
        return None
    return document


def _as_it_is(value: Any) -> Any:
    return value


def _bytes(text: Any) -> Any:
    """The bytes of a text of ours; of anything else, some that are no record."""
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        return b""


class _Loop:
    """An event loop in a daemon thread, begun when first used; a forked child begins its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="scalekit aiocache", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _forget(self) -> None:
        self._lock, self._loop = threading.Lock(), None


LOOP = _Loop()
