"""Cancelled at every await, no policy and no pair of policies loses a permit, a flight or a caller."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import anyio
import pytest
from cancel_at import RUNNERS, Check, Scenario, everywhere

import scalekit
from scalekit._core.guarded import Guarded

POLICIES = {
    "cache": lambda: scalekit.cache(ttl="10s"),
    "each": lambda: scalekit.cache(ttl="10s", each="xs"),
    "limit": lambda: scalekit.limit(concurrency=1, queue_timeout="5s"),
    "retry": lambda: scalekit.retry(attempts=3, wait=0.001, on=ValueError),
}
ALL = ("cache", "limit", "retry")
SETS = [*itertools.combinations(ALL, 1), *itertools.combinations(ALL, 2), ALL]
SETS += [("disk",), ("disk", "limit", "retry")]


@pytest.fixture(scope="module", autouse=True)
def _disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One disk for all, and a function of its own (by `version`) for each scenario: nothing is known there."""
    disk, versions = scalekit.Disk(tmp_path_factory.mktemp("disk")), itertools.count()
    POLICIES["disk lists"] = lambda: scalekit.cache(
        ttl="10s", version=str(next(versions)), tiers=["memory", disk], each="xs"
    )
    POLICIES["disk"] = lambda: scalekit.cache(ttl="10s", version=str(next(versions)), tiers=["memory", disk])
    yield
    disk.close()


def made(kinds: tuple[str, ...], runner: str) -> tuple[Scenario, Check]:
    """Two callers of one key and one of another, the first attempt of each key failing; and what must hold
    afterwards.
    """
    stack = scalekit.stack(*[POLICIES[kind]() for kind in kinds])
    failed: set[int] = set()
    inside = 0

    def fail_once(x: int) -> None:
        if "retry" in kinds and x not in failed:
            failed.add(x)
            raise ValueError(x)

    if runner == "thread":

        @stack
        def work(x: int) -> int:
            nonlocal inside
            inside += 1
            try:
                anyio_sleep_in_thread()
                fail_once(x)
                return x
            finally:
                inside -= 1

        async def scenario() -> None:
            others = [threading.Thread(target=_quiet, args=(work, x)) for x in (1, 2)]
            for other in others:
                other.start()
            try:
                work(1)
            finally:
                for other in others:
                    other.join(20)
                    assert not other.is_alive(), "a caller hangs"
    else:

        @stack
        async def work(x: int) -> int:  # type: ignore[no-redef]
            nonlocal inside
            inside += 1
            try:
                await anyio.sleep(0.002)
                fail_once(x)
                return x
            finally:
                inside -= 1

        async def scenario() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(_quiet_async, work, 1)
                group.start_soon(_quiet_async, work, 2)
                await _quiet_async(work, 1)

    return scenario, checked(stack, lambda: work, lambda: inside, lambda value: value in (1, 2))


def made_of_lists(kinds: tuple[str, ...], runner: str) -> tuple[Scenario, Check]:
    """Three callers whose lists overlap crosswise."""
    stack = scalekit.stack(*[POLICIES[kind]() for kind in kinds])
    inside = 0
    lists = [[1, 2], [2, 3], [3, 1]]

    @stack
    def work(xs: list[int]) -> list[int]:
        nonlocal inside
        inside += 1
        try:
            anyio_sleep_in_thread()
            return [x * 2 for x in xs]
        finally:
            inside -= 1

    async def scenario() -> None:
        others = [threading.Thread(target=_quiet, args=(work, xs)) for xs in lists[1:]]
        for other in others:
            other.start()
        try:
            assert work(lists[0]) == [2, 4]
        finally:
            for other in others:
                other.join(20)
                assert not other.is_alive(), "a caller hangs"

    if runner != "thread":

        @stack
        async def work(xs: list[int]) -> list[int]:  # type: ignore[no-redef]
            nonlocal inside
            inside += 1
            try:
                await anyio.sleep(0.002)
                return [x * 2 for x in xs]
            finally:
                inside -= 1

        async def scenario() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(_quiet_async, work, lists[1])
                group.start_soon(_quiet_async, work, lists[2])
                assert await work(lists[0]) == [2, 4]  # type: ignore[misc]

    return scenario, checked(stack, lambda: work, lambda: inside, lambda value: value in (2, 4, 6))


