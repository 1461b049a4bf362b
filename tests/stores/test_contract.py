"""What every slow tier promises (see _cache/stores/base.py), in the three colours."""

from __future__ import annotations

import functools
import time
from typing import Any

from colours import Colour

from scalekit._cache.stores.base import NEVER, Record, Store
from scalekit._runtime.base import Runtime
from scalekit._runtime.blocking import BLOCKING
from scalekit._runtime.eventloop import EVENT_LOOP

MS = 1_000_000


def runtime_of(colour: Colour) -> Runtime:
    return BLOCKING if colour.name == "thread" else EVENT_LOOP


class Calls:
    """A store with its runtime given."""

    def __init__(self, store: Store, colour: Colour) -> None:
        self.store = store
        self.now = store.now
        self.runtime = runtime_of(colour)

    def record(self, data: bytes = b"value", born: int | None = None, **rest: Any) -> Record:
        return Record(data, self.store.now() if born is None else born, **rest)

    async def get(self, key: str) -> Record | None:
        return await self.store.get(key, self.runtime)

    async def put(self, key: str, record: Record) -> str | None:
        return await self.store.put(key, record, self.runtime)

    async def invalidate(self, *keys: str) -> bool:
        return await self.store.invalidate(keys, self.runtime)

    async def mark(self, *names: str) -> None:
        await self.store.mark(names, self.runtime)

    async def check(self, key: str, born: int, *marks: str) -> bool:
        return await self.store.check(key, born, marks, self.runtime)

    async def settle(self) -> None:
        """What is on its way arrives."""
        if hasattr(self.store, "flush"):
            assert self.store.flush(10.0)


async def test_a_record_comes_back_whole(colour: Colour, store: Store) -> None:
    """Every field of a record comes back as it was put, at once and after it was written."""
    calls = Calls(store, colour)
    now = store.now()
    record = Record(
        bytes(range(256)), now, now + 60_000 * MS, now + 90_000 * MS, 1.25, ("f", "tag:ü", "a b", "a\0b", "\udcff")
    )
    assert await calls.put("key", record) is None
    assert await calls.get("key") == record
    await calls.settle()
    assert await calls.get("key") == record


async def test_a_record_may_be_bare_or_large(colour: Colour, store: Store) -> None:
    """No data, no marks, no end; and a megabyte."""
    calls = Calls(store, colour)
    for key, data in (("bare", b""), ("middle", b"m" * 70_000), ("large", b"l" * 1_000_000)):
        record = calls.record(data)
        assert await calls.put(key, record) is None
        await calls.settle()
        assert await calls.get(key) == record
        assert record.expires == NEVER


async def test_an_unknown_key_is_a_miss(colour: Colour, store: Store) -> None:
    """What was never put is None, also with the empty name and with one that is not UTF-8."""
    calls = Calls(store, colour)
    for key in ("nothing", "", "\udcff", "a\0b"):
        assert await calls.get(key) is None
        assert await calls.put(key, calls.record(key.encode("utf-8", "surrogatepass"))) is None
        await calls.settle()
    for key in ("", "\udcff", "a\0b"):
        assert (await calls.get(key) or calls.record()).data == key.encode("utf-8", "surrogatepass")


async def test_a_later_born_record_replaces(colour: Colour, store: Store) -> None:
    """The newest birth wins, whatever the order of arrival."""
    calls = Calls(store, colour)
    first, second, third = [calls.record(data) for data in (b"1", b"2", b"3")]
    await calls.put("key", second)
    await calls.put("key", first)
    assert await calls.get("key") == second
    await calls.settle()
    assert await calls.get("key") == second
    await calls.put("key", first)
    await calls.settle()
    assert await calls.get("key") == second
    await calls.put("key", third)
    await calls.settle()
    assert await calls.get("key") == third


async def test_an_expired_record_is_a_miss(colour: Colour, store: Store) -> None:
    """From `expires` on a record is not served, queued or written."""
    calls = Calls(store, colour)
    for key, settle in (("queued", False), ("written", True)):
        record = calls.record(expires=store.now() + 150 * MS)
        await calls.put(key, record)
        if settle:
            await calls.settle()
        assert await calls.get(key) == record
    await colour.sleep(0.2)
    assert [await calls.get(key) for key in ("queued", "written")] == [None, None]


async def test_a_stale_record_is_still_served(colour: Colour, store: Store) -> None:
    """`fresh` is for the caller to judge."""
    calls = Calls(store, colour)
    record = calls.record(fresh=1)
    await calls.put("key", record)
    assert await calls.get("key") == record


async def test_many_in_one_go(colour: Colour, store: Store) -> None:
    """get_many and put_many answer in the order asked, with None and reasons in their places."""
    calls = Calls(store, colour)
    records = {f"key {number}": calls.record(b"%d" % number) for number in range(100)}
    assert await store.put_many([*records.items()], calls.runtime) == [None] * 100
    await calls.settle()
    asked = ["key 3", "unknown", "key 99", "key 3", *records]
    found = await store.get_many(asked, calls.runtime)
    assert found == [records.get(key) for key in asked]
    assert await store.get_many([], calls.runtime) == []
    assert await store.put_many([], calls.runtime) == []


