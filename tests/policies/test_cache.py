"""cache: paid once, fresh for everybody, never somebody else's answer."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import time
import traceback
import weakref
from typing import Any

import pytest
import trio
from colours import Colour

import scalekit
from scalekit import events
from scalekit._cache.index import Index


async def test_a_second_call_is_a_hit(colour: Colour) -> None:
    """The function runs once for one argument, and again for another; the figures say so."""
    calls: list[Any] = []

    @scalekit.cache
    @colour.define
    async def ask(x: Any) -> Any:
        calls.append(x)
        return f"answer {x}"

    for _ in range(3):
        assert await colour.call(ask, "a") == "answer a"
    assert await colour.call(ask, "b") == "answer b"
    assert calls == ["a", "b"]
    stats = scalekit.controls(ask).cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 2, 2)


async def test_none_is_a_value(colour: Colour) -> None:
    """`None`, 0 and empty answers are kept like any other."""
    for value in (None, 0, "", [], {}, False):
        calls: list[int] = []

        @scalekit.cache
        @colour.define
        async def ask(x: int) -> Any:
            calls.append(x)  # noqa: B023
            return value  # noqa: B023

        assert await colour.call(ask, 1) == value
        assert await colour.call(ask, 1) == value
        assert calls == [1]


async def test_arguments_that_python_calls_equal_are_told_apart(colour: Colour) -> None:
    """1, True, 1.0, "1" and b"1" have answers of their own, also on the fast path and in any order."""

    @scalekit.cache
    @colour.define
    async def ask(x: Any, y: Any = 0) -> str:
        return f"{type(x).__name__} {type(y).__name__}"

    for _ in range(3):
        for x in (1, True, 1.0, "1", b"1", None, "", 0, False, 0.0):
            for y in (0, False, 0.0):
                assert await colour.call(ask, x, y) == f"{type(x).__name__} {type(y).__name__}"


async def test_ways_to_write_a_call(colour: Colour) -> None:
    """Positional, by keyword, in another order, or with the default written out: one call."""
    calls: list[Any] = []

    @scalekit.cache
    @colour.define
    async def ask(a: Any, b: Any = 2, *, c: Any = 3) -> str:
        calls.append((a, b, c))
        return "answer"

    await colour.call(ask, 1)
    await colour.call(ask, a=1)
    await colour.call(ask, 1, 2, c=3)
    await colour.call(ask, c=3, b=2, a=1)
    await colour.call(ask, [{"x": 1, "y": 2}])
    await colour.call(ask, [{"y": 2, "x": 1}])
    assert calls == [(1, 2, 3), ([{"x": 1, "y": 2}], 2, 3)]


async def test_a_wrong_call_says_so_in_python_s_words(colour: Colour) -> None:
    """A missing or unknown argument is the function's own TypeError."""

    @scalekit.cache
    @colour.define
    async def ask(a: int) -> int:
        return a

    for function in (ask, scalekit.retry(scalekit.limit(concurrency=1)(ask.__wrapped__)), scalekit.cache(_variadic)):
        with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'a'") as raised:
            await colour.call(function)
        assert raised.value.__context__ is None
    with pytest.raises(TypeError, match="unexpected keyword argument 'b'"):
        await colour.call(ask, 1, b=2)


def _variadic(a: int, *more: int) -> int:
    return a


async def test_an_answer_expires(colour: Colour) -> None:
    """After its `ttl` an answer is computed again, on the fast path and off it."""
    calls: list[Any] = []

    @scalekit.cache(ttl="30ms")
    @colour.define
    async def ask(x: Any) -> str:
        calls.append(x)
        return "answer"

    for argument in ("a", ["a"]):
        calls.clear()
        await colour.call(ask, argument)
        await colour.call(ask, argument)
        assert len(calls) == 1
        await colour.sleep(0.04)
        await colour.call(ask, argument)
        assert len(calls) == 2


