"""The engine: what users see is what is counted."""

from __future__ import annotations

import asyncio
import functools
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from scalekit.cli.crowd import Tally, Upstream, deal, percentile, run_in_threads, run_on_loop, tokens_of
from scalekit.cli.meter import Meter
from scalekit.cli.trial import calls_each


class Busy(Exception):
    status_code = 429


ANSWER = SimpleNamespace(usage=SimpleNamespace(total_tokens=10))


def crowd(users: int, calls: int) -> tuple[Any, Tally]:
    plan = deal([((number,), {}) for number in range(7)], users, calls)
    return plan, Tally("plain", users, users * calls)


def test_a_loop_crowd_asks_at_once_and_each_user_in_sequence() -> None:
    """As many calls are in progress as there are users, never more, and every call is counted."""
    running = peak = 0

    async def ask(number: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.005)
        running -= 1
        if number == 3:
            raise Busy
        return number

    plan, tally = crowd(users=14, calls=3)
    asyncio.run(run_on_loop(ask, plan, tally))
    assert peak == 14
    assert (tally.answered, tally.failures) == (36, {"Busy": 6})
    assert min(tally.seconds) >= 0.004


def test_a_thread_crowd_asks_at_once() -> None:
    """Sync users sit in threads of their own: all of them can be inside at the same time."""
    everyone = threading.Barrier(10, timeout=10)

    def ask(number: int) -> int:
        everyone.wait()
        if number == 3:
            raise Busy
        return number

    plan, tally = crowd(users=10, calls=7)
    run_in_threads(ask, plan, tally)
    assert (tally.answered, tally.failed) == (60, 10)


def test_a_stream_is_answered_when_it_ends() -> None:
    """A stream is read to its end, in both colours; an error on the way is a failure."""

    def stream(number: int) -> Any:
        yield number
        if number == 3:
            raise Busy
        yield ANSWER

    async def astream(number: int) -> Any:
        for item in stream(number):
            yield item

    plan, threads = crowd(users=7, calls=1)
    run_in_threads(stream, plan, threads)
    plan, loop = crowd(users=7, calls=1)
    asyncio.run(run_on_loop(astream, plan, loop))
    for tally in (threads, loop):
        assert (tally.answered, tally.failed, tally.tokens) == (6, 1, 60)


def test_a_meter_counts_in_every_colour() -> None:
    """Calls, 429s and tokens that went through are counted around any shape of function."""

    async def ask(number: int) -> Any:
        if number == 3:
            raise Busy
        return ANSWER

    def sync(number: int) -> Any:
        if number == 3:
            raise Busy
        return ANSWER

    @functools.wraps(ask)
    def passes_on(number: int) -> Any:
        return ask(number)

    async def stream(number: int) -> Any:
        yield await ask(number)

    def sync_stream(number: int) -> Any:
        yield sync(number)

    for function in (ask, sync, passes_on, stream, sync_stream):
        meter = Meter()
        counted = meter.count(function)
        plan, tally = crowd(users=7, calls=1)
        if function in (sync, sync_stream):
            run_in_threads(counted, plan, tally)
        else:
            asyncio.run(run_on_loop(counted, plan, tally))
        assert meter.upstream() == Upstream(calls=7, rejected=1, tokens=60), function
        assert counted.__name__ == function.__name__


def test_what_is_not_known_is_not_guessed() -> None:
    """Results without usage leave tokens and savings unknown; a crowd that answered nothing saved nothing."""
    meter = Meter()
    plan, tally = crowd(users=2, calls=1)
    run_in_threads(meter.count(str), plan, tally)
    tally.upstream, tally.complete = meter.upstream(), True
    assert (tally.tokens, tally.upstream.tokens, tally.saved) == (None, None, None)
    none = Tally("plain", 1, 1, upstream=Upstream(calls=1, rejected=1, tokens=0), complete=True)
    assert none.saved == 0


def test_saved_is_what_was_delivered_and_not_paid() -> None:
    """Three answers of ten tokens for one call of ten saved twenty."""
    tally = Tally("decorated", 3, 3, upstream=Upstream(1, 0, 10), complete=True)
    for _ in range(3):
        tally.answer(0.1, ANSWER)
    assert tally.saved == 20


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        ({"usage": {"total_tokens": 5}}, 5),
        (SimpleNamespace(usage=SimpleNamespace(input_tokens=2, output_tokens=3)), 5),
        (SimpleNamespace(usage_metadata=SimpleNamespace(total_token_count=5)), 5),
        (SimpleNamespace(usage=None), None),
        (SimpleNamespace(usage=lambda: None), None),
        ("text", None),
        (None, None),
    ],
)
def test_usage_is_read_as_each_sdk_writes_it(result: Any, tokens: int | None) -> None:
    """openai, anthropic and google results tell their tokens; others do not."""
    assert tokens_of(result) == tokens


def test_percentiles_are_observed_values() -> None:
    """A percentile is one of the values; of none there is none."""
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 3.0, 5.0, 5.0]
    assert percentile([], 0.5) is None


def test_arguments_are_dealt_in_order_and_again() -> None:
    """Users take the arguments as they come, and from the start when they run out."""
    plan = deal([((number,), {}) for number in range(3)], users=2, calls=2)
    assert [[args[0] for args, _ in calls] for calls in plan] == [[0, 1], [2, 0]]


def test_large_crowds_ask_fewer_questions_each() -> None:
    """A crowd asks at most so many questions, but each user at least one."""
    assert [calls_each(users, 5, 3000) for users in (1, 600, 1000, 9000)] == [5, 5, 3, 1]