async def test_invalidate_ends_what_is_there(colour: Colour, store: Store) -> None:
    """When `invalidate` returns the record is gone, queued or written; it says whether there was one."""
    calls = Calls(store, colour)
    await calls.put("written", calls.record())
    await calls.settle()
    await calls.put("queued", calls.record())
    await calls.put("other", calls.record())
    assert await calls.invalidate("written")
    assert await calls.invalidate("queued")
    assert not await calls.invalidate("written", "unknown")
    assert [await calls.get(key) for key in ("written", "queued")] == [None, None]
    await calls.settle()
    assert [await calls.get(key) for key in ("written", "queued")] == [None, None]
    assert await calls.get("other") is not None


async def test_an_older_flight_loses_against_invalidate(colour: Colour, store: Store) -> None:
    """What was born before an invalidation is never served after it; what was born after it is."""
    calls = Calls(store, colour)
    old = calls.record(b"old")
    await calls.invalidate("key")
    await calls.put("key", old)
    assert await calls.get("key") is None
    await calls.settle()
    assert await calls.get("key") is None
    new = calls.record(b"new")
    assert await calls.put("key", new) is None
    assert await calls.get("key") == new
    await calls.put("key", old)
    await calls.settle()
    assert await calls.get("key") == new


async def test_a_mark_ends_every_older_record_that_lists_it(colour: Colour, store: Store) -> None:
    """One mark is enough, and records without it live on."""
    calls = Calls(store, colour)
    await calls.put("written", calls.record(marks=("a", "b")))
    await calls.settle()
    await calls.put("queued", calls.record(marks=("b", "c")))
    await calls.put("other", calls.record(marks=("a", "c")))
    late = calls.record(marks=("b",))
    await calls.mark("b")
    assert [await calls.get(key) for key in ("written", "queued")] == [None, None]
    assert await calls.get("other") is not None
    await calls.put("late", late)
    await calls.settle()
    assert [await calls.get(key) for key in ("written", "queued", "late")] == [None, None, None]
    new = calls.record(marks=("a", "b"))
    await calls.put("written", new)
    assert await calls.get("written") == new


async def test_generation_changes_with_each_invalidation(colour: Colour, store: Store) -> None:
    """Another even number after each `invalidate` and `mark`, the same one otherwise; or, where other processes may end
    records and nobody tells, an odd one that never comes again.
    """
    calls = Calls(store, colour)
    seen = [store.generation()]
    if seen[0] % 2:
        seen += [store.generation() for _ in range(10)]
        assert seen == sorted({*seen})
        assert all(number % 2 for number in seen)
        return
    await calls.put("key", calls.record(marks=("m",)))
    await calls.settle()
    await calls.get("key")
    assert store.generation() == seen[0]
    for end in (calls.invalidate("key"), calls.invalidate("unknown"), calls.mark("m"), calls.mark("unknown")):
        await end
        seen.append(store.generation())
    assert len({*seen}) == 5
    assert not any(number % 2 for number in seen)


async def test_check_says_whether_a_copy_is_still_good(colour: Colour, store: Store) -> None:
    """A copy is distrusted once its key or a mark of it was ended at or after its birth, and only then."""
    calls = Calls(store, colour)
    born = store.now()
    assert await calls.check("never put", born, "a")
    await calls.put("key", calls.record(born=born, marks=("a",)))
    await calls.settle()
    assert await calls.check("key", born, "a")
    await calls.mark("a")
    assert not await calls.check("key", born, "b", "a")
    assert await calls.check("key", born, "b")
    await calls.invalidate("key", "never put")
    assert not await calls.check("key", born)
    assert not await calls.check("never put", born)
    later = store.now()
    assert await calls.check("key", later, "a")
    await calls.put("key", calls.record(marks=("a",)))
    await calls.settle()
    assert await calls.check("key", later, "a")
    assert not await calls.check("key", born), "a newer record hides no invalidation"


async def test_time_goes_on(colour: Colour, store: Store) -> None:
    """`now` grows with each question, about as fast as time itself."""
    began, first = time.monotonic_ns(), store.now()
    answers = [store.now() for _ in range(1000)]
    await colour.sleep(0.05)
    last, ended = store.now(), time.monotonic_ns()
    assert [*sorted({first, *answers, last})] == [first, *answers, last]
    assert 50 * MS <= last - first <= ended - began + 5 * MS


async def test_many_at_once(colour: Colour, store: Store) -> None:
    """Callers beside one another each find their own."""
    calls = Calls(store, colour)

    async def one(number: int) -> bool:
        key, record = f"key {number}", calls.record(b"%d" % number * 1000)
        await calls.put(key, record)
        ok = await calls.get(key) == record
        await calls.invalidate(key)
        return ok and await calls.get(key) is None

    function = colour.define(one)
    assert await colour.gather(*[functools.partial(function, number) for number in range(20)]) == [True] * 20


async def test_stats_can_always_be_asked(colour: Colour, store: Store) -> None:
    """`stats()` counts hits and misses."""
    calls = Calls(store, colour)
    await calls.get("unknown")
    await calls.put("key", calls.record())
    await calls.get("key")
    assert (store.stats().hits, store.stats().misses) == (1, 1)
