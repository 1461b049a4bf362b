"""A codebase that has grown up on `functools.lru_cache` and tenacity and moves over, two decorators at a time.

The author swaps the decorators and leaves everything else as it is: the dashboard that reads `cache_info()`, the tests
that call `cache_clear()` and `__wrapped__`, the waits and stops that were tuned over years. They expect both versions
to behave alike.
"""

import functools
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any

import tenacity
from tenacity import retry_if_exception_type, retry_if_result, stop_after_attempt, stop_after_delay, wait_random

import scalekit

computed: list[str] = []
states: Iterator[str] = iter(())


class Unavailable(Exception):
    pass


def divide(numerator: str, denominator: str = "7") -> Decimal:
    """A quotient of twelve digits."""
    computed.append(numerator)
    with localcontext() as context:
        context.prec = 12
        return Decimal(numerator) / Decimal(denominator)


def poll(job: str) -> str | None:
    """The state of a job, or None while it is pending."""
    state = next(states)
    computed.append(state)
    if state == "down":
        raise Unavailable(job)
    return None if state == "pending" else state


stop = stop_after_attempt(5) | stop_after_delay(30)
wait = wait_random(0, 0.01)
when = retry_if_exception_type(Unavailable) | retry_if_result(lambda state: state is None)

divide_before = functools.lru_cache(maxsize=3, typed=True)(divide)
poll_before = tenacity.retry(stop=stop, wait=wait, retry=when, reraise=True)(poll)

divide_after = scalekit.cache(tiers=[scalekit.Memory(max_entries=3, policy="lru")])(divide)
poll_after = scalekit.retry(stop=stop, wait=wait, on=when)(poll)


def dashboard(function: Any) -> dict[str, object]:
    """Old code of the company: it takes any function and shows its cache."""
    info = function.cache_info()
    return {**info._asdict(), "ratio": info.hits / (info.hits + info.misses), **function.cache_parameters()}


def history(divide: Any, poll: Any) -> list[object]:
    """All that can be observed of the two functions, in order."""
    global states
    computed.clear()
    seen: list[object] = [divide(numerator) for numerator in "12134"]  # 2 has to go
    seen += [divide("1"), divide("2", denominator="9"), list(computed), dashboard(divide)]
    seen += [divide.__name__, divide.__doc__, divide.__wrapped__("1"), divide.cache_clear()]
    seen += [tuple(divide.cache_info()), divide("1"), len(computed)]

    computed.clear()
    states = iter(["down", "pending", "down", "down", "done"])
    seen += [poll("a job"), list(computed)]
    states = iter(["down"] * 5 + ["done"])
    try:
        poll("another job")
    except Unavailable as error:
        seen += [str(error), next(states), poll.__wrapped__.__name__]
    return seen


def main() -> None:
    before = history(divide_before, poll_before)
    after = history(divide_after, poll_after)
    for was, now in zip(before, after, strict=True):
        assert was == now, f"{was!r} before, {now!r} after"

    computed.clear()
    assert divide_after("5", "7") == divide_after(numerator="5") == divide_after("5")
    assert computed == ["5"], "one call, written in three ways"
    scalekit.controls(divide_after).cache.clear()
    assert scalekit.controls(divide_after).cache.peek("5") is None
    assert divide_after.__wrapped__ is divide  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
