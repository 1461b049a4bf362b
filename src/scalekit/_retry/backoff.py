"""How long to wait before the next attempt. Pure: randomness is an argument, and nothing here looks at a clock.

Exponential backoff with *full* jitter, as in Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog,
2015): a wait is drawn evenly between zero and a bound that doubles with every attempt. Of the variants measured there
it needs the fewest calls in all to get a crowd through, because it spreads the crowd over the whole bound instead of
moving it.

A server's Retry-After (RFC 9110 section 10.2.3) is a promise about *its* clock and is never cut short: jitter is only
added, and in proportion, or twenty clients that were told 600 seconds come back in the same instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST: Final = 0.5
CEILING: Final = 20.0
_SPREAD: Final = 0.25
_LEAST_SPREAD: Final = 0.1

Random = Callable[[], float]
"""Evenly distributed from 0.0 up to 1.0, as `random.random`."""


def full_jitter(attempt: int, random: Random, *, first: float = FIRST, ceiling: float = CEILING) -> float:
    """Seconds to wait after attempt number `attempt` (1 is the first) failed: evenly from 0 to a bound.

    The bound is `first` seconds after the first attempt, doubles with each, and stops at `ceiling`.

    >>> [full_jitter(attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 5, 6, 7)]
    [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0]
    """
    return random() * min(ceiling, first * 2.0 ** min(attempt - 1, 60))


def obeying(backoff: float, retry_after: float | None, random: Random) -> float:
    """`backoff`, or the server's `retry_after` where that is longer; then a jitter on top, never below what was asked.

    The jitter is up to a quarter of the hint, and at least up to 0.1 seconds, so that a crowd which was told one time
    comes back over a stretch of time.

    >>> obeying(0.3, 8.0, lambda: 0.5), obeying(0.3, None, lambda: 0.5), obeying(0.3, 0.0, lambda: 0.5)
    (9.0, 0.3, 0.3)
    """
    if retry_after is None or retry_after <= 0:
        return backoff
    return max(backoff, retry_after + random() * max(_LEAST_SPREAD, _SPREAD * retry_after))
