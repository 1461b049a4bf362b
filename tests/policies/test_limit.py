"""limit: one pool of permits for everybody, in order, bounded, and lent where waiting would be a deadlock."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
from colours import Colour

import scalekit
from scalekit import events


class Meter:
    """How many are inside at once, and how many ever were."""

    def __init__(self) -> None:
        self.now = self.peak = self.total = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.total += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self.now -= 1


def free(policy: Any) -> int:
    """Permits that nobody holds."""
    state = policy.pool.state()
    assert state.waiting == 0
    return int(state.concurrency - state.in_flight)


async def test_never_more_than_the_limit(colour: Colour) -> None:
    """Thirty callers at once, and never more than three inside."""
    meter, policy = Meter(), scalekit.limit(concurrency=3)

    @policy
    @colour.define
    async def work(x: int) -> int:
        with meter:
            await colour.sleep(0.002)
        return x

    results = await colour.gather(*[lambda i=i: work(i) for i in range(30)])  # type: ignore[misc]
    assert results == list(range(30))
    assert meter.peak == 3
    assert free(policy) == 3


async def test_first_come_first_served(colour: Colour) -> None:
    """Waiters get their permits in the order in which they came."""
    order: list[int] = []
    policy, gate = scalekit.limit(concurrency=1), threading.Event()

    @policy
    @colour.define
    async def work(x: int) -> None:
        order.append(x)
        while not gate.is_set():
            await colour.sleep(0.001)

    jobs = []
    for i in range(8):
        jobs.append(await colour.start(work, i))
        await colour.until(lambda i=i: policy.pool.state().waiting == i, "all wait")  # type: ignore[misc]
    gate.set()
    for job in jobs:
        await job.result()
    assert order == list(range(8))


async def test_shared_by_value(colour: Colour) -> None:
    """Two functions that wear one value share its permits; `fresh()` gives others."""
    meter, policy = Meter(), scalekit.limit(concurrency=2)

    async def body(x: int) -> None:
        with meter:
            await colour.sleep(0.005)

    one, two = policy(colour.define(body)), policy(colour.define(body))
    await colour.gather(*[lambda: one(1), lambda: two(1)] * 4)
    assert meter.peak == 2
    assert policy.fresh().pool is not policy.pool


def test_one_name_is_one_limit() -> None:
    """The same name and settings are the same limit; other settings are an error that shows both."""
    first = scalekit.limit(concurrency=3, name="provider")
    assert scalekit.limit(concurrency=3, name="provider") is first
    with pytest.raises(scalekit.ConfigurationError, match=r"concurrency=3.*concurrency=4"):
        scalekit.limit(concurrency=4, name="provider")


async def test_a_permit_comes_back_after_an_error(colour: Colour) -> None:
    """A function that raises gives its permit back, and its own exception comes through."""
    policy = scalekit.limit(concurrency=1)

    @policy
    @colour.define
    async def work() -> None:
        raise KeyError("mine")

    for _ in range(3):
        with pytest.raises(KeyError, match="mine"):
            await colour.call(work)
    assert free(policy) == 1


async def test_max_queue(colour: Colour) -> None:
    """With `max_queue` callers waiting the next one is refused at once, and told how many wait."""
    policy, gate = scalekit.limit(concurrency=1, max_queue=2), threading.Event()

    @policy
    @colour.define
    async def work() -> None:
        while not gate.is_set():
            await colour.sleep(0.001)

    jobs = [await colour.start(work) for _ in range(3)]
    await colour.until(lambda: policy.pool.state().waiting == 2)
    with pytest.raises(scalekit.QueueFull, match="max_queue is 2") as refused:
        await colour.call(work)
    assert refused.value.depth == 2
    gate.set()
    for job in jobs:
        await job.result()
    assert free(policy) == 1


async def test_queue_timeout_names_the_holders(colour: Colour) -> None:
    """A caller who waits longer than `queue_timeout` is told who holds the permits, and none is lost."""
    policy, gate = scalekit.limit(concurrency=1, queue_timeout="30ms"), threading.Event()

    @policy
    @colour.define
    async def greedy() -> None:
        while not gate.is_set():
            await colour.sleep(0.001)

    @policy
    @colour.define
    async def modest() -> int:
        return 1

    job = await colour.start(greedy)
    await colour.until(lambda: policy.pool.state().in_flight == 1)
    with pytest.raises(scalekit.QueueTimeout, match="greedy"):
        await colour.call(modest)
    gate.set()
    await job.result()
    assert await colour.call(modest) == 1
    assert free(policy) == 1


async def test_a_cancelled_waiter_leaves_nothing_behind(loop_colour: Colour) -> None:
    """Cancelled in the queue, or just as the permit comes: no permit is lost and the next one gets it."""
    policy = scalekit.limit(concurrency=1)

    @policy
    async def work(x: int) -> int:
        await loop_colour.sleep(0.002)
        return x

    for delay in (0, 0.001, 0.002, 0.003):
        jobs = [await loop_colour.start(work, i) for i in range(4)]
        await loop_colour.sleep(delay)
        jobs[1].cancel()
        assert await jobs[2].result() == 2
        assert await jobs[3].result() == 3
        await jobs[1].error()
    assert free(policy) == 1


async def test_nested_calls_do_not_deadlock(colour: Colour) -> None:
    """A parent that waits for its children lends them its permit: one permit is enough for any depth."""
    for permits in (1, 2, 5):
        meter, policy = Meter(), scalekit.limit(concurrency=permits)

        @policy
        @colour.define
        async def leaf(x: int) -> int:
            with meter:  # noqa: B023
                await colour.sleep(0.0005)
            return x

        @policy
        @colour.define
        async def middle(x: int) -> int:
            return sum(await colour.gather(*[lambda: leaf(1)] * 3))

        @policy
        @colour.define
        async def top(x: int) -> int:
            return sum(await colour.gather(*[lambda: middle(1)] * 3))

        results = await colour.gather(*[lambda: top(1)] * 4, *[lambda: leaf(1)] * 4)
        assert results == [9] * 4 + [1] * 4
        assert meter.peak <= permits
        assert free(policy) == permits


async def test_a_loan_outlives_its_parent(loop_colour: Colour) -> None:
    """A child that runs on when its parent has ended keeps the permit, and gives it back itself."""
    policy, order, kept = scalekit.limit(concurrency=1), [], []

    @policy
    async def child() -> None:
        order.append("child")
        await loop_colour.sleep(0.03)
        order.append("child ends")

    @policy
    async def parent() -> None:
        kept.append(await loop_colour.start(child))
        await loop_colour.sleep(0.01)
        order.append("parent ends")

    @policy
    async def other() -> None:
        order.append("other")

    await parent()
    await other()
    assert order == ["child", "parent ends", "child ends", "other"]
    assert free(policy) == 1


async def test_two_limits_in_opposite_orders_are_named(colour: Colour) -> None:
    """What lending cannot see ends in `queue_timeout`, with the holders named, not in a hang."""
    a = scalekit.limit(concurrency=1, queue_timeout="100ms")
    b = scalekit.limit(concurrency=1, queue_timeout="100ms")

    async def leaf() -> None:
        return None

    in_a, in_b = a(colour.define(leaf)), b(colour.define(leaf))

    @a
    @colour.define
    async def a_then_b() -> None:
        await colour.sleep(0.02)
        await colour.call(in_b)

    @b
    @colour.define
    async def b_then_a() -> None:
        await colour.sleep(0.02)
        await colour.call(in_a)

    results = await colour.gather(lambda: a_then_b(), lambda: b_then_a())
    assert any(isinstance(result, scalekit.QueueTimeout) for result in results)
    assert free(a) == free(b) == 1


def test_threads_loops_and_trio_share_one_limit() -> None:
    """Four threads, two event loops and a trio run, with cancellations in them: three inside at most, and nothing
    lost.
    """
    meter, policy = Meter(), scalekit.limit(concurrency=3)

    @policy
    def sync_work() -> None:
        with meter:
            time.sleep(0.0002)

    @policy
    async def asyncio_work() -> None:
        with meter:
            await asyncio.sleep(0.0002)

    @policy
    async def trio_work() -> None:
        with meter:
            await trio.sleep(0.0002)

    def in_thread() -> None:
        for _ in range(150):
            sync_work()

    async def in_asyncio() -> None:
        async def calm() -> None:
            for _ in range(150):
                await asyncio_work()

        async def hasty() -> None:
            for i in range(150):
                task = asyncio.create_task(asyncio_work())
                await asyncio.sleep(0.0003 * (i % 5))
                task.cancel()
                await asyncio.wait([task])

        await asyncio.gather(calm(), calm(), hasty())

    async def in_trio() -> None:
        async def calm() -> None:
            for _ in range(150):
                await trio_work()

        async def hasty() -> None:
            for i in range(150):
                with trio.move_on_after(0.0003 * (i % 5)):
                    await trio_work()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(calm)
            nursery.start_soon(hasty)

    threads = [threading.Thread(target=in_thread) for _ in range(4)]
    threads += [threading.Thread(target=asyncio.run, args=(in_asyncio(),)) for _ in range(2)]
    threads += [threading.Thread(target=trio.run, args=(in_trio,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert meter.peak == 3
    assert free(policy) == 3


def test_a_closed_event_loop_does_not_keep_a_permit() -> None:
    """Granted to a task whose loop was closed before it woke, the permit goes to the next one."""
    policy = scalekit.limit(concurrency=1)
    got: list[str] = []

    @policy
    async def work(who: str) -> None:
        got.append(who)

    @policy
    def hold(inside: Any) -> None:
        inside()

    def abandon(granted: bool) -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(work("dead"))
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        if not granted:
            loop.close()
        loops.append((loop, task))

    for granted in (False, True):
        loops: list[Any] = []
        got.clear()

        def inside(granted: bool = granted) -> None:
            thread = threading.Thread(target=abandon, args=(granted,))
            thread.start()
            thread.join()

        context = contextvars.Context()
        context.run(hold, inside)
        loop, task = loops.pop()
        loop.close()
        task._log_destroy_pending = False
        del task, loop
        gc.collect()
        asyncio.run(asyncio.wait_for(work("alive"), 5))
        assert got == ["alive"]
        assert free(policy) == 1


def test_asyncio_run_twice() -> None:
    """A limit is bound to no event loop: a second `asyncio.run` uses the same permits, also after waiting in the
    first.
    """
    policy = scalekit.limit(concurrency=1)

    @policy
    async def work(x: int) -> int:
        await asyncio.sleep(0.001)
        return x

    async def crowd() -> list[int]:
        return await asyncio.gather(*[work(i) for i in range(5)])

    assert asyncio.run(crowd()) == asyncio.run(crowd()) == list(range(5))
    assert free(policy) == 1


def test_blocking_the_loop_that_must_finish_first_raises() -> None:
    """A sync function on an event loop's thread, whose permit a task of that loop holds, raises instead of
    deadlocking.
    """
    policy = scalekit.limit(concurrency=1)

    @policy
    async def task() -> None:
        await asyncio.sleep(0.05)

    @policy
    def blocking() -> str:
        return "done"

    async def main() -> str:
        running = asyncio.create_task(task())
        await asyncio.sleep(0.01)
        with pytest.raises(scalekit.BlockingError, match="to_thread"):
            contextvars.Context().run(blocking)
        assert await asyncio.to_thread(blocking) == "done"
        await running
        return blocking()  # as in Jupyter: nobody holds it, so a sync call on the loop's thread is fine

    assert asyncio.run(main()) == "done"
    assert free(policy) == 1


def test_a_child_in_a_thread_borrows_if_the_context_came_along() -> None:
    """A thread that runs in a copy of the parent's context borrows its permit; one without it waits its turn."""
    policy = scalekit.limit(concurrency=1, queue_timeout="50ms")

    @policy
    def child() -> str:
        return "child"

    @policy
    def parent(carry: bool) -> str:
        with ThreadPoolExecutor(1) as pool:
            if carry:
                return pool.submit(contextvars.copy_context().run, child).result()
            return pool.submit(child).result()

    assert parent(True) == "child"
    with pytest.raises(scalekit.QueueTimeout):
        parent(False)
    assert free(policy) == 1


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio says so of dropped ones
async def test_a_stream_keeps_its_permit_until_it_closes(colour: Colour) -> None:
    """Opened, the permit is held; read to the end, closed early or dropped, it is back."""
    policy = scalekit.limit(concurrency=1)
    closed: list[str] = []

    @policy
    @colour.define
    async def numbers(n: int) -> Any:
        try:
            for i in range(n):
                yield i
        finally:
            closed.append("closed")

    assert await colour.collect(numbers(3)) == [0, 1, 2]
    assert await colour.collect(numbers(0)) == []
    assert free(policy) == 1
    stream = numbers(3)
    assert free(policy) == 1, "a generator that nobody reads has not begun"
    assert await colour.next(stream) == 0
    assert free(policy) == 0
    await colour.close(stream)
    assert free(policy) == 1
    stream = numbers(3)
    await colour.next(stream)
    del stream
    gc.collect()
    await colour.until(lambda: free(policy) == 1)
    assert closed == ["closed"] * 4


