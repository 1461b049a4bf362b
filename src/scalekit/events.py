"""Facts, not log lines: every policy says what it did through one `emit`, and whoever subscribed hears it.

An event is a small named tuple. Nothing is built while nobody listens (`if events.subscribers: ...`), a subscriber
runs in the caller's thread outside every lock, and what it raises is logged and never reaches the call. Hits of the
memory tier are counted, not emitted: an event would cost more than the hit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = [
    "Computed",
    "Event",
    "GaveUp",
    "Joined",
    "NotStored",
    "Recalled",
    "Refused",
    "Retried",
    "ServedStale",
    "Undecodable",
    "Waited",
    "emit",
    "subscribe",
]


class Computed(NamedTuple):
    """A flight landed: the function ran for `seconds`; `error` is what it raised, or None."""

    function: str
    seconds: float
    error: BaseException | None
    callers: int


class Joined(NamedTuple):
    """A caller shared the flight of another one."""

    function: str


class NotStored(NamedTuple):
    """A value was handed out and not kept, for this `reason`."""

    function: str
    reason: str


class Recalled(NamedTuple):
    """A slower tier knew the answer: `tier` is "disk"; `seconds` is what asking took."""

    function: str
    tier: str
    seconds: float


class ServedStale(NamedTuple):
    """The function raised `error`, and an answer that is `age` seconds old was served in its place."""

    function: str
    age: float
    error: BaseException


class Undecodable(NamedTuple):
    """Bytes of a slower tier were no answer; the call was computed as if they were not there."""

    function: str
    tier: str
    reason: str


class Waited(NamedTuple):
    """A caller stood in the queue of the limit `policy` for `seconds` and got its permit."""

    function: str
    policy: str
    seconds: float


class Refused(NamedTuple):
    """The limit `policy` sent a caller away, with `depth` others waiting."""

    function: str
    policy: str
    depth: int
    reason: str


class Retried(NamedTuple):
    """Attempt number `attempt` (1 is the first) failed and another follows after `wait` seconds."""

    function: str
    policy: str
    attempt: int
    wait: float
    verdict: str
    error: BaseException | None


class GaveUp(NamedTuple):
    """The last of `attempts` attempts failed."""

    function: str
    policy: str
    attempts: int
    verdict: str
    error: BaseException | None


Event = Computed | Joined | NotStored | Recalled | ServedStale | Undecodable | Waited | Refused | Retried | GaveUp
"""Any of them; `function` is "module.qualname" of the decorated function."""

Subscriber = Callable[[Event], object]

subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call `subscriber(event)` for every event from now on; what comes back ends that.

    >>> from scalekit import events
    >>> seen = []
    >>> unsubscribe = events.subscribe(seen.append)
    >>> unsubscribe()
    """
    global subscribers
    subscribers = (*subscribers, subscriber)

    def unsubscribe() -> None:
        global subscribers
        subscribers = tuple(s for s in subscribers if s is not subscriber)

    return unsubscribe


def emit(event: Event) -> None:
    """Tell every subscriber; a subscriber that raises is logged, and the call goes on."""
    for subscriber in subscribers:
        try:
            subscriber(event)
        except Exception:
            import logging

            logging.getLogger("scalekit").exception("scalekit: the subscriber %r failed on %r", subscriber, event)
