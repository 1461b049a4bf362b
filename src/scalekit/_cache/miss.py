"""A miss: the first caller's call is flown, and everybody who wants the same answer waits for it.

The state of it is in flights.py, what a flight does in bring.py; here is the story of those who wait. On an event loop
`in_task` spawns the flight as a task of its own and waits for it like any other caller. In threads `in_thread` flies it
in the first caller's thread. Both end in the same outcome: the value, a copy of it for a further caller, or the error.
`behind` sends a flight that nobody waits for.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from scalekit import events
from scalekit._cache.bring import bring
from scalekit._cache.flight import Flight, Party, State
from scalekit._cache.index import Values
from scalekit._cache.landing import Call, failed
from scalekit._cache.live import Live
from scalekit._cache.reader import LOOK, Reader, overdue
from scalekit._cache.site import MISSING, Site
from scalekit._core.crew import CREW
from scalekit._core.drive import drive
from scalekit._core.lineage import Frame, current, living
from scalekit._core.stream import Stream
from scalekit._runtime.base import LoopWaiter, Waiter
from scalekit._runtime.blocking import BLOCKING, on_event_loop
from scalekit.errors import BlockingError, ReentryError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from scalekit._runtime.eventloop import AsyncioLoop, TrioLoop

    Loop = AsyncioLoop | TrioLoop
    Seat = tuple[Flight, bool, Waiter]


async def in_task(site: Site, values: Values, tree: Any, call: Call, anew: bool = False) -> Any:
    """A miss on an event loop: the flight is a task of its own, and this caller waits for it like any other."""
    runtime, flights, frame = site.runtime, site.flights, living(current.get())
    loop, asked = runtime.here(), asked_now(site)
    while True:
        waiter = loop.waiter()
        flight, first = board(site, tree, frame, loop.home, waiter, anew)
        if flight is None:
            value = known(site, values, tree)
            if value is MISSING:
                continue
            return value
        if first:
            flight.inline, flight.anew = False, anew
            spawn(site, [flight], _fly(site, flight, values, call, loop), loop)
        try:
            if flight.home is not loop.home:
                await elsewhere(site, flight, waiter)
            elif flight.opening:
                await waiter.wait()
        except GeneratorExit:
            flights.leave_unheard(flight, frame, first, waiter)
            raise
        except BaseException:
            await leave(site, [(flight, first, waiter)], frame, loop)
            raise
        if flight.live is not None:
            reader = Reader(site, flight, frame, first, waiter, loop)
            if first or await _still_good(site, reader):
                return await reader.stream()
            continue
        if frame is not None:
            flights.arrive(flight, frame, first)
        if answers(flight, first, asked):
            return outcome(site, flight, first)


async def elsewhere(site: Site, flight: Flight, waiter: Waiter) -> None:
    """Wait for a flight of another event loop, or of a thread, which may end without a word."""
    while flight.opening and not await waiter.wait(min(LOOK, site.flight_timeout)):
        if site.runtime.gone(flight.home):
            site.flights.land(flight, State.ABANDONED)
        elif flight.late(site.now()):  # that loop is not closed, and does not run
            site.flights.land(flight, State.OVERDUE)


async def leave(site: Site, seats: Sequence[Seat], frame: Frame | None, loop: Loop) -> None:
    """A caller waits no longer for these; what nobody waits for any more is stopped before it goes."""
    stopped: list[tuple[Flight, LoopWaiter]] = []
    for flight, first, waiter in seats:
        last_word: LoopWaiter = loop.waiter()
        if site.flights.leave(flight, frame, first, waiter, last_word):
            flight.stop()
            if not flight.started:  # a task cancelled before its first step never enters its body
                site.flights.land(flight, State.ABANDONED)
            if flight.home is loop.home:
                stopped.append((flight, last_word))
    for flight, last_word in stopped:
        if isinstance(flight.task, Party) and flight.task.spared:  # others want what it brings together with this
            continue
        await last_word.outlast(flight.deadline - site.runtime.now())


async def _still_good(site: Site, reader: Reader) -> bool:
    """Whether who comes later may read a stream that has begun; if not, it leaves it to those who read already."""
    try:
        if await reader.live.trusted(site.runtime):
            return True
    except BaseException:
        reader.leave()
        raise
    site.flights.disown(reader.flight)
    await reader.close()
    return False


def spawn(site: Site, flights: Sequence[Flight], body: Coroutine[Any, Any, None], loop: Loop) -> None:
    """Start the task in which these fly."""
    try:
        task: Any = loop.spawn(body, copy_context())
        if len(flights) > 1:
            task = Party(task, flights)
        for flight in flights:
            if flight.state is State.FLYING:  # an eager one may have landed
                flight.task = task
    except BaseException:  # this loop takes no task any more
        body.close()
        for flight in flights:
            site.flights.land(flight, State.ABANDONED)
        raise
    if site.watched is not loop.home:
        _watch(site, loop)


async def _fly(site: Site, flight: Flight, values: Values, call: Call, loop: Loop) -> None:
    """The flight itself, in its own task and in a copy of its first caller's context."""
    flight.started = True
    current.set(flight)
    try:
        value = await bring(site, flight, values, call, site.runtime)
        if type(value) is Live:
            await value.run(loop, partial(_watch, site, loop))
            site.flights.land(flight, State.ABANDONED)
        elif type(value) is Stream:  # too late for everybody
            await value.close()
        if flight.due:
            behind(site, values, flight.key, call)
    except BaseException as error:
        if crashed(site, [flight], error, loop):
            raise
    finally:
        flight.task = None  # or the flight, its task and the task's context would hold each other