async def test_a_loan_inside_a_stream(colour: Colour) -> None:
    """A generator that calls the same limit between its items borrows its own permit."""
    policy = scalekit.limit(concurrency=1, queue_timeout="1s")

    @policy
    @colour.define
    async def inner(x: int) -> int:
        return x

    @policy
    @colour.define
    async def outer() -> Any:
        yield 1
        yield await colour.call(inner, 2)

    assert await colour.collect(outer()) == [1, 2]
    assert free(policy) == 1


async def test_generators_refuse_to_be_sent_to(colour: Colour) -> None:
    """`send` and `throw` raise and close the source, because a stream may have several readers."""
    policy = scalekit.limit(concurrency=1)

    @policy
    @colour.define
    async def numbers() -> Any:
        yield 1
        yield 2

    for method, argument in (("send", 5), ("throw", KeyError("x"))):
        stream = numbers()
        await colour.next(stream)
        with pytest.raises(TypeError, match="refused"):
            if colour.name == "thread":
                getattr(stream, method)(argument)
            else:
                await getattr(stream, "a" + method)(argument)
        assert free(policy) == 1


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio says so of dropped ones
async def test_a_coroutine_that_returns_a_stream(loop_colour: Colour) -> None:
    """An async iterator that comes back from a coroutine keeps the permit until it is closed, or dropped unread."""
    policy = scalekit.limit(concurrency=1)

    async def numbers() -> Any:
        yield 1
        yield 2

    @policy
    async def opened() -> Any:
        return numbers()

    stream = await opened()
    assert free(policy) == 0
    assert [item async for item in stream] == [1, 2]
    assert free(policy) == 1
    stream = await opened()
    del stream
    gc.collect()
    assert free(policy) == 1


