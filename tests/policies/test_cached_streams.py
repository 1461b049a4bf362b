"""Streams under cache: read once, shared while they arrive, replayed whole, and never replayed half."""

from __future__ import annotations

import asyncio
import contextvars
import csv
import functools
import gc
import io
import threading
import time
from typing import Any

import pytest
import trio
from colours import Colour, Thread

import scalekit
from scalekit import events

Box = dict[str, Any]


class Source:
    """A stream of the colour: counts how often it was opened, how far it was read, and how often it was closed."""

    def __init__(self, colour: Colour, items: Any = ("a", "", None, 0, "b"), **cache: Any) -> None:
        self.colour = colour
        self.items = items
        self.opened = self.read = self.closed = 0
        self.pause: float | None = None
        self.fail_at: int | None = None
        self.fail_times = 1
        self.gate: threading.Event | None = None

        async def answer(question: str = "why?") -> Any:
            self.opened += 1
            try:
                for place, item in enumerate(self.items):
                    if self.pause is not None:
                        await colour.sleep(self.pause)
                    if place == self.fail_at and self.opened <= self.fail_times:
                        raise ConnectionResetError(f"after {place}")
                    while self.gate is not None and place > 0 and not self.gate.is_set():
                        await colour.sleep(0.001)
                    self.read += 1
                    yield item
            finally:
                self.closed += 1

        self.answer = scalekit.cache(**cache)(colour.define(answer)) if cache else scalekit.cache(colour.define(answer))
        self.controls = scalekit.controls(self.answer).cache

    async def collect(self, *args: Any) -> list[Any]:
        return await self.colour.collect(self.answer(*args))

    async def whole(self) -> None:
        assert await self.collect() == list(self.items)


async def test_a_stream_is_read_once_and_replayed(colour: Colour) -> None:
    """The second caller gets the recording: every item in order, falsy ones too, and the source is not opened."""
    source = Source(colour)
    for _ in range(3):
        await source.whole()
    assert (source.opened, source.closed) == (1, 1)
    stats = source.controls.stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 1, 1)


async def test_a_replay_is_a_stream_of_its_own(colour: Colour) -> None:
    """Two replays of one recording do not take items from each other, and one that is closed early leaves it whole."""
    source = Source(colour, items=range(200))
    await source.whole()
    one, two = source.answer(), source.answer()
    assert [await colour.next(one), await colour.next(two), await colour.next(one)] == [0, 0, 1]
    await colour.close(one)
    assert await colour.collect(two) == [*range(1, 200)]
    await source.whole()
    assert source.opened == 1


async def test_an_empty_stream_is_an_answer(colour: Colour) -> None:
    """A stream without items is kept as one."""
    source = Source(colour, items=())
    for _ in range(2):
        await source.whole()
    assert source.opened == 1


async def test_concurrent_callers_share_the_live_stream(colour: Colour) -> None:
    """Callers who come while it arrives read it from its first item, each at a pace of its own; it is opened once."""
    source = Source(colour, items=range(50))
    source.pause = 0.001

    async def read(pace: float) -> list[Any]:
        stream, items = source.answer(), list[Any]()
        while len(items) < 50:
            items.append(await colour.next(stream))
            await colour.sleep(pace)
        assert await colour.collect(stream) == []
        return items

    paces = [0, 0, 0.0005, 0.002, 0.003]
    results = await colour.gather(*[functools.partial(read, pace) for pace in paces])
    assert results == [[*range(50)]] * len(paces)
    assert (source.opened, source.read, source.closed) == (1, 50, 1)
    assert source.controls.stats().joined == len(paces) - 1


async def test_who_joins_late_reads_from_the_start(colour: Colour) -> None:
    """A caller who comes when much of the stream was read gets all of it."""
    source = Source(colour, items=range(300))
    stream = source.answer()
    head = [await colour.next(stream) for _ in range(150)]
    late = source.answer()
    assert await colour.collect(late) == [*range(300)]
    assert head + await colour.collect(stream) == [*range(300)]
    assert source.opened == 1


async def test_a_reader_who_leaves_harms_nobody(colour: Colour) -> None:
    """The first caller closes after an item; the others read on, and the recording is kept."""
    source = Source(colour, items=range(400))
    first, second = source.answer(), source.answer()
    assert await colour.next(first) == await colour.next(second) == 0
    await colour.close(first)
    assert await colour.collect(second) == [*range(1, 400)]
    await source.whole()
    assert (source.opened, source.closed) == (1, 1)


