"""How long the server asks us to wait: RFC 9110 section 10.2.3 (Retry-After) and what the SDKs put beside it.

`retry-after-ms` wins over `Retry-After`, which is whole or fractional seconds or an HTTP date; then come google's
`retryDelay` in the body and a `.retry_after` on the exception itself. A hint is capped, so that "come back in an hour"
does not hold a call for an hour. Jitter is not added here: who waits adds it, and only upwards, lest the herd come back
at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from scalekit._signals.reading import elements, get, header

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s", re.ASCII)


def hint(error: BaseException, wall_clock: Callable[[], float], cap: float) -> float | None:
    """Seconds to wait, from 0 to `cap`; None when the server does not say.

    `wall_clock` gives seconds since the epoch, against which an HTTP date is read.
    """
    for found in (
        _number(header(error, "retry-after-ms"), 1000),
        parse_retry_after(header(error, "retry-after"), wall_clock),
        _google(error),
        _own(get(error, "retry_after")),
    ):
        if found is not None:
            return min(found, cap)
    return None


def parse_retry_after(text: str | None, wall_clock: Callable[[], float]) -> float | None:
    """The value of a Retry-After header in seconds from now; None when it is absent or not one. A past date is 0.

    >>> parse_retry_after("1.5", lambda: 0.0)
    1.5
    >>> parse_retry_after("Thu, 01 Jan 1970 00:01:40 GMT", lambda: 40.0)
    60.0
    """
    if text is None:
        return None
    if (seconds := _number(text, 1)) is not None:
        return seconds
    from calendar import timegm
    from email.utils import parsedate_tz

    try:
        date = parsedate_tz(text)
        return None if date is None else max(0.0, timegm(date[:9]) - (date[9] or 0) - wall_clock())
    except (OverflowError, TypeError, ValueError):
        return None


def _number(text: str | None, divisor: int) -> float | None:
    return float(text) / divisor if text is not None and _NUMBER.fullmatch(text) else None


def _google(error: BaseException) -> float | None:
    """`{"error": {"details": [{"@type": ".../google.rpc.RetryInfo", "retryDelay": "12s"}]}}`, or its inner dict."""
    details = get(error, "details")
    inner = get(details, "error")
    for row in elements(get(details if inner is None else inner, "details")):
        delay = get(row, "retryDelay")
        if isinstance(delay, str) and (match := _DELAY.fullmatch(delay.strip())):
            return float(match[1])
    return None


def _own(value: Any) -> float | None:
    """`.retry_after` of pydantic-ai and others: a number of seconds or a timedelta."""
    if callable(total := get(value, "total_seconds")) and not isinstance(value, type):
        try:
            value = total()
        except Exception:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and not math.isnan(value):
        return float(value) if value <= 1e9 else 1e9
    return None