def test_a_loop_closed_with_an_open_stream() -> None:
    """A stream whose event loop was closed under it gives its permit back when it is collected."""
    policy = scalekit.limit(concurrency=1)

    @policy
    async def numbers() -> Any:
        yield 1
        yield 2

    kept: list[Any] = []

    async def leave_open() -> None:
        stream = numbers()
        kept.append(stream)
        await anext(stream)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_open())
    loop.close()
    assert free(policy) == 0
    kept.clear()
    gc.collect()
    assert free(policy) == 1


async def test_update_while_it_runs(colour: Colour) -> None:
    """A raised limit lets waiters in at once; a lowered one is reached as calls end."""
    policy, gate = scalekit.limit(concurrency=1), threading.Event()

    @policy
    @colour.define
    async def work() -> None:
        while not gate.is_set():
            await colour.sleep(0.001)

    jobs = [await colour.start(work) for _ in range(4)]
    await colour.until(lambda: policy.pool.state().waiting == 3)
    control = scalekit.controls(work).limit
    control.update(concurrency=3)
    await colour.until(lambda: policy.pool.state().in_flight == 3)
    control.update(concurrency=1)
    assert control.state().waiting == 1
    gate.set()
    for job in jobs:
        await job.result()
    assert control.state().concurrency == free(policy) == 1


