"""Durations, rates, sizes and counts, read in one place, so that a wrong unit is an error where it is written.

A unit that is guessed is an outage later: `timeout="10"` (ten what?), `ttl="1m"` (a minute or a month?),
`max_bytes="64mb"` (millibits?). So the spelling is strict, each unit has one, and what comes close is answered with the
right one: every error names the argument, shows what was given, and shows what to write instead.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import timedelta

    Duration = float | str | timedelta

__all__ = ["count", "rate", "seconds", "size"]

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "B": 1,
    **{prefix + "B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    **{prefix + "iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_THOUSANDS: Final = {"": 1.0, "k": 1e3, "M": 1e6}

# What people write, and the unit they mean. Only used to say what would be right.
_MEANT_SECONDS: Final = {
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_PER: Final = {
    "rps": "s",
    "qps": "s",
    "tps": "s",
    "rpm": "m",
    "qpm": "m",
    "tpm": "m",
    "rph": "h",
    "rpd": "d",
    "tpd": "d",
}

_NUMBER: Final = r"\d+(?:\.\d+)?"
_DURATION: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|d)", re.ASCII)
_RATE: Final = re.compile(rf"({_NUMBER})([kM]?)/({_NUMBER})?(ms|s|m|h|d)", re.ASCII)
_SIZE: Final = re.compile(rf"({_NUMBER})(B|[kMGT]B|[KMGT]iB)", re.ASCII)
_COMMA: Final = re.compile(r",(?=\d{3}(?!\d))")  # of thousands; any other comma is a decimal one
_WORD: Final = re.compile(r"([\d.,_]+)\s*([a-zµ]*)\s*", re.ASCII | re.IGNORECASE)


def seconds(value: Any, argument: str, *, zero: bool = False) -> float:
    """A duration as seconds; `zero=True` where no time at all makes sense.

    `value` is a number of seconds, a `timedelta`, or a string such as "250ms", "10s", "1.5h", "7d".
    Anything else is a `ConfigurationError` about `argument`.

    >>> seconds("1.5h", "ttl"), seconds(90, "ttl"), seconds("250ms", "ttl")
    (5400.0, 90.0, 0.25)
    >>> seconds("10 sec", "ttl")
    Traceback (most recent call last):
        ...
    scalekit.ConfigurationError: ttl='10 sec' is not a duration: write "10s". A duration is a number of \
seconds, a timedelta, or one of the forms "250ms", "10s", "5m", "1h", "7d".
    """
    total: Any = getattr(value, "total_seconds", None)  # a timedelta, known by duck type: importing datetime is slow
    if callable(total) and not isinstance(value, type):
        result = _float(total())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        result = _float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        result = _float(match[1]) * _SECONDS[match[2]]
    else:
        raise _wrong(value, argument, "a duration", _meant_duration(value), _DURATIONS)
    if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
        bound = "not negative" if zero else "above zero"
        raise _wrong(value, argument, f"a duration that is finite and {bound}", None, _DURATIONS)
    return result


def rate(value: Any, argument: str) -> tuple[float, float]:
    """A rate as (count, seconds): "500/m" is (500.0, 60.0), at most 500 in any 60 seconds.

    The count may end in k (thousand) or M (million); the interval is one unit ("/s", "/m", "/h", "/d") or several of it
    ("/10s"). Anything else is a `ConfigurationError` about `argument`; so is a count below one, which admits nothing.

    >>> rate("500/m", "rate"), rate("2M/d", "tokens"), rate("100/10s", "rate")
    ((500.0, 60.0), (2000000.0, 86400.0), (100.0, 10.0))
    """
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(value, argument, "a rate", _meant_rate(value), _RATES)
    number, interval = _float(match[1]) * _THOUSANDS[match[2]], _float(match[3] or 1) * _SECONDS[match[4]]
    if not (math.isfinite(number) and math.isfinite(interval)) or number == 0 or interval == 0:
        raise _wrong(value, argument, "a rate above zero", None, _RATES)
    if number < 1:
        same = f"1/{_plain(interval / number)}s"
        raise _wrong(value, argument, "a rate of at least one in its interval", same, _RATES)
    return number, interval


def size(value: Any, argument: str) -> int:
    """A size in bytes: an int, or a string with a decimal ("500kB", "64MB", "1GB") or binary unit ("512KiB", "64MiB").

    Anything else, zero among it, is a `ConfigurationError` about `argument`.

    >>> size("64MB", "max_bytes"), size("1.5KiB", "max_bytes"), size(4096, "max_bytes")
    (64000000, 1536, 4096)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        result = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)) and math.isfinite(_float(match[1])):
        result = int(_float(match[1]) * _BYTES[match[2]])
    else:
        raise _wrong(value, argument, "a size", _meant_size(value), _SIZES)
    if result < 1:
        raise _wrong(value, argument, "a size of at least one byte", None, _SIZES)
    return result


