"""One function's cache: its keys, its entries in the memory tier, its flights, its slower tiers and its figures.

Everything here is plain and synchronous. The policy (policy.py) tells the story of a call, miss.py that of a flight;
the compiled wrapper (hot.py) answers the simplest hits before any of this runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from scalekit import _units, events, settings
from scalekit._cache.arrange import Arrangement
from scalekit._cache.copies import SHARED, Thaw, copied, immutable
from scalekit._cache.figures import CacheStats
from scalekit._cache.flights import Flights
from scalekit._cache.freshness import FOREVER, Freshness, Times
from scalekit._cache.index import Hot, Index, Values, open_fast
from scalekit._cache.key import Tree
from scalekit._cache.labels import Scoper, Tags
from scalekit._cache.life import Life
from scalekit._cache.marked import MARKED
from scalekit._cache.marks import MARKS, named
from scalekit._cache.normal import Signature, WrongCall, key_maker
from scalekit._cache.place import SCOPED, place_of
from scalekit._cache.recall import Failure, Tiers
from scalekit._cache.recorded import Recorded
from scalekit._cache.scope import Place, ambient, watch
from scalekit._cache.stores.memory import Entry, Memory, Table
from scalekit._core.policy import Handler, Settings
from scalekit._core.target import Target
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._cache.identity import FunctionIdentity
    from scalekit._cache.stores.base import Store


class Missing:
    """No value: `None` is one."""

    def __repr__(self) -> str:
        return "<missing>"

    def __bool__(self) -> bool:
        return False


MISSING = Missing()
_NO_VALUE = (Failure, Recorded)
"""What the fast index cannot hand out as it is."""


class Site:
    """The cache of one function."""

    def __init__(self, target: Target, given: Settings, arrangement: Arrangement) -> None:
        self.target = target
        self.runtime: Any = target.runtime  # of event loops: only they have `here`
        self.now: Callable[[], float] = target.runtime.now
        self.freshness = Freshness(given)
        self.when: Callable[[Any], Any] | None = given["when"]
        self.tags = Tags(given["tags"], target.function, target.name) if given["tags"] is not None else None
        self.scoper = Scoper(given["scope"], target.function, target.name) if given["scope"] is not None else None
        self.copy = given["copy"]
        self.version = given["version"]
        if given["max_bytes"] is not None and not self.streams and target.declares:
            raise ConfigurationError(
                f"{target.name} returns no stream, and max_bytes= bounds the recording of one. The bound of the memory "
                f'is tiers=[scalekit.Memory(max_bytes="64MB")].'
            )
        self._max_bytes = None if given["max_bytes"] is None else _units.size(given["max_bytes"], "max_bytes")
        hung = given["flight_timeout"]
        self._flight_timeout = None if hung is None else _units.seconds(hung, "flight_timeout")
        self.in_memory = arrangement.in_memory
        self.memory = arrangement.memory or Memory()
        self.table = Table()
        self.flights = Flights()
        self.flights.on_fork(self._after_fork)
        self._looking = threading.RLock()
        self.watching: WeakSet[Any] = WeakSet()
        """Event loops with a timer for flights that take too long."""
        self.watched: Any = None
        """The last one of them: the quick way to see that there is a timer."""
        self.hot = Hot(self.table.fast)
        self.inner: Handler = target.leaf()  # the rest of the stack, for a refresh
        self.method = _is_method(target) and _first_parameter(target) not in given["ignore"]
        self.signature: Signature = key_maker(target.function, given["ignore"], given["key"], self.method)
        fresh = self.freshness
        self.simple = fresh.plain and not (fresh.jitter or fresh.of_result or self.when or self.tags)
        """Whether nothing but the clock and an invalidation by key can end an answer in memory."""
        self.lasting = self.freshness.sliding == FOREVER
        """Whether a hit leaves an entry as it is."""
        self.each: Any = None
        if given["each"] is not None:
            from scalekit._cache.each import ListArgument

            self.each = ListArgument(given["each"], target, given["ignore"])
        self.asks_where = self.scoper is not None
        self.tiers: Tiers | None = None
        self.given = given
        self._arrangement = arrangement
        self._looked: Any = None
        watch(self)
        if self.tags is not None:
            MARKED.add(self)

    # where calls stand ------------------------------------------------------------------------------------------------

    def ask_where(self) -> None:
        """From now on there are scopes in this process: look for one at every call."""
        self.asks_where = True
        self.hot.fast = Index(self.table, self.tiers)
        MARKED.add(self)

    def bypassed(self) -> bool:
        """True where the cache is to keep out of the call."""
        place = ambient.get()
        return place is not None and place.bypass

    def path(self, args: Values, kwargs: dict[str, Any]) -> Place:
        """In which scope a call is, and which sample it is."""
        place = ambient.get() or Place()
        return place if self.scoper is None else place.within(self.scoper(args, kwargs))

    def reach(self) -> Tiers | None:
        """The slower tiers of this function, as the settings are now."""
        if self._looked is not settings.version():
            with self._looking:
                version = settings.version()
                if self._looked is not version:
                    self._reach(self._arrangement.stores(self))
                    self._looked = version  # last: until then the others wait, too
        return self.tiers

    def _reach(self, stores: tuple[Store, ...]) -> None:
        if stores == (self.tiers.stores if self.tiers is not None else ()):
            return
        self.tiers = Tiers(self, stores) if stores else None
        self.table.clear_fast()
        if self.tiers is not None or self.asks_where:
            self.hot.fast = Index(self.table, self.tiers)
        else:
            self.hot.fast = self.table.fast

    def _after_fork(self) -> None:
        self._looking = threading.RLock()
        self.memory._after_fork()

    @property
    def streams(self) -> bool:
        """Whether an answer is a stream, as far as one can know before a call."""
        return self.target.shape.is_stream or self.target.declares_stream

    @property
    def max_stream_bytes(self) -> int:
        """How much of one stream is recorded."""
        return self._max_bytes or settings.lookup("cache_max_stream_bytes")

    @property
    def timed(self) -> bool:
        """Whether an entry in memory can come to its end by the clock."""
        return self.freshness.expires or self._arrangement.slower != ()

    @property
    def flight_timeout(self) -> float:
        """Seconds after which a flight is disowned."""
        return self._flight_timeout or settings.lookup("cache_flight_timeout")

    # names and keys ---------------------------------------------------------------------------------------------------

    @functools.cached_property
    def identity(self) -> FunctionIdentity:
        """What tells this function from others in a store; reads its source, so only when first asked."""
        from scalekit._cache.identity import identity

        return identity(self.target.function, self.version)

    @functools.cached_property
    def codec(self) -> Any:
        """What makes bytes of this function's answers, and answers of bytes."""
        given = self.given["codec"]
        from scalekit._cache.codec import Codec

        codec = Codec(self.target.name, self.target.function, self.given["types"], tuple(self.freshness.negative))
        if given is None:
            return codec
        from scalekit._cache.custom import Custom

        return Custom(given, codec)

    @functools.cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """One and the same for all entries."""
        decode: Callable[[bytes], Any] = self.codec.decode
        return decode

    @property
    def namespace(self) -> str:
        """The first part of all names that other processes share."""
        return settings.namespace_of(self.target.function.__module__ or "builtins")

    @property
    def family(self) -> str:
        """The name of this function in stores, whatever its version."""
        return f"{self.namespace}:{self.identity.name}"

    @property
    def full_name(self) -> str:
        """The name of this very version of this function in stores."""
        return f"{self.family}:{self.identity.digest}"

    def key(self, args: Values, kwargs: dict[str, Any]) -> tuple[Values, Tree]:
        """The bound values and the key of a call; `WrongCall` if it does not fit the function."""
        signature = self.signature
        if signature.direct:
            try:
                values = signature.normal(*args, **kwargs)
            except TypeError as error:
                raise WrongCall(*error.args) from None
            tree = signature.tree(values)
        else:
            values, tree = (), signature.key(args, kwargs)
        if self.asks_where:
            place = self.path(args, kwargs)
            if place.path or place.sample is not None:
                tree = (SCOPED, place.path, place.sample, tree)
        return values, tree

    def digest(self, args: Values, kwargs: dict[str, Any]) -> str:
        """The name of a call in a store: a digest, so that no argument's value stands in it."""
        from scalekit._cache.digest import digest

        _, tree = self.key(args, kwargs)
        return f"{self.full_name}:{digest(tree)}"

    def marks(self, tree: Tree, tags: list[str], shared: bool) -> tuple[str, ...]:
        """The names that an answer of this key can be invalidated by; `shared`: in a tier that cannot be cleared by
        dropping the function's table."""
        place = place_of(tree)
        names = [f"{self.namespace}#{tag}" for tag in tags]
        if shared or place is not None:
            names.append(self.family)
        return named(names, place[0] if place is not None else (), True)

    def require_scope(self, tree: Tree) -> None:
        """Complain of a look-up in a shared tier outside of any scope, where the settings forbid it."""
        if settings.lookup("require_scope") and (place_of(tree) or ((),))[0] == ():
            raise ConfigurationError(
                f"{self.target.name} was called outside of any scope, its answers are shared with other processes, and "
                f"require_scope is set. Call it inside of `with scalekit.scope(tenant):`, give it scope=, or keep it "
                f'in memory with tiers=["memory"].'
            )

    # answers in memory ------------------------------------------------------------------------------------------------

    def find(self, tree: Tree, now: float) -> Entry | None:
        """The entry that may be served: fresh, or while it is refreshed."""
        entry = self.table.entries.get(tree)
        if entry is None or now >= entry.expires:
            return None
        life: Life | None = entry.life
        if life is None or (now < life.usable and self.trusts(entry)):
            return entry
        return None

    def trusts(self, entry: Entry) -> bool:
        """True if nothing was invalidated since this entry was last looked at, or nothing of it."""
        life: Life = entry.life
        version = MARKS.version
        if life.version != version:
            if MARKS.ended(life.marks, life.born) is not None:
                self.memory.remove(self.table, entry)
                return False
            life.version = version
        return self.tiers is None or life.generation == self.tiers.generation()

    def vouch(self, entry: Entry, generation: int) -> None:
        """The slower tiers know of nothing that ended this entry up to that generation."""
        if generation % 2 == 0:
            entry.life.generation = generation
            self.catch_up(generation)

    def catch_up(self, generation: int) -> None:
        """Let the fast index hold what was looked at since the last invalidation."""
        index = self.hot.fast
        if type(index) is Index and index.generation != generation and generation % 2 == 0:
            self.table.clear_fast()
            index.generation = generation

    def take(self, entry: Entry, values: Values, now: float) -> Any:
        """The value of an entry, fresh for this caller, or MISSING if its copier fails; a kept error is raised."""
        value, life = entry.value, entry.life
        if entry.thaw is not None:
            try:
                value = entry.thaw(value)
            except Exception:  # a copier of the user's that fails is a miss
                self.memory.remove(self.table, entry)
                return MISSING
        if self.memory.touches:
            self.memory.touch(entry)
        entry.hit = True
        self.hot.hits += 1
        if life is not None:
            if now >= life.fresh:
                self.hot.stale += 1
            elif not self.lasting:
                self._slide(entry, now)
        if type(value) is Failure:
            raise value.again()
        if type(value) is Recorded:
            if callable(self.copy) and not value.plain:
                try:
                    return value.copied()
                except Exception:  # a copier of the user's that fails is a miss
                    self.memory.remove(self.table, entry)
                    return MISSING
            return value
        if entry.thaw is None and (entry.kind is None or (life is not None and life.index != self.table.cleared)):
            open_fast(self, values, entry)
        return value

    def _slide(self, entry: Entry, now: float) -> None:
        """A new lease for what was asked for."""
        life: Life = entry.life
        times = self.freshness.slid(now, life.end)
        life.fresh, life.usable = times.fresh, times.usable
        entry.until, entry.expires = times.renew, times.expires

    @property
    def throttle(self) -> float:
        """Seconds for which an answer that could not be refreshed is served untried."""
        throttle: float = settings.lookup("cache_throttle")
        return throttle

    def rearm(self, entry: Entry, now: float) -> None:
        """Its refresh failed: serve it untried for a while."""
        life: Life = entry.life
        times = Times(entry.until, life.fresh, life.usable, entry.expires)
        entry.until, _, life.usable, _ = self.freshness.rearmed(times, now, self.throttle)

    def keep(
        self,
        tree: Tree,
        values: Values,
        stored: Any,
        thaw: Thaw | None,
        until: float,
        expires: float,
        life: Life | None,
    ) -> str | None:
        """Put a value into memory; the reason if it is not kept there."""
        if not self.in_memory:
            return None
        now = self.now()
        entry = Entry(tree, stored, thaw, expires, life, until, now)
        if not self.memory.put(self.table, entry, now):
            return "larger than the memory tier"
        if thaw is None and type(stored) not in _NO_VALUE:
            open_fast(self, values, entry)
        return None

    def freeze(self, value: Any) -> tuple[Any, Thaw | None]:
        """The form in which a value is kept."""
        kind, how = type(value), self.copy
        if kind in SHARED or kind in _NO_VALUE or how is False or immutable(value):
            return value, None
        return (how(value), how) if callable(how) else copied(value, self.codec.encode, self.decode)

    def thawed(self, value: Any, payload: bytes) -> tuple[Any, Thaw | None]:
        """`freeze` for a value that came with its bytes."""
        if self.copy == "auto" and type(value) not in (*SHARED, *_NO_VALUE) and not immutable(value):
            return payload, self.decode
        return self.freeze(value)

    def times(self, now: float, ttl: float, cost: float, failed: bool = False) -> Times:
        """The times of an answer that lands now; a kept error is over when its time is."""
        if failed:
            return Times(now + ttl, now + ttl, now + ttl, now + ttl)
        return self.freshness.times(now, ttl, cost, _draw)

    def unstored(self, reason: str) -> None:
        """Count and tell that an answer was handed out and not kept, or not everywhere."""
        self.hot.unstored += 1
        if events.subscribers:
            events.emit(events.NotStored(self.target.name, reason))

    def stats(self) -> CacheStats:
        hot = self.hot
        recalled = dict(hot.recalled)
        return CacheStats(
            hits=hot.hits + sum(recalled.values()),
            misses=hot.misses,
            joined=hot.joined,
            errors=hot.errors,
            unstored=hot.unstored,
            entries=len(self.table.entries),
            nbytes=self.table.nbytes,
            stale=hot.stale,
            undecodable=hot.undecodable,
            tiers={"memory": hot.hits, **recalled},
        )


def _draw() -> float:
    import random

    return random.random()


def _first_parameter(target: Target) -> str:
    return next(iter(target.signature.parameters), "") if target.signature is not None else ""


def _is_method(target: Target) -> bool:
    """True for a function of a class body whose first parameter is the object or the class."""
    name = getattr(target.function, "__qualname__", "").rpartition("<locals>.")[2]
    return "." in name and _first_parameter(target) in ("self", "cls", "mcs")
