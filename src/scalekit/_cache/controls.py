"""What can be done with one function's cache from outside of a call.

What may touch a slow tier is awaited on an async function, and `controls(f).sync` serves sync code; what is known in
this process (`key`, `stats`, and the attributes of functools.lru_cache and async_lru) is sync in every colour. A
control is written once, as a coroutine; for sync code it is driven by the blocking runtime.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from scalekit._cache.each import NOTHING
from scalekit._cache.figures import CacheInfo, CacheStats, Kept
from scalekit._cache.freshness import FOREVER
from scalekit._cache.index import Values
from scalekit._cache.landing import put, seen
from scalekit._cache.life import Life
from scalekit._cache.marked import MARKED
from scalekit._cache.marks import named
from scalekit._cache.normal import WrongCall
from scalekit._cache.recall import Failure
from scalekit._cache.scope import ambient
from scalekit._cache.site import Site
from scalekit._core.drive import drive
from scalekit._runtime.base import Runtime
from scalekit._runtime.blocking import BLOCKING
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._cache.policy import Cache


class CacheControls:
    """`controls(f).cache`, or `f.cache`. The arguments of a method of it are those of the function.

    Of a function with `each=` they speak of the items of a list: `peek`, `lookup` and `key` give a list, one for each
    item; `put` takes the answers to all of them.
    """

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
        return self._answer(self._invalidate(self._trees(args, kwargs)))

    def invalidate_tags(self, *tags: str) -> Any:
        """Forget every answer that has one of these tags, whichever function of this namespace gave it; inside of a
        scope, that scope's.
        """
        if not tags:
            raise ConfigurationError("invalidate_tags: no tag was given: invalidate_tags('doc:7').")
        for tag in tags:
            if not isinstance(tag, str) or not tag:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"invalidate_tags: {tag!r} is no tag: invalidate_tags('doc:7').")
        return self._answer(self._mark([f"{self._site.namespace}#{tag}" for tag in tags]))

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        """The answer that is kept, without computing or counting; None if there is none (`lookup` tells them apart)."""
        return self._answer(self._peek(self._trees(args, kwargs)))

    def contains(self, *args: Any, **kwargs: Any) -> Any:
        """True if an answer is kept in some tier; of several items, all of them."""
        return self._answer(self._contains(self._trees(args, kwargs)))

    def lookup(self, *args: Any, **kwargs: Any) -> Any:
        """What is kept of this call, with its tier, age and freshness, or None. Computes and counts nothing."""
        return self._answer(self._lookup(self._trees(args, kwargs)))

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep `value` as the answer of this call; what is being computed will not replace it."""
        return self._answer(self._put([(args, kwargs, value)]))

    def get_many(self, calls: Iterable[Values]) -> Any:
        """`lookup` for several calls, each a tuple of positional arguments, in one round trip to each tier."""
        return self._answer(self._lookups([self._trees(tuple(args), {}) for args in calls]))

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

    def key(self, *args: Any, **kwargs: Any) -> Any:
        """The name of this call in a store: namespace, function, a hash of its code, a digest of the arguments."""
        names = [self._site.digest(args, kwargs) for args, kwargs, _ in self._calls(args, kwargs)]
        return self._of_items(names)

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
        return self._forget_each(self._trees(args, kwargs))

    def cache_contains(self, *args: Any, **kwargs: Any) -> bool:
        """As `async_lru` has it."""
        return all(self._site.find(tree, self._site.now()) is not None for tree in self._trees(args, kwargs))

    def _answer(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return drive(coroutine) if self._sync else coroutine

    def _calls(self, args: Values, kwargs: dict[str, Any]) -> list[tuple[Values, dict[str, Any], Any]]:
        """The arguments and the key of a call; with `each=`, of the call of each item."""
        args, each = (*self._bound, *args), self._site.each
        try:
            if each is None:
                return [(args, kwargs, self._site.key(args, kwargs))]
            calls = [each.within(args, kwargs, item) for item in each.items(args, kwargs)]
            return [(one, rest, self._site.key(one, rest)) for one, rest in calls]
        except WrongCall as wrong:
            error = TypeError(*wrong.args)
        raise error

    def _trees(self, args: Values, kwargs: dict[str, Any]) -> list[Any]:
        return [tree for _, _, (_, tree) in self._calls(args, kwargs)]

    def _of_items(self, results: list[Any]) -> Any:
        return results[0] if self._site.each is None else results

    def _forget(self, tree: Any) -> bool:
        site = self._site

        def drop() -> bool:
            entry = site.table.entries.get(tree)
            return entry is not None and site.memory.remove(site.table, entry)

        return site.flights.change(tree, "invalidated", drop)

    def _forget_each(self, trees: list[Any]) -> bool:
        was = False
        for tree in trees:
            was = self._forget(tree) or was
        return was

    def _forget_all(self) -> None:
        site = self._site
        site.flights.change_all("cleared", lambda: site.memory.clear(site.table))

    async def _invalidate(self, trees: list[Any]) -> bool:
        was = self._forget_each(trees)
        tiers = self._site.reach()
        names = [] if tiers is None else [name for tree in trees if (name := tiers.name(tree)) is not None]
        if tiers is not None and names:
            was = await tiers.invalidate(names, self._runtime) or was
            self._forget_each(trees)  # what a flight recalled from there meanwhile
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

    async def _peek(self, trees: list[Any]) -> Any:
        kept = await self._get_many(trees, gone=False)
        return self._of_items([None if one is None else one.value for one in kept])

    async def _contains(self, trees: list[Any]) -> bool:
        return None not in await self._get_many(trees, gone=False)

    async def _lookup(self, trees: list[Any]) -> Any:
        return self._of_items(await self._get_many(trees))

    async def _lookups(self, calls: list[list[Any]]) -> list[Any]:
        kept = iter(await self._get_many([tree for trees in calls for tree in trees]))
        return [self._of_items([next(kept) for _ in trees]) for trees in calls]

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
        keyed: list[tuple[Values, dict[str, Any], Any, Any]] = []
        for args, kwargs, value in answers:
            calls = self._calls(args, kwargs)
            if self._site.each is None:
                values = [value]
            else:
                items = self._site.each.items((*self._bound, *args), kwargs)
                values = self._site.each.spread(value, items, False)
            keyed += [(*call, one) for call, one in zip(calls, values, strict=True)]
        for args, kwargs, (bound, tree), value in keyed:
            if value is NOTHING:
                continue
            await put(self._site, bound, tree, partial(self._site.inner, *args, **kwargs), value, self._runtime)


def _kept(value: Any, tier: str, age: float, fresh: bool, gone: float) -> Kept[Any]:
    error = value.again() if type(value) is Failure else None
    return Kept(None if error else value, tier, age, fresh, None if gone == FOREVER else gone, error)