async def test_the_last_reader_closes_the_source(colour: Colour) -> None:
    """When nobody reads any more the source is closed, before `close` returns; nothing is kept, the key is free."""
    source = Source(colour, items=range(1000))
    source.pause = 0.001
    one, two = source.answer(), source.answer()
    assert await colour.next(one) == await colour.next(two) == 0
    await colour.close(one)
    assert source.closed == 0
    await colour.close(two)
    assert source.closed == 1
    assert source.controls.stats().entries == 0
    source.pause = None
    await source.whole()
    assert (source.opened, source.closed) == (2, 2)


async def test_a_stream_that_fails_half_way_is_not_kept(colour: Colour) -> None:
    """Every reader gets the items that came and then the error; the next caller opens it anew and gets a whole one."""
    source = Source(colour, items=range(10))
    source.fail_at, source.gate = 4, threading.Event()
    one, two = source.answer(), source.answer()
    assert await colour.next(one) == await colour.next(two) == 0
    source.gate.set()
    errors: list[BaseException] = []
    for stream in (one, two):
        got = [0]
        with pytest.raises(ConnectionResetError, match="after 4") as caught:
            while True:
                got.append(await colour.next(stream))
        assert got == [0, 1, 2, 3]
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert source.controls.stats().errors == 1
    await source.whole()
    await source.whole()
    assert (source.opened, source.closed) == (2, 2)


async def test_a_stream_that_fails_before_its_first_item_is_a_call_that_failed(colour: Colour) -> None:
    """`retry` below opens it again, `negative=` keeps the error, and all who wait hear it."""
    source = Source(colour, items=range(3), negative={ConnectionResetError: "1h"})
    source.fail_at, source.fail_times = 0, 5
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await source.collect()
    assert source.opened == 1

    attempts: list[int] = []

    @scalekit.cache
    @scalekit.retry(on=ConnectionResetError, wait=0.0)
    @colour.define
    async def answer() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionResetError
        yield len(attempts)

    assert await colour.collect(answer()) == await colour.collect(answer()) == [3]


async def test_nobody_reads_ahead_of_the_readers(colour: Colour) -> None:
    """While its readers pause, a source that takes time per item is asked for at most one more."""
    source = Source(colour, items=range(400))
    source.pause = 0.001
    one, two = source.answer(), source.answer()
    for _ in range(3):
        await colour.next(one)
    await colour.next(two)
    await colour.sleep(0.05)
    assert source.read <= 4
    await colour.close(one)
    await colour.close(two)


async def test_read_ahead_is_bounded(colour: Colour) -> None:
    """A source that always has an item at hand is read a few items ahead, not to its end."""
    source = Source(colour, items=range(100_000))
    stream = source.answer()
    await colour.next(stream)
    await colour.sleep(0.02)
    assert source.read <= 600
    await colour.close(stream)


async def test_a_long_stream_is_handed_on_whole_and_not_kept(colour: Colour) -> None:
    """Past max_bytes a stream is neither kept nor joined; its readers get every item, and the event says why."""
    told: list[str] = []

    def tell(event: object) -> None:
        if isinstance(event, events.NotStored):
            told.append(event.reason)

    source = Source(colour, items=[f"{number:1000}" for number in range(400)], max_bytes="20kB")
    unsubscribe = events.subscribe(tell)
    try:
        one, two = source.answer(), source.answer()
        read: list[list[str]] = [[], []]
        for _ in range(400):
            read[0].append(await colour.next(one))
            read[1].append(await colour.next(two))
        read[0] += await colour.collect(one)
        read[1] += await colour.collect(two)
    finally:
        unsubscribe()
    assert read == [source.items] * 2
    assert source.opened == 1
    assert source.controls.stats().entries == 0
    assert told == ["a stream of more than 20,000 bytes"]
    await source.whole()
    assert source.opened == 2


async def test_a_long_stream_cannot_be_joined(colour: Colour) -> None:
    """Who comes when its beginning is gone opens a stream of his own."""
    source = Source(colour, items=[f"{number:1000}" for number in range(400)], max_bytes="20kB")
    one = source.answer()
    head = [await colour.next(one) for _ in range(90)]
    await source.whole()
    assert source.opened == 2
    assert head + await colour.collect(one) == source.items


async def test_a_long_stream_moves_at_the_pace_of_its_slowest_reader(colour: Colour) -> None:
    """What one reader has not read yet is bounded by max_bytes: the source waits for it, and nothing is lost."""
    source = Source(colour, items=[f"{number:1000}" for number in range(500)], max_bytes="50kB")
    slow = source.answer()
    first = await colour.next(slow)
    fast = await colour.start(source.collect)
    await colour.sleep(0.1)
    assert source.read < 300
    assert [first, *await colour.collect(slow)] == source.items
    assert await fast.result() == source.items
    assert source.opened == 1


