"""The flights of one function alone: paid once, kept unless somebody forbade it, heard by all, never in a circle."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from doubles import Bell, Interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scalekit._cache.flight import Flight, State, leads_to
from scalekit._cache.flights import Flights
from scalekit._cache.twin import twin
from scalekit._core import guarded
from scalekit._core.drive import drive
from scalekit._core.lineage import Frame
from scalekit._limit.permits import Pool, Ticket
from scalekit._runtime.blocking import BlockingWaiter

KEYS = ("a", "b", "c")


class Desk(Frame):
    """A frame that is no flight, such as a permit."""

    def __init__(self, outer: Frame | None) -> None:
        self.outer = outer


class Caller:
    """One who waits: for `flight`, from inside of `within` (None: nowhere in particular)."""

    def __init__(self, frame: Frame | None, within: Flight | None) -> None:
        self.frame = frame
        self.within = within
        self.bell = Bell()
        self.last_word = Bell()
        self.flight: Flight
        self.first = False


class Airport(RuleBasedStateMachine):
    """Callers board, leave and hear; flights land, fail, hang and are disowned; answers are forgotten."""

    @initialize()
    def begin(self) -> None:
        self.flights = Flights()
        self.now = 0.0
        self.known: dict[Hashable, Any] = {}
        self.open: dict[Hashable, Flight] = {}  # what a newcomer would find
        self.all: list[Flight] = []
        self.waiting: list[Caller] = []
        self.heard: list[Caller] = []
        self.left_late: list[Flight] = []  # somebody left without the error
        self.told: list[Caller] = []  # those who were told that they are the last
        self.untold: list[Caller] = []
        self.launched: list[Flight] = []  # behind: nobody waits for them
        self.cancelled: Counter[int] = Counter()
        self.expected_cancels: Counter[int] = Counter()

    # what the model knows ---------------------------------------------------------------------------------------------

    def flying(self) -> list[Flight]:
        return [flight for flight in self.all if flight.state is State.FLYING]

    def on(self, flight: Flight) -> list[Caller]:
        return [caller for caller in self.waiting if caller.flight is flight]

    def waits(self, flight: Flight, goal: Flight) -> bool:
        """Whether `flight` waits for `goal`, by the closure of who waits for whom."""
        nodes = self.flying()
        reach = {(id(one), id(one)) for one in nodes}
        reach |= {(id(caller.within), id(caller.flight)) for caller in self.waiting if caller.within is not None}
        for middle in nodes:
            for one in nodes:
                for other in nodes:
                    if (id(one), id(middle)) in reach and (id(middle), id(other)) in reach:
                        reach.add((id(one), id(other)))
        return (id(flight), id(goal)) in reach

    def disown(self, flight: Flight) -> None:
        if self.open.get(flight.key) is flight:
            del self.open[flight.key]

    def ended(self, flight: Flight) -> None:
        """All who wait were woken, once, and nobody else."""
        self.disown(flight)
        for caller in self.on(flight):
            assert caller.bell.rung == 1
            self.waiting.remove(caller)
            self.heard.append(caller)
        for caller in self.told:
            assert caller.last_word.rung == (caller.flight.state is not State.FLYING)

    # what happens -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), key=st.sampled_from(KEYS), in_task=st.booleans(), timeout=st.sampled_from([10.0, 50.0]))
    def board(self, data: st.DataObject, key: str, in_task: bool, timeout: float) -> None:
        """Somebody asks for a key: on its own, inside a flight (which may have ended), or inside a permit there."""
        within = data.draw(st.sampled_from([None, *self.all[-6:]]), label="within")
        frame: Frame | None = within
        if data.draw(st.booleans(), label="inside a permit"):
            frame = Desk(within)
        caller = Caller(frame, within)
        there = self.open.get(key)
        flight, first = self.flights.board(
            key, frame, "home", self.now, timeout, caller.bell, lambda key, now: key in self.known
        )
        if there is not None and self.now < there.deadline:
            if within is not None and self.waits(there, within):
                assert (flight, first) == (None, False), "a circle was not seen"
                return
            assert (flight, first) == (there, False), "it did not join, or a circle was seen where there is none"
        elif key in self.known:
            assert (flight, first) == (None, True), "an answer that is known was not seen"
            return
        else:
            assert first
            assert flight is not None
            assert flight.key == key
            assert flight.deadline == self.now + timeout
            assert all(flight is not one for one in self.all)
            if in_task:
                flight.task = SimpleNamespace(cancel=lambda: self.cancelled.update([id(flight)]))
                flight.inline = False
            self.open[key] = flight
            self.all.append(flight)
        assert flight is not None
        caller.flight, caller.first = flight, first
        self.waiting.append(caller)

    @rule(key=st.sampled_from(KEYS), timeout=st.sampled_from([10.0, 50.0]))
    def launch(self, key: str, timeout: float) -> None:
        """A flight that nobody waits for: none if there is one already, and no one's leaving ends it."""
        flying = self.open.get(key)
        flight = self.flights.launch(key, "home", self.now, timeout)
        assert (flight is None) == (flying is not None and self.now < flying.deadline)
        if flight is not None:
            self.launched.append(flight)
            flight.task = SimpleNamespace(cancel=lambda: self.cancelled.update([id(flight)]))
            self.all.append(flight)
            self.open[key] = flight
            assert flight.behind

    @precondition(lambda self: self.all)
    @rule(data=st.data(), room=st.booleans(), value=st.integers(), failed=st.booleans())
    def deliver(self, data: st.DataObject, room: bool, value: int, failed: bool) -> None:
        """A flight brings its value, or an error that is one, in time or long after it was given up."""
        flight = data.draw(st.sampled_from(self.all[-8:]))
        before, value_before = flight.state, flight.value
        was_flying = before is State.FLYING
        may_keep = was_flying and flight.unstorable is None and self.open.get(flight.key) is flight
        kept: list[Any] = []

        def keep(key: Hashable, *form: Any) -> str | None:
            kept.append((key, *form))
            return None if room else "no room"

        error = ValueError("an answer") if failed else None
        said = self.flights.deliver(flight, value, keep, value, error=error)
        assert said == (None if room or not may_keep else "no room")
        assert kept == ([(flight.key, value)] if may_keep else [])
        if kept and room:
            self.known[flight.key] = value
        if was_flying:
            assert (flight.state, flight.value) == ((State.FAILED, None) if failed else (State.LANDED, value))
            self.ended(flight)
        else:
            assert (flight.state, flight.value) == (before, value_before), "it ended twice"

    @precondition(lambda self: self.all)
    @rule(data=st.data(), state=st.sampled_from([State.FAILED, State.ABANDONED, State.OVERDUE]))
    def land(self, data: st.DataObject, state: State) -> None:
        """A flight fails, is abandoned or takes too long; one that has ended stays as it ended."""
        flight = data.draw(st.sampled_from(self.all[-8:]))
        before = flight.state
        self.flights.land(flight, state, ValueError("failed") if state is State.FAILED else None)
        if before is State.FLYING:
            assert flight.state is state
            hearing = [caller for caller in self.on(flight) if flight.task or not caller.first]
            if not any(caller.flight is flight for caller in self.told):
                assert (flight.error is not None) == bool(state is State.FAILED and hearing), "kept for nobody"
            self.ended(flight)
        else:
            assert flight.state is before

    @precondition(lambda self: self.heard)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """One who was woken goes on, and takes the error along."""
        caller = data.draw(st.sampled_from(self.heard))
        self.heard.remove(caller)
        flight = caller.flight
        if caller.frame is not None:
            self.flights.arrive(flight, caller.frame, caller.first)
        if flight.state is State.FAILED and not (flight.task is None and caller.first):
            error = flight.error
            taken = flight.take_error(caller.first)
            assert type(taken) is ValueError
            assert (taken is error) == caller.first
            others = [one for one in self.heard if one.flight is flight and not (flight.task is None and one.first)]
            kept = bool(others) or flight in self.left_late
            assert (flight.error is not None) == kept, "the error is kept until the last one took it, and not longer"

    @precondition(lambda self: self.waiting + self.heard)
    @rule(data=st.data(), unheard=st.booleans())
    def leave(self, data: st.DataObject, unheard: bool) -> None:
        """A caller is cancelled or collected while it waits, or just as it was woken."""
        someone = [caller for caller in self.waiting + self.heard if caller.flight.task or not caller.first]
        if not someone:
            return
        caller = data.draw(st.sampled_from(someone))
        flight = caller.flight
        last = caller in self.waiting and len(self.on(flight)) == 1 and flight.task is not None
        last = last and not any(flight is one for one in self.launched)
        (self.waiting if caller in self.waiting else self.heard).remove(caller)
        if flight.state is State.FAILED:
            self.left_late.append(flight)
        if unheard:
            self.flights.leave_unheard(flight, caller.frame, caller.first, caller.bell)
            self.expected_cancels[id(flight)] += last
        else:
            told = self.flights.leave(flight, caller.frame, caller.first, caller.bell, caller.last_word)
            assert told is last, "exactly the last one is told so"
            if last:
                self.told.append(caller)
            else:
                self.untold.append(caller)
        if last:
            self.disown(flight)

    @rule(key=st.sampled_from(KEYS))
    def change(self, key: str) -> None:
        """A key is invalidated: what is being computed for it is answered and not kept."""
        self.known.pop(key, None)
        assert self.flights.change(key, "invalidated", lambda: "done") == "done"
        if key in self.open:
            assert self.open.pop(key).unstorable == "invalidated"

    @rule()
    def change_all(self) -> None:
        """Everything is cleared."""
        self.known.clear()
        assert self.flights.change_all("cleared", lambda: "done") == "done"
        assert all(flight.unstorable for flight in self.open.values())
        self.open.clear()

    @precondition(lambda self: self.flying())
    @rule(data=st.data())
    def forbid(self, data: st.DataObject) -> None:
        """The code that runs says that its answer is not to be kept."""
        data.draw(st.sampled_from(self.flying())).unstorable = "truncated"

    @rule(key=st.sampled_from(KEYS))
    def evict(self, key: str) -> None:
        """An answer leaves the memory."""
        self.known.pop(key, None)

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def tick(self, seconds: float) -> None:
        """Time goes by, and who looks after hung flights sees those whose time is over, joinable or not."""
        self.now += seconds
        late, soonest = self.flights.overdue(self.now)
        flying = self.flying()
        assert {id(flight) for flight in late} == {id(flight) for flight in flying if flight.deadline <= self.now}
        assert soonest == min((flight.deadline for flight in flying if flight.deadline > self.now), default=None)

    # what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "flights"):
            return
        assert self.flights.flying == self.open
        assert all(flight.state is State.FLYING for flight in self.open.values()), "one may join what has ended"
        for caller in self.waiting:
            assert caller.bell.rung == 0, "woken before the flight ended"
        assert not any(caller.last_word.rung for caller in self.untold)
        assert +self.cancelled == +self.expected_cancels
        for flight in self.all[-8:]:
            inside = [one for one in self.waiting + self.heard if one.within is flight]
            assert Counter(map(id, flight.waits_for)) == Counter(id(one.flight) for one in inside)
            joined = [
                one.frame
                for one in self.waiting + self.heard
                if one.flight is flight and one.frame is not None and not one.first
            ]
            assert Counter(map(id, flight.joined)) == Counter(map(id, joined))

    def teardown(self) -> None:
        """All flights land, all callers hear of it, and nothing is left."""
        if not hasattr(self, "flights"):
            return
        for flight in self.flying():
            self.flights.land(flight, State.ABANDONED)
            self.ended(flight)
        assert not self.waiting
        assert not self.flights.flying
        for caller in self.heard:
            if caller.frame is not None:
                self.flights.arrive(caller.flight, caller.frame, caller.first)
        assert not any(flight.waits_for or flight.joined for flight in self.all)
        assert all(caller.last_word.rung == 1 for caller in self.told)


