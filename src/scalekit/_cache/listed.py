"""A call of a function with `each=`: every item of its list is an answer of its own, and has a flight of its own.

What memory knows is answered at once. For the rest the caller boards a flight for each item: those that are in the air
already it joins, for the others it is the first, and these fly together: one look-up in each slower tier for all of
them, and then one call of the function with what is still missing. A caller delivers what it leads before it waits for
what others lead, so that two lists that overlap crosswise cannot wait for each other.

An error of the whole call is every item's: it is raised. It is shared with those who joined only if all items of that
call were theirs too; for a failure that another one's item may have caused they ask once more themselves, and it is no
answer that could be kept. An exception that stands in the place of an answer is that item's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from scalekit._cache.bring import deliver, extend, good, judged, recalled, rescued, trusted
from scalekit._cache.each import NOTHING, ListArgument
from scalekit._cache.flight import Flight, State
from scalekit._cache.index import Values
from scalekit._cache.key import Tree
from scalekit._cache.landing import Call, Landing, Origin, answer_of, failed, origin_of, tell
from scalekit._cache.miss import (
    answers,
    asked_now,
    board,
    crashed,
    elsewhere,
    launch,
    leave,
    outcome,
    spawn,
    wait_in_thread,
)
from scalekit._cache.recall import Answer, Found
from scalekit._cache.site import MISSING, Site
from scalekit._cache.stores.memory import Entry
from scalekit._core.crew import CREW
from scalekit._core.drive import drive
from scalekit._core.lineage import Frame, current, living
from scalekit._core.policy import Handler
from scalekit._runtime.base import Runtime, Waiter
from scalekit._runtime.blocking import BLOCKING

if TYPE_CHECKING:
    from scalekit._cache.miss import Loop

__all__ = ["ListCall"]


class Item:
    """One item of a list: its key, the call with it in the place of the list, and where it stands."""

    __slots__ = ("call", "places", "retried", "tree", "value")

    def __init__(self, value: Any, tree: Tree, call: Call) -> None:
        self.value = value
        self.tree = tree
        self.call = call
        self.places: list[int] = []
        self.retried = False


class Seat(NamedTuple):
    """A caller's place in the flight of one item."""

    item: Item
    flight: Flight
    first: bool
    waiter: Waiter


class Led(NamedTuple):
    """An item that is to be found or computed in its flight; what a slower tier knew of it that was too old."""

    item: Item
    flight: Flight
    origin: Origin | None
    old: Found | None = None


