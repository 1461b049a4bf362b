"""`Retry.around`, driven in one step by a runtime whose clock is a number: what is retried, when, what is raised."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
import tenacity

from scalekit import events, settings
from scalekit._core.drive import drive
from scalekit._core.target import Target
from scalekit._retry.policy import Retry, retry
from scalekit.errors import ConfigurationError, DeadlineExceeded, QueueFull, ScalekitWarning

GIVEN = ("attempts", "on", "wait", "stop", "max_retry_after")


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    settings.reset()
    yield
    settings.reset()


class Clock:
    """A runtime that does not wait."""

    blocking = True

    def __init__(self) -> None:
        self.time = 1000.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds

    waiter: Any = None
    home: Any = None


class Script:
    """A function that does what its script says: returns a value, or raises an exception."""

    def __init__(self, *steps: Any, effect: bool = False, **given: Any) -> None:
        self.steps = list(steps)
        self.calls = 0
        self.clock = Clock()
        self.policy = Retry(None, {name: given.get(name) for name in GIVEN}, _random=lambda: 0.5)

        def play(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
            if isinstance(step, BaseException):
                raise step
            return step() if callable(step) else step

        self.target = Target(play)
        self.target.runtime = self.clock
        self.target.effect = effect
        self.handler = self.policy.around(self.target.leaf(), self.target)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return drive(self.handler(*args, **kwargs))

    def fails(self, *args: Any) -> BaseException:
        try:
            self(*args)
        except BaseException as error:
            return error
        raise AssertionError("it did not fail")


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return httpx.HTTPStatusError(str(status), request=httpx.Request("GET", "http://x"), response=response)


def lost() -> ConnectionResetError:
    return ConnectionResetError("lost")


# what is retried ------------------------------------------------------------------------------------------------------


def test_nothing_failed() -> None:
    """A call that succeeds is called once and waits for nothing."""
    script = Script("fine")
    assert (script(), script.calls, script.clock.sleeps) == ("fine", 1, [])


def test_transient_faults_are_retried() -> None:
    """Classified faults are tried three times in all, with full jitter between."""
    script = Script(lost(), answered(500), "fine")
    assert script() == "fine"
    assert script.clock.sleeps == [0.25, 0.5]
    script = Script(lost())
    assert isinstance(script.fails(), ConnectionResetError)
    assert script.calls == 3


@pytest.mark.parametrize("error", [ValueError("?"), answered(404), answered(400), FileNotFoundError("?")], ids=repr)
def test_unknown_and_permanent_ones_are_not(error: Exception) -> None:
    """An unknown exception is never retried (the mail is not sent twice), nor is a 404."""
    script = Script(error)
    assert script.fails() is error
    assert script.calls == 1


def test_on_adds_types() -> None:
    """`on=` a type, or several, retries these as well as the classified faults, and may overrule a 404."""
    script = Script(ValueError(), lost(), KeyError(), "fine", on=(ValueError, LookupError), attempts=4)
    assert script() == "fine"
    assert Script(answered(404), "fine", on=httpx.HTTPStatusError)() == "fine"
    assert Script(TypeError(), on=ValueError).fails().__class__ is TypeError


def test_on_a_predicate_decides_alone() -> None:
    """A predicate is asked about every failure, also about classified ones, and its word is the last."""
    script = Script(ValueError("again"), "fine", on=lambda error: "again" in str(error))
    assert script() == "fine"
    script = Script(lost(), on=lambda error: isinstance(error, ValueError))
    assert isinstance(script.fails(), ConnectionResetError)
    assert script.calls == 1


@pytest.mark.parametrize("error", [QueueFull("full"), DeadlineExceeded("late")], ids=repr)
@pytest.mark.parametrize("on", [Exception, TimeoutError, lambda error: True, tenacity.retry_always], ids=repr)
def test_our_own_errors_never(error: Exception, on: Any) -> None:
    """Overloaded, DeadlineExceeded and their like are never retried, whatever `on=` says."""
    script = Script(error, on=on)
    assert script.fails() is error
    assert script.calls == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_cancellation_never(error: BaseException) -> None:
    """Cancellation passes through untouched, also past predicates that accept everything."""
    asked: list[Any] = []
    script = Script(error, on=lambda e: asked.append(e) or True)
    assert script.fails() is error
    assert (script.calls, asked, getattr(error, "__notes__", [])) == (1, [], [])


def test_a_spent_quota_never() -> None:
    """A spent quota is not retried for minutes."""
    response = httpx.Response(429, request=httpx.Request("POST", "http://x"))
    error = openai.RateLimitError("spent", response=response, body={"code": "insufficient_quota"})
    script = Script(error)
    assert script.fails() is error
    assert script.calls == 1


def test_effects() -> None:
    """A function with side effects is tried again only if the request surely never took effect."""
    assert Script(ConnectionRefusedError(), answered(429), "sent", effect=True)() == "sent"
    for doubtful in (lost(), answered(503), TimeoutError(), ValueError()):
        script = Script(doubtful, effect=True, on=Exception)
        assert script.fails() is doubtful
        assert script.calls == 1
        assert "side effects" in doubtful.__notes__[0]
    script = Script(None, effect=True, on=tenacity.retry_if_result(lambda value: value is None))
    assert (script(), script.calls) == (None, 1)


def test_effect_marked_after_decoration() -> None:
    """@effect above @retry counts as well: it is asked at each failure."""
    script = Script(lost())
    script.target.effect = True
    script.fails()
    assert script.calls == 1


# when -----------------------------------------------------------------------------------------------------------------


def test_retry_after() -> None:
    """The server's Retry-After is waited for, with a jitter that only adds."""
    script = Script(answered(429, retry_after="8"), "fine")
    assert script() == "fine"
    assert script.clock.sleeps == [9.0]