def crashed(site: Site, flights: Sequence[Flight], error: BaseException, loop: Loop) -> bool:
    """The task of these flights raised; True if it was told to stop, and has to obey."""
    stopped = isinstance(error, GeneratorExit) or (
        not isinstance(error, Exception | KeyboardInterrupt | SystemExit) and loop.asked_to_stop()
    )
    for flight in flights:
        site.flights.land(flight, State.ABANDONED if stopped else State.FAILED, error)
    if not stopped:
        failed(site, flights[0], error)
    return stopped


def _watch(site: Site, loop: Loop) -> None:
    """See to it that this loop gives up what takes longer than `flight_timeout`: one timer for all flights."""
    if loop.home not in site.watching:
        site.watching.add(loop.home)
        loop.later(site.flight_timeout, partial(_give_up_the_late, ref(site), loop))
    site.watched = loop.home


def _give_up_the_late(held: Callable[[], Site | None], loop: Loop) -> None:
    site = held()
    if site is None:
        return
    now = site.runtime.now()
    late, soonest = site.flights.overdue(now)
    for flight in late:
        site.flights.land(flight, State.OVERDUE)
        if flight.task is not None:
            flight.task.cancel()
    if soonest is not None:
        loop.later(soonest - now, partial(_give_up_the_late, held, loop))
    else:
        site.watching.discard(loop.home)
        site.watched = None


async def in_thread(site: Site, values: Values, tree: Any, call: Call, anew: bool = False) -> Any:
    """A miss in a thread: the first caller flies, the others block until it has landed."""
    runtime, flights, frame = BLOCKING, site.flights, living(current.get())
    here, asked = runtime.home(), asked_now(site)
    while True:
        waiter = runtime.waiter()
        flight, first = board(site, tree, frame, here, waiter, anew)
        if flight is None:
            value = known(site, values, tree)
            if value is MISSING:
                continue
            return value
        if first:
            flight.anew = anew
            try:
                value = await _fly_here(site, flight, values, call)
            finally:
                if frame is not None and flight.live is None:
                    flights.arrive(flight, frame, first)
            if type(value) is Live:
                return await Reader(site, flight, frame, first, waiter, None).stream()
            return value
        if flight.opening:
            await wait_in_thread(site, flight, frame, here, waiter)
        if flight.live is not None:
            reader = Reader(site, flight, frame, first, waiter, None)
            if await _still_good(site, reader):
                return await reader.stream()
            continue
        if frame is not None:
            flights.arrive(flight, frame, first)
        if answers(flight, first, asked):
            return outcome(site, flight, first)


async def wait_in_thread(site: Site, flight: Flight, frame: Frame | None, here: int, waiter: Waiter) -> None:
    """Block until a flight of another thread has landed; who cannot wait any longer has left it."""
    if flight.home == here and on_event_loop():
        site.flights.leave_unheard(flight, frame, False, waiter)
        raise BlockingError(
            f"{site.target.name} would block this thread until another call of it has ended, but that one "
            f"runs on this very thread. Call it from a thread, as in `await asyncio.to_thread(...)`."
        )
    if flight.home == here:  # left behind where the stack had ended: nobody flies it any more
        site.flights.land(flight, State.ABANDONED)
    try:
        if not await waiter.wait(flight.deadline - BLOCKING.now()):
            site.flights.land(flight, State.OVERDUE)
    except BaseException:
        site.flights.leave_unheard(flight, frame, False, waiter)
        raise


