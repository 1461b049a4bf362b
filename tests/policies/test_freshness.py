"""cache: when an answer is out of date, what is kept at all, and for how long."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from colours import Colour

import scalekit
from scalekit import events


class Source:
    """A function of the colour under test that counts its calls, can be slow, and can fail."""

    def __init__(self, colour: Colour) -> None:
        self.colour = colour
        self.calls = 0
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.gate: threading.Event | None = None

    def __call__(self, policy: Any) -> Any:
        @policy
        @self.colour.define
        async def ask(question: str = "why?") -> str:
            self.calls += 1
            number = self.calls
            if self.seconds:
                await self.colour.sleep(self.seconds)
            while self.gate is not None and not self.gate.is_set():
                await self.colour.sleep(0.001)
            if self.error is not None:
                raise self.error
            return f"{question} {number}"

        return ask


async def test_an_old_answer_is_served_while_one_refresh_runs(colour: Colour) -> None:
    """From `ttl` on, for `stale`, nobody waits: all get the old answer, one call brings the new one."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="50ms", stale="10s"))
    assert await colour.call(ask) == "why? 1"
    await colour.sleep(0.06)
    source.gate = threading.Event()
    assert await colour.gather(*[lambda: colour.call(ask)] * 20) == ["why? 1"] * 20
    await colour.until(lambda: source.calls == 2)
    assert await colour.call(ask) == "why? 1"
    source.gate.set()
    await colour.until(lambda: scalekit.controls(ask).cache.stats().misses == 2 and not _flying(ask))
    assert await colour.call(ask) == "why? 2"
    stats = scalekit.controls(ask).cache.stats()
    assert (source.calls, stats.stale) == (2, 21)


def _flying(function: Any) -> bool:
    return bool(function.__scalekit__.first("cache").site(function.__scalekit__.target).flights.flying)


async def test_a_refresh_that_began_before_an_invalidation_never_writes_back(colour: Colour) -> None:
    """What was invalidated while it was being refreshed is computed anew, and the refresh's answer is dropped."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="30ms", stale="10s"))
    await colour.call(ask)
    await colour.sleep(0.04)
    source.gate = threading.Event()
    assert await colour.call(ask) == "why? 1"
    await colour.until(lambda: source.calls == 2)
    await colour.call(scalekit.controls(ask).cache.invalidate)
    source.gate.set()
    assert await colour.call(ask) == "why? 3"
    await colour.sleep(0.02)
    assert await colour.call(scalekit.controls(ask).cache.peek) == "why? 3"


async def test_a_refresh_that_fails_is_not_tried_at_every_hit(colour: Colour) -> None:
    """After a failed refresh the old answer is served untried for the throttle period."""
    scalekit.configure(cache_throttle="150ms")
    source = Source(colour)
    ask = source(scalekit.cache(ttl="30ms", stale="10s"))
    await colour.call(ask)
    await colour.sleep(0.04)
    source.error = ConnectionResetError("down")
    for _ in range(20):
        assert await colour.call(ask) == "why? 1"
        await colour.sleep(0.002)
    assert source.calls == 2
    assert scalekit.controls(ask).cache.stats().errors == 1
    source.error = None
    await colour.sleep(0.16)
    await colour.call(ask)
    await colour.until(lambda: source.calls == 3 and not _flying(ask))
    assert await colour.call(ask) == "why? 3"


async def test_the_old_answer_is_better_than_an_error(colour: Colour) -> None:
    """`stale_if_error`: past `ttl` callers wait for a new answer, and get the old one if that fails; it is told."""
    scalekit.configure(cache_throttle="100ms")
    source, seen = Source(colour), list[events.Event]()
    ask = source(scalekit.cache(ttl="30ms", stale_if_error="10s"))
    await colour.call(ask)
    await colour.sleep(0.04)
    assert await colour.call(ask) == "why? 2", "an old answer although a new one could be had"
    await colour.sleep(0.04)
    source.error = ConnectionResetError("down")
    unsubscribe = events.subscribe(seen.append)
    for _ in range(5):
        assert await colour.call(ask) == "why? 2"
    unsubscribe()
    assert source.calls == 3, "tried again within the throttle period"
    served = [event for event in seen if isinstance(event, events.ServedStale)]
    assert [event.error for event in served] == [source.error]
    assert served[0].age >= 0.03
    stats = scalekit.controls(ask).cache.stats()
    assert (stats.errors, stats.stale >= 1) == (1, True)
    await colour.sleep(0.11)
    assert await colour.call(ask) == "why? 2"
    assert source.calls == 4


async def test_the_old_answer_ends_too(colour: Colour) -> None:
    """After `stale_if_error` the error is the caller's, as it was raised; nothing else replaces it."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="20ms", stale="20ms", stale_if_error="40ms"))
    await colour.call(ask)
    source.error = ConnectionResetError("down")
    await colour.sleep(0.1)
    with pytest.raises(ConnectionResetError) as raised:
        await colour.call(ask)
    assert raised.value is source.error