def test_retry_after_is_capped() -> None:
    """A hint beyond max_retry_after is cut to it; the default is two minutes."""
    script = Script(answered(429, retry_after="9999"), "fine", max_retry_after="10s")
    script()
    assert script.clock.sleeps == [11.25]
    script = Script(answered(429, retry_after="9999"), "fine")
    script()
    assert script.clock.sleeps == [135.0]


def test_the_longer_one_wins() -> None:
    """A hint shorter than the user's wait changes nothing."""
    script = Script(answered(429, retry_after="2"), "fine", wait=30)
    script()
    assert script.clock.sleeps == [30.0]


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (2, [2.0, 2.0]),
        ("250ms", [0.25, 0.25]),
        (timedelta(seconds=3), [3.0, 3.0]),
        (0, [0.0, 0.0]),
        (lambda attempt: attempt * 10, [10.0, 20.0]),
        (lambda attempt: f"{attempt}m", [60.0, 120.0]),
        (tenacity.wait_fixed(4), [4.0, 4.0]),
        (tenacity.wait_exponential(multiplier=3), [3.0, 6.0]),
        (tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3.0, 3.0]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(5)), [1.0, 5.0]),
        (tenacity.wait_none(), [0.0, 0.0]),
        (lambda retry_state: retry_state.attempt_number + 0.5, [1.5, 2.5]),
    ],
)
def test_wait(wait: Any, expected: list[float]) -> None:
    """`wait=` is a duration, a callable of the attempt's number, or tenacity's."""
    script = Script(lost(), wait=wait)
    script.fails()
    assert script.clock.sleeps == pytest.approx(expected)


def test_attempts() -> None:
    """`attempts=` counts the first one; one attempt is no retry."""
    for attempts in (1, 2, 5):
        script = Script(lost(), attempts=attempts)
        script.fails()
        assert script.calls == attempts


def test_attempts_follow_the_place() -> None:
    """Without `attempts=` the setting is looked up at use, so a later configure() counts."""
    script = Script(lost())
    settings.configure(retry_attempts=5)
    script.fails()
    assert script.calls == 5
    assert script.policy.describe(script.target)["attempts"] == 5