class ListCall:
    """One call. Raises WrongCall if it does not fit the function."""

    def __init__(self, site: Site, proceed: Handler, args: Values, kwargs: dict[str, Any]) -> None:
        each: ListArgument = site.each
        self.site = site
        self.each = each
        self.proceed = proceed
        self.args = args
        self.kwargs = kwargs
        self.items = each.items(args, kwargs)
        self.answers: list[Any] = [MISSING] * len(self.items)
        self.asked: dict[Tree, Item] = {}
        for place, value in enumerate(self.items):
            args_of_one, kwargs_of_one = each.within(args, kwargs, value)
            _, tree = site.key(args_of_one, kwargs_of_one)
            item = self.asked.get(tree)
            if item is None:
                item = self.asked[tree] = Item(value, tree, partial(proceed, *args_of_one, **kwargs_of_one))
            item.places.append(place)

    async def answer(self, anew: bool = False) -> Any:
        """The answers to all items, in the form in which the function gives them."""
        site = self.site
        missing = [*self.asked.values()]
        if anew:
            for item in missing:
                site.flights.change(item.tree, "refreshed", lambda: None)
        fly = self._in_threads if site.target.runtime.blocking else self._on_loop
        while True:
            if not anew:
                missing = await self._in_memory(missing)
            if not missing:
                return self.each.gathered(self.items, self.answers)
            missing = await fly(missing, anew)

    # what is in memory ------------------------------------------------------------------------------------------------

    async def _in_memory(self, items: Iterable[Item]) -> list[Item]:
        """Answer what can be; the others."""
        site = self.site
        now, missing, old = site.now(), list[Item](), list[Item]()
        for item in items:
            entry = site.find(item.tree, now)
            if entry is None or not self._take(item, entry, now):
                missing.append(item)
                continue
            if now >= entry.until:
                old.append(item)
            if entry.life is not None and now >= entry.life.rewrite:
                await extend(site, entry, item.tree, site.target.runtime)
        if old:
            self._behind(old)
        return missing

    def _take(self, item: Item, entry: Entry, now: float) -> bool:
        site = self.site
        for place in item.places:
            try:
                value = site.take(entry, (), now)
            except Exception as error:  # one that is kept
                value = error.with_traceback(None)
            if value is MISSING:
                return False
            self.answers[place] = value
        return True

    # those who wait ---------------------------------------------------------------------------------------------------

    async def _on_loop(self, items: Sequence[Item], anew: bool) -> list[Item]:
        """Fly and join on an event loop; the items to be asked for again."""
        site = self.site
        loop, asked, frame = site.runtime.here(), asked_now(site), living(current.get())
        seats = self._boarded(items, frame, loop.home, loop.waiter, anew)
        try:
            led = _led(seats, anew)
            if led:
                spawn(site, [flight for _, flight in led], self._fly(led, loop), loop)
            for _, flight, _, waiter in seats:
                if flight.home is not loop.home:
                    await elsewhere(site, flight, waiter)
                elif flight.opening:
                    await waiter.wait()
        except GeneratorExit:
            self._leave_unheard(seats, frame)
            raise
        except BaseException:
            await leave(site, [seat[1:] for seat in seats], frame, loop)
            raise
        return self._heard(items, seats, frame, asked)

    async def _in_threads(self, items: Sequence[Item], anew: bool) -> list[Item]:
        """The same in a thread."""
        site, here = self.site, BLOCKING.home()
        asked, frame = asked_now(site), living(current.get())
        seats = self._boarded(items, frame, here, BLOCKING.waiter, anew)
        waits: Seat | None = None
        try:
            led = _led(seats, anew)
            if led:
                await self._fly_here(led)
            for waits in seats:
                if waits.flight.opening:
                    await wait_in_thread(site, waits.flight, frame, here, waits.waiter)
        except BaseException:
            self._leave_unheard([seat for seat in seats if seat is not waits], frame)
            raise
        return self._heard(items, seats, frame, asked)

    def _boarded(
        self, items: Sequence[Item], frame: Frame | None, home: Any, waiter_of: Callable[[], Waiter], anew: bool
    ) -> list[Seat]:
        seats: list[Seat] = []
        try:
            for item in items:
                waiter = waiter_of()
                flight, first = board(self.site, item.tree, frame, home, waiter, anew)
                if flight is not None:
                    seats.append(Seat(item, flight, first, waiter))
        except BaseException:
            for seat in seats:
                if seat.first:
                    self.site.flights.land(seat.flight, State.ABANDONED)
            self._leave_unheard(seats, frame)
            raise
        return seats

    def _leave_unheard(self, seats: Iterable[Seat], frame: Frame | None) -> None:
        for _, flight, first, waiter in seats:
            self.site.flights.leave_unheard(flight, frame, first, waiter)

    def _heard(
        self, items: Sequence[Item], seats: Sequence[Seat], frame: Frame | None, asked: tuple[float, int]
    ) -> list[Item]:
        """Take what the flights brought; the items to be asked for again. Raises what the whole call raised."""
        site, trouble = self.site, None
        seated = {seat.item.tree for seat in seats}
        again = [item for item in items if item.tree not in seated]  # known by the time they were to board
        for item, flight, first, _ in seats:
            if frame is not None:
                site.flights.arrive(flight, frame, first)
            if not answers(flight, first, asked):
                again.append(item)
                continue
            try:
                value = outcome(site, flight, first)
            except BaseException as error:
                shared = flight.among
                whole = shared is not None and (first or item.retried or shared <= self.asked.keys())
                if whole or flight.state is State.OVERDUE or not isinstance(error, Exception):
                    trouble = trouble or error
                elif shared is not None:
                    item.retried = True
                    again.append(item)
                else:
                    self._put(item, error.with_traceback(None), None)
                continue
            self._put(item, value, flight.copy)
        if trouble is not None:
            try:
                raise trouble
            finally:
                del trouble  # or its traceback would hold the frame that holds it
        return again

    def _put(self, item: Item, value: Any, copy: Callable[[], Any] | None) -> None:
        first, *others = item.places
        self.answers[first] = value
        for place in others:
            self.answers[place] = value if copy is None else copy()

    # the flights ------------------------------------------------------------------------------------------------------

    async def _fly(self, led: Sequence[tuple[Item, Flight]], loop: Loop) -> None:
        """The flights of several items, in a task of their own."""
        flights = [flight for _, flight in led]
        for flight in flights:
            flight.started = True
        try:
            await self._bring(led, self.site.runtime)
        except BaseException as error:
            if crashed(self.site, flights, error, loop):
                raise
        finally:
            for flight in flights:
                flight.task = None

    async def _fly_here(self, led: Sequence[tuple[Item, Flight]]) -> None:
        """The same in this thread. What the function raises is in the flights."""
        try:
            await self._bring(led, BLOCKING)
        except BaseException as error:
            ours = isinstance(error, Exception)
            for _, flight in led:
                self.site.flights.land(flight, State.FAILED if ours else State.ABANDONED, error)
            failed(self.site, led[0][1], error)
            if not ours:
                raise

    def _behind(self, items: Iterable[Item]) -> None:
        """Renew what is still served, unless that is being done: nobody waits for it."""
        site = self.site
        loop = None if site.target.runtime.blocking else site.runtime.here()
        flown = [(item, launch(site, item.tree, loop)) for item in items]
        led = [(item, flight) for item, flight in flown if flight is not None]
        if not led:
            return
        if loop is not None:
            spawn(site, [flight for _, flight in led], self._fly(led, loop), loop)
            return
        context = copy_context()
        if not CREW.offer(lambda: context.run(drive, self._fly_here(led))):
            for _, flight in led:
                site.flights.land(flight, State.ABANDONED)

    async def _bring(self, led: Sequence[tuple[Item, Flight]], runtime: Runtime) -> None:
        """Let the flights land."""
        site = self.site
        missing = await self._recalled([Led(item, flight, origin_of(site, item.tree)) for item, flight in led], runtime)
        if missing:
            for one in missing:
                one.flight.ran = True
            site.hot.misses += len(missing)
            with site.flights.together([one.flight for one in missing]):
                await self._computed(missing, runtime)
        due = [item for item, flight in led if flight.due]
        if due:
            self._behind(due)

    async def _recalled(self, led: list[Led], runtime: Runtime) -> list[Led]:
        """Land with what the slower tiers know, in one look-up; the others."""
        site, named = self.site, [(one, one.origin) for one in led if one.origin is not None and not one.flight.anew]
        if not named:
            return led
        tiers, began = named[0][1].tiers, runtime.now()
        missing = [one for one in led if one.origin is None or one.flight.anew]
        found = await tiers.read_many([origin.name for _, origin in named], runtime)
        seconds = runtime.now() - began
        for (one, origin), kept in zip(named, found, strict=True):
            if kept is not None and good(site, one.flight, kept, runtime.now()):
                await recalled(site, one.flight, (), kept, origin, runtime, seconds)
            elif await trusted(site, one.flight, (), origin, runtime) is MISSING:
                missing.append(one._replace(old=kept))
        return missing

    async def _computed(self, led: Sequence[Led], runtime: Runtime) -> None:
        """Land with what the function says."""
        site, first, began = self.site, led[0].flight, runtime.now()
        items = [one.item.value for one in led]
        args, kwargs = self.each.within(self.args, self.kwargs, items)
        try:
            given = await self.proceed(*args, **kwargs)
            values = self.each.spread(given, items, led[0].origin is not None)
        except Exception as error:
            if await self._all_rescued(led, error, runtime):
                failed(site, first, error)
                return
            for one in led:
                one.flight.among = frozenset([other.item.tree for other in led])
            raise
        cost = runtime.now() - began
        landings = [await self._judged(one, value, cost, runtime) for one, value in zip(led, values, strict=True)]
        if not site.in_memory:  # who asks next must find them there
            await self._write(led, values, landings, runtime)
        for one, value, landing in zip(led, values, landings, strict=True):
            if landing is not None:
                deliver(site, one.flight, (), value, landing)
        tell(site, first, None)
        if site.in_memory:
            await self._write(led, values, landings, runtime)

    async def _judged(self, one: Led, value: Any, cost: float, runtime: Runtime) -> Landing | None:
        """One item's answer made ready; None for an error, which has landed."""
        site, flight, origin, call = self.site, one.flight, one.origin, one.item.call
        if value is NOTHING:
            flight.unstorable = flight.unstorable or "the function gave no answer to it"
            return Landing(NOTHING, None, 0.0, 0.0, None)
        if isinstance(value, Exception):
            if await rescued(site, flight, (), call, origin, one.old, value, runtime) is MISSING:
                site.flights.land(flight, State.FAILED, value)
                failed(site, flight, value)
            return None
        return await judged(site, flight, value, call, origin, cost, runtime)

    async def _write(
        self, led: Sequence[Led], values: Sequence[Any], landings: Sequence[Landing | None], runtime: Runtime
    ) -> None:
        """Give the answers to the slower tiers, all in one go."""
        answers: list[Answer] = []
        for one, value, landing in zip(led, values, landings, strict=True):
            kept = landing is not None and landing.life is not None and one.flight.unstorable is None
            if kept and landing is not None and one.origin is not None:
                answers.append(answer_of(self.site, one.origin, value, landing))
        if answers and led[0].origin is not None:
            for reason in await led[0].origin.tiers.write_many(answers, runtime):
                if reason is not None:
                    self.site.unstored(reason)

    async def _all_rescued(self, led: Sequence[Led], error: Exception, runtime: Runtime) -> bool:
        """The whole call failed: whether there are old answers for all of it (`stale_if_error=`)."""
        saved = [
            await rescued(self.site, one.flight, (), one.item.call, one.origin, one.old, error, runtime, keeps=False)
            for one in led
        ]
        return all(value is not MISSING for value in saved)


def _led(seats: Iterable[Seat], anew: bool) -> list[tuple[Item, Flight]]:
    """The items that this caller is the first to ask for."""
    led = [(item, flight) for item, flight, first, _ in seats if first]
    for _, flight in led:
        flight.inline, flight.anew = False, anew
    return led