Airport.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


class TestAirport(Airport.TestCase):
    """The flights and a model of them, through random histories: see `Airport.holds` for what must hold."""


# circles -------------------------------------------------------------------------------------------------------------


def unknown(key: Hashable, now: float) -> bool:
    return False


def a_flight(key: Hashable = "key", outer: Frame | None = None) -> Flight:
    return Flight(key, outer, "home", 0.0, 10.0, Bell())


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=24),
    landed=st.sets(st.integers(0, 7), max_size=3),
)
@settings(deadline=None, max_examples=200)
def test_every_circle_is_found_and_no_other(edges: list[tuple[int, int]], landed: set[int]) -> None:
    """In any graph, one flight leads to another exactly if those still flying wait for each other in that order."""
    flights = [a_flight(number) for number in range(8)]
    for one, other in edges:
        flights[one].waits_for.append(flights[other])
    for number in landed:
        flights[number].state = State.LANDED
    reach = [[one == other and one not in landed for other in range(8)] for one in range(8)]
    for one, other in edges:
        reach[one][other] |= one not in landed and other not in landed
    for middle in range(8):
        for one in range(8):
            for other in range(8):
                reach[one][other] |= reach[one][middle] and reach[middle][other]
    found = [[leads_to(one, other) for other in flights] for one in flights]
    assert found == reach