async def test_nobody_changes_another_one_s_answer(colour: Colour) -> None:
    """Whoever changes the answer it got, also the first caller or one who joined, changes nobody else's."""
    gate = threading.Event()

    @scalekit.cache
    @colour.define
    async def ask(x: int) -> Any:
        while not gate.is_set():
            await colour.sleep(0.001)
        return {"messages": [{"role": "user"}], "seen": {1}} if x else [1, [2]]

    for x in (0, 1):
        gate.clear()
        jobs = [await colour.start(ask, x) for _ in range(3)]
        await colour.until(lambda: scalekit.controls(ask).cache.stats().joined >= 2)
        gate.set()
        answers = [await job.result() for job in jobs] + [await colour.call(ask, x) for _ in range(2)]
        for answer in answers:
            if x:
                assert answer == {"messages": [{"role": "user"}], "seen": {1}}
                answer["messages"].append("mine")
                answer["seen"].add(2)
            else:
                assert answer == [1, [2]]
                answer[1].append("mine")
        again = await colour.call(ask, x)
        assert again == ({"messages": [{"role": "user"}], "seen": {1}} if x else [1, [2]])


async def test_copies_as_asked(colour: Colour) -> None:
    """`copy=False` shares one object, a function copies as it likes, and what cannot be copied is shared."""
    shared = scalekit.cache(copy=False)(colour.define(_new_list))
    assert await colour.call(shared) is await colour.call(shared)
    tagged = scalekit.cache(copy=lambda value: [*value, "copy"])(colour.define(_new_list))
    await colour.call(tagged)
    assert await colour.call(tagged) == ["copy", "copy"]

    @scalekit.cache
    @colour.define
    async def client() -> Any:
        return threading.Lock()

    assert await colour.call(client) is await colour.call(client)


async def _new_list() -> list[Any]:
    return []


async def test_one_flight_for_all_who_ask(colour: Colour) -> None:
    """A hundred callers at once: one call, one answer for all."""
    calls: list[int] = []

    @scalekit.cache
    @colour.define
    async def ask(x: int) -> int:
        calls.append(x)
        await colour.sleep(0.03)
        return x

    assert await colour.gather(*[lambda: ask(7)] * 100) == [7] * 100
    assert calls == [7]
    stats = scalekit.controls(ask).cache.stats()
    assert stats.misses == 1
    assert stats.joined + stats.hits == 99


def test_one_flight_over_two_loops_and_trio() -> None:
    """An async function called from two asyncio loops and a trio run at the same time is called once."""
    calls: list[Any] = []
    answers: list[Any] = []

    @scalekit.cache
    async def ask(x: int) -> int:
        calls.append(x)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            await trio.sleep(0.2)
        else:
            await asyncio.sleep(0.2)
        return x

    async def in_asyncio(x: int) -> None:
        answers.extend(await asyncio.gather(*[ask(x) for _ in range(50)]))

    async def in_trio(x: int) -> None:
        async def one() -> None:
            answers.append(await ask(x))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)

    for first_trio in (False, True):
        calls.clear()
        answers.clear()
        key = int(first_trio)
        threads = [threading.Thread(target=asyncio.run, args=(in_asyncio(key),)) for _ in range(2)]
        threads.insert(0 if first_trio else 2, threading.Thread(target=trio.run, args=(in_trio, key)))
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert calls == [key]
        assert answers == [key] * 150


async def test_after_an_error_the_next_call_tries_again(colour: Colour) -> None:
    """An exception is kept by nobody: the next call computes, and every key stays usable."""
    calls: list[int] = []

    @scalekit.cache
    @colour.define
    async def ask(x: int) -> int:
        calls.append(x)
        if len(calls) < 3:
            raise ValueError(len(calls))
        return x

    for number in (1, 2):
        with pytest.raises(ValueError, match=str(number)):
            await colour.call(ask, 5)
    assert await colour.call(ask, 5) == 5
    assert scalekit.controls(ask).cache.stats().errors == 2


class ApiError(Exception):
    """As openai's: keyword-only arguments, so `copy.copy` fails."""

    def __init__(self, message: str, *, response: int) -> None:
        super().__init__(message)
        self.response = response