async def test_a_reader_who_holds_the_others_up_is_cut_off(colour: Colour) -> None:
    """One who pauses longer than flight_timeout, with max_bytes held back for it, is told; the others go on."""
    source = Source(colour, items=[f"{number:1000}" for number in range(500)], max_bytes="50kB", flight_timeout=0.1)
    slow = source.answer()
    await colour.next(slow)
    assert await source.collect() == source.items
    with pytest.raises(scalekit.StreamInterrupted, match="cut off"):
        await colour.collect(slow)
    assert (source.opened, source.closed) == (1, 1)


async def test_every_reader_has_items_of_its_own(colour: Colour) -> None:
    """What one reader changes in an item, another reader and a replay do not see."""

    @scalekit.cache
    @colour.define
    async def answer() -> Any:
        for number in range(3):
            yield {"number": [number]}

    whole = [{"number": [number]} for number in range(3)]
    one, two = answer(), answer()
    for _ in range(3):
        for stream in (one, two):
            item = await colour.next(stream)
            item["number"].append("changed")
    for stream in (one, two):
        assert await colour.collect(stream) == []
    for _ in range(2):
        replayed = await colour.collect(answer())
        assert replayed == whole
        replayed[0]["number"].clear()


async def test_the_first_reader_gets_the_source_s_own_items(colour: Colour) -> None:
    """What cannot be copied or encoded is handed on as it is; one reader pays for no copy."""
    item = [threading.Lock()]

    @scalekit.cache
    @colour.define
    async def answer() -> Any:
        yield item

    assert (await colour.collect(answer()))[0] is item


async def test_a_copier_that_fails_does_not_end_the_stream(colour: Colour) -> None:
    """`copy=` raised: the items are handed on, and not kept."""

    def broken(item: Any) -> Any:
        raise RuntimeError("no")

    source = Source(colour, items=[[1], [2]], copy=broken)
    for _ in range(2):
        await source.whole()
    assert source.opened == 2


async def test_what_the_user_s_functions_see_of_a_stream(colour: Colour) -> None:
    """`ttl=`, `when=` and `tags=` get the list of its items."""
    seen: list[Any] = []

    def note(items: Any) -> Any:
        seen.append(items)
        return "1h"

    source = Source(colour, items=["a", "b"], ttl=note, when=lambda items: "b" in items, tags=lambda items: items[0])
    await source.whole()
    assert seen == [["a", "b"]]
    await source.whole()
    assert source.opened == 1
    await colour.call(source.controls.invalidate_tags, "a")
    source.items = ["c"]
    for _ in range(2):
        await source.whole()
    assert source.opened == 3


async def test_no_store_inside_a_stream(colour: Colour) -> None:
    """`no_store` in a generator keeps its recording out."""

    @scalekit.cache
    @colour.define
    async def answer() -> Any:
        yield 1
        scalekit.no_store("partial")
        yield 2

    for _ in range(2):
        assert await colour.collect(answer()) == [1, 2]
    assert scalekit.controls(answer).cache.stats().unstored == 2


@pytest.mark.parametrize("how", ["invalidate", "tag", "clear"])
async def test_an_invalidation_while_it_arrives(colour: Colour, how: str) -> None:
    """Who reads already reads on, nothing is kept, and who asks afterwards gets a stream that began afterwards."""
    source = Source(colour, items=range(400), tags="doc:7")
    one = source.answer()
    await colour.next(one)
    if how == "invalidate":
        await colour.call(source.controls.invalidate, "why?")
    elif how == "tag":
        await colour.call(source.controls.invalidate_tags, "doc:7")
    else:
        await colour.call(source.controls.clear)
    two = source.answer()
    await colour.next(two)
    assert source.opened == 2
    assert await colour.collect(one) == [*range(1, 400)]
    assert await colour.collect(two) == [*range(1, 400)]
    await source.whole()
    assert source.opened == 2


async def test_another_tag_disturbs_nobody(colour: Colour) -> None:
    """An invalidation of something else does not keep callers from joining."""
    source = Source(colour, items=range(400), tags="doc:7")
    one = source.answer()
    await colour.next(one)
    await colour.call(source.controls.invalidate_tags, "doc:8")
    assert await source.collect() == [*range(400)]
    assert await colour.collect(one) == [*range(1, 400)]
    assert source.opened == 1


