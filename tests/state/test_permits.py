"""The permit pool alone: never above its limit, nothing lost, in order, whatever happens and whenever it happens."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from doubles import Bell, Interrupted
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import scalekit
from scalekit._cache.flight import Flight
from scalekit._core import guarded
from scalekit._core.drive import drive
from scalekit._core.lineage import Frame
from scalekit._limit.permits import Permit, Pool, Refusal, Ticket
from scalekit._runtime.blocking import BlockingWaiter


def enter(pool: Pool, outer: Frame | None, waiter: Any, max_queue: int) -> Permit | Ticket | Refusal:
    """The way in, as the policy has it written out."""
    if not pool.queue:
        try:
            slot = pool.free.pop()
        except IndexError:
            pass
        else:
            permit = slot.permit = Permit(outer, slot, "f", threading.get_ident())
            return permit
    return pool.line_up(outer, "f", waiter, max_queue)


def leave(pool: Pool, permit: Permit) -> None:
    """The way out, as the policy has it written out."""
    permit.ended = True
    if permit.lent or permit.lender is not None:
        pool.leave(permit)
    else:
        permit.slot.permit = None
        pool.free.append(permit.slot)
        if pool.queue:
            pool.settle()


class Call:
    """One caller. It is waiting, then granted its permit, then inside; or it has gone."""

    def __init__(self, outer: Frame | None, bell: Bell) -> None:
        self.outer = outer
        self.bell = bell
        self.ticket: Ticket | None = None
        self.permit: Permit | None = None
        self.state = "waiting"


def above(*frames: Frame | None) -> list[Frame]:
    """`frames` and everything that waits for them."""
    found: list[Frame] = []
    for frame in frames:
        if frame is not None:
            found.append(frame)
    for frame in found:  # which grows
        for other in (frame.outer, *getattr(frame, "joined", ())):
            if other is not None and not any(other is one for one in found):
                found.append(other)
    return found


class Crowd(RuleBasedStateMachine):
    """Callers come, nest, share flights, give up, die and leave; the limit is turned meanwhile."""

    @initialize(concurrency=st.integers(1, 3), max_queue=st.integers(0, 5))
    def begin(self, concurrency: int, max_queue: int) -> None:
        self.pool = Pool(concurrency)
        self.concurrency = self.allowed = concurrency
        self.max_queue = max_queue
        self.line: list[Call] = []
        self.calls: list[Call] = []
        self.past: list[Permit] = []
        self.flights: list[Flight] = []

    # what the model knows ---------------------------------------------------------------------------------------------

    def holding(self) -> list[Call]:
        return [call for call in self.calls if call.state in ("granted", "inside")]

    def inside(self) -> list[Call]:
        return [call for call in self.calls if call.state == "inside"]

    def creditor(self, call: Call) -> Permit | None:
        """The living parent that waits with its permit lent to this call."""
        assert call.permit is not None
        lender = call.permit.lender
        while lender is not None and lender.ended:
            lender = lender.lender
        return lender

    def lenders(self) -> set[int]:
        return {id(lender) for call in self.holding() if (lender := self.creditor(call)) is not None}

    def working(self) -> int:
        lent = self.lenders()
        return sum(id(call.permit) not in lent for call in self.holding())

    def observe(self) -> None:
        """What changed for those in the line; whoever got a slot of its own must not have overtaken anybody."""
        overtaken: Call | None = None
        for call in self.line:
            assert call.ticket is not None
            if call.ticket.permit is not None:
                call.permit, call.state = call.ticket.permit, "granted"
                assert call.bell.rung == 1, "granted, but not woken once"
                if call.permit.lender is None:
                    assert overtaken is None, "first come, first served"
                else:
                    assert any(frame is call.permit.lender for frame in above(call.outer)), "lent to a stranger"
            elif call.ticket not in self.pool.queue:
                assert not call.bell.alive, "it left the line without a permit"
                call.state = "gone"
            else:
                assert call.bell.rung == 0, "woken, but not granted"
                overtaken = overtaken or call
        self.line = [call for call in self.line if call.state == "waiting"]
        self.calls = [call for call in self.calls if call.state != "gone"]
        self.allowed = max(self.concurrency, min(self.allowed, self.working()))

    # what happens -----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), alive=st.sampled_from([True, True, True, False]))
    def come(self, data: st.DataObject, alive: bool) -> None:
        """Somebody calls: on its own, inside another call (or one that has ended meanwhile), or inside a flight."""
        frames: list[Frame | None] = [None, *self.flights, *(call.permit for call in self.inside()), *self.past[-2:]]
        call = Call(data.draw(st.sampled_from(frames), label="outer"), Bell(alive))
        waiting = len(self.line)
        got = enter(self.pool, call.outer, call.bell, self.max_queue)
        if isinstance(got, Refusal):
            assert waiting == got.depth == self.max_queue, "refused although there was a place"
            assert call.bell.rung == 0
            return
        self.calls.append(call)
        if isinstance(got, Permit):
            call.permit, call.state = got, "inside"
            return
        call.ticket = got
        if got.permit is None:
            self.line.append(call)
        else:  # lent at once
            call.permit, call.state = got.permit, "granted"
            assert call.permit.lender is not None

    @precondition(lambda self: any(call.state == "granted" for call in self.calls))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """A caller that was woken sees its permit."""
        data.draw(st.sampled_from([call for call in self.calls if call.state == "granted"])).state = "inside"

    @precondition(lambda self: self.inside())
    @rule(data=st.data(), as_stream=st.booleans())
    def go(self, data: st.DataObject, as_stream: bool) -> None:
        """A call ends, whoever still runs on its permit."""
        call = data.draw(st.sampled_from(self.inside()))
        assert call.permit is not None
        call.state = "gone"
        self.past.append(call.permit)
        if as_stream:
            self.pool.leave(call.permit)
        else:
            leave(self.pool, call.permit)

    @precondition(lambda self: any(call.ticket and call.state != "inside" for call in self.calls))
    @rule(data=st.data(), twice=st.booleans())
    def give_up(self, data: st.DataObject, twice: bool) -> None:
        """A caller is cancelled: in the line, or just as its permit came."""
        call = data.draw(st.sampled_from([call for call in self.calls if call.ticket and call.state != "inside"]))
        assert call.ticket is not None
        if call in self.line:
            self.line.remove(call)
        call.state = "gone"
        for _ in range(1 + twice):
            self.pool.give_up(call.ticket)

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """The event loop of somebody in the line is closed."""
        data.draw(st.sampled_from(self.line)).bell.alive = False

    @rule(concurrency=st.integers(1, 4))
    def turn(self, concurrency: int) -> None:
        """Another limit."""
        self.allowed = max(concurrency, self.working())
        self.concurrency = concurrency
        self.pool.resize(concurrency)

    @rule(data=st.data())
    def take_off(self, data: st.DataObject) -> None:
        """A call, or nobody in particular, starts a flight."""
        frames: list[Frame | None] = [None, *self.flights, *(call.permit for call in self.inside())]
        outer = data.draw(st.sampled_from(frames), label="outer")
        self.flights = [*self.flights[-2:], Flight("key", outer, None, 0.0, 1.0, Bell())]

    @precondition(lambda self: self.flights and self.inside())
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """A call begins to wait for a flight: what queues inside of the flight may borrow from it."""
        flight = data.draw(st.sampled_from(self.flights), label="flight")
        frames: list[Any] = [call.permit for call in self.inside()]
        frame: Frame = data.draw(st.sampled_from([*frames, *self.flights]), label="by")
        if any(one is flight for one in above(frame)):
            return  # it would wait for itself
        flight.joined = (*flight.joined, frame)
        for ticket in list(flight.inside):
            ticket.pool.offer(ticket, frame)

    @precondition(lambda self: any(flight.joined for flight in self.flights))
    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        """Somebody waits for a flight no more."""
        flight = data.draw(st.sampled_from([flight for flight in self.flights if flight.joined]))
        flight.joined = flight.joined[1:]

    # what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.observe()
        pool, holding = self.pool, self.holding()
        assert self.working() <= self.allowed, "more at work than the limit"
        free = [id(slot) for slot in pool.free]
        held = {id(call.permit.slot) for call in holding if call.permit}
        assert len(set(free)) == len(free), "a slot is free twice"
        assert not held & set(free), "a slot is free and held"
        assert held | set(free) == {id(slot) for slot in pool.slots}, "a slot is lost"
        assert len(pool.slots) == max(self.concurrency, len(held)), "slots beyond the limit"
        assert [*pool.queue][-len(self.line) :] == [call.ticket for call in self.line] or not self.line
        assert len(self.line) <= self.max_queue
        assert not (self.line and pool.free), "somebody waits although a slot is free"
        state = pool.state()
        assert (state.concurrency, state.waiting) == (self.concurrency, len(self.line))
        assert state.in_flight == len(held) == sum(state.holders.values())
        lent = self.lenders()
        can_lend = {id(call.permit) for call in self.inside()} - lent
        for call in self.line:
            assert not can_lend & {id(frame) for frame in above(call.outer)}, "somebody waits who could borrow"
        for flight in self.flights:
            assert all(ticket in pool.queue for ticket in flight.inside), "a flight remembers those who have left"

    def teardown(self) -> None:
        """Everybody leaves, and it is as it was at the beginning."""
        if not hasattr(self, "pool"):
            return
        rounds = 0
        while self.calls:
            rounds += 1
            assert rounds < 1_000, "somebody never gets a permit"
            for call in self.calls[::2] or self.calls:
                if call.state == "inside":
                    assert call.permit is not None
                    leave(self.pool, call.permit)
                    call.state = "gone"
                elif call.state == "granted":
                    call.state = "inside"
                elif self.pool.free or call.permit is None:
                    assert call.ticket is not None
                    self.pool.give_up(call.ticket)
                    call.state = "gone"
                self.line = [call for call in self.line if call.state == "waiting"]
                self.holds()
        assert len(self.pool.free) == len(self.pool.slots) == self.concurrency
        assert not self.pool.queue


Crowd.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


class TestCrowd(Crowd.TestCase):
    """The pool and a model of it, through random histories: see `Crowd.holds` for what must hold after each step."""


# the moment ----------------------------------------------------------------------------------------------------------


def full(waiting: int = 1) -> tuple[Pool, Permit, list[Ticket]]:
    """A pool of one permit, its holder, and those who wait for it."""
    pool = Pool(1)
    holder = enter(pool, None, Bell(), 10)
    assert isinstance(holder, Permit)
    tickets = [enter(pool, None, Bell(), waiting) for _ in range(waiting)]
    return pool, holder, [ticket for ticket in tickets if isinstance(ticket, Ticket)]


SECTIONS: dict[str, Callable[[Pool, Permit, list[Ticket]], object]] = {
    "a newcomer queues": lambda pool, holder, tickets: pool.line_up(None, "f", Bell(), 10),
    "a newcomer is refused": lambda pool, holder, tickets: pool.line_up(None, "f", Bell(), 1),
    "another one gives up": lambda pool, holder, tickets: pool.give_up(tickets[-1]),
    "somebody offers a loan": lambda pool, holder, tickets: pool.offer(tickets[-1], Permit(None, holder.slot, "f", 0)),
    "the limit is turned down": lambda pool, holder, tickets: (pool.resize(2), pool.resize(1)),
    "the state is read": lambda pool, holder, tickets: pool.state(),
    "a thread asks whether it is stuck": lambda pool, holder, tickets: pool.stuck(tickets[-1]),
    "a child gives its loan back": lambda pool, holder, tickets: borrow_and_leave(pool, holder),
    "the process forks": lambda pool, holder, tickets: (guarded._before_fork(), guarded._after_fork_in_parent()),
}


def borrow_and_leave(pool: Pool, holder: Permit) -> None:
    child = pool.line_up(holder, "f", Bell(), 10)
    assert isinstance(child, Ticket)
    assert child.permit is not None
    pool.leave(child.permit)


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_permit_that_comes_back_in_a_critical_section_is_passed_on(section: str, lent: bool) -> None:
    """Given back while somebody else has the lock, a permit reaches the next in line when the lock is free again."""
    pool, holder, tickets = full(waiting=2)
    leaver = holder
    if lent:
        child = pool.line_up(holder, "f", Bell(), 10)
        assert isinstance(child, Ticket)
        assert child.permit is not None
        leaver = child.permit
        leave(pool, holder)  # the loan outlives its parent
    pool._lock = Interrupted(pool._lock, lambda: leave(pool, leaver))  # type: ignore[assignment]
    if section == "a child gives its loan back" and lent:
        child = pool.line_up(leaver, "f", Bell(), 10)
        assert isinstance(child, Ticket)
        assert child.permit is not None
        pool.leave(child.permit)
    else:
        SECTIONS[section](pool, holder, tickets)
    first = tickets[0]
    assert first.permit is not None, "somebody waits although the permit came back"
    assert first.waiter is not None
    assert first.waiter.rung == 1  # type: ignore[attr-defined]


class Meeting(Permit):
    """A permit whose holder leaves, without the lock, just before or just after it is marked as lent under the lock."""

    __slots__ = ("_lent", "after", "before")

    @property  # type: ignore[override]
    def lent(self) -> bool:
        return bool(getattr(self, "_lent", False))

    @lent.setter
    def lent(self, lent: bool) -> None:
        if lent and self.before:
            self.before = leave(self.slot.pool, self)
        self._lent = lent
        if lent and self.after:
            self.after = leave(self.slot.pool, self)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_permit_that_is_given_back_just_as_it_is_lent_has_one_owner(moment: str) -> None:
    """Lender and leaver meet without a common lock: the permit is passed on once, to whoever is first in line."""
    pool = Pool(1)
    slot = pool.free.pop()
    holder = slot.permit = Meeting(None, slot, "f", 0)
    holder.before, holder.after = moment == "before", moment == "after"
    ticket = pool.line_up(holder, "f", Bell(), 10)
    assert isinstance(ticket, Ticket)
    assert ticket.permit is not None
    assert ticket.permit.lender is None
    assert not pool.free
    leave(pool, ticket.permit)
    assert len(pool.free) == 1


def test_the_queue_of_a_closed_loop_is_passed_over() -> None:
    """However many waited on an event loop that was closed, the permit reaches the first one who lives."""
    pool, holder, tickets = full(waiting=3_000)
    for ticket in tickets[:-1]:
        ticket.waiter.alive = False  # type: ignore[union-attr]
    leave(pool, holder)
    assert tickets[-1].permit is not None
    assert pool.state().waiting == 0
    leave(pool, tickets[-1].permit)
    assert len(pool.free) == 1


def test_a_loan_that_outlives_thousands_of_parents_comes_back() -> None:
    """Each call begins the next one and ends before it: the permit goes down the line and comes back at its end."""
    pool, last, _ = full(waiting=0)
    for _ in range(3_000):
        ticket = pool.line_up(last, "f", Bell(), 0)
        assert isinstance(ticket, Ticket)
        assert ticket.permit is not None
        leave(pool, last)
        last = ticket.permit
    assert not pool.free
    leave(pool, last)
    assert len(pool.free) == 1


def test_one_who_joins_a_flight_again_and_again_costs_nothing() -> None:
    """What queues inside of a shared flight is offered to each who joins, and is remembered once, whoever joins."""
    pool, holder, _ = full(waiting=0)
    other = Pool(1_000)
    flight = Flight("key", None, None, 0.0, 1.0, Bell())
    ticket = pool.line_up(flight, "f", Bell(), 10)
    assert isinstance(ticket, Ticket)
    for _ in range(200):  # doubling with each would never end
        permit = enter(other, None, Bell(), 0)
        assert isinstance(permit, Permit)
        flight.joined = (*flight.joined, permit)
        for one in list(flight.inside):
            one.pool.offer(one, permit)
    assert list(flight.inside) == [ticket]
    leave(pool, holder)
    assert ticket.permit is not None
    assert not flight.inside


def test_who_left_a_flight_lends_it_nothing() -> None:
    """A permit that was lent, and asked for inside a flight that its holder joined, is not lent there once it left."""
    pool, holder, _ = full(waiting=0)
    other = pool.line_up(holder, "f", Bell(), 10)
    assert isinstance(other, Ticket)
    assert other.permit is not None
    flight = Flight("key", None, None, 0.0, 1.0, Bell())
    ticket = pool.line_up(flight, "f", Bell(), 10)
    assert isinstance(ticket, Ticket)
    for leaves in (True, False):
        flight.joined = (holder,)
        pool.offer(ticket, holder)
        if leaves:
            flight.joined = ()
            leave(pool, other.permit)
            assert ticket.permit is None, "lent to somebody for whom nobody waits"
            again = pool.line_up(holder, "f", Bell(), 10)
            assert isinstance(again, Ticket)
            assert again.permit is not None
            other = again
    assert other.permit is not None
    leave(pool, other.permit)
    assert ticket.permit is not None


def test_a_parent_remembers_no_child_that_was_refused() -> None:
    """Children that were refused or gave up while the permit was lent are not kept by their parent."""
    pool, holder, _ = full(waiting=0)
    child = pool.line_up(holder, "f", Bell(), 0)
    assert isinstance(child, Ticket)
    assert child.permit is not None
    for _ in range(50):
        assert isinstance(pool.line_up(holder, "f", Bell(), 0), Refusal)
        ticket = pool.line_up(holder, "f", Bell(), 1)
        assert isinstance(ticket, Ticket)
        pool.give_up(ticket)
    assert not holder.asking
    leave(pool, child.permit)
    leave(pool, holder)
    assert len(pool.free) == 1


# threads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _hasty_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_hasty_switches")
def test_eight_threads_lose_nothing() -> None:
    """Eight threads enter, nest, borrow, are refused, give up and leave as they like: nothing is lost, nobody waits in
    vain, and never are more at work than the limit."""
    pool, over = Pool(3), time.monotonic() + 2.0
    lock, working, peak, refusals, waited = threading.Lock(), 0, 0, 0, 0
    wrong: list[str] = []

    def work(step: int) -> None:
        nonlocal working, peak
        with lock:
            working += step
            peak = max(peak, working)

    def call(chance: random.Random, outer: Permit | None, depth: int) -> None:
        nonlocal refusals, waited
        waiter = BlockingWaiter()
        got = enter(pool, outer, waiter, 4)
        if isinstance(got, Refusal):
            refusals += 1
            return
        if isinstance(got, Ticket):
            if got.permit is None:
                waited += 1
                hasty = chance.random() < 0.2
                woken = drive(waiter.wait(chance.random() * 1e-4 if hasty else 20))
                if not woken:
                    pool.give_up(got)
                    if not hasty:
                        wrong.append("a caller waited in vain")
                    return
                if chance.random() < 0.1:
                    pool.give_up(got)
                    return
            assert got.permit is not None
            got = got.permit
        work(1)
        if depth and chance.random() < 0.5:
            work(-1)  # it only waits for its child
            call(chance, got, depth - 1)
            work(1)
        work(-1)
        if chance.random() < 0.3:
            pool.leave(got)
        else:
            leave(pool, got)

    def main(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while time.monotonic() < over:
                call(chance, None, 3)
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=main, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    assert not wrong
    assert peak <= 3
    assert refusals
    assert waited
    assert len(pool.free) == len(set(pool.free)) == 3
    assert not pool.queue
    assert not pool._posted


def test_children_in_threads_lose_nothing() -> None:
    """Parents whose children run in other threads, some of them longer than their parents: nothing is lost."""
    pool, wrong, started = Pool(2), [], []
    rounds, interval = 60, sys.getswitchinterval()

    def child(outer: Permit, chance: random.Random) -> None:
        waiter = BlockingWaiter()
        got = enter(pool, outer, waiter, 1_000)
        if isinstance(got, Ticket):
            if got.permit is None and not drive(waiter.wait(20)):
                pool.give_up(got)
                wrong.append("a child waited in vain")
                return
            assert got.permit is not None
            got = got.permit
        assert isinstance(got, Permit)
        if chance.random() < 0.5:
            time.sleep(0)
        leave(pool, got)

    def parent(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds):
            waiter = BlockingWaiter()
            got = enter(pool, None, waiter, 1_000)
            if isinstance(got, Ticket):
                if got.permit is None and not drive(waiter.wait(20)):
                    pool.give_up(got)
                    wrong.append("a parent waited in vain")
                    return
                assert got.permit is not None
                got = got.permit
            assert isinstance(got, Permit)
            children = [threading.Thread(target=child, args=(got, chance), daemon=True) for _ in range(2)]
            for thread in children:
                thread.start()
            started.extend(children)
            if chance.random() < 0.5:
                for thread in children:
                    thread.join(30)
            leave(pool, got)

    sys.setswitchinterval(1e-6)
    try:
        parents = [threading.Thread(target=parent, args=(seed,), daemon=True) for seed in range(4)]
        for thread in parents:
            thread.start()
        for thread in [*parents, *started]:
            thread.join(30)
            assert not thread.is_alive(), "a thread hangs"
        for thread in started:
            thread.join(30)
            assert not thread.is_alive(), "a child hangs"
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert len(pool.free) == len(set(pool.free)) == 2
    assert not pool.queue


def run_apart(script: str) -> None:
    """Run a script in a process of its own, where a deadlock ends in a timeout that shows all stacks."""
    head = "import faulthandler; faulthandler.dump_traceback_later(40, exit=True)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(script)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()


def test_the_collector_closes_what_was_abandoned_at_any_moment() -> None:
    """Streams and coroutines dropped in cycles are closed by the collector, which comes at every allocation, also in
    critical sections: nobody deadlocks, and every permit is back."""
    run_apart(
        """
        import asyncio, gc, threading, time
        import scalekit

        policy = scalekit.limit(concurrency=3, queue_timeout="30s")
        over = time.monotonic() + 2.0

        @policy
        def items():
            yield 1
            yield 2

        @policy
        def work():
            return 1

        @scalekit.cache(ttl="1h")
        @policy
        def ask(x):
            return [x]

        @policy
        async def aitems():
            yield 1
            yield 2

        @policy
        async def awork():
            await asyncio.sleep(0)

        @scalekit.cache(ttl="1h")
        @policy
        async def aask(x):
            await asyncio.sleep(0)
            return [x]

        class Cycle:
            def __init__(self, held):
                self.held, self.me = held, self

        def in_thread(first):
            x = first
            while time.monotonic() < over:
                stream = items()
                next(stream)
                Cycle(stream)
                del stream
                work()
                x += 10
                ask(x)

        async def in_loop():
            async def one(x):
                while time.monotonic() < over:
                    stream = aitems()
                    await anext(stream)
                    Cycle(stream)
                    del stream
                    mine = f"{threading.get_ident()} {x}"
                    for coroutine in (awork(), aask(mine), awork()):  # inside, in a flight, or in the queue
                        coroutine.send(None)
                        Cycle(coroutine)
                    del coroutine
                    await awork()
                    x += 10
                    await aask(x)
            await asyncio.gather(*[one(x) for x in (1, 2, 3)])

        threads = [threading.Thread(target=in_thread, args=(x,), daemon=True) for x in range(3)]
        threads += [threading.Thread(target=asyncio.run, args=(in_loop(),), daemon=True) for _ in range(2)]
        before = gc.get_threshold()
        gc.set_threshold(1)
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            gc.collect()  # where everybody waits nobody allocates
            time.sleep(0.002)
        gc.set_threshold(*before)
        gc.collect()
        state = policy.pool.state()
        assert (state.in_flight, state.waiting, len(set(policy.pool.free))) == (0, 0, 3), state
        for function in (ask, aask):
            flights = scalekit.controls(function).cache._site.flights
            assert not flights.flying, flights.flying
        """
    )


# forks ---------------------------------------------------------------------------------------------------------------


def in_a_fork(check: Callable[[], object]) -> None:
    """Fork, run `check` in the child, and expect it to be well there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # since 3.12 forking with threads is warned of
