"""One flight: a computation that several callers wait for. Who boards it and who leaves is decided in flights.py."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from types import TracebackType
from typing import Any

from scalekit._cache.twin import twin
from scalekit._core.lineage import Frame, Shared
from scalekit._runtime.base import Waiter

__all__ = ["NOBODY", "Flight", "Party", "State", "leads_to", "nearest"]


class State(Enum):
    FLYING = "flying"
    LANDED = "landed"
    FAILED = "failed"
    ABANDONED = "abandoned"  # nobody computes it any more: whoever still wants it flies again
    OVERDUE = "overdue"


class Flight(Shared):
    """One computation that several callers may wait for: `waiters` are those who still do."""

    state = State.FLYING
    value: Any = None
    error: BaseException | None = None
    copy: Callable[[], Any] | None = None  # makes the value of a further caller; None: they share it
    unstorable: str | None = None  # why the value is not to be kept
    task: Any = None  # None: it flies in its first caller's thread
    started = False
    ended = False
    inline = True  # it flies in its first caller's thread, who hears the error there
    callers = 1
    behind = False  # nobody asked for it: it renews what is still served
    anew = False  # whatever is known, the function is to run
    ran = False  # the function was called
    due = False  # it brought an old answer, which is to be renewed behind
    spoiled: float | None = None  # when its answer was invalidated by name, while it flew
    disturbed: int | None = None  # the generation it began in, if its answer was invalidated in a slower tier since
    trace: TracebackType | None = None  # of the error as it landed, before its first caller raised it further
    unheard = 0  # callers who will still ask for the error
    party: Sequence[Flight] = ()  # those that the same call of the function answers
    among: frozenset[Any] | None = None  # the keys of the list that it failed with, if it was not its own failure
    unwanted = False  # nobody waits for it any more
    live: Any = None  # its answer is a stream that is still arriving (live.py); the waiters are its readers

    def __init__(
        self, key: Hashable, outer: Frame | None, home: Any, began: float, deadline: float, waiter: Waiter
    ) -> None:
        self.key = key
        self.outer = outer
        self.home = home
        self.began = began
        self.deadline = deadline
        self.waiters = [waiter]
        self.inside = {}
        self.waits_for: list[Flight] = []  # of flights under other locks, too: only `append` and `remove` change it

    @property
    def opening(self) -> bool:
        """True while there is nothing yet: no outcome, no first item of a stream."""
        return self.state is State.FLYING and self.live is None

    def late(self, now: float) -> bool:
        """True if its time is over; it stands still while nobody wants more of a stream."""
        return now >= self.deadline and not (self.live is not None and self.live.resting)

    def stop(self) -> None:
        """Nobody waits for it any more."""
        task, self.unwanted = self.task, True
        if self.live is not None:
            self.live.stop()
        elif task is not None:
            task.cancel()

    def take_error(self, first: bool) -> BaseException:
        """The error for one caller; with the last one it is let go, for its traceback leads back here."""
        assert self.error is not None
        error = self.error if first else twin(self.error, self.trace)
        self.unheard -= 1
        if self.unheard <= 0:
            self.error = self.trace = None
        return error


def nearest(frame: Frame | None) -> Flight | None:
    """The flight that the running code is inside of."""
    while frame is not None and not isinstance(frame, Flight):
        frame = frame.outer
    return frame


def leads_to(flight: Flight, goal: Flight) -> bool:
    """True if `flight` waits, perhaps through others, for `goal`. What has landed keeps nobody waiting."""
    todo, seen = [flight], set[int]()
    while todo:
        one = todo.pop()
        if one.state is State.FLYING and id(one) not in seen:
            if one is goal:
                return True
            seen.add(id(one))
            todo.extend(one.waits_for)
    return False


class Party:
    """The task of several flights: it is cancelled when none of them is wanted any more, and `spared` until then."""

    def __init__(self, task: Any, flights: Sequence[Flight]) -> None:
        self.task = task
        self.flights = flights
        self.spared = True

    def cancel(self) -> None:
        if all(flight.unwanted or flight.state is not State.FLYING for flight in self.flights):
            self.spared = False
            self.task.cancel()


class _Nobody:
    """Stands among the waiters of a flight that goes on although nobody waits."""

    def wake(self, here: Any = None) -> bool:
        return True


NOBODY: Any = _Nobody()