async def test_controls_speak_of_lists(colour: Colour) -> None:
    """peek, lookup, put, get_many and refresh know a stream as the list of its items."""
    source = Source(colour, items=[["a"], ["b"]])
    controls = source.controls
    assert await colour.call(controls.peek) is None
    await source.whole()
    assert await colour.call(controls.peek) == [["a"], ["b"]]
    (await colour.call(controls.peek))[0].append("changed")
    assert (await colour.call(controls.lookup)).value == [["a"], ["b"]]
    assert [kept.value for kept in await colour.call(controls.get_many, [()])] == [[["a"], ["b"]]]
    source.items = [["c"]]
    assert await colour.call(controls.refresh) == [["c"]]
    await source.whole()
    assert source.opened == 2
    await colour.call(controls.put, iter([["d"], ["e"]]))
    assert await source.collect() == [["d"], ["e"]]
    assert source.opened == 2
    assert await colour.call(controls.invalidate)
    await source.whole()
    assert source.opened == 3


async def test_one_permit_for_all_readers(colour: Colour) -> None:
    """A shared stream holds one permit of the limit below, until it ends or its last reader leaves."""

    @scalekit.cache
    @scalekit.limit(concurrency=1, queue_timeout="5s")
    @colour.define
    async def answer(x: int) -> Any:
        for number in range(400):
            yield number

    state = scalekit.controls(answer).limit.state
    one, two = answer(1), answer(1)
    await colour.next(one)
    await colour.next(two)
    assert state().in_flight == 1
    await colour.collect(one)
    assert state().in_flight == 0
    assert await colour.collect(two) == [*range(1, 400)]
    three = answer(2)
    await colour.next(three)
    assert state().in_flight == 1
    await colour.close(three)
    assert state().in_flight == 0


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio says so of dropped ones
async def test_a_dropped_stream_stops_its_source(colour: Colour) -> None:
    """A reader that is collected without being closed leaves: the permit comes back, the source is closed."""
    closed: list[int] = []

    @scalekit.cache
    @scalekit.limit(concurrency=1)
    @colour.define
    async def answer() -> Any:
        try:
            for number in range(1000):
                yield number
        finally:
            closed.append(1)

    stream = answer()
    await colour.next(stream)
    del stream
    gc.collect()
    await colour.until(lambda: closed == [1])
    await colour.until(lambda: scalekit.controls(answer).limit.state().in_flight == 0)


@pytest.mark.filterwarnings("ignore::scalekit.ScalekitWarning")  # which says that the order wastes something
async def test_policies_around_a_cached_stream(colour: Colour) -> None:
    """`limit` and `retry` outside of the cache see a stream as they see any other, live and replayed."""
    source = Source(colour, items=range(5))
    source.fail_at, source.fail_times = 0, 1
    around = scalekit.limit(concurrency=1)(scalekit.retry(attempts=3, wait=0.0)(source.answer))
    for _ in range(3):
        assert await colour.collect(around()) == [*range(5)]
        assert scalekit.controls(around).limit.state().in_flight == 0
    assert source.opened == 2


async def test_send_and_throw_are_refused(colour: Colour) -> None:
    """A recording cannot be talked to."""
    source = Source(colour)
    for _ in range(2):
        stream = source.answer()
        await colour.next(stream)
        with pytest.raises(TypeError, match="several readers"):
            if isinstance(colour, Thread):
                stream.send(1)
            else:
                await stream.asend(1)


async def test_the_source_runs_in_its_first_caller_s_context(colour: Colour) -> None:
    """Each step sees the context variables of who opened the stream, whoever reads it."""
    who = contextvars.ContextVar("who", default="nobody")

    @scalekit.cache
    @colour.define
    async def answer() -> Any:
        for _ in range(300):
            yield who.get()

    who.set("first")
    one = answer()
    await colour.next(one)

    async def read() -> list[Any]:
        who.set("second")
        return await colour.collect(answer())

    job = await colour.start(read)
    assert await job.result() == ["first"] * 300
    assert await colour.collect(one) == ["first"] * 299


async def test_a_scope_has_streams_of_its_own(colour: Colour) -> None:
    """Two tenants do not share a stream, live or recorded."""
    source = Source(colour, items=range(3))
    for tenant in ("a", "b", "a"):
        with scalekit.scope(tenant):
            await source.whole()
    assert source.opened == 2


async def test_bypass_reads_the_source(colour: Colour) -> None:
    """Inside of `bypass` a stream is the function's own."""
    source = Source(colour, items=range(3))
    await source.whole()
    with scalekit.bypass():
        await source.whole()
    assert source.opened == 2


async def test_a_stale_recording_is_served_while_it_is_renewed(colour: Colour) -> None:
    """`stale=`: the old recording at once, the new one when it was read behind."""
    source = Source(colour, items=["old"], ttl=0.02, stale="1h")
    await source.whole()
    await colour.sleep(0.03)
    source.items = [f"new {number}" for number in range(300)]
    assert await source.collect() == ["old"]
    await colour.until(lambda: source.closed == 2)
    await colour.until(lambda: source.controls.stats().entries == 1)
    assert (await source.collect())[0] == "new 0"