def test_a_stream_open_across_a_fork_gives_no_permit_back_twice() -> None:
    """The child of a fork has all permits, and closing there what the parent opened does not make one more."""
    policy = scalekit.limit(concurrency=1)

    @policy
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    stream = numbers()
    next(stream)

    def check() -> None:
        assert policy.pool.state().in_flight == 0
        stream.close()  # type: ignore[attr-defined]
        assert len(policy.pool.free) == 1

    in_a_fork(check)
    assert not policy.pool.free
    assert list(stream) == [2]
    assert len(policy.pool.free) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # since 3.12 forking with threads is warned of
def test_a_loan_to_a_thread_that_stayed_behind_is_called_in() -> None:
    """A permit that was lent to a child in another thread is its parent's again in a forked process."""
    pool, holder, _ = full(waiting=0)
    tickets: list[Any] = []
    thread = threading.Thread(target=lambda: tickets.append(pool.line_up(holder, "f", Bell(), 0)))
    thread.start()
    thread.join()

    def check() -> None:
        child = pool.line_up(holder, "f", Bell(), 0)
        assert isinstance(child, Ticket)
        assert child.permit is not None
        leave(pool, holder)
        leave(pool, child.permit)
        leave(pool, tickets[0].permit)
        assert len(pool.free) == 1

    in_a_fork(check)
    leave(pool, holder)
    leave(pool, tickets[0].permit)
    assert len(pool.free) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # since 3.12 forking with threads is warned of
def test_two_threads_fork_at_once() -> None:
    """Two threads that fork at the same time, while a third one makes pools, do not block each other."""
    pools, done, interval = [Pool(1) for _ in range(200)], threading.Event(), sys.getswitchinterval()

    def fork() -> None:
        for _ in range(5):
            in_a_fork(lambda: [pool.state() for pool in pools])

    def make() -> None:
        while not done.is_set():
            Pool(1)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=target, daemon=True) for target in (fork, fork, make)]
        for thread in threads:
            thread.start()
        for thread in threads[:2]:
            thread.join(30)
            assert not thread.is_alive(), "a fork hangs"
    finally:
        done.set()
        sys.setswitchinterval(interval)
    threads[2].join(30)
    assert not any(pool._lock.locked() for pool in pools)
