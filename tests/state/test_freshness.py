"""freshness and marks: the times of an answer, and what ends it by name."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalekit._cache.freshness import FOREVER, Freshness, Times
from scalekit._cache.marks import Marks, named

SETTINGS: dict[str, Any] = dict.fromkeys(("ttl", "jitter", "sliding", "stale", "stale_if_error", "negative"))


def freshness(**given_settings: Any) -> Freshness:
    return Freshness({**SETTINGS, "early": False, **given_settings})


seconds = st.floats(0.001, 1e6)


@given(
    ttl=seconds,
    jitter=st.none() | st.floats(0.001, 0.999),
    sliding=st.none() | seconds,
    stale=st.none() | seconds,
    stale_if_error=st.none() | seconds,
    early=st.booleans() | st.floats(0.1, 100),
    now=st.floats(0, 1e9),
    cost=st.floats(0, 1e4),
    seed=st.integers(),
)
def test_the_times_of_an_answer_are_in_order(
    ttl: float,
    jitter: float | None,
    sliding: float | None,
    stale: float | None,
    stale_if_error: float | None,
    early: Any,
    now: float,
    cost: float,
    seed: int,
) -> None:
    """renew <= fresh <= usable <= expires, never past what the settings allow, and never renewed in the first half."""
    one = freshness(
        ttl=ttl,
        jitter=None if jitter is None else jitter * ttl,
        sliding=sliding,
        stale=stale,
        stale_if_error=stale_if_error,
        early=early,
    )
    times = one.times(now, ttl, cost, random.Random(seed).random)
    assert now <= times.renew <= times.fresh <= times.usable <= times.expires
    assert times.fresh <= now + min(ttl, sliding or FOREVER)
    assert times.renew >= now + (times.fresh - now) / 2
    assert times.usable == times.fresh + (stale or 0)
    assert times.expires == times.fresh + max(stale or 0, stale_if_error or 0)
    if not early:
        assert times.renew == times.fresh
    later = one.rearmed(times, times.fresh + 1, 30)
    assert times.usable <= later.usable <= later.expires == times.expires
    assert later.fresh == times.fresh, "a failure makes nothing fresh"
    assert later.renew <= later.usable


def test_early_is_xfetch() -> None:
    """The refresh begins before the end by an exponential time whose mean is the cost of the answer, times `early`."""
    draw = random.Random(7).random
    for early, mean in ((True, 3.0), (2, 6.0)):
        one = freshness(ttl=1000, early=early)
        ahead = [1000 - one.times(0, 1000, 3.0, draw).renew for _ in range(20_000)]
        assert statistics.mean(ahead) == pytest.approx(mean, rel=0.05)
        assert statistics.stdev(ahead) == pytest.approx(mean, rel=0.05)


def test_jitter_only_shortens() -> None:
    """Lifetimes are spread between `ttl` - `jitter` and `ttl`."""
    one, draw = freshness(ttl=100, jitter=20), random.Random(1).random
    ends = [one.times(0, 100, 0, draw).expires for _ in range(1000)]
    assert 80 <= min(ends) < 81
    assert 99 < max(ends) <= 100


def test_what_a_slower_tier_gives_back_obeys_the_stricter_settings() -> None:
    """Its own end counts, or today's `ttl` if that is shorter; an error has the store's end alone."""
    assert freshness(ttl=10).found(stored=0, fresh=100, expires=100, failed=False) == Times(10, 10, 10, 10)
    assert freshness(ttl=1000).found(stored=0, fresh=100, expires=100, failed=False) == Times(100, 100, 100, 100)
    lenient = freshness(ttl=10, stale=5, stale_if_error=1000)
    assert lenient.found(0, 10, 50, False) == Times(10, 10, 15, 50)
    assert lenient.found(0, 70, 70, True) == Times(70, 70, 70, 70)


NAMES = st.sampled_from("abcdef")


@given(st.lists(st.tuples(st.lists(NAMES, max_size=3), st.integers(0, 20)), max_size=30), st.integers(1, 6))
def test_marks_never_forget_an_end(steps: list[tuple[list[str], int]], room: int) -> None:
    """Whatever was ended stays ended, also when names were forgotten for want of room; with room enough, nothing else
    is."""
    marks, exact = Marks(room), Marks()
    last: dict[str, float] = {}
    for now, (names, _) in enumerate(steps):
        marks.set(names, now)
        exact.set(names, now)
        last.update(dict.fromkeys(names, float(now)))
    for names, born in steps:
        truth = max((last.get(name, -1.0) for name in names), default=-1.0)
        ended = truth if names and born <= truth else None
        assert exact.ended(names, born) == ended
        if ended is not None:
            assert marks.ended(names, born) is not None
    assert len(marks._ended.times) <= room


def test_names_in_scopes() -> None:
    """An entry lists its names in every scope around it, what is ended is named in one; scopes do not run together."""
    outside = named(["tag"], (), True)
    assert outside == named(["tag"], (), False) == ("tag",)
    inside = named(["tag"], ("acme", "bob"), True)
    assert len(inside) == 3
    assert named(["tag"], ("acme",), False)[0] in inside
    assert named(["tag"], ("acme", "bob"), False)[0] in inside
    assert named(["tag"], (), False)[0] in inside
    assert named(["tag"], ("bob",), False)[0] not in inside
    assert named(["tag"], ("acmebob",), False)[0] not in inside