async def test_a_refresh_behind_that_is_too_long_keeps_the_old_one(colour: Colour) -> None:
    """A renewal that grows past max_bytes is given up, told, and not tried again at each hit."""
    source = Source(colour, items=["old"], ttl=0.02, stale="1h", max_bytes="10kB")
    await source.whole()
    await colour.sleep(0.03)
    source.items = ["x" * 1000] * 1000
    for _ in range(5):
        assert await source.collect() == ["old"]
        await colour.until(lambda: source.closed == 2)
        await colour.sleep(0.01)
    assert source.opened == 2
    assert source.read < 200
    assert source.controls.stats().unstored == 1


async def test_an_old_recording_for_a_stream_that_fails_to_open(colour: Colour) -> None:
    """`stale_if_error=` counts until the first item; a stream that breaks later raises."""
    source = Source(colour, items=range(3), ttl=0.02, stale_if_error="1h")
    await source.whole()
    await colour.sleep(0.03)
    source.fail_at, source.fail_times = 0, 99
    await source.whole()
    assert source.opened == 2


async def test_a_hung_stream_is_given_up(colour: Colour) -> None:
    """A step that takes longer than flight_timeout: who waits for it hears of it, and the key is free."""
    source = Source(colour, items=range(3), flight_timeout=0.1)
    source.gate = threading.Event()
    one, two = source.answer(), source.answer()
    await colour.next(one)
    await colour.next(two)
    first = await colour.start(colour.next, one)
    await colour.sleep(0.02)
    with pytest.raises(scalekit.DeadlineExceeded):
        await colour.next(two)
    gate, source.gate = source.gate, None
    await source.whole()
    gate.set()
    error = await first.error()
    assert error is None or isinstance(error, scalekit.DeadlineExceeded)
    assert source.opened == 2


async def test_a_pause_of_the_readers_is_no_hang(colour: Colour) -> None:
    """flight_timeout does not count while nobody wants the next item."""
    source = Source(colour, items=range(300), flight_timeout=0.05)
    one = source.answer()
    await colour.next(one)
    await colour.sleep(0.2)
    assert await source.collect() == [*range(300)]
    assert await colour.collect(one) == [*range(1, 300)]
    assert source.opened == 1


async def test_a_stream_that_reads_itself_raises(colour: Colour) -> None:
    """A generator that waits for its own stream would wait for ever."""

    @scalekit.cache
    @colour.define
    async def answer() -> Any:
        yield 1
        for item in await colour.collect(answer()):
            yield item

    with pytest.raises(scalekit.ReentryError):
        await colour.collect(answer())


async def test_a_stream_inside_a_stream(colour: Colour) -> None:
    """A cached stream may read other cached streams, and each is recorded."""
    inner = Source(colour, items=range(400))

    @scalekit.cache
    @colour.define
    async def outer(x: int) -> Any:
        stream = inner.answer()
        for _ in range(400):
            yield x * await colour.next(stream)
        await colour.close(stream)

    one, two = outer(1), outer(2)
    got: list[list[int]] = [[], []]
    for _ in range(400):
        got[0].append(await colour.next(one))
        got[1].append(await colour.next(two))
    assert got == [[*range(400)], [*range(0, 800, 2)]]
    assert await colour.collect(one) == await colour.collect(two) == []
    assert inner.opened == 1


async def test_wrong_arguments_are_python_s_error(colour: Colour) -> None:
    """A call that does not fit raises what the function itself would raise."""
    source = Source(colour)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        await colour.collect(source.answer(wrong=1))


async def test_streams_are_kept_on_disk(colour: Colour, tmp_path: Any) -> None:
    """A recording outlives the process: items of any kind come back as they were, in order."""
    items = ["a", "", {"x": [1]}, "b", None, (1, 2), b"bytes", [1.5], "z" * 5000]
    with_disk = functools.partial(
        Source, colour, ttl="1h", version="1", tiers=["memory", scalekit.Disk(tmp_path / "store")]
    )
    first = with_disk(items)
    await first.whole()
    second = with_disk(items)
    for _ in range(2):
        await second.whole()
    assert (first.opened, second.opened) == (1, 0)
    stats = second.controls.stats()
    assert stats.tiers == {"memory": 1, "disk": 1}
    assert (await colour.call(with_disk(items).controls.lookup)).value == items
    await colour.call(second.controls.invalidate)
    third = with_disk(["new"])
    await third.whole()
    assert third.opened == 1


async def test_a_recording_that_cannot_be_encoded_stays_in_memory(colour: Colour, tmp_path: Any) -> None:
    """An item without a form as bytes: the stream is handed on and kept in memory; one warning says why."""
    disk = scalekit.Disk(tmp_path / "store")
    source = Source(colour, items=["a", threading.Lock()], ttl="1h", version="1", tiers=["memory", disk])
    with pytest.warns(scalekit.ScalekitWarning, match="outside of memory"):
        await source.whole()
    await source.whole()
    assert source.opened == 1
    assert source.controls.stats().unstored == 1


