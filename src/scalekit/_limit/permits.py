"""One pool of permits for threads and any number of event loops: first come, first served, and lent to children.

Free permits are the items of a deque, so that an uncontended permit is one atomic `pop()` without a lock. Whoever finds
none queues up, under the lock, and is woken with the permit already its own: nobody polls, and nobody is overtaken.

A parent that holds a permit and waits for its children, each of which needs one, is a deadlock in a plain semaphore.
Here, when none is free, the permit of a waiting ancestor (found in the lineage, see _core/lineage.py) is lent to one
child at a time. The loan may outlive the parent: then the child gives the permit back. So at most `concurrency`
calls work at once, as long as a parent only waits while its child runs.

Leaving without the lock and lending under it meet in two flags. The leaver writes `ended` and then reads `lent`; the
lender writes `lent` and then reads `ended`. Whatever the interleaving, one of them sees the other, and the permit
has one owner.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from functools import partial
from threading import get_ident
from typing import NamedTuple

from scalekit._core.guarded import Action, Guarded
from scalekit._core.lineage import Frame, Shared, ancestors
from scalekit._runtime.base import Waiter


class Slot:
    """One unit of a pool; `permit` is who has it, None while it is free."""

    __slots__ = ("permit", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.permit: Permit | None = None


class Permit(Frame):
    """The right of one call to run. `lender` is the ancestor it is borrowed from, if it is."""

    __slots__ = ("asking", "ended", "home", "lender", "lent", "outer", "slot", "who")

    def __init__(self, outer: Frame | None, slot: Slot, who: str, home: int, lender: Permit | None = None) -> None:
        self.outer = outer
        self.slot = slot
        self.who = who
        self.home = home
        self.lender = lender
        self.lent = False
        self.ended = False
        self.asking: OrderedDict[Ticket, None] | None = None


class Ticket:
    """One caller in the queue; `permit` is what it was given, `places` are where it asks for a loan."""

    __slots__ = ("home", "outer", "permit", "places", "pool", "waiter", "who")

    def __init__(self, pool: Pool, outer: Frame | None, who: str, waiter: Waiter | None) -> None:
        self.pool = pool
        self.outer = outer
        self.who = who
        self.home = get_ident()
        self.waiter = waiter
        self.permit: Permit | None = None
        self.places: list[dict[Ticket, None]] = []


class Refusal(NamedTuple):
    """No place in the queue: `depth` callers wait already."""

    depth: int


class LimitState(NamedTuple):
    """A snapshot: `in_flight` of `concurrency` permits are held, by these functions, and `waiting` callers queue."""

    concurrency: int
    in_flight: int
    waiting: int
    holders: dict[str, int]


class Pool(Guarded):
    """The permits of one limit."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.slots = [Slot(self) for _ in range(concurrency)]
        self.free = deque(self.slots)
        self.queue: OrderedDict[Ticket, None] = OrderedDict()
        self._retiring = 0
        super().__init__()

    def leave(self, permit: Permit) -> None:
        """Give a permit back. Takes no lock that it might wait for, so a finalizer may call it.

        (The policy has the way in and out of an uncontended permit written out: a method call each would be a fifth
        of it.)
        """
        permit.ended = True
        if permit.lent or permit.lender is not None:
            self._post(lambda: None if permit.lent else self._release(permit))
            return
        slot = permit.slot
        if slot.permit is not permit:  # of a thread that a fork left behind: the slot was taken back then
            return
        slot.permit = None
        self.free.append(slot)
        if self.queue:
            self.settle()

    def line_up(self, outer: Frame | None, who: str, waiter: Waiter, max_queue: int) -> Ticket | Refusal:
        """A place in the queue; the ticket may hold its permit already."""
        ticket = Ticket(self, outer, who, waiter)
        refusal: Refusal | None = None
        with self._lock:
            self.queue[ticket] = None
            granted = self._match()
            waits = ticket.permit is None and not self._borrow(ticket, outer)
            if waits and len(self.queue) - self._retiring > max_queue:
                self._withdraw(ticket)
                refusal = Refusal(len(self.queue) - self._retiring)
        self._wake(granted)
        self.settle()
        return refusal or ticket

    def give_up(self, ticket: Ticket) -> None:
        """Leave the queue, or give back what was granted at the last moment. A finalizer may call it."""
        self._post(partial(self._give_back, ticket))

    def offer(self, ticket: Ticket, frame: Frame) -> None:
        """A caller inside of `frame` began to wait for what `ticket` waits for: perhaps it can lend."""

        def decide() -> Action | None:
            asks = ticket in self.queue and any(one is frame for one in ancestors(ticket.outer))
            return (lambda: self._wake([ticket])) if asks and self._borrow(ticket, frame) else None

        self._post(decide)

    def resize(self, concurrency: int) -> None:
        """Another limit from now on; permits above it leave as they come back."""
        with self._lock:
            more = concurrency - self.concurrency
            self.concurrency = concurrency
            for _ in range(more):
                if self._retiring:
                    ticket = next(ticket for ticket in self.queue if ticket.waiter is None)
                    del self.queue[ticket]
                    self._retiring -= 1
                else:
                    slot = Slot(self)
                    self.slots.append(slot)
                    self.free.append(slot)
            for _ in range(-more):
                ticket = Ticket(self, None, "", None)
                self.queue[ticket] = None
                self.queue.move_to_end(ticket, last=False)
                self._retiring += 1
            granted = self._match()
        self._wake(granted)
        self.settle()

    def state(self) -> LimitState:
        """What is held and who waits, now."""
        with self._lock:
            held = self._held()
            holders = Counter(permit.who for permit in held)
            state = LimitState(self.concurrency, len(held), len(self.queue) - self._retiring, dict(holders))
        self.settle()
        return state

    def stuck(self, ticket: Ticket) -> bool:
        """True when this thread, by waiting, would keep everybody from running who must leave first."""
        here = ticket.home
        with self._lock:
            held = self._held()
            ahead = []
            for other in self.queue:
                if other is ticket:
                    break
                ahead.append(other)
        self.settle()
        return (bool(held) and all(permit.home == here for permit in held)) or any(
            other.home == here for other in ahead
        )

    def settle(self) -> None:
        """Do what was posted, and give free slots to those who wait."""
        super().settle()
        while self.queue and self.free and self._lock.acquire(blocking=False):
            try:
                granted = self._match()
            finally:
                self._lock.release()
            self._wake(granted)
            super().settle()

    def _held(self) -> list[Permit]:
        return [permit for slot in self.slots if (permit := slot.permit) is not None]  # it may leave between two looks

    def _match(self) -> list[Ticket]:
        granted: list[Ticket] = []
        while self.queue and self.free:
            try:
                slot = self.free.pop()
            except IndexError:  # a caller that saw no queue was faster
                break
            ticket, _ = self.queue.popitem(last=False)
            if ticket.waiter is None:
                self._retiring -= 1
                self.slots.remove(slot)
                continue
            ticket.permit = slot.permit = Permit(ticket.outer, slot, ticket.who, ticket.home)
            self._withdraw(ticket)
            granted.append(ticket)
        return granted

    def _borrow(self, ticket: Ticket, frame: Frame | None) -> bool:
        for ancestor in ancestors(frame):
            if isinstance(ancestor, Shared):
                place = ancestor.inside
            elif isinstance(ancestor, Permit) and ancestor.slot.pool is self and not ancestor.ended:
                if self._lend(ancestor, ticket):
                    return True
                if ancestor.asking is None:
                    ancestor.asking = OrderedDict()
                place = ancestor.asking
            else:
                continue
            if ticket not in place:
                place[ticket] = None
                ticket.places.append(place)
        return False

    def _withdraw(self, ticket: Ticket) -> None:
        """It waits no longer: out of the queue, and of the places where it asked for a loan."""
        self.queue.pop(ticket, None)
        while ticket.places:
            ticket.places.pop().pop(ticket, None)

    def _lend(self, lender: Permit, ticket: Ticket) -> bool:
        if lender.lent:
            return False
        lender.lent = True
        if lender.ended:
            lender.lent = False
            return False
        ticket.permit = Permit(ticket.outer, lender.slot, ticket.who, ticket.home, lender)
        self._withdraw(ticket)
        return True

    def _give_back(self, ticket: Ticket) -> Action | None:
        self._withdraw(ticket)
        permit, ticket.permit = ticket.permit, None
        if permit is None:
            return None
        permit.ended = True
        return self._release(permit)

    def _release(self, permit: Permit) -> Action | None:
        while permit.lender is not None and permit.lender.ended:
            permit = permit.lender  # whose `lent` stays set, so that it, on its way out, leaves the slot to us
        lender, slot = permit.lender, permit.slot
        if lender is None:
            if slot.permit is not permit:
                return None
            slot.permit = None
            self.free.append(slot)
            granted = self._match()
            return (lambda: self._wake(granted)) if granted else None
        lender.lent = False
        while lender.asking:
            ticket, _ = lender.asking.popitem(last=False)
            waits = ticket in self.queue and any(frame is lender for frame in ancestors(ticket.outer))
            if waits and self._lend(lender, ticket):  # not to a flight that the lender joined and has left
                return lambda: self._wake([ticket])
        return None

    def _wake(self, granted: Iterable[Ticket]) -> None:
        """Wake them; the caller settles afterwards, for what a closed event loop was given goes to the next one."""
        for ticket in granted:
            if ticket.waiter is not None and not ticket.waiter.wake():
                self._posted.append(partial(self._give_back, ticket))

    def _after_fork(self) -> None:
        here = get_ident()
        self._posted.clear()
        self.queue.clear()
        self._retiring = 0
        for slot in self.slots:
            if slot.permit is None:
                continue
            if slot.permit.home == here:
                slot.permit.lent, slot.permit.asking = False, None
            else:
                slot.permit = None
        self.free.clear()
        self.free.extend(slot for slot in self.slots if slot.permit is None)