async def test_waits_and_refusals_are_facts(colour: Colour) -> None:
    """A wait and a refusal are emitted with the function's name, and a subscriber that fails harms nobody."""
    policy, gate, seen = scalekit.limit(concurrency=1, max_queue=1), threading.Event(), []

    @policy
    @colour.define
    async def work() -> None:
        while not gate.is_set():
            await colour.sleep(0.001)

    unsubscribe = events.subscribe(seen.append)
    try:
        jobs = [await colour.start(work), await colour.start(work)]
        await colour.until(lambda: policy.pool.state().waiting == 1)
        with pytest.raises(scalekit.Overloaded):
            await colour.call(work)
        gate.set()
        for job in jobs:
            await job.result()
    finally:
        unsubscribe()
    assert [type(event) for event in seen] == [events.Refused, events.Waited]
    assert all(event.function.endswith("work") for event in seen)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "concurrency"),
        ({"concurrency": 0}, "at least 1"),
        ({"concurrency": True}, "whole number"),
        ({"concurrency": 2.5}, "whole number"),
        ({"concurrency": 1, "max_queue": -1}, "max_queue"),
        ({"concurrency": 1, "queue_timeout": "10 parsecs"}, "queue_timeout"),
    ],
)
def test_bad_arguments(given: dict[str, Any], words: str) -> None:
    """A wrong argument is an error at decoration that names it."""
    with pytest.raises(scalekit.ConfigurationError, match=words):
        scalekit.limit(**given)


def test_bare_limit_shows_how() -> None:
    """`@limit` without arguments is an error with an example."""
    with pytest.raises(scalekit.ConfigurationError, match=r"@scalekit.limit\(concurrency=20\)"):

        @scalekit.limit
        def work() -> None: ...
