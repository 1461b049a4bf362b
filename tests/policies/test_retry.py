"""retry: another attempt where it can help, never where it hurts, in every colour."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import tenacity
import trio
from colours import Colour
from openai import APIConnectionError, RateLimitError

import scalekit
from scalekit import events
from scalekit._runtime.blocking import Blocking
from scalekit._runtime.eventloop import EventLoop


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the runtimes were asked to sleep, in seconds; they return at once."""
    slept: list[float] = []

    async def sleep(self: Any, seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(Blocking, "sleep", sleep)
    monkeypatch.setattr(EventLoop, "sleep", sleep)
    return slept


def refusal(**headers: str) -> RateLimitError:
    """The 429 of the real openai client."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx.Request("POST", "http://localhost/v1/chat/completions")
    response = httpx.Response(429, headers=headers, request=request)
    return RateLimitError("slow down", response=response, body=None)  # type: ignore[arg-type]  # openai 3 has its own httpx


class Flaky:
    """Fails with each of `errors`, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = [*errors]
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def function(self, colour: Colour) -> Any:
        async def ask() -> str:
            return await self()

        return colour.define(ask)


async def test_a_connection_fault_is_tried_again(colour: Colour, pauses: list[float]) -> None:
    """Three attempts by default, with full jitter between them: at most 0.5 s, then at most 1 s."""
    flaky = Flaky(ConnectionResetError("lost"), ConnectionResetError("lost"))
    assert await colour.call(scalekit.retry(flaky.function(colour))) == "answer"
    assert flaky.calls == 3
    assert len(pauses) == 2
    assert 0 <= pauses[0] <= 0.5
    assert 0 <= pauses[1] <= 1


async def test_the_last_exception_is_raised_as_itself(colour: Colour, pauses: list[float]) -> None:
    """When the attempts are used up the last exception comes out, the same object, with one note of what was tried."""
    errors = [ConnectionResetError(str(number)) for number in range(4)]
    flaky = Flaky(*errors)
    with pytest.raises(ConnectionResetError) as raised:
        await colour.call(scalekit.retry(attempts=4)(flaky.function(colour)))
    assert raised.value is errors[3]
    assert raised.value.__context__ is None
    (note,) = raised.value.__notes__
    assert "4 attempts" in note


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x"), NotImplementedError()])
async def test_an_unknown_exception_ends_the_call(colour: Colour, pauses: list[float], error: Exception) -> None:
    """What no classifier knows is raised at once: a retry of it could send the mail twice."""
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        await colour.call(scalekit.retry(attempts=5)(flaky.function(colour)))
    assert flaky.calls == 1
    assert not pauses


async def test_retry_after_is_honoured(colour: Colour, pauses: list[float]) -> None:
    """A 429 of the real openai client waits as long as the server says, with a jitter that only adds."""
    for headers, least in (
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "30"}, 30.0),
        ({"retry_after": "9999"}, 120),
    ):
        pauses.clear()
        flaky = Flaky(refusal(**headers))
        assert await colour.call(scalekit.retry(flaky.function(colour))) == "answer"
        assert least <= pauses[0] <= least * 1.3 + 0.2


async def test_a_spent_quota_and_a_404_are_not_retried(colour: Colour, pauses: list[float]) -> None:
    """`insufficient_quota` and a permanent status end the call: waiting does not help."""
    spent = refusal()
    spent.code = "insufficient_quota"
    missing = httpx.HTTPStatusError(
        "gone", request=httpx.Request("GET", "http://localhost"), response=httpx.Response(404)
    )
    for error in (spent, missing):
        flaky = Flaky(error)
        with pytest.raises(type(error)):
            await colour.call(scalekit.retry(attempts=5)(flaky.function(colour)))
        assert flaky.calls == 1