def count(value: Any, argument: str, *, minimum: int = 1) -> int:
    """A whole number of things, at least `minimum`; anything else is a `ConfigurationError` about `argument`.

    >>> count(3, "attempts")
    3
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
        return value
    meant: int | None = None
    if isinstance(value, float | str):
        number = _float(value)
        meant = int(number) if math.isfinite(number) and number == int(number) and number >= minimum else None
    said = "" if meant is None else f": write {argument}={meant}"
    raise ConfigurationError(f"{argument}={_shown(value)} is not a whole number of at least {minimum}{said}.")


_DURATIONS: Final = (
    'A duration is a number of seconds, a timedelta, or one of the forms "250ms", "10s", "5m", "1h", "7d".'
)
_RATES: Final = 'A rate is one of the forms "10/s", "500/m", "10k/d", "2M/d", "100/10s".'
_SIZES: Final = 'A size is a number of bytes, or one of the forms "500kB", "64MB", "1GB", "64MiB".'


def _wrong(value: Any, argument: str, what: str, meant: str | None, forms: str) -> ConfigurationError:
    said = "" if meant is None else f': write "{meant}"'
    return ConfigurationError(f"{argument}={_shown(value)} is not {what}{said}. {forms}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # an int of 5,000 digits has no repr, nor has a broken object of the user's
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def _float(number: Any) -> float:
    try:
        return float(number)
    except (OverflowError, TypeError, ValueError):
        return math.nan


def _plain(number: float) -> str:
    return f"{number:.6g}" if abs(number) < 1e6 and number != int(number) else str(int(number))


def _whole(total: float) -> str:
    """5400.0 as "90m": the largest unit that needs no fraction."""
    for unit in ("d", "h", "m"):
        if total % _SECONDS[unit] == 0:
            return f"{_plain(total / _SECONDS[unit])}{unit}"
    return f"{_plain(total)}s"


def _words(text: str) -> list[tuple[float, str]]:
    """ "1 hr 30min" as [(1.0, "hr"), (30.0, "min")]; [] when it is not of that form."""
    found = [(_float(_COMMA.sub("", m[1]).replace(",", ".").replace("_", "")), m[2]) for m in _WORD.finditer(text)]
    whole = "".join(m[0] for m in _WORD.finditer(text)) == text
    return found if found and whole and all(0.01 <= number < math.inf for number, _ in found) else []


def _meant_duration(value: Any) -> str | None:
    words = _words(value.strip()) if isinstance(value, str) else []
    match [(number, _MEANT_SECONDS.get(word.lower(), word.lower())) for number, word in words]:
        case [(number, "w" | "week" | "weeks")]:
            return f"{_plain(number * 7)}d"
        case [(number, "")]:
            return f"{_plain(number)}s"
        case [(number, unit)] if unit in _SECONDS:
            return f"{_plain(number)}{unit}"
        case [_, _, *_] as parts if all(unit in _SECONDS for _, unit in parts):
            return _whole(sum(number * _SECONDS[unit] for number, unit in parts))
        case _:
            return None


def _meant_rate(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 1:
        return f"{_plain(value)}/s"
    if not isinstance(value, str):
        return None
    how_many, _, each = re.sub(r"\s+per\s+", "/", value.strip(), flags=re.IGNORECASE).partition("/")
    match _words(how_many):
        case [(number, word)] if number >= 1 and word.lower() in {"", "k", "m", "requests", "tokens", "calls"}:
            thousands = {"k": "k", "m": "M"}.get(word.lower(), "")
            unit = _MEANT_SECONDS.get(each.strip().lower())
            return f"{_plain(number)}{thousands}/{unit}" if unit else None
        case [(number, word)] if number >= 1 and word.lower() in _PER and not each:
            return f"{_plain(number)}/{_PER[word.lower()]}"
        case _:
            return None


def _meant_size(value: Any) -> str | None:
    if isinstance(value, float) and math.isfinite(value) and value >= 1:
        return f"{int(value)}B"
    match _words(value.strip()) if isinstance(value, str) else []:
        case [(number, word)]:
            letter = word[:1].lower()
            if word.lower() in {"", "b", "byte", "bytes"}:
                return f"{_plain(number)}B" if number >= 1 else None
            if word.lower() in {f"{letter}ib", f"{letter}i"}:
                return f"{_plain(number)}{letter.upper()}iB" if letter in "kmgt" else None
            if word.lower() in {letter, f"{letter}b"} and letter in "kmgt":
                return f"{_plain(number)}{'k' if letter == 'k' else letter.upper()}B"
            return None
        case _:
            return None
