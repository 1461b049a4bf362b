"""How an answer is made ready to be kept: its form, its times, what may end it, and its name in the slower tiers."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from scalekit import events
from scalekit._cache.copies import Thaw
from scalekit._cache.flight import Flight
from scalekit._cache.freshness import FOREVER
from scalekit._cache.index import Values
from scalekit._cache.key import Tree
from scalekit._cache.life import Life
from scalekit._cache.place import place_of
from scalekit._cache.recall import Answer, Failure, Tiers
from scalekit._cache.recorded import Recorded
from scalekit._cache.site import Site
from scalekit._runtime.base import Runtime

__all__ = [
    "Call",
    "Landing",
    "Origin",
    "answer_of",
    "failed",
    "origin_of",
    "prepared",
    "put",
    "seen",
    "tell",
    "written",
]

Call = partial[Any]
"""The rest of the stack with the call's arguments: `call()` runs it, `call.args` and `call.keywords` are those."""


class Origin(NamedTuple):
    """Where and when something began: the slower tiers that know of it, its name and the time there."""

    tiers: Tiers
    name: str
    stamps: tuple[int, ...]
    generation: int


class Landing(NamedTuple):
    """An answer in the form in which memory keeps it. `life` is None where only the clock can end it."""

    stored: Any
    thaw: Thaw | None
    until: float
    expires: float
    life: Life | None


def origin_of(site: Site, tree: Tree) -> Origin | None:
    """The slower tiers of a call, if it has any; what they know from now on is newer."""
    tiers = site.reach()
    name = None if tiers is None else tiers.name(tree)
    if tiers is None or name is None:
        return None
    site.require_scope(tree)
    generation = tiers.generation()
    return Origin(tiers, name, tiers.now(), generation)


def prepared(
    site: Site,
    tree: Tree,
    value: Any,
    call: Call,
    born: float,
    now: float,
    ttl: float,
    cost: float,
    origin: Origin | None,
) -> Landing:
    """An answer made ready. Runs the user's functions for tags and copies; what they raise passes through."""
    if site.simple and origin is None and not site.asks_where:
        return Landing(*site.freeze(value), now + ttl, now + ttl, None)
    tags: list[str] = []
    if site.tags is not None:
        tags = site.tags.of_call(call.args, call.keywords)
        if type(value) is not Failure:
            tags += site.tags.of_value(seen(value))
    stored, thaw = site.freeze(value)
    times, place = site.times(now, ttl, cost, type(value) is Failure), place_of(tree)
    if origin is None and not tags and place is None and site.freshness.plain:
        return Landing(stored, thaw, times.renew, times.expires, None)
    marks = site.marks(tree, tags, origin is not None)
    stamps, generation = (origin.stamps, origin.generation) if origin is not None else ((), 0)
    life = Life(times, born, cost, place, marks, stamps, generation)
    if not site.lasting:
        life.end = now + ttl
        life.rewrite = FOREVER if origin is None else now + site.freshness.sliding / 2
    return Landing(stored, thaw, times.renew, times.expires, life)


def seen(value: Any) -> Any:
    """What the user's functions are shown of an answer: of a stream the list of its items."""
    return value.answer() if type(value) is Recorded else value


def failed(site: Site, flight: Flight, error: BaseException) -> None:
    """Count and tell that the function raised; an error that was kept is no run."""
    if not flight.ran:
        return
    entry = site.table.entries.get(flight.key)
    if flight.behind and flight.live is not None and entry is not None and entry.life is not None:
        site.rearm(entry, site.now())  # a renewal that broke half-way is not tried again at each hit
    site.hot.errors += 1
    tell(site, flight, error)


def tell(site: Site, flight: Flight, error: BaseException | None) -> None:
    """Tell that the function has run."""
    if events.subscribers:
        seconds = site.runtime.now() - flight.began
        events.emit(events.Computed(site.target.name, seconds, error, flight.callers))


async def written(site: Site, origin: Origin, value: Any, landing: Landing, runtime: Runtime) -> None:
    """Give an answer to the slower tiers; what one of them does not keep is told."""
    reason = await origin.tiers.write(answer_of(site, origin, value, landing), runtime)
    if reason is not None:
        site.unstored(reason)


def answer_of(site: Site, origin: Origin, value: Any, landing: Landing) -> Answer:
    """A landed answer in the form in which tiers take it."""
    life = landing.life
    assert life is not None
    payload = landing.stored if landing.thaw is not None and landing.thaw is site.decode else None
    return Answer(origin.name, value, payload, life.fresh, landing.expires, life.cost, life.marks, origin.stamps)


async def put(site: Site, values: Values, tree: Tree, call: Call, value: Any, runtime: Runtime) -> None:
    """Keep an answer that did not come from the function; what flies for its key will not replace it."""
    if site.streams:
        value = Recorded.of(site, value)
    now, origin = runtime.now(), origin_of(site, tree)
    landing = prepared(site, tree, value, call, now, now, site.freshness.lifetime(seen(value)), 0.0, origin)
    reason = site.flights.change(tree, "replaced", lambda: site.keep(tree, values, *landing))
    if reason is not None:
        site.unstored(reason)
    if origin is not None:
        await written(site, origin, value, landing, runtime)
