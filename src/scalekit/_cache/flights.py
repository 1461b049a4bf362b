"""One flight a key: the first caller pays, the others wait for the same answer.

On an event loop a flight is a task of its own, so that no caller's cancellation or timeout touches it; a caller who is
cancelled leaves at once, and only the last one to leave cancels the flight, and waits until it has stopped. (A flight that
ran inside its first caller could not be handed to a task later: timeouts and scopes are bound to the task they were entered
in.) In threads the first caller runs the flight itself, for a thread cannot be cancelled.

A flight is paid for once. It is paid again only if its event loop ended or its thread was interrupted: then one of those
who wait takes over. A hung one is disowned at its deadline: the key is free, and its answer, if ever it comes, is not kept.

A call that waits for itself, also through other calls, would wait for ever. Every flight knows the flights that the code
inside it waits for; joining one that leads back raises. The edge is drawn before it is followed, so of two callers who
close a circle at the same moment at least one sees it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, TypeVar

from scalekit._core.guarded import Action, Guarded
from scalekit._core.lineage import Frame
from scalekit._runtime.base import Waiter


T = TypeVar("T")


class State(Enum):
    FLYING = "flying"
    LANDED = "landed"
    FAILED = "failed"
    ABANDONED = "abandoned"  # nobody computes it any more: whoever still wants it flies again
    OVERDUE = "overdue"


class Seat:
    """One caller of a flight."""

    __slots__ = ("first", "frame", "waiter")

    def __init__(self, waiter: Waiter, frame: Frame | None, first: bool) -> None:
        self.waiter = waiter
        self.frame = frame
        self.first = first


class Flight(Frame):
    """One computation that several callers may wait for."""

    def __init__(self, key: Hashable, outer: Frame | None, home: Any, deadline: float) -> None:
        self.key = key
        self.outer = outer
        self.home = home
        self.deadline = deadline
        self.state = State.FLYING
        self.value: Any = None
        self.copy: Callable[[], Any] | None = None  # the value of a further caller; None: they share it
        self.error: BaseException | None = None
        self.unstorable: str | None = None
        self.seats: list[Seat] = []
        self.waits_for: list[Flight] = []
        self.callers = 0
        self.task: Any = None


def nearest(frame: Frame | None) -> Flight | None:
    """The flight that the running code is inside of."""
    while frame is not None and not isinstance(frame, Flight):
        frame = frame.outer
    return frame


def leads_to(flight: Flight, goal: Flight) -> bool:
    """True if `flight` waits, perhaps through others, for `goal`."""
    todo, seen = [flight], set[int]()
    while todo:
        one = todo.pop()
        if one is goal:
            return True
        if id(one) not in seen:
            seen.add(id(one))
            todo.extend(one.waits_for)
    return False


class Flights(Guarded):
    """The flights of one function, by key."""

    def __init__(self) -> None:
        super().__init__()
        self.flying: dict[Hashable, Flight] = {}

    def board(
        self,
        key: Hashable,
        frame: Frame | None,
        home: Any,
        now: float,
        deadline: float,
        waiter: Callable[[], Waiter],
        known: Callable[[Hashable, float], bool],
    ) -> tuple[Flight | None, Seat | None]:
        """A seat in the flight of `key`; `seat.first` says that this caller has to start it.

        No flight: the answer is `known` by now, for another flight landed since this caller looked. A flight and no seat:
        that flight waits for this very caller, directly or through others.
        """
        inside = nearest(frame)
        tickets: tuple[Any, ...] = ()
        seat: Seat | None = None
        with self._lock:
            flight = self.flying.get(key)
            if flight is not None and now >= flight.deadline:
                self._disown(flight)
                flight = None
            if flight is None and known(key, now):
                return None, None
            if first := flight is None:
                flight = self.flying[key] = Flight(key, frame, home, deadline)
            if inside is not None:
                inside.waits_for.append(flight)
            if inside is None or first or not leads_to(flight, inside):
                seat = Seat(waiter(), frame, first)
                flight.seats.append(seat)
                flight.callers += 1
                if not first and frame is not None:
                    flight.joined = (*flight.joined, frame)
                    tickets = flight.inside
            elif inside is not None:
                inside.waits_for.remove(flight)
        self.settle()
        for ticket in tickets:  # what this flight queues for, this caller may be able to lend
            ticket.pool.offer(ticket)
        return flight, seat

    def land(self, flight: Flight, state: State, error: BaseException | None = None) -> None:
        """The flight ended without a value. It never waits for the lock: a flight may end in a finalizer, when its event
        loop was closed under it."""

        def decide() -> Action | None:
            if flight.state is not State.FLYING:
                return None
            flight.error = error
            seats = self._end(flight, state)
            return lambda: wake(seats)

        self._post(decide)

    def deliver(self, flight: Flight, value: Any, keep: Callable[[], object]) -> None:
        """The flight brought a value. `keep` stores it, under the lock, if nothing forbade it meanwhile."""
        seats: list[Seat] = []
        with self._lock:
            if flight.state is State.FLYING:
                flight.value = value
                if flight.unstorable is None and self.flying.get(flight.key) is flight:
                    keep()
                seats = self._end(flight, State.LANDED)
        self.settle()
        wake(seats)

    def _end(self, flight: Flight, state: State) -> list[Seat]:
        flight.state = state
        self._disown(flight)
        seats, flight.seats = flight.seats, []
        return seats

    def leave(self, flight: Flight, seat: Seat, last_word: Waiter) -> bool:
        """This caller waits no longer. True if it was the last one of a flight in a task: then nobody can join it any
        more, the caller has to cancel it, and `last_word` is woken when it has stopped."""
        with self._lock:
            last = self._depart(flight, seat)
            if last:
                flight.seats.append(Seat(last_word, None, False))
        self.settle()
        return last

    def leave_unheard(self, flight: Flight, seat: Seat) -> None:
        """`leave` for a finalizer, which cannot wait for the lock or for the flight to stop."""

        def decide() -> Action | None:
            return flight.task.cancel if self._depart(flight, seat) else None

        self._post(decide)

    def _depart(self, flight: Flight, seat: Seat) -> bool:
        self._unlink(flight, seat)
        if seat not in flight.seats:
            return False
        flight.seats.remove(seat)
        last = not flight.seats and flight.state is State.FLYING and flight.task is not None
        if last:
            self._disown(flight)
        return last

    def arrive(self, flight: Flight, seat: Seat) -> None:
        """This caller heard how the flight ended."""
        if seat.frame is not None:
            with self._lock:
                self._unlink(flight, seat)
            self.settle()

    def _unlink(self, flight: Flight, seat: Seat) -> None:
        inside = nearest(seat.frame)
        if inside is not None and flight in inside.waits_for:
            inside.waits_for.remove(flight)
        if not seat.first and seat.frame in flight.joined:
            frames = list(flight.joined)
            frames.remove(seat.frame)
            flight.joined = tuple(frames)

    def change(self, key: Hashable, reason: str, act: Callable[[], T]) -> T:
        """Disown the flight of `key` and run `act`, with no flight landing in between."""
        with self._lock:
            flight = self.flying.get(key)
            if flight is not None:
                flight.unstorable = reason
                self._disown(flight)
            result = act()
        self.settle()
        return result

    def change_all(self, reason: str, act: Callable[[], T]) -> T:
        """`change` for every key."""
        with self._lock:
            for flight in self.flying.values():
                flight.unstorable = reason
            self.flying.clear()
            result = act()
        self.settle()
        return result

    def _disown(self, flight: Flight) -> None:
        if self.flying.get(flight.key) is flight:
            del self.flying[flight.key]

    def _after_fork(self) -> None:
        self._posted.clear()
        self.flying.clear()


def wake(seats: list[Seat]) -> None:
    """Wake everybody; one whose event loop is gone needs nothing any more."""
    for seat in seats:
        seat.waiter.wake()


def twin(error: BaseException) -> BaseException:
    """A copy of an exception for another caller, so that their tracebacks do not grow into each other.

    Where copying fails (keyword-only arguments, as openai's have), it is made without `__init__`; where that fails too,
    the exception itself is shared.
    """
    cls = type(error)
    try:
        other = copy.copy(error)
        if type(other) is not cls or other is error or other.args != error.args:
            raise TypeError
    except Exception:
        try:
            other = cls.__new__(cls, *error.args)
            other.args = error.args
            other.__dict__.update(error.__dict__)
        except Exception:
            return error
    other.__cause__, other.__context__ = error.__cause__, error.__context__
    other.__suppress_context__ = error.__suppress_context__
    return other.with_traceback(error.__traceback__)