async def test_each_caller_gets_an_exception_of_its_own(colour: Colour) -> None:
    """The first caller gets the original, the others copies, each with the frames of where it was raised."""
    original = ApiError("no", response=7)
    gate = threading.Event()

    @scalekit.cache
    @colour.define
    async def ask(x: int) -> int:
        while not gate.is_set():
            await colour.sleep(0.001)
        raise original

    jobs = [await colour.start(ask, 1) for _ in range(4)]
    await colour.until(lambda: scalekit.controls(ask).cache.stats().joined == 3)
    gate.set()
    errors = [await job.error() for job in jobs]
    assert errors[0] is original
    assert len({id(error) for error in errors}) == 4
    for error in errors:
        assert isinstance(error, ApiError)
        assert error.response == 7
        assert "ask" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


async def test_a_cancelled_caller_harms_nobody(loop_colour: Colour) -> None:
    """The first caller, or any other, is cancelled at once; the rest get the answer, and it is paid once."""
    for victim in (0, 2):
        calls: list[str] = []

        @scalekit.cache
        async def ask(x: int) -> int:
            calls.append("start")  # noqa: B023
            await loop_colour.sleep(0.05)
            return x

        jobs = [await loop_colour.start(ask, 1) for _ in range(4)]
        began = time.monotonic()
        jobs[victim].cancel()
        assert await jobs[victim].error() is not None
        assert time.monotonic() - began < 0.04
        for number, job in enumerate(jobs):
            if number != victim:
                assert await job.result() == 1
        assert calls == ["start"]


async def test_the_last_to_leave_stops_the_flight(loop_colour: Colour) -> None:
    """When every caller is cancelled the call is cancelled too, and the last one returns when it has stopped."""
    calls: list[str] = []

    @scalekit.cache
    async def ask(x: int) -> int:
        calls.append("start")
        try:
            await loop_colour.sleep(10)
        finally:
            calls.append("stopped")
        return x

    jobs = [await loop_colour.start(ask, 1) for _ in range(3)]
    for job in jobs:
        job.cancel()
    for job in jobs:
        await job.error()
    assert calls == ["start", "stopped"]
    assert scalekit.controls(ask).cache.stats().entries == 0


async def test_a_newcomer_does_not_join_a_dying_flight(loop_colour: Colour) -> None:
    """Who comes while a cancelled call still cleans up starts a new one."""
    calls: list[str] = []

    @scalekit.cache
    async def ask(x: int) -> int:
        calls.append("start")
        if len(calls) == 1:
            try:
                await loop_colour.sleep(10)
            finally:
                with trio.CancelScope(shield=True) if loop_colour.name == "trio" else _Nothing():
                    await loop_colour.sleep(0.03)
        return x

    job = await loop_colour.start(ask, 1)
    await loop_colour.sleep(0.005)
    job.cancel()
    await loop_colour.sleep(0.005)
    assert await ask(1) == 1
    await job.error()
    assert calls == ["start", "start"]


class _Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...


async def test_a_function_may_cancel_itself(loop_colour: Colour) -> None:
    """A CancelledError that the function raises of its own is an error like any other, and hangs nobody."""
    if loop_colour.name == "trio":
        return  # trio has no way to raise one

    @scalekit.cache
    async def ask(x: int) -> int:
        raise asyncio.CancelledError("own")

    with pytest.raises(asyncio.CancelledError, match="own"):
        await ask(1)
    with pytest.raises(asyncio.CancelledError, match="own"):
        await ask(1)


