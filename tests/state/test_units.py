"""Durations, rates, sizes and counts: one spelling each, and an error that shows the right one."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalekit._units import count, rate, seconds, size
from scalekit.errors import ConfigurationError

READERS = [seconds, rate, size, count]
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())
)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (90, 90.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        ("250ms", 0.25),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("7d", 604800.0),
    ],
)
def test_duration(given_value: Any, expected: float) -> None:
    """A number, a timedelta and each unit are read as seconds."""
    assert seconds(given_value, "ttl") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given_value", "right"),
    [
        ("10 sec", "10s"),
        ("10", "10s"),
        ("5M", "5m"),
        ("5 minutes", "5m"),
        ("1,5h", "1.5h"),
        ("1h30m", "90m"),
        ("2 weeks", "14d"),
        ("100 millis", "100ms"),
        (" 10s", "10s"),
    ],
)
def test_duration_near_miss(given_value: str, right: str) -> None:
    """A near miss names the argument, shows what was given, and says what to write; that is then accepted."""
    with pytest.raises(ConfigurationError) as caught:
        seconds(given_value, "ttl")
    assert str(caught.value).startswith(f"ttl={given_value!r} ")
    assert f'write "{right}"' in str(caught.value)
    seconds(right, "ttl")


@pytest.mark.parametrize(
    "nonsense",
    [True, None, math.nan, math.inf, -1, "-5s", 0, "0s", timedelta(0), "soon", "", [], timedelta, 10**400, "٣s"],
)
def test_duration_nonsense(nonsense: Any) -> None:
    """Booleans, nan, infinity, negatives, zero and other types are errors that show the forms."""
    with pytest.raises(ConfigurationError, match=r'^ttl=.* one of the forms "250ms", "10s"'):
        seconds(nonsense, "ttl")


def test_duration_zero_where_it_makes_sense() -> None:
    """`zero=True` accepts no time at all, and still nothing below it."""
    assert seconds(0, "wait", zero=True) == 0.0
    with pytest.raises(ConfigurationError, match="not negative"):
        seconds(-0.001, "wait", zero=True)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("10/s", (10.0, 1.0)),
        ("500/m", (500.0, 60.0)),
        ("10k/d", (10_000.0, 86_400.0)),
        ("2M/d", (2_000_000.0, 86_400.0)),
        ("1.5k/h", (1_500.0, 3_600.0)),
        ("100/10s", (100.0, 10.0)),
    ],
)
def test_rate(given_value: str, expected: tuple[float, float]) -> None:
    """A rate is read as (count, seconds)."""
    assert rate(given_value, "rate") == expected


@pytest.mark.parametrize(
    ("given_value", "right"),
    [
        ("10 per second", "10/s"),
        ("10/sec", "10/s"),
        ("500/minute", "500/m"),
        ("600 rpm", "600/m"),
        ("10K/d", "10k/d"),
        ("2m/d", "2M/d"),
        ("10,000/m", "10000/m"),
        ("500 requests/m", "500/m"),
        (10, "10/s"),
        ("0.5/s", "1/2s"),
    ],
)
def test_rate_near_miss(given_value: Any, right: str) -> None:
    """A near miss of a rate is answered with the rate."""
    with pytest.raises(ConfigurationError, match=f'write "{right}"'):
        rate(given_value, "rate")
    rate(right, "rate")


@pytest.mark.parametrize("nonsense", ["0/s", "10/0s", "-1/s", "k/s", "10/fortnight", "10", True, None, math.nan, "10/"])
def test_rate_nonsense(nonsense: Any) -> None:
    """What is no rate is an error that shows the forms."""
    with pytest.raises(ConfigurationError, match=r'^rate=.* "10/s", "500/m"'):
        rate(nonsense, "rate")


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (4096, 4096),
        ("64MB", 64_000_000),
        ("1GB", 10**9),
        ("500kB", 500_000),
        ("64MiB", 2**26),
        ("1.5KiB", 1536),
        ("7B", 7),
    ],
)
def test_size(given_value: Any, expected: int) -> None:
    """A size is read as bytes; kB, MB, GB are decimal, KiB, MiB, GiB binary."""
    assert size(given_value, "max_bytes") == expected


@pytest.mark.parametrize(
    ("given_value", "right"),
    [
        ("64mb", "64MB"),
        ("64 MB", "64MB"),
        ("64M", "64MB"),
        ("64mib", "64MiB"),
        ("64Gi", "64GiB"),
        ("500KB", "500kB"),
        ("100 bytes", "100B"),
        (64e6, "64000000B"),
    ],
)
def test_size_near_miss(given_value: Any, right: str) -> None:
    """A near miss of a size is answered with the size."""
    with pytest.raises(ConfigurationError, match=f'write "{right}"'):
        size(given_value, "max_bytes")
    size(right, "max_bytes")


@pytest.mark.parametrize("nonsense", [0, -1, True, None, "0.5B", "0MB", math.nan, "big"])
def test_size_nonsense(nonsense: Any) -> None:
    """What is no size is an error that shows the forms."""
    with pytest.raises(ConfigurationError, match=r'^max_bytes=.* "500kB", "64MB"'):
        size(nonsense, "max_bytes")


def test_count() -> None:
    """A count is a whole number of at least its minimum; a number in disguise is answered with the number."""
    assert count(3, "attempts") == 3
    assert count(0, "max_queue", minimum=0) == 0
    for disguised in ("3", 3.0):
        with pytest.raises(ConfigurationError, match="write attempts=3"):
            count(disguised, "attempts")
    for nonsense in (0, -1, True, None, 2.5, "x", math.inf):
        with pytest.raises(ConfigurationError, match=r"^attempts=.* is not a whole number of at least 1"):
            count(nonsense, "attempts")


@given(ANYTHING)
def test_anything_is_read_or_refused(thing: Any) -> None:
    """Whatever is given, a reader returns something finite and positive or raises ConfigurationError, nothing else."""
    for reader in READERS:
        with contextlib.suppress(ConfigurationError):
            found = reader(thing, "x")
            assert all(0 < number < math.inf for number in (found if isinstance(found, tuple) else (found,)))


@given(st.text(alphabet="0123456789., kKmMgGtTiBbshdr/per-_", max_size=12))
def test_what_is_suggested_is_right(text: str) -> None:
    """Whatever an error says to write is accepted by the same reader."""
    for reader in (seconds, rate, size):
        try:
            reader(text, "x")
        except ConfigurationError as error:
            _, said, rest = str(error).partition(': write "')
            if said:
                reader(rest.partition('"')[0], "x")


@given(st.integers(min_value=1, max_value=10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_units_are_proportional(number: int, unit: str) -> None:
    """Twice the number is twice the time, in every unit."""
    assert seconds(f"{2 * number}{unit}", "x") == pytest.approx(2 * seconds(f"{number}{unit}", "x"))


def test_what_has_no_repr() -> None:
    """A value whose repr fails or never ends is still shown, in short."""
    with pytest.raises(ConfigurationError) as caught:
        seconds("9" * 10_000, "ttl")
    assert len(str(caught.value)) < 400
    with pytest.raises(ConfigurationError, match="ttl=<int>"):
        seconds(10**5000, "ttl")