def made_of_streams(kinds: tuple[str, ...], runner: str) -> tuple[Scenario, Check]:
    """Two readers of one stream and one of another, the first attempt to open each failing."""
    stack = scalekit.stack(*[POLICIES[kind]() for kind in kinds])
    failed: set[int] = set()
    inside = 0

    def fail_once(x: int) -> None:
        if "retry" in kinds and x not in failed:
            failed.add(x)
            raise ValueError(x)

    @stack
    def work(x: int) -> Iterator[int]:
        nonlocal inside
        inside += 1
        try:
            anyio_sleep_in_thread()
            fail_once(x)
            for _ in range(3):
                yield x
        finally:
            inside -= 1

    def read(x: int) -> None:
        with closing(work(x)) as stream:
            assert [*stream] == [x] * 3

    async def scenario() -> None:
        others = [threading.Thread(target=_quiet, args=(read, x)) for x in (1, 2)]
        for other in others:
            other.start()
        try:
            read(1)
        except scalekit.StreamInterrupted:  # it was the other one who was interrupted
            pass
        finally:
            for other in others:
                other.join(20)
                assert not other.is_alive(), "a reader hangs"

    if runner != "thread":

        @stack
        async def work(x: int) -> AsyncIterator[int]:  # type: ignore[no-redef]
            nonlocal inside
            inside += 1
            try:
                await anyio.sleep(0.001)
                fail_once(x)
                for _ in range(3):
                    yield x
                    await anyio.sleep(0.0005)
            finally:
                inside -= 1

        async def read(x: int) -> None:  # type: ignore[no-redef]
            async with aclosing(work(x)) as stream:  # type: ignore[type-var]
                assert [item async for item in stream] == [x] * 3  # type: ignore[attr-defined]

        async def scenario() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(_quiet_async, read, 1)
                group.start_soon(_quiet_async, read, 2)
                await _quiet_async(read, 1)

    return scenario, checked(stack, lambda: work, lambda: inside, lambda value: value.answer() in ([1] * 3, [2] * 3))


def checked(
    stack: Any, work_of: Callable[[], Any], inside_of: Callable[[], int], right: Callable[[Any], bool]
) -> Check:
    """What must hold afterwards."""

    def check(where: str) -> None:
        work, inside = work_of(), inside_of()
        assert inside == 0, f"{where}: the function still runs"
        for policy in stack.policies:
            if policy.kind == "limit":
                state = policy.pool.state()  # type: ignore[attr-defined]
                assert (state.in_flight, state.waiting) == (0, 0), f"{where}: {state}"
                assert len(policy.pool.free) == 1, where  # type: ignore[attr-defined]
            if policy.kind == "cache":
                site = work.__scalekit__.target.states[policy]  # type: ignore[attr-defined]
                assert not site.flights.flying, f"{where}: a flight is left"
                assert not site.flights.loose, f"{where}: a stream is left"
                for entry in site.table.entries.values():
                    assert right(entry.value), where

    return check


def anyio_sleep_in_thread() -> None:
    import time

    time.sleep(0.001)


def _quiet(work: Any, x: int) -> None:
    try:
        work(x)
    except (ValueError, KeyboardInterrupt, scalekit.StreamInterrupted):
        pass


async def _quiet_async(work: Any, x: int) -> None:
    try:
        await work(x)
    except (ValueError, scalekit.StreamInterrupted):
        pass


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    "kinds", [("each",), ("each", "limit"), ("disk lists",), ("disk lists", "limit")], ids="+".join
)
def test_lists_cancelled_at_every_await(kinds: tuple[str, ...], runner: str) -> None:
    """The same for lists whose items join each other's flights."""
    total = everywhere(runner, lambda: made_of_lists(kinds, runner))
    assert runner == "thread" or total >= 2, "the harness cancelled nothing"


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kinds", [("cache",), ("cache", "limit", "retry"), ("disk", "limit")], ids="+".join)
def test_streams_cancelled_at_every_await(kinds: tuple[str, ...], runner: str) -> None:
    """The same for streams that are shared while they arrive."""
    total = everywhere(runner, lambda: made_of_streams(kinds, runner))
    assert runner == "thread" or total >= 2, "the harness cancelled nothing"


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kinds", SETS, ids="+".join)
def test_cancelled_at_every_await(kinds: tuple[str, ...], runner: str) -> None:
    """Whatever the moment: permits are back, flights have landed, nobody hangs, and the answer is the right one."""
    if "flight" in runner and not {"cache", "disk"} & {*kinds}:
        return
    total = everywhere(runner, lambda: made(kinds, runner))
    if runner != "thread":
        assert total >= 2, "the harness cancelled nothing"


@pytest.mark.parametrize("runner", ["asyncio", "trio"])
def test_the_harness_finds_a_planted_leak(runner: str) -> None:
    """A limit that forgets its permit when cancelled in the queue is caught."""

    def leaky() -> tuple[Scenario, Check]:
        scenario, check = made(("limit",), runner)
        return scenario, check

    def broken(self: Any, ticket: Any) -> None:
        return None

    pool = scalekit.limit(concurrency=1).pool
    original = type(pool).give_up
    type(pool).give_up = broken  # type: ignore[method-assign]
    try:
        with pytest.raises(AssertionError):
            everywhere(runner, leaky)
    finally:
        type(pool).give_up = original  # type: ignore[method-assign]
    assert issubclass(type(pool), Guarded)