def test_an_interrupted_thread_hands_over() -> None:
    """When the thread that computes is interrupted, one of those who wait takes over, and nobody hangs."""
    calls: list[int] = []
    outcomes: list[Any] = []

    @scalekit.cache
    def ask(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return x

    def caller() -> None:
        try:
            outcomes.append(ask(1))
        except KeyboardInterrupt:
            outcomes.append("interrupted")

    threads = [threading.Thread(target=caller) for _ in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(map(str, outcomes)) == ["1"] * 5 + ["interrupted"]
    assert len(calls) == 2


def test_a_flight_survives_its_event_loop() -> None:
    """The loop that computes ends, politely or closed under its tasks: who waits in another loop takes over."""
    for rude in (False, True):
        calls: list[str] = []
        answers: list[int] = []

        @scalekit.cache
        async def ask(x: int) -> int:
            calls.append("start")  # noqa: B023
            await asyncio.sleep(0.3)
            return x

        async def waiter() -> None:
            answers.append(await ask(1))  # noqa: B023

        def first(rude: bool = rude) -> None:
            loop = asyncio.new_event_loop()
            task = loop.create_task(ask(1))
            loop.run_until_complete(asyncio.sleep(0.06))
            if not rude:
                task.cancel()
                loop.run_until_complete(asyncio.sleep(0.01))
            for left in asyncio.all_tasks(loop):
                left._log_destroy_pending = False
            loop.close()

        starter = threading.Thread(target=first)
        starter.start()
        time.sleep(0.03)
        other = threading.Thread(target=asyncio.run, args=(waiter(),))
        other.start()
        other.join(10)
        starter.join(10)
        assert answers == [1]
        assert len(calls) == 2
        gc.collect()


async def test_reentry_is_found(colour: Colour) -> None:
    """A call that waits for itself raises, also through a child task or thread, and through another function."""

    @scalekit.cache
    @colour.define
    async def direct(x: int) -> Any:
        return await colour.call(direct, x)

    @scalekit.cache
    @colour.define
    async def through_children(x: int) -> Any:
        results = await colour.gather(lambda: through_children(x), lambda: through_children(x))
        raise next(result for result in results if isinstance(result, Exception))

    for function in (direct, through_children):
        with pytest.raises(scalekit.ReentryError, match="wait for itself"):
            await colour.call(function, 1)

    @scalekit.cache
    @colour.define
    async def a(x: int) -> Any:
        await colour.sleep(0.02)
        return await colour.call(b, x)

    @scalekit.cache
    @colour.define
    async def b(x: int) -> Any:
        await colour.sleep(0.02)
        return await colour.call(a, x)

    results = await colour.gather(lambda: a(1), lambda: b(1))
    assert all(isinstance(result, scalekit.ReentryError) for result in results)


async def test_a_hung_call_frees_its_key(colour: Colour) -> None:
    """After `flight_timeout` those who wait are told, and the next caller starts anew."""
    calls: list[int] = []
    gate = threading.Event()

    @scalekit.cache(flight_timeout="60ms")
    @colour.define
    async def ask(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            while not gate.is_set():
                await colour.sleep(0.002)
        return len(calls)

    hung = await colour.start(ask, 1)
    await colour.sleep(0.01)
    with pytest.raises(scalekit.DeadlineExceeded, match="flight_timeout"):
        await colour.call(ask, 1)
    assert await colour.call(ask, 1) == 2
    gate.set()
    await hung.error()
    assert await colour.call(ask, 1) == 2, "what the hung call brought at last is not kept"


async def test_no_store(colour: Colour) -> None:
    """`no_store` hands the answer out and keeps it nowhere; the event says why; outside of a call it does nothing."""
    scalekit.no_store("nobody computes")
    seen: list[Any] = []

    @scalekit.cache
    @colour.define
    async def ask(x: str) -> str:
        if x == "long":
            scalekit.no_store("truncated")
        return x

    unsubscribe = events.subscribe(seen.append)
    try:
        for x in ("long", "long", "short", "short"):
            assert await colour.call(ask, x) == x
    finally:
        unsubscribe()
    assert [event.reason for event in seen if isinstance(event, events.NotStored)] == ["truncated"] * 2
    stats = scalekit.controls(ask).cache.stats()
    assert (stats.hits, stats.misses, stats.unstored) == (1, 3, 2)


async def test_an_invalidation_beats_the_flight_it_overtakes(colour: Colour) -> None:
    """What was being computed when its key was invalidated, cleared or replaced is not kept."""
    for way in ("invalidate", "clear", "put"):
        gate = threading.Event()
        calls: list[int] = []

        @scalekit.cache
        @colour.define
        async def ask(x: int) -> str:
            calls.append(x)  # noqa: B023
            while not gate.is_set():  # noqa: B023
                await colour.sleep(0.001)
            return f"computed {len(calls)}"  # noqa: B023

        control = scalekit.controls(ask).sync.cache
        old = await colour.start(ask, 1)
        await colour.until(lambda: calls)  # noqa: B023
        if way == "invalidate":
            assert control.invalidate(1) is False
        elif way == "clear":
            control.clear()
        else:
            control.put("put by hand", 1)
        gate.set()
        assert await old.result() == "computed 1"
        assert await colour.call(ask, 1) == ("put by hand" if way == "put" else "computed 2")


async def test_controls(colour: Colour) -> None:
    """invalidate, refresh, peek, contains, put, clear, key and stats, awaited on async functions, and as sugar."""
    calls: list[int] = []

    @scalekit.cache
    @colour.define
    async def ask(x: int) -> Any:
        calls.append(x)
        return [x, len(calls)]

    async def do(method: str, *args: Any) -> Any:
        value = getattr(scalekit.controls(ask).cache, method)(*args)
        return value if colour.name == "thread" else await value

    assert await do("peek", 1) is None
    assert not await do("contains", 1)
    assert await colour.call(ask, 1) == [1, 1]
    assert await do("peek", 1) == [1, 1]
    assert await do("refresh", 1) == [1, 2]
    assert await colour.call(ask, 1) == [1, 2]
    await do("put", ["mine"], 2)
    assert await colour.call(ask, 2) == ["mine"]
    assert await do("invalidate", 2) is True
    assert await do("invalidate", 2) is False
    await do("clear")
    assert not await do("contains", 1)
    control = scalekit.controls(ask).cache
    assert control.key(1) == control.key(x=1) != control.key(True)
    assert "ask" in control.key("secret")
    assert "secret" not in control.key("secret")
    assert ask.cache.stats() == control.stats()
    assert scalekit.controls(ask).sync.cache.peek(1) is None


async def test_code_written_for_lru_cache(colour: Colour) -> None:
    """cache_info, cache_clear, cache_parameters and __wrapped__ are there, and async_lru's two as well."""
    calls: list[int] = []

    @scalekit.cache(tiers=[scalekit.Memory(max_entries=5)])
    @colour.define
    async def ask(x: int) -> int:
        calls.append(x)
        return x

    for x in (1, 2, 1):
        await colour.call(ask, x)
    assert ask.cache_info() == (1, 2, 5, 2)
    assert ask.cache_parameters() == {"maxsize": 5, "typed": True}
    assert ask.cache_contains(1)
    assert ask.cache_invalidate(1)
    assert not ask.cache_contains(1)
    ask.cache_clear()
    assert ask.cache_info() == (0, 0, 5, 0)
    assert await colour.call(ask.__wrapped__, 9) == 9
    assert ask.cache_info().misses == 0


async def test_methods_are_keyed_by_their_object(colour: Colour) -> None:
    """Two objects have answers of their own; an object that is gone answers for no other; a frozen one counts by
    value.
    """

    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

    class Point(tuple[int, int]):
        __slots__ = ()

        def __scalekit_key__(self) -> Any:
            return tuple(self)

    calls: list[Any] = []

    async def ask(self: Any, question: str) -> str:
        calls.append(question)
        return f"{self} {question}"

    ask.__qualname__ = "Agent.ask"
    decorated = scalekit.cache(colour.define(ask))
    Agent.ask = Point.ask = decorated  # type: ignore[attr-defined]
    one, two = Agent("one"), Agent("two")
    for _ in range(3):
        assert await colour.call(one.ask, "q") == f"{one} q"  # type: ignore[attr-defined]
        assert await colour.call(two.ask, "q") == f"{two} q"  # type: ignore[attr-defined]
    assert len(calls) == 2
    await colour.call(Point((1, 2)).ask, "p")  # type: ignore[attr-defined]
    await colour.call(Point((1, 2)).ask, "p")  # type: ignore[attr-defined]
    assert len(calls) == 3
    for number in range(30):
        agent = Agent(str(number))
        assert await colour.call(agent.ask, "q") == f"{agent} q"  # type: ignore[attr-defined]
    control = scalekit.controls(one.ask).sync.cache  # type: ignore[attr-defined]
    assert control.contains("q")
    assert control.invalidate("q")
    assert not control.contains("q")
    assert scalekit.controls(two.ask).sync.cache.contains("q")  # type: ignore[attr-defined]


async def test_own_keys(colour: Colour) -> None:
    """`ignore=` leaves an argument out; `key=` as a function or a text decides alone, and joins no strings."""
    calls: list[Any] = []

    async def ask(query: str, client: Any = None) -> str:
        calls.append(query)
        return query

    ignoring = scalekit.cache(ignore="client")(colour.define(ask))
    await colour.call(ignoring, "q", object())
    await colour.call(ignoring, "q", object())
    assert calls == ["q"]
    for key in (lambda query, client=None: query.lower(), "{query}"):
        calls.clear()
        keyed = scalekit.cache(key=key)(colour.define(ask))
        await colour.call(keyed, "Q", object())
        await colour.call(keyed, "Q", object())
        assert calls == ["Q"]
    plain = scalekit.cache(colour.define(ask))
    with pytest.raises(scalekit.UnkeyableArgument, match=r"client.*ignore="):
        await colour.call(plain, "q", threading.Lock())
    with pytest.raises(scalekit.ConfigurationError, match="clinet"):
        scalekit.cache(ignore="clinet")(colour.define(ask))


async def test_a_full_memory_evicts(colour: Colour) -> None:
    """Never more entries than the bound, also where several functions share one Memory."""
    memory = scalekit.Memory(max_entries=10)

    async def body(x: int) -> int:
        return x

    one, two = (scalekit.cache(tiers=[memory])(colour.define(body)) for _ in range(2))
    for x in range(40):
        assert await colour.call(one, x) == x
        assert await colour.call(two, x) == x
    assert len(memory) <= 10
    for policy in ("lru", "lfu", "fifo", "random"):
        small = scalekit.cache(tiers=[scalekit.Memory(max_entries=4, policy=policy)])(colour.define(body))
        for x in [*range(10), 9, 9]:
            assert await colour.call(small, x) == x
        assert scalekit.controls(small).cache.stats().entries <= 4
        assert scalekit.controls(small).cache.stats().hits >= 2


async def test_what_is_larger_than_the_memory_is_handed_out(colour: Colour) -> None:
    """A value above `max_bytes` is returned and not kept, and the figures say so."""

    @scalekit.cache(tiers=[scalekit.Memory(max_bytes="10kB")])
    @colour.define
    async def ask(x: int) -> str:
        return "x" * 20_000

    assert len(await colour.call(ask, 1)) == 20_000
    assert scalekit.controls(ask).cache.stats().unstored == 1


def test_blocking_the_loop_that_computes_raises() -> None:
    """A sync function on a loop's thread that would wait for a flight of that same thread raises."""

    @scalekit.cache
    def ask(x: int) -> Any:
        async def inner() -> Any:
            return contextvars.Context().run(ask, x)

        return asyncio.run(inner())

    with pytest.raises(scalekit.BlockingError, match="to_thread"):
        ask(1)
    assert ask.cache.stats().entries == 0


async def test_computed_and_joined_are_facts(colour: Colour) -> None:
    """A flight that landed and a caller who joined are told to subscribers."""
    seen: list[Any] = []

    @scalekit.cache
    @colour.define
    async def ask(x: int) -> int:
        await colour.sleep(0.02)
        return x

    unsubscribe = events.subscribe(seen.append)
    try:
        await colour.gather(*[lambda: ask(1)] * 3)
    finally:
        unsubscribe()
    assert [type(event) for event in seen] == [events.Joined, events.Joined, events.Computed]
    assert seen[-1].callers == 3
    assert seen[-1].error is None
    assert 0.01 < seen[-1].seconds < 5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ttl": "soon"}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": 0}, "ttl"),
        ({"copy": True}, "copy"),
        ({"version": 3}, "version"),
        ({"tiers": ["dsik"]}, "dsik"),
        ({"tiers": scalekit.Memory()}, "tiers"),
        ({"ignore": 3}, "ignore"),
        ({"flight_timeout": "x"}, "flight_timeout"),
    ],
)
def test_bad_arguments(given: dict[str, Any], words: str) -> None:
    """A wrong argument is an error at decoration that names it."""
    with pytest.raises(scalekit.ConfigurationError, match=words):
        scalekit.cache(**given)


