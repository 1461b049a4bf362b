"""What can be done with one function's cache from outside of a call.

On an async function, what may one day touch a slow tier is awaitable, and `controls(f).sync` serves sync code; what is
known in this process (`key`, `stats`, and the attributes of functools.lru_cache and async_lru) is sync in every colour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from scalekit._cache.normal import WrongCall
from scalekit._cache.site import CacheInfo, CacheStats, Site
from scalekit._core.drive import drive
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._cache.policy import Cache


class CacheControls:
    """`controls(f).cache`, or `f.cache`. The arguments of a method of it are those of the function."""

    def __init__(self, policy: Cache, site: Site, bound: tuple[Any, ...] = (), sync: bool | None = None) -> None:
        self._policy = policy
        self._site = site
        self._bound = bound
        self._sync = not site.target.shape.is_async if sync is None else sync
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
        """Forget the answer of this call, also the one that is being computed; True if there was one in memory."""
        return self._answer(self._invalidate, args, kwargs)

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        """The answer in memory, without computing or counting; None if there is none (`contains` tells a kept None)."""
        return self._answer(self._peek, args, kwargs)

    def contains(self, *args: Any, **kwargs: Any) -> Any:
        """True if an answer is in memory."""
        return self._answer(self._contains, args, kwargs)

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep `value` as the answer of this call; what is being computed will not replace it."""
        return self._answer(partial(self._put, value), args, kwargs)

    def clear(self) -> Any:
        """Forget every answer of this function, also those that are being computed."""
        return self._answer(self._clear, (), {})

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the answer anew and keep it; until it is there, callers get the old one. Returns the new one."""
        if self._sync and self._site.target.shape.is_async:
            raise ConfigurationError(
                f"refresh has to run {self._site.target.name}, which is async: await controls(f).cache.refresh(...)."
            )
        refreshing = self._policy.refresh(self._site, (*self._bound, *args), kwargs)
        return drive(refreshing) if self._sync else refreshing

    def key(self, *args: Any, **kwargs: Any) -> str:
        """The name of this call in a store: the function, a hash of its code, and a digest of the arguments."""
        try:
            return self._site.digest((*self._bound, *args), kwargs)
        except WrongCall as wrong:
            error = TypeError(*wrong.args)
        raise error

    def stats(self) -> CacheStats:
        """The figures of this function: hits, misses, joined, errors, unstored, entries, nbytes."""
        return self._site.stats()

    def cache_info(self) -> CacheInfo:
        """As `functools.lru_cache` has it."""
        stats = self._site.stats()
        return CacheInfo(stats.hits, stats.misses, self._site.memory.max_entries, stats.entries)

    def cache_clear(self) -> None:
        """As `functools.lru_cache` has it: forget the answers in this process's memory, and the figures."""
        self._clear()
        self._site.hot.reset()

    def cache_parameters(self) -> dict[str, Any]:
        """As `functools.lru_cache` has it."""
        return {"maxsize": self._site.memory.max_entries, "typed": True}

    def cache_invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """As `async_lru` has it: `invalidate` of this process's memory, sync in every colour."""
        return self._invalidate(*self._bound, *args, **kwargs)

    def cache_contains(self, *args: Any, **kwargs: Any) -> bool:
        """As `async_lru` has it."""
        return self._contains(*self._bound, *args, **kwargs)

    def _answer(self, act: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = act(*self._bound, *args, **kwargs)
        return value if self._sync else _awaitable(value)

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        try:
            return self._site.key(args, kwargs)
        except WrongCall as wrong:
            error = TypeError(*wrong.args)
        raise error

    def _invalidate(self, *args: Any, **kwargs: Any) -> bool:
        site = self._site
        _, tree = self._key(args, kwargs)

        def drop() -> bool:
            entry = site.table.entries.get(tree)
            if entry is None:
                return False
            site.memory.remove(site.table, entry)
            return True

        return site.flights.change(tree, "invalidated", drop)

    def _contains(self, *args: Any, **kwargs: Any) -> bool:
        return self._site.knows(self._key(args, kwargs)[1], time.monotonic())

    def _peek(self, *args: Any, **kwargs: Any) -> Any:
        _, tree = self._key(args, kwargs)
        entry = self._site.table.entries.get(tree)
        if entry is None or time.monotonic() >= entry.expires:
            return None
        return entry.value if entry.thaw is None else entry.thaw(entry.value)

    def _put(self, value: Any, *args: Any, **kwargs: Any) -> None:
        site = self._site
        values, tree = self._key(args, kwargs)
        stored, thaw = site.freeze(value)
        if not site.flights.change(tree, "replaced", lambda: site.keep(tree, values, stored, thaw)):
            site.unstored("larger than the memory tier")

    def _clear(self) -> None:
        site = self._site
        site.flights.change_all("cleared", lambda: site.memory.clear(site.table))


async def _awaitable(value: Any) -> Any:
    return value
