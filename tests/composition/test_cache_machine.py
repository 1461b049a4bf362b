"""A cached function, a clock, failures, cancellations and invalidations in any order, against a model of what a caller
must get.

The machine holds the function's calls open and ends them one by one. After every step the event loop runs until nothing
moves, and each caller must be where the model says: waiting, or answered with that very answer or error. So what is
kept, for how long, who joins, who pays, and what an invalidation spares and ends, is all checked exactly.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import scalekit
from scalekit import settings as house
from scalekit._cache.stores import disk_clock
from scalekit._runtime.eventloop import EVENT_LOOP

TTL, STALE, RESCUE, NEGATIVE, THROTTLE, HANGS = 10, 10, 60, 5, 3, 5_000
SLOTS = [(scope, key) for scope in (None, "acme") for key in ("a", "b")]
Slot = tuple[str | None, str]


class Down(Exception):
    """An error that is no answer."""


@dataclass
class Run:
    """One run of the function, held open until the machine ends it."""

    slot: Slot
    number: int
    end: asyncio.Future[str]


@dataclass
class Flight:
    """The model's flight: one run and those who wait for it."""

    slot: Slot
    number: int
    began: float
    behind: bool
    waiting: list[Caller] = field(default_factory=list)
    storable: bool = True
    anew: bool = False


@dataclass
class Caller:
    slot: Slot
    asked: float
    task: asyncio.Task[Any]
    expected: Any = None  # None: it waits
    gone: bool = False


@dataclass
class Kept:
    """What the model holds: an answer, or an error that is one."""

    value: Any
    began: float
    until: float
    fresh: float
    usable: float
    expires: float