def test_a_partial_keeps_its_arguments_in_the_key() -> None:
    """`functools.partial` objects are functions too, and those with other arguments have other keys."""

    def ask(model: str, question: str) -> str:
        return f"{model} {question}"

    small, large = (scalekit.cache(functools.partial(ask, model)) for model in ("small", "large"))
    assert small("q") == "small q"
    assert large("q") == "large q"
    assert small.cache.key("q") != large.cache.key("q")


async def test_a_failed_call_leaves_no_cycles(colour: Colour) -> None:
    """An exception that went through a flight is freed when its caller drops it, without waiting for the collector."""

    class Mine(Exception):
        pass

    @scalekit.cache
    @scalekit.retry
    @scalekit.limit(concurrency=1)
    @colour.define
    async def ask(x: int) -> int:
        raise Mine

    gc.collect()
    gc.disable()
    try:
        try:
            await colour.call(ask, 1)
        except Mine as error:
            gone = weakref.ref(error)
        await colour.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


async def test_a_dead_object_answers_for_nobody(colour: Colour) -> None:
    """When an object dies its fast answers go with it, also in a cycle, so the next one at its address computes."""

    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

        async def body(self, question: str) -> str:
            return f"{self.name} {question}"

    Agent.body.__qualname__ = "Agent.ask"
    Agent.ask = scalekit.cache(colour.define(Agent.body))  # type: ignore[attr-defined]
    fast = Agent.ask.__scalekit__.cells["hot"].fast  # type: ignore[attr-defined]
    if isinstance(fast, Index):  # since some test of this process has used a scope
        fast = fast.table.fast
    addresses: set[int] = set()
    for number in range(40):
        agent = Agent(str(number))
        addresses.add(id(agent))
        for _ in range(2):
            assert await colour.call(agent.ask, "q") == f"{number} q"  # type: ignore[attr-defined]
        assert list(fast) == [id(agent)]
        in_a_cycle = number % 4 == 0
        if in_a_cycle:
            agent.me = agent  # type: ignore[attr-defined]
        del agent
        if in_a_cycle:
            gc.collect()
        assert not fast
    assert len(addresses) < 40, "no address came back, so this shows nothing"