def test_stop() -> None:
    """`stop=` alone says when; with `attempts=` the first of the two."""
    for given, calls in (
        ({"stop": tenacity.stop_after_attempt(7)}, 7),
        ({"stop": tenacity.stop_after_delay(35), "wait": 10}, 5),
        ({"stop": tenacity.stop_before_delay(35), "wait": 10}, 4),
        ({"stop": tenacity.stop_after_attempt(7) | tenacity.stop_after_delay(15), "wait": 10}, 3),
        ({"stop": tenacity.stop_never, "attempts": 4}, 4),
        ({"stop": tenacity.stop_after_attempt(2), "attempts": 4}, 2),
        ({"stop": lambda retry_state: retry_state.idle_for >= 20, "wait": 10}, 3),
    ):
        script = Script(lost(), **given)
        script.fails()
        assert script.calls == calls, given


# tenacity's conditions ------------------------------------------------------------------------------------------------


def test_tenacity_conditions() -> None:
    """`retry_*` objects decide alone, as they do in tenacity, about exceptions..."""
    assert Script(ValueError(), "fine", on=tenacity.retry_if_exception_type(ValueError))() == "fine"
    script = Script(lost(), on=tenacity.retry_if_exception_type(ValueError))
    script.fails()
    assert script.calls == 1
    again = tenacity.retry_if_exception_message(match="again") | tenacity.retry_if_exception_cause_type(KeyError)
    caused = ValueError("no")
    caused.__cause__ = KeyError()
    assert Script(ValueError("again"), caused, "fine", on=again)() == "fine"


def test_tenacity_results() -> None:
    """...and about results; when the attempts are used up, the last result is returned as it is."""
    refused = tenacity.retry_if_result(lambda value: value is None)
    script = Script(None, None, "fine", on=refused, wait=1)
    assert (script(), script.clock.sleeps) == ("fine", [1.0, 1.0])
    script = Script(None, on=refused)
    assert (script(), script.calls) == (None, 3)
    both = tenacity.retry_if_result(lambda value: value is None) | tenacity.retry_if_exception_type(ValueError)
    assert Script(None, ValueError(), "fine", on=both)() == "fine"


def test_tenacity_try_again() -> None:
    """tenacity.TryAgain, raised by the function, asks for another attempt."""
    assert Script(tenacity.TryAgain(), "fine")() == "fine"


def test_tenacity_state() -> None:
    """A strategy sees one RetryCallState of tenacity's own a call: function, arguments, attempt, times, outcome."""
    seen: list[Any] = []

    def wait(retry_state: tenacity.RetryCallState) -> float:
        assert retry_state.outcome is not None
        outcome = retry_state.outcome
        seen.append((retry_state.attempt_number, retry_state.args, retry_state.kwargs, type(outcome.exception())))
        seen.append((retry_state.seconds_since_start, retry_state.idle_for, outcome.attempt_number))
        retry_state.mark = getattr(retry_state, "mark", 0) + 1
        return retry_state.mark

    script = Script(lost(), TimeoutError(), "fine", wait=wait, stop=tenacity.stop_never)
    assert script("q", model="m") == "fine"
    assert seen == [
        (1, ("q",), {"model": "m"}, ConnectionResetError),
        (0.0, 0.0, 1),
        (2, ("q",), {"model": "m"}, TimeoutError),
        (1.0, 1.0, 2),
    ]
    assert script.clock.sleeps == [1.0, 2.0]


# what is raised -------------------------------------------------------------------------------------------------------


def test_the_last_exception_as_itself() -> None:
    """The last exception is raised as itself: no wrapper, no context of earlier attempts, the user's traceback."""
    first, last = lost(), ConnectionResetError("for good")
    script = Script(first, first, last)
    error = script.fails()
    assert error is last
    assert error.__context__ is None
    assert error.__cause__ is None
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-4:] == ["retried", "attempt_on", "leaf", "play"]
    assert len(names) == len(set(names))


def test_one_note() -> None:
    """One note tells the attempts and the waits; a call that was not retried gets none."""
    error = Script(lost(), attempts=3).fails()
    assert len(error.__notes__) == 1
    assert "test_retry" in error.__notes__[0]
    assert "3 attempts failed, with waits of 0.25 + 0.5 s between them" in error.__notes__[0]
    assert not hasattr(Script(ValueError()).fails(), "__notes__")


