"""What can be done with one function's cache from outside of a call.

What may touch a slow tier is awaited on an async function, and `controls(f).sync` serves sync code; what is known in
this process (`key`, `stats`, and the attributes of functools.lru_cache and async_lru) is sync in every colour. A
control is written once, as a coroutine; for sync code it is driven by the blocking runtime.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from scalekit._cache.figures import CacheInfo, CacheStats, Kept
from scalekit._cache.freshness import FOREVER
from scalekit._cache.index import Values
from scalekit._cache.landing import put, seen
from scalekit._cache.marks import named
from scalekit._cache.normal import WrongCall
from scalekit._cache.recall import Failure
from scalekit._cache.scope import ambient
from scalekit._cache.site import MARKED, Life, Site
from scalekit._core.drive import drive
from scalekit._runtime.base import Runtime
from scalekit._runtime.blocking import BLOCKING
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._cache.policy import Cache


class CacheControls:
    """`controls(f).cache`, or `f.cache`. The arguments of a method of it are those of the function."""

    def __init__(self, policy: Cache, site: Site, bound: Values = (), sync: bool | None = None) -> None:
        self._policy = policy
        self._site = site
        self._bound = bound
        self._sync = not site.target.shape.is_async if sync is None else sync
        self._runtime: Runtime = BLOCKING if self._sync else site.runtime
        self.place: tuple[Any, ...] = ()

    def bind(self, *bound: Any, sync: bool | None = None) -> CacheControls:
        """The same for a method's `self`, or for sync code."""
        return CacheControls(self._policy, self._site, bound or self._bound, self._sync if sync is None else sync)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.place:
            raise ConfigurationError(
                "controls are of this process: pickle the function, and ask for its controls there"
            )
        return self.place  # in a wrapper that travels by value: "that attribute of that binding"

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget the answer of this call in every tier, also the one that is being computed; True if there was one."""
        return self._answer(self._invalidate(self._key(args, kwargs)[1]))

    def invalidate_tags(self, *tags: str) -> Any:
        """Forget every answer that has one of these tags, whichever function of this namespace gave it; inside of a
        scope, that scope's.
        """
        for tag in tags:
            if not isinstance(tag, str) or not tag:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"invalidate_tags: {tag!r} is no tag: invalidate_tags('doc:7').")
        return self._answer(self._mark([f"{self._site.namespace}#{tag}" for tag in tags]))

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        """The answer that is kept, without computing or counting; None if there is none (`lookup` tells them apart)."""
        return self._answer(self._peek(self._key(args, kwargs)[1]))

    def contains(self, *args: Any, **kwargs: Any) -> Any:
        """True if an answer is kept in some tier."""
        return self._answer(self._contains(self._key(args, kwargs)[1]))

    def lookup(self, *args: Any, **kwargs: Any) -> Any:
        """What is kept of this call, with its tier, age and freshness, or None. Computes and counts nothing."""
        return self._answer(self._lookup(self._key(args, kwargs)[1]))

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep `value` as the answer of this call; what is being computed will not replace it."""
        return self._answer(self._put([(args, kwargs, value)]))

    def get_many(self, calls: Iterable[Values]) -> Any:
        """`lookup` for several calls, each a tuple of positional arguments, in one round trip to each tier."""
        return self._answer(self._get_many([self._key(tuple(args), {})[1] for args in calls]))

    def put_many(self, answers: Iterable[tuple[Values, Any]]) -> Any:
        """`put` for several calls: pairs of a tuple of positional arguments, and the answer."""
        return self._answer(self._put([(tuple(args), {}, value) for args, value in answers]))

    def clear(self) -> Any:
        """Forget every answer of this function, also those that are being computed; inside of a scope, that scope's."""
        return self._answer(self._clear())

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the answer anew and keep it; until it is there, callers get the old one. Returns the new one."""
        if self._sync and self._site.target.shape.is_async:
            raise ConfigurationError(
                f"refresh has to run {self._site.target.name}, which is async: await controls(f).cache.refresh(...)."
            )
        return self._answer(self._policy.refresh(self._site, (*self._bound, *args), kwargs))

    def key(self, *args: Any, **kwargs: Any) -> str:
        """The name of this call in a store: namespace, function, a hash of its code, a digest of the arguments."""
        try:
            return self._site.digest((*self._bound, *args), kwargs)
        except WrongCall as wrong:
            error = TypeError(*wrong.args)
        raise error

    def stats(self) -> CacheStats:
        """The figures of this function."""
        return self._site.stats()

    def cache_info(self) -> CacheInfo:
        """As `functools.lru_cache` has it."""
        stats = self._site.stats()
        return CacheInfo(stats.hits, stats.misses, self._site.memory.max_entries, stats.entries)

    def cache_clear(self) -> None:
        """As `functools.lru_cache` has it: forget the answers in this process's memory, and the figures."""
        self._forget_all()
        self._site.hot.reset()

    def cache_parameters(self) -> dict[str, Any]:
        """As `functools.lru_cache` has it."""
        return {"maxsize": self._site.memory.max_entries, "typed": True}

    def cache_invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """As `async_lru` has it: `invalidate` of this process's memory, sync in every colour."""
        return self._forget(self._key(args, kwargs)[1])

    def cache_contains(self, *args: Any, **kwargs: Any) -> bool:
        """As `async_lru` has it."""
        return self._site.find(self._key(args, kwargs)[1], self._site.now()) is not None

    def _answer(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return drive(coroutine) if self._sync else coroutine

    def _key(self, args: Values, kwargs: dict[str, Any]) -> tuple[Values, Any]:
        try:
            return self._site.key((*self._bound, *args), kwargs)
        except WrongCall as wrong:
            error = TypeError(*wrong.args)
        raise error

    def _forget(self, tree: Any) -> bool:
        site = self._site

        def drop() -> bool:
            entry = site.table.entries.get(tree)
            return entry is not None and site.memory.remove(site.table, entry)

        return site.flights.change(tree, "invalidated", drop)

    def _forget_all(self) -> None:
        site = self._site
        site.flights.change_all("cleared", lambda: site.memory.clear(site.table))

    async def _invalidate(self, tree: Any) -> bool:
        was = self._forget(tree)
        tiers = self._site.reach()
        name = None if tiers is None else tiers.name(tree)
        if tiers is not None and name is not None:
            was = await tiers.invalidate([name], self._runtime) or was
            self._forget(tree)  # what a flight recalled from there meanwhile
        return was

    async def _mark(self, names: Iterable[str]) -> None:
        place = ambient.get()
        marks = named(names, place.path if place is not None else (), False)
        MARKED.set(marks, self._site.now())
        tiers = self._site.reach()
        if tiers is not None:
            await tiers.mark(marks, self._runtime)
            MARKED.set(marks, self._site.now())

    async def _clear(self) -> None:
        place = ambient.get()
        if place is not None and place.path:
            await self._mark([self._site.family])
            return
        self._forget_all()
        tiers = self._site.reach()
        if tiers is not None:
            await tiers.mark([self._site.family], self._runtime)
            self._forget_all()

    async def _peek(self, tree: Any) -> Any:
        kept = (await self._get_many([tree], gone=False))[0]
        return None if kept is None else kept.value

    async def _contains(self, tree: Any) -> bool:
        return (await self._get_many([tree], gone=False))[0] is not None

    async def _lookup(self, tree: Any) -> Kept[Any] | None:
        return (await self._get_many([tree]))[0]

    async def _get_many(self, trees: list[Any], gone: bool = True) -> list[Kept[Any] | None]:
        """What is kept; without `gone`, only what a call would be answered with."""
        site, now = self._site, self._site.now()
        found = [self._in_memory(tree, now, gone) for tree in trees]
        tiers = site.reach()
        if tiers is None:
            return found
        names: dict[int, str] = {}
        for at, tree in enumerate(trees):
            if found[at] is None and (name := tiers.name(tree)) is not None:
                site.require_scope(tree)
                names[at] = name
        for at, one in zip(names, await tiers.read_many([*names.values()], self._runtime), strict=True):
            now = self._site.now()
            if one is not None and now < (one.times.expires if gone else one.times.usable):
                found[at] = _kept(
                    seen(one.value), one.tier, now - one.stored, now < one.times.fresh, one.times.expires - now
                )
        return found

    def _in_memory(self, tree: Any, now: float, gone: bool) -> Kept[Any] | None:
        entry = self._site.table.entries.get(tree)
        if entry is None or now >= entry.expires:
            return None
        life: Life | None = entry.life
        if life is not None and not (self._site.trusts(entry) and (gone or now < life.usable)):
            return None
        try:
            value = seen(entry.value) if entry.thaw is None else entry.thaw(entry.value)
        except Exception:  # a copier of the user's
            return None
        return _kept(value, "memory", now - entry.stored, life is None or now < life.fresh, entry.expires - now)

    async def _put(self, answers: list[tuple[Values, dict[str, Any], Any]]) -> None:
        keyed = [(*self._key(args, kwargs), (*self._bound, *args), kwargs, value) for args, kwargs, value in answers]
        for values, tree, args, kwargs, value in keyed:
            await put(self._site, values, tree, partial(self._site.inner, *args, **kwargs), value, self._runtime)


def _kept(value: Any, tier: str, age: float, fresh: bool, gone: float) -> Kept[Any]:
    error = value.again() if type(value) is Failure else None
    return Kept(None if error else value, tier, age, fresh, None if gone == FOREVER else gone, error)