if sys.version_info >= (3, 12):  # before, there are no eager tasks

    def test_eager_tasks() -> None:
        """Where tasks start eagerly, a call that never suspends gives its answer or its error like any other."""

        @scalekit.stack(scalekit.cache(), scalekit.limit(concurrency=1))
        async def ask(x: int) -> int:
            if x < 0:
                raise ValueError(x)
            return x

        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            assert await asyncio.gather(*[ask(1) for _ in range(3)]) == [1, 1, 1]
            for _ in range(2):
                with pytest.raises(ValueError, match="-1"):
                    await ask(-1)

        asyncio.run(main())


def test_a_flight_of_another_loop_does_not_freeze_this_one() -> None:
    """While a caller waits for another loop's long flight, its own loop goes on."""
    ticks = 0

    @scalekit.cache
    async def ask(x: int) -> int:
        await asyncio.sleep(2.2)
        return x

    async def join() -> int:
        nonlocal ticks

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        answer = await ask(1)
        ticking.cancel()
        return answer

    leader = threading.Thread(target=asyncio.run, args=(ask(1),))
    leader.start()
    time.sleep(0.1)
    assert asyncio.run(join()) == 1
    leader.join()
    assert ticks > 30, "the loop stood still"
    assert ask.cache.stats().misses == 1  # type: ignore[attr-defined]