async def test_all_who_wait_get_the_old_answer(colour: Colour) -> None:
    """A flight that fails serves the old answer to everyone who joined it, each with a copy of their own."""
    scalekit.configure(cache_throttle="10s")
    state = {"fail": False}

    @scalekit.cache(ttl="20ms", stale_if_error="10s")
    @colour.define
    async def ask() -> list[int]:
        if state["fail"]:
            await colour.sleep(0.05)
            raise ConnectionResetError
        return [1]

    await colour.call(ask)
    state["fail"] = True
    await colour.sleep(0.03)
    answers = await colour.gather(*[lambda: colour.call(ask)] * 5)
    assert answers == [[1]] * 5
    answers[0].append(2)
    assert answers[1] == [1]
    assert await colour.call(ask) == [1]


async def test_errors_that_are_answers_are_kept(colour: Colour) -> None:
    """`negative=`: such an error is raised again without a call, for its own time; a subclass has its class's time, and
    others are not kept."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="10s", negative={LookupError: "10s", KeyError: "30ms"}))
    source.error = IndexError("no", 7)
    raised = []
    for _ in range(3):
        with pytest.raises(IndexError) as caught:
            await colour.call(ask)
        raised.append(caught.value)
    assert source.calls == 1
    assert all(error.args == ("no", 7) for error in raised)
    assert raised[0] is source.error
    assert len({id(error) for error in raised}) == 3
    source.error = KeyError("x")
    for _ in range(2):
        with pytest.raises(KeyError):
            await colour.call(ask, "another")
    assert source.calls == 2
    await colour.sleep(0.04)
    source.error = None
    assert await colour.call(ask, "another") == "another 3"
    source.error = ValueError("x")
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            await colour.call(ask, "third")
    assert source.calls == 5


async def test_a_kept_error_keeps_nothing_else_alive(colour: Colour) -> None:
    """The frames that the error went through, and what they held, are freed."""

    class Big:
        pass

    held: list[weakref.ref[Big]] = []

    @scalekit.cache(ttl="10s", negative={LookupError: "10s"})
    @colour.define
    async def ask() -> None:
        big = Big()
        held.append(weakref.ref(big))
        try:
            raise ValueError("inner")
        except ValueError as inner:
            raise LookupError("outer") from inner

    for _ in range(2):
        with pytest.raises(LookupError):
            await colour.call(ask)
    await colour.sleep(0.001)
    gc.collect()
    assert held[0]() is None
    with pytest.raises(LookupError, match="outer") as raised:
        await colour.call(ask)
    assert isinstance(raised.value.__cause__, ValueError)
    assert len(held) == 1


async def test_an_error_never_replaces_an_old_answer_that_may_be_served(colour: Colour) -> None:
    """With `negative` and `stale_if_error`, the old answer comes first."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="20ms", stale_if_error="10s", negative={LookupError: "10s"}))
    await colour.call(ask)
    await colour.sleep(0.03)
    source.error = LookupError("gone")
    assert await colour.call(ask) == "why? 1"
    assert await colour.call(ask) == "why? 1"


async def test_a_ttl_of_the_answer(colour: Colour) -> None:
    """`ttl=` a function of the answer: each answer its own time, zero is none, None is for ever."""
    calls: list[Any] = []

    @scalekit.cache(ttl=lambda answer: answer["ttl"])
    @colour.define
    async def ask(ttl: Any) -> dict[str, Any]:
        calls.append(ttl)
        return {"ttl": ttl}

    for ttl in ("30ms", "10s", 0, None):
        for _ in range(2):
            await colour.call(ask, ttl)
    await colour.sleep(0.04)
    for ttl in ("30ms", "10s", 0, None):
        await colour.call(ask, ttl)
    assert calls == ["30ms", "10s", 0, 0, None, "30ms", 0]
    assert scalekit.controls(ask).cache.stats().unstored == 3


async def test_what_is_not_worth_keeping_is_handed_out(colour: Colour) -> None:
    """`when=`: an answer that it denies reaches its callers, and the next one computes anew; the reason is told."""
    seen: list[events.Event] = []
    calls: list[int] = []

    @scalekit.cache(ttl="10s", when=lambda answer: len(answer) > 1)
    @colour.define
    async def ask(count: int) -> list[int]:
        calls.append(count)
        await colour.sleep(0.01)
        return [0] * count

    unsubscribe = events.subscribe(seen.append)
    assert await colour.gather(*[lambda: colour.call(ask, 1)] * 3) == [[0]] * 3
    for count in (1, 2, 2):
        assert await colour.call(ask, count) == [0] * count
    unsubscribe()
    assert calls == [1, 1, 2]
    reasons = [event.reason for event in seen if isinstance(event, events.NotStored)]
    assert len(reasons) == 2
    assert "when=" in reasons[0]