async def _fly_here(site: Site, flight: Flight, values: Values, call: Call) -> Any:
    token = current.set(flight)
    try:
        value = await bring(site, flight, values, call, BLOCKING)
        if flight.due:
            behind(site, values, flight.key, call)
        return value
    except BaseException as error:
        site.flights.land(flight, State.FAILED if isinstance(error, Exception) else State.ABANDONED, error)
        failed(site, flight, error)
        raise
    finally:
        current.reset(token)


def behind(site: Site, values: Values, tree: Any, call: Call) -> None:
    """Renew an answer that is still served, unless that is being done: nobody waits for it."""
    loop = None if site.target.runtime.blocking else site.runtime.here()
    flight = launch(site, tree, loop)
    if flight is None:
        return
    if loop is not None:
        spawn(site, [flight], _fly(site, flight, values, call, loop), loop)
        return
    context = copy_context()
    if not CREW.offer(lambda: context.run(drive, _fly_behind(site, flight, values, call))):
        site.flights.land(flight, State.ABANDONED)


def launch(site: Site, tree: Any, loop: Loop | None) -> Flight | None:
    """A flight that nobody waits for; None if there is one for this key."""
    home = None if loop is None else loop.home
    flying = site.flights.flying.get(tree)
    if flying is not None and loop is not None and flying.home is not home and site.runtime.gone(flying.home):
        site.flights.land(flying, State.ABANDONED)
    return site.flights.launch(tree, home, site.runtime.now(), site.flight_timeout)


async def _fly_behind(site: Site, flight: Flight, values: Values, call: Call) -> None:
    value = await _fly_here(site, flight, values, call)
    if type(value) is Live:
        value.read_all()
    elif type(value) is Stream:
        await value.close()


def known(site: Site, values: Values, tree: Any) -> Any:
    """The answer in memory, fresh for this caller, or MISSING."""
    now = site.runtime.now()
    entry = site.find(tree, now)
    return MISSING if entry is None else site.take(entry, values, now)


def board(
    site: Site, tree: Any, frame: Frame | None, home: Any, waiter: Waiter, anew: bool
) -> tuple[Flight | None, bool]:
    """The flight of a key, and whether this caller has to fly it; None if the answer is known by now."""
    now = site.runtime.now()
    look = _unknown if anew else site.find
    flight, first = site.flights.board(tree, frame, home, now, site.flight_timeout, waiter, look)
    if flight is None:
        if not first:
            raise ReentryError(
                f"{site.target.name} was called, with the same arguments, by code that its own running call waits "
                f"for: it would wait for itself for ever. Break the circle, or call the undecorated function "
                f"(its __wrapped__) inside."
            )
    elif not first:
        site.hot.joined += 1
        if events.subscribers:
            events.emit(events.Joined(site.target.name))
    return flight, first


def asked_now(site: Site) -> tuple[float, int]:
    """When a caller asked: by the clock, and by the generation of the slower tiers."""
    tiers = site.reach()
    return site.now(), 0 if tiers is None else tiers.generation()


def answers(flight: Flight, first: bool, asked: tuple[float, int]) -> bool:
    """False if this caller has to ask again: nobody computes the answer any more, or it was invalidated before this
    caller asked for it."""
    if flight.state is State.ABANDONED:
        return False
    if first:
        return True
    now, generation = asked
    return (flight.spoiled is None or now < flight.spoiled) and (
        flight.disturbed is None or generation <= flight.disturbed
    )


def outcome(site: Site, flight: Flight, first: bool) -> Any:
    """What a flight brought, for one caller."""
    if flight.state is State.LANDED:
        return flight.value if first or flight.copy is None else flight.copy()
    if flight.state is State.FAILED:
        error = flight.take_error(first)
        try:
            raise error
        finally:
            del error  # or the traceback would hold the frame that holds the exception
    raise overdue(site, flight)


def _unknown(tree: Any, now: float) -> None:
    return None