def test_notes_do_not_pile_up() -> None:
    """An exception object that is raised again and again keeps one note, and the notes of others."""
    shared = lost()
    shared.add_note("of the user")
    script = Script(shared, attempts=2)
    for _ in range(5):
        script.fails()
    assert len(shared.__notes__) == 2
    assert shared.__notes__[0] == "of the user"


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that takes no attribute, and so no note."""

    code: int = 0


def test_an_exception_that_takes_no_note() -> None:
    """...is raised all the same."""
    error = FrozenError()
    script = Script(error, on=FrozenError)
    assert script.fails() is error
    assert script.calls == 3


def test_nothing_is_kept_alive() -> None:
    """After a call that failed twice and then succeeded, no exception and no frame waits for the collector."""
    seen: list[weakref.ref[BaseException]] = []

    class Lost(ConnectionResetError):
        pass

    def remembered(error: Lost) -> Lost:
        seen.append(weakref.ref(error))
        return error

    def fail() -> Any:
        raise remembered(Lost("lost"))  # a local variable would be a cycle of the test's own

    gc.collect()
    gc.disable()
    try:
        for given in ({}, {"stop": tenacity.stop_never}):
            assert Script(fail, fail, "fine", **given)() == "fine"
        assert [ref() for ref in seen] == [None] * 4
    finally:
        gc.enable()


def test_stop_iteration() -> None:
    """A StopIteration of a sync function is retried when asked for, and raised as itself."""
    error = StopIteration("empty")
    assert Script(error, "fine", on=StopIteration)() == "fine"
    script = Script(error, on=StopIteration)
    assert script.fails() is error
    assert script.calls == 3
    assert len(error.__notes__) == 1


def test_cancelled_while_waiting() -> None:
    """A cancellation during the wait ends the call at once, without the failure as its context."""

    async def cancel(seconds: float) -> None:
        raise asyncio.CancelledError

    script = Script(lost())
    script.clock.sleep = cancel
    script.handler = script.policy.around(script.target.leaf(), script.target)
    error = script.fails()
    assert isinstance(error, asyncio.CancelledError)
    assert error.__context__ is None
    assert script.calls == 1


# events ---------------------------------------------------------------------------------------------------------------


def test_events() -> None:
    """Each retry and each giving up is told to subscribers, with what was decided."""
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    try:
        first, second = lost(), answered(429, retry_after="4")
        script = Script(first, second, attempts=2)
        script.fails()
        name = script.target.name
        assert seen == [
            events.Retried(name, "retry", 1, 0.25, "transient", first),
            events.GaveUp(name, "retry", 2, "slow_down", second),
        ]
        seen.clear()
        Script(None, on=tenacity.retry_if_result(lambda value: value is None), attempts=2)()
        assert seen == [
            events.Retried(name, "retry", 1, 0.25, "result", None),
            events.GaveUp(name, "retry", 2, "result", None),
        ]
        seen.clear()
        Script("fine")()
        assert seen == []
    finally:
        unsubscribe()


# streams --------------------------------------------------------------------------------------------------------------


def streaming(opens: list[list[Any]], **given: Any) -> tuple[Callable[[], Any], list[int]]:
    """A generator function whose n-th opening yields the n-th list; an exception in it is raised there."""
    opened: list[int] = []

    def play() -> Iterator[Any]:
        opened.append(1)
        for item in opens[len(opened) - 1]:
            if isinstance(item, Exception):
                raise item
            yield item

    target = Target(play)
    target.runtime = Clock()
    handler = Retry(None, {name: given.get(name) for name in GIVEN}).around(target.leaf(), target)

    def read() -> Any:
        stream = drive(handler())
        items = [stream.first]
        for _ in range(len(opens[len(opened) - 1]) - 1):
            items.append(drive(stream.next()))
        return items

    return read, opened


def test_a_stream_reopens_before_its_first_item() -> None:
    """A stream that fails before its first item is opened again."""
    read, opened = streaming([[lost()], [answered(503)], ["a", "b"]])
    assert (read(), len(opened)) == (["a", "b"], 3)


def test_a_stream_never_replays() -> None:
    """A stream that fails after its first item is not opened again: no item is seen twice."""
    read, opened = streaming([["a", lost()], ["a", "b"]])
    with pytest.raises(ConnectionResetError):
        read()
    assert len(opened) == 1


def test_results_that_are_streams_are_not_judged() -> None:
    """A condition on results is not asked about an open stream."""
    asked: list[Any] = []
    read, _ = streaming([["a", "b"]], on=tenacity.retry_if_result(lambda value: asked.append(value) or True))
    assert (read(), asked) == (["a", "b"], [])


# how it is written ----------------------------------------------------------------------------------------------------


async def _async_predicate(error: BaseException) -> bool:
    return True


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attempts": 0}, "attempts=0 is not a whole number of at least 1"),
        ({"attempts": -1}, "attempts=-1"),
        ({"attempts": True}, "attempts=True"),
        ({"attempts": 2.5}, "attempts=2.5"),
        ({"attempts": "3"}, "write attempts=3"),
        ({"wait": "10 sec"}, 'write "10s"'),
        ({"wait": -1}, "wait=-1"),
        ({"wait": True}, "wait=True"),
        ({"max_retry_after": "soon"}, "max_retry_after='soon'"),
        ({"on": KeyboardInterrupt}, "never retried"),
        ({"on": QueueFull}, "scalekit's own errors are never retried"),
        ({"on": "ValueError"}, "on='ValueError' cannot be asked"),
        ({"on": ValueError("x")}, "an exception type, a tuple of them"),
        ({"on": (ValueError, "x")}, "'x' is no exception type"),
        ({"on": int}, "no exception type"),
        ({"on": _async_predicate}, "make it a plain def"),
        ({"stop": 5}, "write attempts=5"),
        ({"stop": "30s"}, "tenacity.stop_after_delay"),
        ({"stop": tenacity.stop_after_attempt}, "cannot be asked"),
    ],
)
def test_bad_arguments(given: dict[str, Any], said: str) -> None:
    """What cannot work is an error at decoration, which says what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        retry(**given)
    assert said in str(caught.value)