async def test_errors_of_ours_are_never_retried(colour: Colour, pauses: list[float]) -> None:
    """A refusal by a limit is final, whatever `on=` says: a retry would be the storm it guards against."""
    flaky = Flaky(scalekit.QueueFull("full"))
    with pytest.raises(scalekit.QueueFull):
        await colour.call(scalekit.retry(attempts=5, on=Exception)(flaky.function(colour)))
    assert flaky.calls == 1


async def test_on_adds_types_or_decides(colour: Colour, pauses: list[float]) -> None:
    """A type adds to the known faults; a predicate and a tenacity object decide alone; a result can be judged too."""
    for on, error, calls in (
        (ValueError, ValueError("x"), 2),
        (ValueError, ConnectionResetError("x"), 2),
        (lambda error: isinstance(error, KeyError), KeyError("x"), 2),
        (lambda error: isinstance(error, KeyError), ConnectionResetError("x"), 1),
        (tenacity.retry_if_exception_type(KeyError), KeyError("x"), 2),
        (tenacity.retry_if_exception_type(KeyError), ConnectionResetError("x"), 1),
    ):
        flaky = Flaky(error)
        function = scalekit.retry(attempts=2, on=on)(flaky.function(colour))
        if calls == 2:
            assert await colour.call(function) == "answer"
        else:
            with pytest.raises(type(error)):
                await colour.call(function)
        assert flaky.calls == calls
    answers = iter([None, None, "at last"])

    @scalekit.retry(attempts=5, on=tenacity.retry_if_result(lambda value: value is None))
    @colour.define
    async def poll() -> Any:
        return next(answers)

    assert await colour.call(poll) == "at last"


async def test_tenacity_s_words(colour: Colour, pauses: list[float]) -> None:
    """`wait=` and `stop=` take tenacity's objects, and sums and unions of them."""
    flaky = Flaky(*[ConnectionResetError()] * 9)
    function = scalekit.retry(
        wait=tenacity.wait_fixed(2) + tenacity.wait_random(0, 1),
        stop=tenacity.stop_after_attempt(4) | tenacity.stop_after_delay(1000),
    )(flaky.function(colour))
    with pytest.raises(ConnectionResetError):
        await colour.call(function)
    assert flaky.calls == 4
    assert all(2 <= pause <= 3 for pause in pauses)


async def test_effects_are_repeated_only_if_nothing_happened(colour: Colour, pauses: list[float]) -> None:
    """A function with side effects is tried again after a refusal, and never after an answer was lost on the way."""
    lost = APIConnectionError(request=httpx.Request("POST", "http://localhost"))  # type: ignore[arg-type]
    lost.__cause__ = httpx.ReadError("the answer was lost")
    for error, calls in ((refusal(), 2), (ConnectionRefusedError(), 2), (ConnectionResetError(), 1), (lost, 1)):
        for outside in (True, False):
            flaky = Flaky(error)
            function = flaky.function(colour)
            marked = scalekit.effect(scalekit.retry(function)) if outside else scalekit.retry(scalekit.effect(function))
            if calls == 2:
                assert await colour.call(marked) == "answer"
            else:
                with pytest.raises(type(error)):
                    await colour.call(marked)
            assert flaky.calls == calls


async def test_a_cancelled_call_ends_with_its_attempt(loop_colour: Colour) -> None:
    """A timeout around the call ends it: one attempt, cancelled, and no second one after it."""
    calls: list[str] = []

    @scalekit.retry(attempts=5, wait=0)
    async def ask() -> str:
        calls.append("start")
        await loop_colour.sleep(10)
        return "done"

    if loop_colour.name == "trio":
        with trio.move_on_after(0.03) as scope:
            await ask()
        assert scope.cancelled_caught
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(), 0.03)
    assert calls == ["start"]


async def test_a_cancelled_pause_starts_no_attempt(loop_colour: Colour) -> None:
    """Cancelled while it waits for its next attempt, a call makes none."""
    flaky = Flaky(*[ConnectionResetError()] * 9)
    job = await loop_colour.start(scalekit.retry(attempts=9, wait=10)(flaky.function(loop_colour)))
    await loop_colour.sleep(0.01)
    job.cancel()
    assert await job.error() is not None
    assert flaky.calls == 1