@pytest.mark.parametrize("setting", [{"when": lambda answer: 1 / 0}, {"ttl": lambda answer: 1 / 0}])
async def test_a_judge_that_fails_costs_no_caller_anything(colour: Colour, setting: dict[str, Any]) -> None:
    """`when=` and `ttl=` that raise: the answer is handed out and not kept, and the reason is told."""
    source, seen = Source(colour), list[events.Event]()
    ask = source(scalekit.cache(**setting))
    unsubscribe = events.subscribe(seen.append)
    assert await colour.call(ask) == "why? 1"
    assert await colour.call(ask) == "why? 2"
    unsubscribe()
    reasons = [event.reason for event in seen if isinstance(event, events.NotStored)]
    assert len(reasons) == 2
    assert "ZeroDivisionError" in reasons[0]


async def test_sliding(colour: Colour) -> None:
    """`sliding=`: what is asked for lives on, up to `ttl`; what is not is gone."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="400ms", sliding="150ms"))
    await colour.call(ask)
    for _ in range(4):
        await colour.sleep(0.06)
        assert await colour.call(ask) == "why? 1"
    await colour.sleep(0.2)
    assert await colour.call(ask) == "why? 2", "not asked for during `sliding`"
    for _ in range(12):
        await colour.sleep(0.04)
        await colour.call(ask)
    assert source.calls == 3, "`ttl` did not bound it"


async def test_early(colour: Colour) -> None:
    """`early=`: a hit shortly before the end starts the refresh, and is served at once."""
    source = Source(colour)
    source.seconds = 0.02
    ask = source(scalekit.cache(ttl="200ms", early=1_000_000))  # so early that only the bound counts: half of the life
    await colour.call(ask)
    assert await colour.call(ask) == "why? 1"
    assert source.calls == 1, "refreshed in the first half of its life"
    await colour.sleep(0.12)
    assert await colour.call(ask) == "why? 1"
    await colour.until(lambda: source.calls == 2 and not _flying(ask))
    assert await colour.call(ask) == "why? 2"
    assert scalekit.controls(ask).cache.stats().stale == 0


async def test_the_figures_of_one_answer(colour: Colour) -> None:
    """`lookup` tells tier, age and freshness, also of an answer that is kept only for an outage, and of an error."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="40ms", stale_if_error="10s", negative={LookupError: "10s"}))
    control = scalekit.controls(ask).cache
    assert await colour.call(control.lookup) is None
    await colour.call(ask)
    kept = await colour.call(control.lookup)
    assert (kept.value, kept.tier, kept.fresh, kept.error) == ("why? 1", "memory", True, None)
    assert 0 <= kept.age < 5
    assert 9 < kept.gone <= 10.04
    await colour.sleep(0.05)
    kept = await colour.call(control.lookup)
    assert (kept.value, kept.fresh, kept.age >= 0.05) == ("why? 1", False, True)
    assert await colour.call(control.peek) is None, "a call would not be answered with it"
    assert not await colour.call(control.contains)
    source.error = LookupError("x")
    with pytest.raises(LookupError):
        await colour.call(ask, "nobody")
    kept = await colour.call(control.lookup, "nobody")
    assert (kept.value, type(kept.error)) == (None, LookupError)
    assert control.stats().hits == 0, "looking is not asking"


async def test_several_at_once(colour: Colour) -> None:
    """`put_many` and `get_many` take tuples of arguments, and keep their order."""
    source = Source(colour)
    ask = source(scalekit.cache(ttl="10s"))
    control = scalekit.controls(ask).cache
    await colour.call(control.put_many, [(("a",), "A"), (("b",), None)])
    kept = await colour.call(control.get_many, [("b",), ("x",), ("a",)])
    assert [None if one is None else (one.value, one.tier) for one in kept] == [(None, "memory"), None, ("A", "memory")]
    assert [await colour.call(ask, name) for name in ("a", "b")] == ["A", None]
    assert source.calls == 0


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"stale": "1m"}, "stale= needs"),
        ({"stale_if_error": "1m"}, "stale_if_error= needs"),
        ({"jitter": "1m"}, "jitter= needs"),
        ({"early": True}, "early= needs"),
        ({"ttl": "1m", "jitter": "1m"}, "takes away all"),
        ({"ttl": "1m", "early": -1}, "early=-1"),
        ({"ttl": "1m", "early": "yes"}, "early='yes'"),
        ({"negative": LookupError}, "negative="),
        ({"negative": {"LookupError": "1m"}}, "no class of Exception"),
        ({"negative": {KeyboardInterrupt: "1m"}}, "no class of Exception"),
        ({"when": True}, "when=True"),
        ({"types": ["x"]}, "types="),
        ({"codec": object()}, "codec="),
        ({"tiers": []}, "tiers="),
        ({"tiers": ["disc"]}, "tiers="),
        ({"tiers": "memory"}, "tiers="),
        ({"tiers": ["disk", "memory"]}, "tiers="),
        ({"tiers": ["memory", "disk", "disk"]}, "twice"),
    ],
)
def test_wrong_settings_fail_at_decoration(settings_: dict[str, Any], words: str) -> None:
    """What cannot work is said where it is written."""
    with pytest.raises(scalekit.ConfigurationError, match=words):
        scalekit.cache(**settings_)
