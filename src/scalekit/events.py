"""Facts, not log lines: every policy says what it did through one `emit`, and whoever subscribed hears it.

An event is a small frozen dataclass. Nothing is built while nobody listens (`if events.subscribers: ...`), a subscriber
runs in the caller's thread outside every lock, and what it raises is logged and never reaches the call. Hits of the
memory tier are counted, not emitted: an event would cost more than the hit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Computed", "Event", "GaveUp", "Joined", "NotStored", "Refused", "Retried", "Waited", "emit", "subscribe"]


@dataclass(frozen=True, slots=True)
class Event:
    """`function` is "module.qualname" of the decorated function."""

    function: str


@dataclass(frozen=True, slots=True)
class Computed(Event):
    """A flight landed: the function ran for `seconds`; `error` is what it raised, or None."""

    seconds: float
    error: BaseException | None
    callers: int


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """A caller shared the flight of another one."""


@dataclass(frozen=True, slots=True)
class NotStored(Event):
    """A value was handed out and not kept, for this `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Waited(Event):
    """A caller stood in the queue of the limit `policy` for `seconds` and got its permit."""

    policy: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The limit `policy` sent a caller away, with `depth` others waiting."""

    policy: str
    depth: int
    reason: str


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """Attempt number `attempt` (1 is the first) failed and another follows after `wait` seconds."""

    policy: str
    attempt: int
    wait: float
    verdict: str
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class GaveUp(Event):
    """The last of `attempts` attempts failed."""

    policy: str
    attempts: int
    verdict: str
    error: BaseException | None


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
            logging.getLogger("scalekit").exception("scalekit: the subscriber %r failed on %r", subscriber, event)
