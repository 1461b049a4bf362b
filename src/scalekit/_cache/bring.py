"""What a flight brings: what a slower tier knows, else what the function says, else, if that fails, the old answer.

It runs once for all who wait, in the flight's task or in its first caller's thread, and ends in a landing: the value is
judged (is it worth keeping, how long, under which tags), kept in memory unless something forbade it meanwhile, handed
to those who wait, and given to the slower tiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from scalekit import events
from scalekit._cache.flight import Flight
from scalekit._cache.freshness import FOREVER
from scalekit._cache.index import Values
from scalekit._cache.key import Tree
from scalekit._cache.landing import Call, Landing, Origin, failed, origin_of, prepared, seen, tell, written
from scalekit._cache.life import Life
from scalekit._cache.live import Live
from scalekit._cache.marks import MARKS
from scalekit._cache.place import place_of
from scalekit._cache.reader import opened
from scalekit._cache.recall import Answer, Failure, Found
from scalekit._cache.recorded import Recorded, frozen
from scalekit._cache.site import MISSING, Site
from scalekit._cache.stores.memory import Entry
from scalekit._core.stream import PLAIN, End, Stream
from scalekit._runtime.base import Runtime
from scalekit.errors import BlockingError, ConfigurationError, ReentryError

__all__ = ["bring", "deliver", "extend", "good", "judged", "recalled", "rescued", "trusted"]


async def bring(site: Site, flight: Flight, values: Values, call: Call, runtime: Runtime) -> Any:
    """Let the flight land; returns the value for its first caller.

    A stream lands when it has ended: what is returned for it is `Live`, and somebody has to move it on. (A bare
    `Stream` is the first caller's alone: the flight was given up before it was opened.)
    """
    version = MARKS.version
    origin, old = origin_of(site, flight.key), None
    if origin is not None and not flight.anew:
        value = await trusted(site, flight, values, origin, runtime)
        if value is not MISSING:
            return value
        asked = runtime.now()
        old = await origin.tiers.read(origin.name, runtime)
        if old is not None and good(site, flight, old, runtime.now()):
            value = await recalled(site, flight, values, old, origin, runtime, runtime.now() - asked)
            if type(value) is Failure:
                raise value.again()
            return value
    site.hot.misses += 1
    flight.ran, began = True, runtime.now()
    try:
        value = await call()
        if type(value) not in PLAIN:
            value = await opened(value, site.target)
    except Exception as error:
        value = await rescued(site, flight, values, call, origin, old, error, runtime)
        if value is MISSING:
            raise
        return value
    if type(value) is Stream:
        if type(value.first) is not End:
            live = Live(
                site, flight, call, origin, version, began, value, partial(_end, site, flight, values, call, origin)
            )
            return live if site.flights.publish(flight, live) else value
        await value.close()
        value = Recorded([], frozen(site, value.first.value))
    cost = runtime.now() - began
    await _land(site, flight, values, call, origin, value, cost, runtime)
    return value


async def _end(
    site: Site, flight: Flight, values: Values, call: Call, origin: Origin | None, recorded: Recorded, cost: float
) -> None:
    """The stream ended well."""
    if flight.live.recording.long:
        deliver(site, flight, values, None, Landing(None, None, 0.0, 0.0, None))
        tell(site, flight, None)
    else:
        await _land(site, flight, values, call, origin, recorded, cost, site.runtime)


# what is known --------------------------------------------------------------------------------------------------------


async def trusted(site: Site, flight: Flight, values: Values, origin: Origin, runtime: Runtime) -> Any:
    """What is in memory and only has to be asked about: something was invalidated, by whichever process."""
    entry = site.table.entries.get(flight.key)
    if entry is None or flight.behind:
        return MISSING
    life: Life | None = entry.life
    now = runtime.now()
    if life is None or now >= min(life.usable, entry.expires) or not await _vouched(site, entry, origin, runtime):
        return MISSING
    flight.due = now >= entry.until
    await _mark_disturbed(flight, origin, life.marks, life.stamps, runtime)
    value = site.take(entry, values, now)
    if value is not MISSING:
        if entry.thaw is not None:
            flight.copy = partial(entry.thaw, entry.value)
        site.flights.deliver(flight, value, _kept_already)
    return value


async def _vouched(site: Site, entry: Entry, origin: Origin, runtime: Runtime) -> bool:
    """Whether the slower tiers know of nothing that ended an entry in memory."""
    life: Life = entry.life
    generation = origin.tiers.generation()
    if not life.stamps:
        return False
    if not await origin.tiers.trusts(origin.name, life.marks, life.stamps, runtime):
        site.memory.remove(site.table, entry)
    if site.table.entries.get(entry.key) is not entry:  # or this process has dropped it
        return False
    site.vouch(entry, generation)
    return True


def good(site: Site, flight: Flight, found: Found, now: float) -> bool:
    """Whether what a tier knows is an answer for this flight."""
    if now >= found.times.usable:
        return False
    if not flight.behind:
        return True
    entry = site.table.entries.get(flight.key)  # the one to be renewed
    known = entry.life.stamps if entry is not None and entry.life is not None else ()
    return now < found.times.fresh and found.stamps != known


async def recalled(
    site: Site, flight: Flight, values: Values, found: Found, origin: Origin, runtime: Runtime, seconds: float
) -> Any:
    """Land with what a slower tier knows, perhaps a `Failure`: memory gets it for the rest of its life."""
    hot, times = site.hot, found.times
    hot.recalled[found.tier] = hot.recalled.get(found.tier, 0) + 1
    if runtime.now() >= times.fresh:
        hot.stale += 1
        flight.due = True
    if events.subscribers:
        events.emit(events.Recalled(site.target.name, found.tier, seconds))
    life = Life(times, flight.began, found.cost, place_of(flight.key), found.marks, found.stamps, origin.generation)
    await _mark_disturbed(flight, origin, found.marks, found.stamps, runtime)
    if type(found.value) is Failure:
        landing = Landing(found.value, None, times.renew, times.expires, life)
        deliver(site, flight, values, None, landing, found.value.again())
        return found.value
    stored, thaw = site.thawed(found.value, found.payload)
    deliver(site, flight, values, found.value, Landing(stored, thaw, times.renew, times.expires, life))
    if not site.lasting:
        life.rewrite = runtime.now() + site.freshness.sliding / 2
        await _extend(site, found, origin, runtime)
    return found.value


async def _extend(site: Site, found: Found, origin: Origin, runtime: Runtime) -> None:
    now = runtime.now()
    if found.times.fresh - now < site.freshness.sliding / 2:
        times = site.freshness.slid(now, FOREVER)
        answer = Answer(
            *(origin.name, found.value, found.payload, times.fresh, times.expires, found.cost, found.marks),
            origin.stamps,
        )
        await origin.tiers.write(answer, runtime)


async def extend(site: Site, entry: Entry, tree: Tree, runtime: Runtime) -> None:
    """A new lease (`sliding=`) in the slower tiers too, for what was asked for in the second half of the last one."""
    life: Life = entry.life
    now, life.rewrite = runtime.now(), runtime.now() + site.freshness.sliding / 2
    if site.tiers is None or (name := site.tiers.name(tree)) is None:
        return
    payload = entry.value if entry.thaw is site.decode else None
    stamps = site.tiers.now()
    if site.tiers.generation() == life.generation and (payload is not None or entry.thaw is None):
        times = site.freshness.slid(now, life.end)
        answer = Answer(name, entry.value, payload, times.fresh, times.expires, life.cost, life.marks, stamps)
        await site.tiers.write(answer, runtime)


# what the function said -----------------------------------------------------------------------------------------------


async def _land(
    site: Site,
    flight: Flight,
    values: Values,
    call: Call,
    origin: Origin | None,
    value: Any,
    cost: float,
    runtime: Runtime,
    ttl: float | None = None,
    error: Exception | None = None,
) -> None:
    """Keep an answer, or an `error` in the form of one, wherever it may be kept, and wake those who wait."""
    landing = await judged(site, flight, value, call, origin, cost, runtime, ttl)
    slower = None if flight.unstorable is not None or landing.life is None else origin
    if slower is not None and not site.in_memory:  # who asks next must find it there
        await written(site, slower, value, landing, runtime)
    deliver(site, flight, values, value, landing, error)
    if error is None:
        tell(site, flight, None)
    if slower is not None and site.in_memory and flight.unstorable is None:
        await written(site, slower, value, landing, runtime)


async def judged(
    site: Site,
    flight: Flight,
    value: Any,
    call: Call,
    origin: Origin | None,
    cost: float,
    runtime: Runtime,
    ttl: float | None = None,
) -> Landing:
    """An answer made ready to be kept; the flight knows if it may not."""
    now, landing = runtime.now(), None
    try:
        if ttl is None and site.simple:
            ttl = site.freshness.ttl
        elif ttl is None:
            answer = seen(value)
            ttl = site.freshness.lifetime(answer)
            if ttl <= 0:
                _refuse(flight, "ttl= gave it no time")
            elif site.when is not None and not site.when(answer):
                _refuse(flight, "when= said no")
        landing = prepared(site, flight.key, value, call, flight.began, now, ttl, cost, origin)
    except Exception as trouble:  # of what the user gave us: the answer is good all the same
        _refuse(flight, f"it could not be judged or copied: {trouble!r}")
        landing = Landing(value, None, now, now, None)
    life = landing.life
    if origin is not None and life is not None and not await _undisturbed(origin, life, runtime):
        _refuse(flight, "invalidated")
        flight.disturbed = origin.generation
    return landing


async def _mark_disturbed(
    flight: Flight, origin: Origin, marks: Sequence[str], stamps: tuple[int, ...], runtime: Runtime
) -> None:
    """What was read a moment ago may have been ended since: those who asked after that are not to get it."""
    joined = flight.callers > 1 and origin.tiers.generation() != origin.generation
    if joined and not await origin.tiers.trusts(origin.name, marks, stamps, runtime):
        flight.disturbed = origin.generation


async def _undisturbed(origin: Origin, life: Life, runtime: Runtime) -> bool:
    """True if no process invalidated the answer while it was being computed."""
    if origin.tiers.generation() == origin.generation:
        return True
    return await origin.tiers.trusts(origin.name, life.marks, life.stamps, runtime)


def _refuse(flight: Flight, reason: str) -> None:
    flight.unstorable = flight.unstorable or reason


def deliver(
    site: Site, flight: Flight, values: Values, value: Any, landing: Landing, error: BaseException | None = None
) -> None:
    """Hand an answer to those who wait, and put it into memory unless something forbids it."""
    if landing.thaw is not None:
        flight.copy = partial(landing.thaw, landing.stored)
    if landing.life is None:
        reason = site.flights.deliver(flight, value, site.keep, values, *landing, error=error)
    else:

        def keep(tree: Tree) -> str | None:
            return "invalidated" if _spoiled(flight, landing.life) else site.keep(tree, values, *landing)

        _spoiled(flight, landing.life)
        reason = site.flights.deliver(flight, value, keep, error=error)
    if reason is not None or flight.unstorable is not None:
        site.unstored(flight.unstorable or reason or "")


def _spoiled(flight: Flight, life: Life | None) -> bool:
    if life is not None and (ended := MARKS.ended(life.marks, life.born)) is not None:
        flight.spoiled = ended
        return True
    return False


# when it fails --------------------------------------------------------------------------------------------------------


async def rescued(
    site: Site,
    flight: Flight,
    values: Values,
    call: Call,
    origin: Origin | None,
    old: Found | None,
    error: Exception,
    runtime: Runtime,
    keeps: bool = True,
) -> Any:
    """The function raised: the old answer, served untried for a while; or MISSING, the error perhaps kept as an
    answer, if it `keeps` such.
    """
    now = runtime.now()
    ours = isinstance(error, ConfigurationError | ReentryError | BlockingError)
    entry = site.table.entries.get(flight.key)
    if ours or (entry is not None and (type(entry.value) is Failure or entry.life is None or now >= entry.expires)):
        entry = None
    if entry is not None and (
        site.trusts(entry) or (origin is not None and await _vouched(site, entry, origin, runtime))
    ):
        site.rearm(entry, now)
    else:
        entry = None
    if site.freshness.stale_if_error and not ours and not flight.anew and flight.unstorable is None:
        if entry is None and old is not None and origin is not None:
            await _mark_disturbed(flight, origin, old.marks, old.stamps, runtime)
        value = _last(site, flight, values, origin, entry, old, now)
        if value is not MISSING:
            if keeps:
                failed(site, flight, error)
            site.hot.stale += 1
            if events.subscribers:
                stored = entry.stored if entry is not None else old.stored if old is not None else now
                events.emit(events.ServedStale(site.target.name, now - stored, error))
            return value
    ttl = site.freshness.ttl_of(error)
    if ttl is None or entry is not None or not keeps:
        return MISSING
    await _land(site, flight, values, call, origin, Failure.of(error), now - flight.began, runtime, ttl, error)
    return MISSING


def _last(
    site: Site,
    flight: Flight,
    values: Values,
    origin: Origin | None,
    entry: Entry | None,
    old: Found | None,
    now: float,
) -> Any:
    """The old answer, landed; MISSING if there is none."""
    if entry is not None:
        try:
            value = entry.value if entry.thaw is None else entry.thaw(entry.value)
        except Exception:
            return MISSING
        if entry.thaw is not None:
            flight.copy = partial(entry.thaw, entry.value)
        site.flights.deliver(flight, value, _kept_already)
        return value
    if old is None or origin is None or type(old.value) is Failure or now >= old.times.expires:
        return MISSING
    times = site.freshness.rearmed(old.times, now, site.throttle)
    life = Life(times, flight.began, old.cost, place_of(flight.key), old.marks, old.stamps, origin.generation)
    stored, thaw = site.thawed(old.value, old.payload)
    deliver(site, flight, values, old.value, Landing(stored, thaw, times.renew, times.expires, life))
    return old.value


def _kept_already(key: Any) -> None:
    return None