async def test_a_stream_is_opened_again_until_its_first_item(colour: Colour, pauses: list[float]) -> None:
    """A stream that fails before its first item is opened again; one that fails later raises, and replays nothing."""
    opened: list[int] = []

    @scalekit.retry(attempts=4)
    @colour.define
    async def numbers(fail_at: int) -> Any:
        opened.append(fail_at)
        for number in range(4):
            if number == fail_at and len(opened) < 3:
                raise ConnectionResetError(str(number))
            yield number

    assert await colour.collect(numbers(0)) == [0, 1, 2, 3]
    assert opened == [0, 0, 0]
    opened.clear()
    got: list[int] = []
    stream = numbers(2)
    with pytest.raises(ConnectionResetError):
        while True:
            got.append(await colour.next(stream))
    assert got == [0, 1]
    assert opened == [2]


async def test_a_returned_stream_is_opened_again(loop_colour: Colour, pauses: list[float]) -> None:
    """The same for a coroutine that returns an async generator."""
    opened: list[int] = []

    async def numbers() -> Any:
        if len(opened) < 3:
            raise ConnectionResetError
        yield 1

    @scalekit.retry(attempts=4)
    async def stream() -> Any:
        opened.append(1)
        return numbers()

    assert [item async for item in await stream()] == [1]
    assert len(opened) == 3


async def test_no_permit_is_held_while_a_retry_waits(colour: Colour) -> None:
    """With retry outside of limit, another call runs in the pause: one permit serves both."""
    inside: list[str] = []

    @scalekit.stack(scalekit.limit(concurrency=1, queue_timeout="5s"), scalekit.retry(attempts=2, wait=0.05))
    @colour.define
    async def ask(who: str) -> str:
        inside.append(who)
        if who == "flaky" and inside.count(who) == 1:
            raise ConnectionResetError
        return who

    flaky = await colour.start(ask, "flaky")
    await colour.until(lambda: inside)
    assert await colour.call(ask, "other") == "other"
    assert inside == ["flaky", "other"]
    assert await flaky.result() == "flaky"


async def test_retries_run_inside_the_shared_flight(colour: Colour) -> None:
    """Callers who share a flight share its retries too: three attempts in all, and not three each."""
    calls: list[int] = []

    @scalekit.stack(scalekit.retry(attempts=3, wait=0.005), scalekit.cache())
    @colour.define
    async def ask(x: int) -> int:
        calls.append(x)
        await colour.sleep(0.01)
        if len(calls) < 3:
            raise ConnectionResetError
        return x

    assert await colour.gather(*[lambda: ask(1)] * 10) == [1] * 10
    assert calls == [1, 1, 1]


async def test_attempts_are_facts(colour: Colour, pauses: list[float]) -> None:
    """Each retry and the giving up are told, with the verdict, the attempt and the wait."""
    seen: list[Any] = []
    unsubscribe = events.subscribe(seen.append)
    try:
        with pytest.raises(ConnectionResetError):
            await colour.call(scalekit.retry(attempts=3)(Flaky(*[ConnectionResetError()] * 3).function(colour)))
    finally:
        unsubscribe()
    assert [type(event) for event in seen] == [events.Retried, events.Retried, events.GaveUp]
    assert [event.attempt for event in seen[:2]] == [1, 2]
    assert [event.wait for event in seen[:2]] == pauses
    assert seen[2].attempts == 3
    assert {event.verdict for event in seen} == {"transient"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": "3"}, "attempts"),
        ({"wait": -1}, "wait"),
        ({"wait": "soon"}, "wait"),
        ({"on": 3}, "on"),
        ({"max_retry_after": "x"}, "max_retry_after"),
    ],
)
def test_bad_arguments(given: dict[str, Any], words: str) -> None:
    """A wrong argument is an error at decoration that names it."""
    with pytest.raises(scalekit.ConfigurationError, match=words):
        scalekit.retry(**given)
