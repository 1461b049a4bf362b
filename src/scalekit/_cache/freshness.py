"""When an answer is out of date, and how long it is good for something all the same.

An answer that expires in one instant makes every caller of that instant wait for the next one, and makes an outage of a
second an error for everybody. So what is *out of date* and what is *gone* are two times, as in FusionCache (logical and
physical expiry), and everything else lies between them:

    landed        renew           fresh              usable                       expires
      │─────────────┼───────────────┼──────────────────┼──────────────────────────────┤
      │   served    │  served, and refreshed behind    │  computed anew; served if    │  gone
      │             │  early=       │  stale=          │  that fails: stale_if_error= │

`early` is XFetch (Vattani, Chierichetti, Lowenstein: "Optimal probabilistic cache stampede prevention", VLDB 2015): the
refresh begins `cost * early * -ln(random)` before the end, `cost` being the seconds that the answer took. The paper
draws at every look-up; here each process draws once an answer, since inside a process one refresher is certain anyway,
and a hit stays a comparison. It never begins in the first half of the life, so that a slow function does not run all
the time.

A refresh that failed re-arms the old answer: it is served untried for a throttle period.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Any, Final, NamedTuple

from scalekit import _units
from scalekit._core.policy import Settings
from scalekit.errors import ConfigurationError

__all__ = ["FOREVER", "Freshness", "Times"]

FOREVER: Final = float("inf")


class Times(NamedTuple):
    """Four instants of one answer, on one clock: see above."""

    renew: float
    fresh: float
    usable: float
    expires: float

    def shifted(self, by: float) -> Times:
        """The same on a clock that is ahead by so much."""
        return Times(*[time + by for time in self])


class Freshness:
    """The settings of one function, in seconds."""

    def __init__(self, given: Settings) -> None:
        self.of_result: Callable[[Any], Any] | None = given["ttl"] if callable(given["ttl"]) else None
        self.ttl = FOREVER if self.of_result else _optional(given, "ttl", FOREVER)
        self.jitter = _optional(given, "jitter", 0.0)
        self.sliding = _optional(given, "sliding", FOREVER)
        self.stale = _optional(given, "stale", 0.0)
        self.stale_if_error = _optional(given, "stale_if_error", 0.0)
        self.early = _beta(given["early"])
        self.negative = _negative(given["negative"])
        self.expires = self.of_result is not None or min(self.ttl, self.sliding) < FOREVER
        """Whether an answer of this function can be out of date at all."""
        self.plain = not (self.stale or self.stale_if_error or self.early or self.sliding < FOREVER)
        """Whether all four times of an answer are one."""
        for name in ("jitter", "stale", "stale_if_error", "early"):
            if given[name] and given["ttl"] is None and (name in ("jitter", "early") or given["sliding"] is None):
                raise ConfigurationError(f'cache: {name}= needs a time at which an answer is old: add ttl="10m".')
        if self.jitter >= self.ttl:
            raise ConfigurationError(
                f"cache: jitter={given['jitter']!r} takes away all of ttl={given['ttl']!r}: an answer lives between "
                f"ttl - jitter and ttl."
            )

    def lifetime(self, answer: Any) -> float:
        """The `ttl` of an answer; 0 or less: not to be kept. Runs the user's function, if `ttl` is one."""
        if self.of_result is None:
            return self.ttl
        given = self.of_result(answer)
        return FOREVER if given is None else _units.seconds(given, "ttl", zero=True)

    def times(self, now: float, ttl: float, cost: float, draw: Callable[[], float]) -> Times:
        """The times of an answer that lands now and took `cost` seconds; `draw()` gives numbers from [0, 1)."""
        if self.jitter:
            ttl = max(0.0, ttl - self.jitter * draw())
        fresh = now + min(ttl, self.sliding)
        if self.plain:
            return Times(fresh, fresh, fresh, fresh)
        renew = fresh
        if self.early and fresh < FOREVER:
            renew = max(now + (fresh - now) / 2, fresh + cost * self.early * log(1.0 - draw()))
        return self.past(renew, fresh)

    def found(self, stored: float, fresh: float, expires: float, failed: bool) -> Times:
        """The times of what a slower tier gave back: its own end, or ours if the settings became stricter."""
        if not failed:
            fresh = min(fresh, stored + self.ttl)
        if failed or self.plain:
            end = min(fresh, expires)
            return Times(end, end, end, end)
        _, _, usable, gone = self.past(fresh, fresh)
        return Times(fresh, fresh, min(usable, expires), min(gone, expires))

    def rearmed(self, times: Times, now: float, throttle: float) -> Times:
        """The times of what could not be refreshed: served untried for a while."""
        until = min(now + throttle, times.expires)
        usable = max(times.usable, until) if self.stale_if_error else times.usable
        return Times(min(until, usable), times.fresh, usable, times.expires)

    def slid(self, now: float, end: float) -> Times:
        """The times of what was asked for now, and does not live past `end` however often it is."""
        fresh = min(now + self.sliding, end)
        return self.past(fresh, fresh)

    def past(self, renew: float, fresh: float) -> Times:
        """The times of what is out of date at `fresh`."""
        return Times(renew, fresh, fresh + self.stale, fresh + max(self.stale, self.stale_if_error))

    def ttl_of(self, error: BaseException) -> float | None:
        """How long this error is kept as an answer; None: it is not."""
        for kind in type(error).__mro__:
            if kind in self.negative:
                return self.negative[kind]
        return None


def _optional(given: Settings, name: str, default: float) -> float:
    return default if given[name] is None else _units.seconds(given[name], name)


def _beta(early: Any) -> float:
    if isinstance(early, bool):
        return float(early)
    if isinstance(early, int | float) and 0 < early < FOREVER:
        return float(early)
    raise ConfigurationError(
        f"cache: early={early!r} is none of True, False and a number: 1 (True) is the paper's optimum, a larger one "
        f"begins earlier."
    )


def _negative(given: Any) -> Mapping[type[BaseException], float]:
    if given is None:
        return {}
    example = 'write negative={LookupError: "1m"}'
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"cache: negative={given!r} is no mapping of error classes to durations; {example}.")
    found: dict[type[BaseException], float] = {}
    for kind, ttl in given.items():  # pyright: ignore[reportUnknownVariableType]
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigurationError(f"cache: negative={given!r}: {kind!r} is no class of Exception; {example}.")
        found[kind] = _units.seconds(ttl, "negative")
    return found