def test_a_long_chain_is_no_recursion() -> None:
    """A flight that waits for another one that waits for another one, thousands deep, is followed to its end."""
    flights = [a_flight(number) for number in range(5_000)]
    for one, other in itertools.pairwise(flights):
        one.waits_for.append(other)
    assert leads_to(flights[0], flights[-1])
    assert not leads_to(flights[-1], flights[0])


def test_edges_that_many_threads_draw_are_all_there() -> None:
    """Children of one flight in many threads, each waiting at another function: every edge is there, and goes again."""
    parent, rounds = a_flight(), 300
    places = [Flights() for _ in range(4)]
    barrier = threading.Barrier(4)
    counts: list[int] = []
    interval = sys.getswitchinterval()

    def child(flights: Flights) -> None:
        for number in range(rounds):
            flights.board(number, parent, "home", 0.0, 1.0, Bell(), lambda key, now: False)
        barrier.wait(20)
        counts.append(len(parent.waits_for))
        barrier.wait(20)
        for flight in [*flights.flying.values()]:
            flights.arrive(flight, parent, True)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=child, args=(flights,), daemon=True) for flights in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert counts == [4 * rounds] * 4
    assert not parent.waits_for


def test_who_joins_a_flight_lends_to_what_queues_inside_of_it() -> None:
    """A caller who holds the last permit joins a flight that waits for one: the flight borrows it, and goes on."""
    pool, flights = Pool(1), Flights()
    flight, _ = flights.board("key", None, "home", 0.0, 10.0, Bell(), unknown)
    assert flight is not None
    holder = pool.line_up(None, "f", Bell(), 10)
    ticket = pool.line_up(flight, "f", Bell(), 10)
    assert isinstance(holder, Ticket)
    assert isinstance(ticket, Ticket)
    assert ticket.permit is None
    flights.board("key", holder.permit, "home", 0.0, 10.0, Bell(), unknown)
    assert ticket.permit is not None
    assert ticket.permit.lender is holder.permit