async def test_a_copier_that_fails_does_not_fail_the_call(colour: Colour) -> None:
    """When `copy=` raises, the answer is handed out and not kept, and nobody hangs."""
    broken = scalekit.cache(copy=lambda value: 1 / 0)(colour.define(_new_list))
    assert await colour.call(broken) == []
    assert await colour.call(broken) == []
    assert scalekit.controls(broken).cache.stats().unstored == 2


async def test_parameters_may_be_called_anything(colour: Colour) -> None:
    """Names that the compiled wrapper uses itself, and an ignored `self`, do no harm."""

    @scalekit.cache
    @colour.define
    async def ask(a: int, _kind_a: int, _entry: int = 3) -> Any:
        return (a, _kind_a, _entry)

    for _ in range(3):
        assert await colour.call(ask, 1, 2) == (1, 2, 3)

    class Agent:
        async def body(self, x: int) -> int:
            return x

    Agent.body.__qualname__ = "Agent.ask"
    Agent.ask = scalekit.cache(ignore="self")(colour.define(Agent.body))  # type: ignore[attr-defined]
    for _ in range(3):
        assert await colour.call(Agent().ask, 5) == 5  # type: ignore[attr-defined]
    assert Agent.ask.cache.stats().misses == 1  # type: ignore[attr-defined]