class House(RuleBasedStateMachine):
    """See the top of the file."""

    epoch = 0.0
    disk: scalekit.Disk | None = None

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        House.epoch += 10_000  # marks are the process's: each history has a time of its own
        self.now = House.epoch
        self._real = EVENT_LOOP.now
        EVENT_LOOP.now = self._clock  # type: ignore[method-assign]
        scalekit.configure(cache_throttle=THROTTLE)
        self.runs: list[Run] = []
        self.numbers: Counter[Slot] = Counter()
        self.callers: list[Caller] = []
        self.flights: dict[Slot, Flight] = {}
        self.disowned: list[Flight] = []
        self.kept: dict[Slot, Kept] = {}
        self.open_store()
        self.starting: list[Flight] = []  # in this step
        self.firsts: list[Caller] = []
        self.marks: dict[tuple[str | None, str | None], float] = {}  # (scope, key): when a mark was set; None: any
        self.ends: list[tuple[float, Slot | None]] = []  # of what was ended, by no mark of this model; None: by one

        @scalekit.cache(
            ttl=TTL,
            stale=STALE,
            stale_if_error=RESCUE,
            negative={LookupError: NEGATIVE},
            tags="key:{key}",
            flight_timeout=HANGS,
            version=str(House.epoch),
            tiers=["memory"] if self.disk is None else ["memory", self.disk],
        )
        async def ask(key: str) -> list[Any]:
            place = scalekit._cache.scope.ambient.get()
            slot = (place.path[0] if place is not None and place.path else None, key)
            self.numbers[slot] += 1
            run = Run(slot, self.numbers[slot], self.loop.create_future())
            self.runs.append(run)
            try:
                how = await run.end
            finally:
                self.runs.remove(run)
            if how == "answer":
                return [slot, run.number]
            if how == "unstorable":
                scalekit.no_store()
                return [slot, run.number]
            raise LookupError(slot, run.number) if how == "negative" else Down(slot, run.number)

        self.ask = ask
        self.control = scalekit.controls(ask).cache

    def open_store(self) -> None:
        """Nothing: memory alone."""

    def _clock(self) -> float:
        return self.now

    # the model --------------------------------------------------------------------------------------------------------

    def ended_at(self, slot: Slot, born: float) -> float | None:
        """When a mark ended what was born then, if one did."""
        names = [(scope, key) for scope in {None, slot[0]} for key in (None, slot[1])]
        if slot[0] is None:
            names.remove((None, None))  # outside of any scope the whole function is dropped, not marked
        times = [self.marks[name] for name in names if name in self.marks and self.marks[name] >= born]
        return max(times, default=None)

    def ended_since(self, flight: Flight) -> bool:
        """Whether the disk knows that what this flight brings was ended. It does not say when: whoever asked after
        anything at all was ended asks again.
        """
        marked = self.ended_at(flight.slot, flight.began) is not None
        return marked or any(slot == flight.slot and time >= flight.began for time, slot in self.ends)

    def holds(self, slot: Slot) -> Kept | None:
        """What is there and not ended."""
        kept = self.kept.get(slot)
        if kept is not None and (self.now >= kept.expires or self.ended_at(slot, kept.began) is not None):
            del self.kept[slot]
            kept = None
        return kept

    def take_off(self, slot: Slot, behind: bool = False, anew: bool = False) -> Flight:
        expected = self.numbers[slot] + 1 + sum(one.slot == slot for one in self.starting)
        flight = Flight(slot, expected, self.now, behind, anew=anew)
        self.flights[slot] = flight
        self.starting.append(flight)
        return flight

    def asks(self, caller: Caller) -> None:
        """What happens to somebody who asks now."""
        kept = self.holds(caller.slot)
        if kept is not None and self.now < kept.usable:
            if self.now >= kept.until and caller.slot not in self.flights:
                self.take_off(caller.slot, behind=True)
            caller.expected = kept.value
            return
        flight = self.flights.get(caller.slot) or self.take_off(caller.slot)
        flight.waiting.append(caller)

    def lands(self, flight: Flight, outcome: Any, how: str) -> None:
        """What happens when a run ends."""
        mine = self.flights.get(flight.slot) is flight
        may_keep = mine and flight.storable and how != "unstorable"
        spoiled = self.ended_at(flight.slot, flight.began)
        if mine:
            del self.flights[flight.slot]
        else:
            self.disowned.remove(flight)
        landed = how in ("answer", "unstorable")
        if landed:
            if may_keep and spoiled is None:
                fresh = self.now + TTL
                self.kept[flight.slot] = Kept(
                    outcome, flight.began, fresh, fresh, fresh + STALE, fresh + max(STALE, RESCUE)
                )
        else:
            spoiled = spoiled if how == "negative" else None
            old = self.holds(flight.slot)
            served = False
            if old is not None and not isinstance(old.value, BaseException):
                until = min(self.now + THROTTLE, old.expires)
                old.usable = max(old.usable, until)
                old.until = min(until, old.usable)
                if flight.storable and not flight.anew:
                    outcome, served, spoiled = old.value, True, None
            if how == "negative" and not served and (old is None or isinstance(old.value, BaseException)):
                landed = True
                if may_keep and spoiled is None:
                    end = self.now + NEGATIVE
                    self.kept[flight.slot] = Kept(outcome, flight.began, end, end, end, end)
            elif not served:
                spoiled = None
        again = []
        ended = self.disk is not None and landed and self.ended_since(flight)
        for place, caller in enumerate(flight.waiting):
            first = place == 0 and not flight.behind and caller.asked == flight.began and caller in self.firsts
            late = spoiled is not None and caller.asked >= spoiled
            if first or not (late or (ended and any(flight.began <= time <= caller.asked for time, _ in self.ends))):
                caller.expected = outcome
            else:
                again.append(caller)
        for caller in again:
            self.asks(caller)

    # the world --------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        for _ in range(30):
            self.loop.run_until_complete(asyncio.sleep(0))

    def within(self, slot: Slot, coroutine: Any) -> asyncio.Task[Any]:
        async def run() -> Any:
            if slot[0] is None:
                return await coroutine()
            with scalekit.scope(slot[0]):
                return await coroutine()

        return self.loop.create_task(run())

    def do(self, slot: Slot, coroutine: Any) -> Any:
        return self.loop.run_until_complete(self.within(slot, coroutine))

    @rule(slot=st.sampled_from(SLOTS), crowd=st.integers(1, 3))
    def call(self, slot: Slot, crowd: int) -> None:
        """Somebody asks, or several at once."""
        self.now += 0.001  # no two things happen at the same time
        for _ in range(crowd):
            alone = slot not in self.flights
            caller = Caller(slot, self.now, self.within(slot, lambda: self.ask(slot[1])))
            self.callers.append(caller)
            self.asks(caller)
            if alone and caller.expected is None:
                self.firsts.append(caller)
        self.settle()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), how=st.sampled_from(["answer", "answer", "answer", "unstorable", "negative", "down", "down"]))
    def end_a_run(self, data: st.DataObject, how: str) -> None:
        """A run ends, one way or another."""
        self.now += 0.001  # no two things happen at the same time
        run = data.draw(st.sampled_from(self.runs), label="run")
        flights = [*self.flights.values(), *self.disowned]
        flight = next(one for one in flights if one.slot == run.slot and one.number == run.number)
        outcome: Any = [run.slot, run.number]
        if how in ("negative", "down"):
            outcome = (LookupError if how == "negative" else Down)(run.slot, run.number)
        run.end.set_result(how)
        self.lands(flight, outcome, how)
        self.settle()

    @precondition(lambda self: any(caller.expected is None for caller in self.callers))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Somebody who waits gives up; with the last one, the run ends."""
        self.now += 0.001  # no two things happen at the same time
        caller = data.draw(st.sampled_from([one for one in self.callers if one.expected is None]))
        flight = next(one for one in [*self.flights.values(), *self.disowned] if caller in one.waiting)
        flight.waiting.remove(caller)
        caller.task.cancel()
        caller.gone = True
        self.callers.remove(caller)
        if not flight.waiting and not flight.behind:
            if self.flights.get(flight.slot) is flight:
                del self.flights[flight.slot]
            else:
                self.disowned.remove(flight)
        self.settle()
        assert caller.task.cancelled()

    @rule(seconds=st.sampled_from([1, 3, 7, 15]))
    def tick(self, seconds: int) -> None:
        """Time goes by."""
        self.now += seconds

    def disown(self, slot: Slot, storable: bool = False) -> None:
        flight = self.flights.pop(slot, None)
        if flight is not None:
            flight.storable = storable
            self.disowned.append(flight)

    @rule(slot=st.sampled_from(SLOTS))
    def invalidate(self, slot: Slot) -> None:
        """One key is invalidated in its scope."""
        self.now += 0.001  # no two things happen at the same time
        self.do(slot, lambda: self.control.invalidate(slot[1]))
        self.kept.pop(slot, None)
        self.disown(slot)
        self.ends.append((self.now, slot))

    @rule(slot=st.sampled_from(SLOTS))
    def invalidate_tag(self, slot: Slot) -> None:
        """A tag is invalidated: of one scope, or outside of any, everywhere."""
        self.now += 0.001  # no two things happen at the same time
        self.do(slot, lambda: self.control.invalidate_tags(f"key:{slot[1]}"))
        self.marks[slot] = self.now
        self.ends.append((self.now, None))

    @rule(scope=st.sampled_from([None, "acme"]))
    def clear(self, scope: str | None) -> None:
        """All of a scope is cleared, or all."""
        self.now += 0.001  # no two things happen at the same time
        self.do((scope, ""), lambda: self.control.clear())
        if scope is None:
            self.kept.clear()
            for slot in [*self.flights]:
                self.disown(slot)
            self.ends += [(self.now, slot) for slot in SLOTS]
        else:
            self.marks[scope, None] = self.now
            self.ends.append((self.now, None))

    @rule(slot=st.sampled_from(SLOTS), number=st.integers(1000, 2000))
    def put(self, slot: Slot, number: int) -> None:
        """An answer is put in by hand."""
        self.now += 0.001  # no two things happen at the same time
        self.do(slot, lambda: self.control.put([slot, number], slot[1]))
        self.disown(slot)
        fresh = self.now + TTL
        self.kept[slot] = Kept([slot, number], self.now, fresh, fresh, fresh + STALE, fresh + max(STALE, RESCUE))

    @rule(slot=st.sampled_from(SLOTS))
    def look(self, slot: Slot) -> None:
        """Looking tells what a call would get, and changes nothing."""
        self.now += 0.001  # no two things happen at the same time
        kept, seen = self.holds(slot), self.do(slot, lambda: self.control.lookup(slot[1]))
        assert (seen is None) == (kept is None)
        if kept is not None:
            assert same(kept.value, seen.error or seen.value)
            assert seen.fresh == (self.now < kept.fresh)
        contained = self.do(slot, lambda: self.control.contains(slot[1]))
        assert contained == (kept is not None and self.now < kept.usable)

    # what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def everybody_is_where_the_model_says(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.starting.clear()
        for caller in [*self.callers]:
            if caller.expected is None:
                assert not caller.task.done(), f"answered too early: {caller}"
                continue
            assert caller.task.done(), f"still waits: {caller}"
            error = caller.task.exception()
            assert same(caller.expected, caller.task.result() if error is None else error)
            self.callers.remove(caller)
        flights = [*self.flights.values(), *self.disowned]
        assert Counter((run.slot, run.number) for run in self.runs) == Counter(
            (flight.slot, flight.number) for flight in flights
        ), "somebody pays whom the model does not know"

    def teardown(self) -> None:
        """Whoever waits is answered when the runs end, and nothing is left."""
        if not hasattr(self, "loop"):
            return
        try:
            while self.runs:
                for run in [*self.runs]:
                    run.end.set_result("answer")
                    self.settle()
            assert all(caller.task.done() for caller in self.callers)
            for caller in self.callers:
                caller.task.exception()
        finally:
            EVENT_LOOP.now = self._real  # type: ignore[method-assign]
            house.reset()
            if self.disk is not None:
                self.disk.close()
                disk_clock.ticks = self._ticks  # type: ignore[misc]
                del EVENT_LOOP.offload
            self.loop.close()


def same(expected: Any, got: Any) -> bool:
    if isinstance(expected, BaseException):
        return type(got) is type(expected) and got.args == expected.args
    return bool(expected == got)


class HouseOnDisk(House):
    """The same over a real disk, whose clock follows the model's, and with restarts: what memory held is gone then."""

    def open_store(self) -> None:
        self._ticks, disk_clock.ticks = disk_clock.ticks, lambda: int(self.now * 1e9)  # type: ignore[misc]
        self.elsewhere = 0  # what is in a thread
        EVENT_LOOP.offload = self._offload  # type: ignore[method-assign, assignment]
        self.disk = scalekit.Disk(tempfile.mkdtemp(dir=FOLDER.name))

    def settle(self) -> None:
        super().settle()
        while self.elsewhere:
            self.loop.run_until_complete(asyncio.sleep(0.0002))
            super().settle()

    async def _offload(self, work: Callable[[], Any]) -> Any:
        self.elsewhere += 1
        try:
            return await type(EVENT_LOOP).offload(EVENT_LOOP, work)
        finally:
            self.elsewhere -= 1

    @rule()
    def restart(self) -> None:
        """This process's memory is emptied; the disk still has the answers, with the times they had when they came."""
        self.now += 0.001
        self.ask.cache_clear()  # type: ignore[attr-defined]
        for slot in [*self.flights]:
            self.disown(slot)
        for kept in self.kept.values():
            kept.until = kept.fresh
            if not isinstance(kept.value, BaseException):
                kept.usable = kept.fresh + STALE


FOLDER = tempfile.TemporaryDirectory(prefix="scalekit-machine-")
HouseOnDisk.TestCase.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
House.TestCase.settings = settings(deadline=None, max_examples=120, stateful_step_count=40)


class TestHouse(House.TestCase):
    """A cached function and its model, through random histories."""


class TestHouseOnDisk(HouseOnDisk.TestCase):
    """The same over a real disk, with restarts."""


@pytest.mark.soak
class TestHouseOnDiskForLong(HouseOnDisk.TestCase):
    """The same over a real disk for long: `uv run pytest -m soak -o faulthandler_timeout=0`."""

    settings = settings(deadline=None, max_examples=500, stateful_step_count=60)


@pytest.mark.soak
class TestHouseForLong(House.TestCase):
    """The same for long: `uv run pytest -m soak -o faulthandler_timeout=0`."""

    settings = settings(deadline=None, max_examples=5_000, stateful_step_count=80)
