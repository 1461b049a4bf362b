"""Cancelled at every await, no policy and no pair of policies loses a permit, a flight or a caller."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from cancel_at import RUNNERS, Check, Scenario, everywhere

import scalekit
from scalekit._core.guarded import Guarded

POLICIES = {
    "cache": lambda: scalekit.cache(ttl="10s"),
    "limit": lambda: scalekit.limit(concurrency=1, queue_timeout="5s"),
    "retry": lambda: scalekit.retry(attempts=3, wait=0.001, on=ValueError),
}
SETS = [*itertools.combinations(POLICIES, 1), *itertools.combinations(POLICIES, 2), tuple(POLICIES)]
SETS += [("disk",), ("disk", "limit", "retry")]


@pytest.fixture(scope="module", autouse=True)
def _disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One disk for all, and a function of its own (by `version`) for each scenario: nothing is known there."""
    disk, versions = scalekit.Disk(tmp_path_factory.mktemp("disk")), itertools.count()
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

    def check(where: str) -> None:
        assert inside == 0, f"{where}: the function still runs"
        for policy in stack.policies:
            if policy.kind == "limit":
                state = policy.pool.state()  # type: ignore[attr-defined]
                assert (state.in_flight, state.waiting) == (0, 0), f"{where}: {state}"
                assert len(policy.pool.free) == 1, where  # type: ignore[attr-defined]
            if policy.kind == "cache":
                site = work.__scalekit__.target.states[policy]  # type: ignore[attr-defined]
                assert not site.flights.flying, f"{where}: a flight is left"
                for entry in site.table.entries.values():
                    assert entry.value in (1, 2), where

    return scenario, check


def anyio_sleep_in_thread() -> None:
    import time

    time.sleep(0.001)


def _quiet(work: Any, x: int) -> None:
    try:
        work(x)
    except (ValueError, KeyboardInterrupt):
        pass


async def _quiet_async(work: Any, x: int) -> None:
    try:
        await work(x)
    except ValueError:
        pass


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
