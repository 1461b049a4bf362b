"""Full jitter and Retry-After, without a clock."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from scalekit._retry.backoff import CEILING, FIRST, full_jitter, obeying

CHANCE = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)


@given(st.integers(min_value=1, max_value=10**9), CHANCE)
def test_bounds(attempt: int, chance: float) -> None:
    """A wait is between zero and a bound that never exceeds the ceiling, however many attempts there were."""
    assert 0.0 <= full_jitter(attempt, lambda: chance) <= min(CEILING, FIRST * 2.0 ** min(attempt - 1, 60))


def test_the_bound_doubles() -> None:
    """The bound starts at half a second, doubles with each attempt, and stops at 20 seconds."""
    assert [full_jitter(attempt, lambda: 1.0) for attempt in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_the_jitter_is_full() -> None:
    """Waits of a crowd are spread over the whole bound: each tenth of it gets its share."""
    source = random.Random(7)
    waits = [full_jitter(4, source.random) for _ in range(10_000)]
    tenths = [sum(1 for wait in waits if i * 0.4 <= wait < (i + 1) * 0.4) for i in range(10)]
    assert all(850 < share < 1150 for share in tenths)


@given(st.floats(min_value=0, max_value=20), st.floats(min_value=0, max_value=3600), CHANCE)
def test_the_server_is_obeyed(backoff: float, hint: float, chance: float) -> None:
    """Never sooner than the server asked, never sooner than the backoff, and at most a quarter (or 0.1 s) later."""
    wait = obeying(backoff, hint, lambda: chance)
    assert wait >= hint
    assert wait >= backoff
    assert wait <= max(backoff, hint + max(0.1, hint / 4))


def test_the_herd_is_spread() -> None:
    """Twenty clients that were told 600 seconds do not come back in the same second."""
    source = random.Random(7)
    waits = sorted(obeying(0.3, 600.0, source.random) for _ in range(20))
    assert waits[0] >= 600.0
    assert waits[-1] - waits[0] > 60


def test_no_hint_no_change() -> None:
    """Without a hint, or with a hint of zero, the backoff is the wait."""
    assert obeying(1.5, None, lambda: 0.9) == 1.5
    assert obeying(1.5, 0.0, lambda: 0.9) == 1.5