async def test_a_hit_takes_no_permit(colour: Colour) -> None:
    """In a stack an answer from memory comes at once, though every permit is held."""
    gate = threading.Event()

    @scalekit.stack(scalekit.limit(concurrency=1), scalekit.cache(), scalekit.retry())
    @colour.define
    async def ask(x: str) -> str:
        while x == "slow" and not gate.is_set():
            await colour.sleep(0.001)
        return x

    await colour.call(ask, "quick")
    slow = await colour.start(ask, "slow")
    await colour.until(lambda: scalekit.controls(ask).limit.state().in_flight == 1)
    assert await colour.call(ask, "quick") == "quick"
    gate.set()
    assert await slow.result() == "slow"


def test_where_the_stack_ends_no_key_is_left_taken() -> None:
    """A recursion that is too deep fails with RecursionError, wherever in our code it struck, and takes no key
    along."""

    def below(pad: int, call: Any) -> Any:
        return call() if pad == 0 else below(pad - 1, call)

    for pad in range(16):

        @scalekit.cache
        def total(n: int) -> int:
            return 0 if n == 0 else total(n - 1) + 1

        with pytest.raises(RecursionError):
            below(pad, lambda: total(400))
        assert [total(n) for n in range(150)] == [*range(150)]


async def test_a_hung_call_ends_for_those_who_wait_whatever_happened_to_its_key(loop_colour: Colour) -> None:
    """flight_timeout counts for a flight that was invalidated, and for one that a later call replaced."""
    calls: list[int] = []

    @scalekit.cache(flight_timeout=0.2)
    async def ask(x: int) -> int:
        calls.append(x)
        if len(calls) < 3:
            await loop_colour.sleep(60)
        return x

    invalidated = await loop_colour.start(ask, 1)
    await loop_colour.until(lambda: len(calls) == 1)
    await scalekit.controls(ask).cache.invalidate(1)
    replaced = await loop_colour.start(ask, 2)
    await loop_colour.until(lambda: len(calls) == 2)
    time.sleep(0.3)  # the loop is busy past the deadline
    assert await ask(2) == 2
    for job in (invalidated, replaced):
        assert isinstance(await job.error(), scalekit.DeadlineExceeded)
    flights = scalekit.controls(ask).cache._site.flights
    await loop_colour.until(lambda: not flights.flying and not flights.loose)


def test_the_first_callers_all_know_of_the_slower_tiers(tmp_path: Any) -> None:
    """Threads that call a function for the first time at once: none of them goes past its disk."""
    calls: list[str] = []
    disk = scalekit.Disk(tmp_path / "store")

    @scalekit.cache(ttl="1h", version="1", tiers=[disk])
    def ask(question: str) -> str:
        calls.append(question)
        return question

    start = threading.Barrier(8)

    def call() -> None:
        start.wait()
        ask("a")

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert calls == ["a"]
    disk.close()