async def test_a_codec_of_ones_own_sees_items(colour: Colour, tmp_path: Any) -> None:
    """`codec=` encodes each item by itself, and what it cannot read any more is a miss."""

    class Reversed:
        def encode(self, value: Any) -> bytes:
            return str(value)[::-1].encode()

        def decode(self, payload: bytes) -> Any:
            if payload == b"fo-1":
                raise ValueError
            return payload.decode()[::-1]

    given: Box = {"ttl": "1h", "version": "1", "codec": Reversed(), "tiers": ["disk"]}
    scalekit.configure(disk_dir=str(tmp_path / "store"))
    first = Source(colour, ["ab", "cd"], **given)
    await first.whole()
    second = Source(colour, ["ab", "cd"], **given)
    await second.whole()
    assert (first.opened, second.opened) == (1, 0)
    assert second.controls.stats().tiers["disk"] == 1
    broken = Source(colour, ["ab", "1-of"], **given)
    await colour.call(broken.controls.invalidate)
    await broken.whole()
    again = Source(colour, ["ab", "1-of"], **given)
    await again.whole()
    assert again.opened == 1
    assert again.controls.stats().undecodable == 1


# what is no generator function ----------------------------------------------------------------------------------------


async def test_a_function_that_returns_a_generator(colour: Colour) -> None:
    """A function may give its stream back instead of yielding: the answer is a generator each time."""
    opened: list[int] = []

    async def numbers() -> Any:
        opened.append(1)
        for number in range(5):
            yield number

    @scalekit.cache
    @colour.define
    async def answer(x: int) -> Any:
        return colour.define(numbers)()

    for _ in range(3):
        stream = await colour.call(answer, 1)
        assert await colour.collect(stream) == [*range(5)]
    assert opened == [1]
    stream = await colour.call(answer, 2)
    del stream  # never read at all
    gc.collect()
    await colour.until(lambda: not scalekit.controls(answer).cache._site.flights.flying)


def test_a_plain_iterator_is_a_stream() -> None:
    """`map`, `zip` and the like are read once and recorded."""

    @scalekit.cache
    def rows() -> Any:
        return map(str, [1, 2])

    assert [[*rows()], [*rows()]] == [["1", "2"]] * 2


async def test_more_than_items_is_refused(colour: Colour) -> None:
    """An object that has more to it than its items, such as a csv reader or an SDK's stream, is refused and closed."""

    class Sdk:
        response = "a response"
        closed = False

        def __aiter__(self) -> Any:
            return self

        __iter__ = __aiter__

        async def __anext__(self) -> Any:
            return 1

        def __next__(self) -> Any:
            return 1

        def close(self) -> None:
            self.closed = True

    sdk = Sdk()
    for value in (csv.reader(io.StringIO("a,b")), io.StringIO("a"), sdk):

        @scalekit.cache
        @colour.define
        async def rows() -> Any:
            return value  # noqa: B023

        with pytest.raises(scalekit.ConfigurationError, match="read once"):
            await colour.call(rows)
    assert sdk.closed


async def test_a_sync_iterator_of_an_async_function_is_refused(loop_colour: Colour) -> None:
    """It would block the event loop, and is refused with the remedy."""

    @scalekit.cache
    async def rows() -> Any:
        return iter([1, 2])

    with pytest.raises(scalekit.ConfigurationError, match="async for"):
        await rows()


# ends -----------------------------------------------------------------------------------------------------------------


async def test_a_cancelled_reader_leaves_at_once(loop_colour: Colour) -> None:
    """Cancelling one reader while it waits does not touch the source or the others; cancelling the last one does."""
    source = Source(loop_colour, items=range(5))
    source.gate = threading.Event()
    jobs = [await loop_colour.start(source.collect) for _ in range(3)]
    await loop_colour.sleep(0.01)
    jobs[0].cancel()
    await jobs[0].error()
    source.gate.set()
    assert await jobs[1].result() == await jobs[2].result() == [*range(5)]
    assert (source.opened, source.closed) == (1, 1)

    source.gate = threading.Event()
    await loop_colour.call(source.controls.invalidate, "why?")
    job = await loop_colour.start(source.collect)
    await loop_colour.sleep(0.01)
    job.cancel()
    await job.error()
    assert source.closed == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_ends_with_open_streams(backend: str) -> None:
    """A loop that ends under a stream stops its source; permits come back, and the next loop can call again."""

    @scalekit.cache
    @scalekit.limit(concurrency=1)
    async def answer() -> Any:
        for number in range(1000):
            yield number

    kept: list[Any] = []

    async def main() -> None:
        stream = answer()
        kept.append(stream)
        assert await anext(stream) == 0

    for _ in range(2):
        asyncio.run(main()) if backend == "asyncio" else trio.run(main)
        kept.clear()
        gc.collect()
        assert scalekit.controls(answer).limit.state().in_flight == 0