@pytest.mark.parametrize("misplaced", [4, ValueError, (ValueError, KeyError), tenacity.wait_fixed(1)])
def test_misplaced_arguments(misplaced: Any) -> None:
    """@retry(4) and @retry(ValueError) say how it is written."""
    with pytest.raises(ConfigurationError, match=r"@scalekit\.retry\((attempts=4|on=)"):
        retry(misplaced)


def test_a_wait_that_is_broken() -> None:
    """A `wait=` callable that gives nonsense is a clear error, with the failure as its context."""
    error = Script(lost(), wait=lambda attempt: "ten").fails()
    assert isinstance(error, ConfigurationError)
    assert isinstance(error.__context__, ConnectionResetError)


def test_names() -> None:
    """One name is one retry; other settings under it are an error."""
    one = retry(attempts=4, name="test_names")
    assert retry(attempts=4, name="test_names") is one
    with pytest.raises(ConfigurationError, match="test_names"):
        retry(attempts=5, name="test_names")


def test_decorated() -> None:
    """Bare and called, it gives back a function of the same name that retries."""
    failures = [ConnectionRefusedError(), ConnectionRefusedError()]

    @retry(wait=0)
    def ask(question: str) -> str:
        if failures:
            raise failures.pop()
        return question.upper()

    @retry
    def bare(question: str) -> str:
        return question

    assert (ask("a"), bare("b")) == ("A", "b")
    assert (ask.__name__, bare.__name__) == ("ask", "bare")


def test_a_retrying_client_is_warned_of_once() -> None:
    """A client with max_retries > 0 in the closure is one warning at decoration, however many layers follow."""
    client = openai.OpenAI(api_key="x")

    def ask() -> Any:
        return client.models

    with pytest.warns(ScalekitWarning, match="max_retries=0") as seen:
        once = retry(ask)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retry(attempts=2)(once)


def test_threads_share_nothing() -> None:
    """One policy value used by many threads keeps their calls apart."""
    results: list[Any] = []

    @retry(attempts=3, wait=0)
    def ask(failures: list[Exception]) -> int:
        if failures:
            raise failures.pop()
        return len(failures)

    def work() -> None:
        results.extend(ask([lost(), lost()]) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 1600