# the moment ----------------------------------------------------------------------------------------------------------


def board(flights: Flights, key: Hashable, frame: Frame | None = None, known: Any = unknown) -> tuple[Any, bool, Bell]:
    bell = Bell()
    flight, first = flights.board(key, frame, "home", 0.0, 10.0, bell, known)
    if flight is not None and first:
        flight.task = SimpleNamespace(cancel=lambda: None)
        flight.inline = False
    return flight, first, bell


SECTIONS: dict[str, Callable[[Flights, Flight, Bell], object]] = {
    "another one starts": lambda flights, other, bell: board(flights, "new"),
    "another one joins": lambda flights, other, bell: board(flights, "other"),
    "the answer is known": lambda flights, other, bell: board(flights, "new", None, lambda key, now: True),
    "a circle is refused": lambda flights, other, bell: board(flights, "other", other),
    "another one delivers": lambda flights, other, bell: flights.deliver(other, 1, lambda key: True),
    "another one fails": lambda flights, other, bell: flights.land(other, State.FAILED, KeyError()),
    "somebody arrives": lambda flights, other, bell: flights.arrive(other, Desk(None), True),
    "somebody leaves": lambda flights, other, bell: flights.leave(other, None, True, bell, Bell()),
    "somebody is collected": lambda flights, other, bell: flights.leave_unheard(other, None, True, bell),
    "a key is changed": lambda flights, other, bell: flights.change("other", "invalidated", lambda: None),
    "all are cleared": lambda flights, other, bell: flights.change_all("cleared", lambda: None),
    "the late are looked for": lambda flights, other, bell: flights.overdue(5.0),
    "the process forks": lambda flights, other, bell: (guarded._before_fork(), guarded._after_fork_in_parent()),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_flight_that_ends_in_a_critical_section_is_heard_of(section: str) -> None:
    """Failed or abandoned while somebody else has the lock, a flight wakes its callers when the lock is free again."""
    flights = Flights()
    other, _, bell = board(flights, "other")
    flight, _, first = board(flights, "key")
    _, _, second = board(flights, "key")
    flights._lock = Interrupted(  # type: ignore[assignment]
        flights._lock, lambda: flights.land(flight, State.FAILED, ValueError())
    )
    SECTIONS[section](flights, other, bell)
    assert (first.rung, second.rung) == (1, 1), "a caller waits for what has ended"
    assert "key" not in flights.flying


def test_a_change_beats_what_lands_in_the_same_moment() -> None:
    """While a key is changed nothing lands: what began before the change is not kept after it."""
    flights = Flights()
    flight, _, bell = board(flights, "key")
    kept: list[Any] = []
    threads: list[threading.Thread] = []

    def deliver() -> None:
        flights.deliver(flight, "old", lambda key: kept.append(key) or True)

    def act() -> None:
        threads.append(threading.Thread(target=deliver))
        threads[0].start()
        time.sleep(0.02)
        assert bell.rung == 0, "it landed while the key was changed"

    flights.change("key", "invalidated", act)
    threads[0].join(20)
    assert bell.rung == 1
    assert flight.value == "old"
    assert not kept


def test_threads_pay_once_and_hear() -> None:
    """Eight threads, three keys, failures and interruptions: nobody waits in vain, no key is computed twice at once."""
    flights, over = Flights(), time.monotonic() + 1.5
    lock, computing, wrong, outcomes = threading.Lock(), Counter[int](), [], Counter[str]()
    interval = sys.getswitchinterval()

    def one(chance: random.Random) -> None:
        key, waiter = chance.randrange(3), BlockingWaiter()
        flight, first = flights.board(key, None, threading.get_ident(), 0.0, 1.0, waiter, unknown)
        assert flight is not None
        if not first:
            if not drive(waiter.wait(20)):
                wrong.append("a caller waited in vain")
            elif flight.state is State.FAILED:
                flight.take_error(False)
            outcomes[flight.state.value] += 1
            return
        with lock:
            computing[key] += 1
            if computing[key] > 1:
                wrong.append("computed twice at once")
        time.sleep(0)
        with lock:
            computing[key] -= 1
        if chance.random() < 0.4:
            flights.deliver(flight, 1, lambda key: True)
        else:
            flights.land(flight, chance.choice([State.FAILED, State.ABANDONED]), ValueError())

    def main(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while time.monotonic() < over:
                one(chance)
        except BaseException as error:
            wrong.append(repr(error))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=main, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a thread hangs"
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert not flights.flying
    assert not flights._posted
    assert {"landed", "failed", "abandoned"} <= set(outcomes)


# copies of exceptions ------------------------------------------------------------------------------------------------


class KeywordOnly(Exception):
    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OtherArguments(Exception):
    """Its `__init__` takes something else than what it hands to `Exception`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}", "more")
        self.status = status


class Slotted(Exception):
    __slots__ = ("__private", "status", "unset")

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.__private = status

    @property
    def private(self) -> int:
        return self.__private


@dataclass(frozen=True)
class Frozen(Exception):
    status: int = 0


@dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):
    status: int


class OsKeyword(OSError):
    def __init__(self, *, path: str) -> None:
        super().__init__(2, "no such file", path)


class Unwilling(Exception):
    """It cannot be copied in any way."""

    def __new__(cls, *args: Any) -> Unwilling:
        if args != ("made",):
            raise RuntimeError("one is enough")
        return super().__new__(cls, *args)

    def __init__(self, secret: str) -> None:
        super().__init__("another")


class CopiesItself(Exception):
    def __copy__(self) -> CopiesItself:
        return self


class Doubles(Exception):
    """`__init__` adds to its argument, so a copy made by calling it again would say it twice."""

    def __init__(self, message: str) -> None:
        super().__init__(message + "!")


def undecodable() -> UnicodeDecodeError:
    return UnicodeDecodeError("utf-8", b"\xff\x00", 0, 1, "bad")


def api_error() -> openai.RateLimitError:
    import httpx

    response = httpx.Response(429, request=httpx.Request("POST", "http://x"), headers={"retry-after": "7"})
    return openai.RateLimitError("slow down", response=response, body={"code": "rate_limit"})


ERRORS: dict[str, tuple[Callable[[], BaseException], tuple[str, ...]]] = {
    "plain": (lambda: ValueError("a", 1), ()),
    "no arguments": (KeyError, ()),
    "keyword-only": (lambda: KeywordOnly("no", status=7), ("status",)),
    "other arguments": (lambda: OtherArguments(7), ("status",)),
    "slots": (lambda: Slotted("no", 7), ("status", "private")),
    "frozen": (lambda: Frozen(7), ("status",)),
    "frozen slots": (lambda: FrozenSlots(7), ("status",)),
    "of the system": (lambda: OSError(2, "no such file", "x"), ("errno", "strerror", "filename")),
    "of the system, keyword-only": (lambda: OsKeyword(path="x"), ("errno", "strerror", "filename")),
    "encoding": (undecodable, ("encoding", "object", "start", "end", "reason")),
    "missing name": (lambda: caught(lambda: missing), ("name",)),  # type: ignore[name-defined]  # noqa: F821
    "import": (lambda: ImportError("no", name="x", path="y"), ("name", "path")),
    "a group": (lambda: ExceptionGroup("all", [ValueError("a"), KeyError("b")]), ("message", "exceptions")),
    "adds to its argument": (lambda: Doubles("no"), ()),
    "of an SDK": (api_error, ("status_code", "body", "response", "code")),
    "cancellation": (lambda: KeyboardInterrupt("x"), ()),
}


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error.with_traceback(None)
    raise AssertionError


@pytest.mark.parametrize("name", ERRORS)
def test_a_copy_of_an_exception_says_the_same(name: str) -> None:
    """Type, arguments, text, attributes, cause, context and notes of the copy are those of the exception."""
    make, attributes = ERRORS[name]
    error = make()
    cause, context = LookupError("cause"), LookupError("context")
    BaseException.__setattr__(error, "__cause__", cause)
    BaseException.__setattr__(error, "__context__", context)
    error.__dict__["extra"] = [1]
    error.__dict__["__notes__"] = ["of the function"]
    other = twin(error, None)
    assert other is not error
    assert type(other) is type(error)
    assert other.args == error.args
    assert str(other) == str(error)
    for attribute in (*attributes, "extra", "__cause__", "__context__", "__suppress_context__", "__notes__"):
        assert getattr(other, attribute) == getattr(error, attribute), attribute
    assert repr(other) == repr(error)


def test_whether_the_context_is_shown_is_copied_too() -> None:
    """An exception with a context and without `from` shows it in the copy, and one raised `from None` does not."""
    for suppressed in (False, True):
        error = ValueError("x")
        error.__context__ = KeyError("before")
        error.__cause__ = KeyError("cause") if suppressed else None
        assert twin(error, None).__suppress_context__
        error.__cause__ = KeyError("cause")
        error.__suppress_context__ = suppressed
        assert twin(error, None).__suppress_context__ is suppressed


@pytest.mark.parametrize("error", [Unwilling("made"), CopiesItself("x")], ids=lambda error: type(error).__name__)
def test_what_cannot_be_copied_is_shared(error: BaseException) -> None:
    """An exception of which no copy can be made is handed out itself, or in a copy made without its own ways."""
    other = twin(error, None)
    assert type(other) is type(error)
    assert other.args == error.args


def test_copies_do_not_grow_into_each_other() -> None:
    """Notes and tracebacks of one copy are not those of another, and all show where the exception was raised."""

    def fails() -> None:
        raise KeywordOnly("no", status=1)

    def first_caller(error: BaseException) -> None:
        raise error

    def second_caller(error: BaseException) -> None:
        raise error

    try:
        fails()
    except KeywordOnly as raised:
        error = raised
    trace = error.__traceback__
    error.add_note("of the function")
    with pytest.raises(KeywordOnly) as one:
        first_caller(error)
    with pytest.raises(KeywordOnly) as two:
        second_caller(twin(error, trace))
    one.value.add_note("of the first caller")
    assert two.value.__notes__ == ["of the function"]
    names = [frame.name for frame in traceback.extract_tb(two.value.__traceback__)]
    assert "first_caller" not in names
    assert names[-1] == "fails"