def test_readers_on_two_loops_share_one_stream() -> None:
    """Two event loops in two threads read one source; when its loop ends the other's reader is told."""
    opened: list[int] = []
    go_on, joined = threading.Event(), threading.Event()

    @scalekit.cache
    async def answer() -> Any:
        opened.append(1)
        for number in range(400):
            if number == 50:
                while not go_on.is_set():  # noqa: ASYNC110 - of threads
                    await asyncio.sleep(0.001)
            yield number

    results: list[Any] = []

    async def reading() -> None:
        stream = answer()
        items = [await anext(stream)]
        joined.set()
        items += [item async for item in stream]
        results.append(items)

    async def main() -> None:
        stream = answer()
        await anext(stream)
        other.start()
        while not joined.is_set():  # noqa: ASYNC110 - of threads
            await asyncio.sleep(0.001)
        go_on.set()
        results.append([0, *[item async for item in stream]])

    other = threading.Thread(target=lambda: asyncio.run(reading()))
    asyncio.run(main())
    other.join(10)
    assert results == [[*range(400)]] * 2
    assert opened == [1]


def test_a_reader_whose_source_s_loop_ended_is_told() -> None:
    """The items that came are good; then `StreamInterrupted`, and the next caller begins anew."""
    joined = threading.Event()
    outcome: list[Any] = []

    @scalekit.cache
    async def answer(whole: list[bool]) -> Any:
        yield 1
        if not whole:
            await asyncio.sleep(100)
        yield 2

    async def reading() -> None:
        stream = answer([])
        outcome.append(await anext(stream))
        joined.set()
        try:
            await anext(stream)
        except scalekit.StreamInterrupted as error:
            outcome.append(error)

    async def main() -> None:
        stream = answer([])
        await anext(stream)
        other.start()
        while not joined.is_set():  # noqa: ASYNC110 - of threads
            await asyncio.sleep(0.001)

    other = threading.Thread(target=lambda: asyncio.run(reading()))
    asyncio.run(main())
    other.join(10)
    assert outcome[0] == 1
    assert isinstance(outcome[1], scalekit.StreamInterrupted)


def test_an_interrupted_thread_tells_the_other_readers() -> None:
    """KeyboardInterrupt in the thread that reads the source: the others hear that the rest will not come."""
    opened: list[int] = []

    @scalekit.cache
    def answer() -> Any:
        opened.append(1)
        yield 1
        if len(opened) == 1:
            raise KeyboardInterrupt
        yield 2

    one, two = answer(), answer()
    assert next(one) == next(two) == 1
    with pytest.raises(KeyboardInterrupt):
        next(one)
    with pytest.raises(scalekit.StreamInterrupted):
        next(two)
    assert [*answer()] == [1, 2]


def test_what_a_generator_returns_is_kept() -> None:
    """`yield from` gets the value of a recorded generator, live and replayed."""

    @scalekit.cache
    def answer() -> Any:
        yield 1
        return {"total": [1]}

    def outer(found: list[Any]) -> Any:
        found.append((yield from answer()))

    found: list[Any] = []
    for _ in range(3):
        assert [*outer(found)] == [1]
    found[1]["total"].append("changed")
    assert found[0] == found[2] == {"total": [1]}


async def test_a_cleanup_that_fails_is_the_closer_s_error(colour: Colour) -> None:
    """What the source raises while it is closed reaches the last reader to leave."""

    @scalekit.cache
    @colour.define
    async def answer() -> Any:
        try:
            for number in range(1000):
                yield number
        finally:
            raise LookupError("cleanup")

    stream = answer()
    await colour.next(stream)
    with pytest.raises(LookupError, match="cleanup"):
        await colour.close(stream)
    assert not scalekit.controls(answer).cache._site.flights.flying


