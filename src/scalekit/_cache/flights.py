"""One flight a key: the first caller pays, the others wait for the same answer.

On an event loop a flight is a task of its own, so that no caller's cancellation or timeout touches it; a caller who is
cancelled leaves at once, and only the last one to leave cancels the flight, and waits until it has stopped. (A
flight that ran inside its first caller could not be handed to a task later: timeouts and scopes are bound to the
task they were entered in.) In threads the first caller runs the flight itself, for a thread cannot be cancelled.

A flight is paid for once. It is paid again only if its event loop ended or its thread was interrupted: then one of
those who wait takes over. A hung one is disowned at its deadline: the key is free, and its answer, if ever it comes, is
not kept.

A call that waits for itself, also through other calls, would wait for ever. Every flight knows the flights that the
code inside it waits for; joining one that leads back raises. The edge is drawn before it is followed, so of two
callers who close a circle at the same moment at least one sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from scalekit._cache.flight import NOBODY, Flight, State, leads_to, nearest
from scalekit._core.guarded import Action, Guarded
from scalekit._core.lineage import Frame, current
from scalekit._runtime.base import Waiter

T = TypeVar("T")


class Flights(Guarded):
    """The flights of one function, by key."""

    def __init__(self) -> None:
        self.flying: dict[Hashable, Flight] = {}
        self.loose: set[Flight] = set()
        """Those that are still in the air, and that nobody can join."""
        self._forked: Callable[[], object] = int
        super().__init__()

    def board(
        self,
        key: Hashable,
        frame: Frame | None,
        home: Any,
        now: float,
        timeout: float,
        waiter: Waiter,
        known: Callable[[Hashable, float], object],
    ) -> tuple[Flight | None, bool]:
        """The flight of `key`, and whether this caller has to start it.

        None and True: nothing flies and the answer is `known` by now, for another flight landed since this caller
        looked. None and False: what flies waits for this very caller, directly or through others.
        """
        first = False
        with self._lock:
            flight = self.flying.get(key)
            if flight is not None and not flight.late(now):
                if not self._join(flight, frame, waiter):
                    flight = None
            elif known(key, now):
                flight, first = None, True
            else:
                if flight is not None:
                    self._disown(flight)
                flight, first = Flight(key, frame, home, now, now + timeout, waiter), True
                self.flying[key] = flight
                if frame is not None and (inside := nearest(frame)) is not None:
                    inside.waits_for.append(flight)
        if self._posted:
            self.settle()
        if flight is not None and not first and frame is not None:
            for ticket in list(flight.inside):  # what it queues for, this caller may be able to lend
                ticket.pool.offer(ticket, frame)
        return flight, first

    @contextmanager
    def together(self, flights: Sequence[Flight]) -> Generator[None]:
        """One call of the function answers all of these: what runs in it runs in the first one, and who waits for any
        of them waits for that call.
        """
        first, *others = flights
        with self._lock:
            first.party, first.joined = others, (*first.joined, *others)
            for other in others:
                other.inside = first.inside
                other.waits_for.append(first)
        self.settle()
        token = current.set(first)
        try:
            yield
        finally:
            current.reset(token)
            with self._lock:
                first.party, first.joined = (), tuple([frame for frame in first.joined if frame not in others])
                for other in others:  # or they would hold each other
                    other.inside = {}
                    other.waits_for.remove(first)
            self.settle()

    def launch(self, key: Hashable, home: Any, now: float, timeout: float) -> Flight | None:
        """A flight that nobody waits for, and that nobody's leaving ends; None if there is one already."""
        with self._lock:
            flight = self.flying.get(key)
            if flight is not None and not flight.late(now):
                return None
            if flight is not None:
                self._disown(flight)
            flight = self.flying[key] = Flight(key, None, home, now, now + timeout, NOBODY)
            flight.behind = True
        self.settle()
        return flight

    def _join(self, flight: Flight, frame: Frame | None, waiter: Waiter) -> bool:
        if frame is not None:
            inside = nearest(frame)
            if inside is not None:
                inside.waits_for.append(flight)
                if leads_to(flight, inside):
                    inside.waits_for.remove(flight)
                    return False
            flight.joined = (*flight.joined, frame)
        flight.waiters.append(waiter)
        flight.callers += 1
        if flight.live is not None:
            flight.live.recording.enter(waiter)
        return True

    def publish(self, flight: Flight, live: Any) -> bool:
        """Its answer is a stream: all who wait may begin to read; False if it was given up."""
        with self._lock:
            waiters = [waiter for waiter in flight.waiters if waiter is not NOBODY]
            flying = flight.state is State.FLYING
            if flying:
                flight.live, flight.inline = live, False
                for waiter in waiters:
                    live.recording.enter(waiter)
                if self.flying.get(flight.key) is not flight:
                    self.loose.add(flight)
        self.settle()
        if flying:
            wake(waiters, flight.home)
        return flying

    def let_go(self, flight: Flight) -> bool:
        """Its stream became too long: nobody can join it any more. False if nobody reads it."""
        with self._lock:
            self._disown(flight)
            flight.live.recording.let_go()
            if NOBODY in flight.waiters:
                flight.waiters.remove(NOBODY)
            read = bool(flight.waiters)
        self.settle()
        return read

    def disown(self, flight: Flight) -> None:
        """Whoever comes from now on flies anew."""
        with self._lock:
            self._disown(flight)
        self.settle()

    def land(self, flight: Flight, state: State, error: BaseException | None = None) -> None:
        """The flight ended without a value. It never waits for the lock: a flight may end in a finalizer, when its
        event loop was closed under it."""

        trace = None if error is None else error.__traceback__

        def decide() -> Action | None:
            if flight.state is not State.FLYING:
                return None
            waiters = self._fail(flight, state, error, trace)
            return lambda: wake(waiters)

        self._post(decide)

    def _fail(
        self, flight: Flight, state: State, error: BaseException | None, trace: TracebackType | None
    ) -> list[Waiter]:
        flight.unheard = len(flight.waiters) - flight.inline
        waiters = self._end(flight, state)
        if flight.unheard and state is State.FAILED:
            flight.error, flight.trace = error, trace
        return waiters

    def deliver(
        self, flight: Flight, value: Any, keep: Callable[..., T], *form: Any, error: BaseException | None = None
    ) -> T | None:
        """The flight brought a value, or an error that is an answer. `keep(key, *form)` stores it, under the lock, if
        nothing forbade it meanwhile; what that said, None if it was not asked."""
        waiters: list[Waiter] = []
        said = None
        with self._lock:
            if flight.state is State.FLYING:
                if flight.unstorable is None and self.flying.get(flight.key) is flight:
                    said = keep(flight.key, *form)
                if error is None:
                    flight.value = value
                    waiters = self._end(flight, State.LANDED)
                else:
                    waiters = self._fail(flight, State.FAILED, error, error.__traceback__)
        if self._posted:
            self.settle()
        wake(waiters, flight.home)
        return said

    def overdue(self, now: float) -> tuple[list[Flight], float | None]:
        """The flights whose time is over, and the deadline of the next one."""
        with self._lock:
            flights = [*self.flying.values(), *self.loose]
            late = [flight for flight in flights if flight.late(now)]
            soonest = min((flight.deadline for flight in flights if flight.deadline > now), default=None)
        self.settle()
        return late, soonest

    def arrive(self, flight: Flight, frame: Frame, first: bool) -> None:
        """A caller inside of `frame` heard how the flight ended."""
        with self._lock:
            self._unlink(flight, frame, first)
        self.settle()

    def leave(self, flight: Flight, frame: Frame | None, first: bool, waiter: Waiter, last_word: Waiter) -> bool:
        """This caller waits no longer. True if it was the last one of a flight in a task: then nobody can join it any
        more, the caller has to cancel it, and `last_word` is woken when it has stopped."""
        with self._lock:
            last = self._depart(flight, frame, first, waiter)
            if last:
                flight.waiters.append(last_word)
        self.settle()
        return last

    def leave_unheard(self, flight: Flight, frame: Frame | None, first: bool, waiter: Waiter) -> None:
        """`leave` for a finalizer, which cannot wait for the lock or for the flight to stop."""

        def decide() -> Action | None:
            if self._depart(flight, frame, first, waiter):
                return flight.stop
            return None if flight.live is None else flight.live.stir

        self._post(decide)

    def _depart(self, flight: Flight, frame: Frame | None, first: bool, waiter: Waiter) -> bool:
        if frame is not None:
            self._unlink(flight, frame, first)
        if waiter not in flight.waiters:
            return False
        flight.waiters.remove(waiter)
        if flight.live is not None:
            flight.live.recording.places.pop(waiter, None)
        flies = flight.state is State.FLYING and (flight.task is not None or flight.live is not None)
        last = flies and not flight.waiters
        if last:
            self._disown(flight)
        return last

    def _unlink(self, flight: Flight, frame: Frame, first: bool) -> None:
        inside = nearest(frame)
        if inside is not None and flight in inside.waits_for:
            inside.waits_for.remove(flight)
        if not first:
            flight.joined = without(flight.joined, frame)

    def _end(self, flight: Flight, state: State) -> list[Waiter]:
        flight.state, flight.ended = state, True
        self._disown(flight)
        self.loose.discard(flight)
        waiters, flight.waiters = flight.waiters, []
        return waiters if flight.live is None else waiters + flight.live.recording.drain()

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
            for flight in [*self.flying.values()]:
                flight.unstorable = reason
                self._disown(flight)
            result = act()
        self.settle()
        return result

    def _disown(self, flight: Flight) -> None:
        if self.flying.get(flight.key) is flight:
            del self.flying[flight.key]
            self.loose.add(flight)

    def on_fork(self, act: Callable[[], object]) -> None:
        """What else to mend in a forked child: the memory that these flights fill."""
        self._forked = act

    def _after_fork(self) -> None:
        self._posted.clear()
        self.flying.clear()
        self.loose.clear()
        self._forked()


def wake(waiters: list[Waiter], here: Any = None) -> None:
    """Wake everybody; one whose event loop is gone needs nothing any more."""
    for waiter in waiters:
        waiter.wake(here)


def without(items: tuple[T, ...], one: object) -> tuple[T, ...]:
    """The tuple without the first occurrence of `one`."""
    for place, item in enumerate(items):
        if item is one:
            return items[:place] + items[place + 1 :]
    return items