def test_many_threads_read_one_stream() -> None:
    """Thirty threads at once: one source, every item for everybody, in order."""
    opened: list[int] = []

    @scalekit.cache
    def answer() -> Any:
        opened.append(1)
        for number in range(2000):
            if number % 100 == 0:
                time.sleep(0.001)
            yield [number]

    results: list[Any] = []
    start = threading.Barrier(30)

    def read() -> None:
        start.wait()
        results.append([*answer()])

    threads = [threading.Thread(target=read) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert opened == [1]
    assert results == [[[number] for number in range(2000)]] * 30


# what a review found --------------------------------------------------------------------------------------------------


def test_a_hung_step_in_a_thread_gives_its_permit_back() -> None:
    """A stream that was given up while a thread read its next item is closed when that comes; its permit is free."""
    go_on = threading.Event()

    @scalekit.cache(flight_timeout=0.1)
    @scalekit.limit(concurrency=1)
    def answer(x: int) -> Any:
        yield 1
        go_on.wait(5)
        yield 2

    errors: list[BaseException] = []

    def read() -> None:
        try:
            list(answer(1))
        except scalekit.DeadlineExceeded as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    threads[0].start()
    time.sleep(0.03)
    threads[1].start()
    threads[1].join(10)
    go_on.set()
    threads[0].join(10)
    assert errors
    assert scalekit.controls(answer).limit.state().in_flight == 0


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_renewal_that_breaks_half_way_is_not_tried_at_each_hit(colour: Colour, ahead: bool) -> None:
    """As one that fails at once: the old recording is served untried for the throttle period."""
    source = Source(colour, items=range(3), ttl=0.02, stale="1h")
    await source.whole()
    await colour.sleep(0.03)
    source.fail_at, source.fail_times = 0 if ahead else 2, 99
    for _ in range(10):
        await source.whole()
        await colour.until(lambda: source.closed == source.opened)
        await colour.sleep(0.005)
    assert source.opened == 2


def test_a_loop_that_was_closed_under_its_streams_gives_permits_back() -> None:
    """A loop that ends without cancelling its tasks: the abandoned reader lets go of the source."""

    @scalekit.cache
    @scalekit.limit(concurrency=100)
    async def answer(x: int) -> Any:
        for _ in range(10):
            await asyncio.sleep(0)
            yield "x" * 100_000

    async def begin(x: int) -> Any:
        stream = answer(x)
        await anext(stream)
        await asyncio.sleep(0.01)
        return stream

    for number in range(3):
        loop = asyncio.new_event_loop()
        stream = loop.run_until_complete(begin(number))
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        del stream, loop
    gc.collect()
    assert not scalekit.controls(answer).cache._site.flights.loose
    assert scalekit.controls(answer).limit.state().in_flight == 0


def test_a_reader_of_a_loop_that_stands_still_is_told() -> None:
    """The loop that reads the source does not run any more and is not closed: flight_timeout counts all the same."""

    @scalekit.cache(flight_timeout=0.2)
    async def answer() -> Any:
        for number in range(300):
            await asyncio.sleep(0)
            yield number

    @scalekit.cache(flight_timeout=0.2)
    async def value() -> int:
        await asyncio.sleep(0.05)
        return 1

    async def begin() -> Any:
        stream, call = answer(), asyncio.ensure_future(value())
        await anext(stream)
        return stream, call

    async def read() -> Any:
        return [item async for item in answer()]

    still, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    stream, call = still.run_until_complete(begin())
    for waits in (value, read):
        with pytest.raises(scalekit.DeadlineExceeded):
            other.run_until_complete(asyncio.wait_for(waits(), 10))
    call.cancel()
    still.run_until_complete(asyncio.wait([call]))
    still.run_until_complete(stream.aclose())
    for loop in (still, other):
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


async def test_an_iterator_is_asked_once_for_itself(loop_colour: Colour) -> None:
    """One that begins anew in `__aiter__` is read on, whatever pauses its readers make."""

    class Pages:
        def __aiter__(self) -> Any:
            self._number = 0
            return self

        async def __anext__(self) -> int:
            self._number += 1
            if self._number > 3:
                raise StopAsyncIteration
            await loop_colour.sleep(0.001)
            return self._number

    @scalekit.cache
    async def pages() -> Any:
        return aiter(Pages())

    for _ in range(2):
        read: list[int] = []
        async for number in await pages():
            read.append(number)
            await loop_colour.sleep(0.005)
        assert read == [1, 2, 3]


async def test_who_leaves_is_no_error(colour: Colour) -> None:
    """`stats().errors` counts runs that raised, not readers who left."""
    source = Source(colour, items=range(1000))
    for _ in range(3):
        stream = source.answer()
        await colour.next(stream)
        await colour.close(stream)
    assert source.controls.stats().errors == 0


async def test_a_copier_that_fails_on_a_recording_is_a_miss(colour: Colour) -> None:
    """As for any other answer."""
    works = [True]

    def copier(item: Any) -> Any:
        if not works[0]:
            raise RuntimeError("no")
        return [*item]

    source = Source(colour, items=[[1], [2]], copy=copier)
    await source.whole()
    works[0] = False
    await source.whole()
    assert source.opened == 2
