"""controls(f): the typed door to what the policies around a function know and can do.

The protocols below are what a type checker sees: the arguments of `invalidate` are those of the function, and on an
async function they are awaited. One class behind them serves both (see _cache/controls.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from scalekit._cache.figures import CacheStats, Kept
from scalekit._core.bind import Binding, binding_of
from scalekit._core.policy import Policy
from scalekit._limit.policy import LimitControls
from scalekit.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


class CacheControl(Protocol[P, T]):
    """The cache of a sync function, or of an async one for sync code."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the answer of this call in every tier, also the one being computed; True if there was one."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute the answer anew, keep it and return it; until then callers get the old one."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The answer that is kept, without computing or counting; None if there is none."""
        ...

    def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """True if an answer is kept in some tier."""
        ...

    def put(self, value: T, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Keep `value` as the answer of this call."""
        ...

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Kept[T] | None:
        """What is kept of this call, with its tier, age and freshness; None if nothing is."""
        ...

    def get_many(self, calls: Iterable[tuple[Any, ...]]) -> list[Kept[T] | None]:
        """`lookup` for several calls, each a tuple of positional arguments, in one round trip to each tier."""
        ...

    def put_many(self, answers: Iterable[tuple[tuple[Any, ...], T]]) -> None:
        """`put` for several calls: pairs of a tuple of positional arguments, and the answer."""
        ...

    def invalidate_tags(self, *tags: str) -> None:
        """Forget every answer with one of these tags, whichever function of this namespace gave it."""
        ...

    def clear(self) -> None:
        """Forget every answer of this function, also those being computed."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The name of this call in a store; holds digests, never an argument's value."""
        ...

    def stats(self) -> CacheStats:
        """The figures: hits by tier, misses, joined, errors, stale, unstored, undecodable, entries, nbytes."""
        ...


class AsyncCacheControl(Protocol[P, T]):
    """The cache of an async function: what may touch a slow tier is awaited."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """Forget the answer of this call in every tier, also the one being computed; True if there was one."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Compute the answer anew, keep it and return it; until then callers get the old one."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T | None]:
        """The answer that is kept, without computing or counting; None if there is none."""
        ...

    def contains(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """True if an answer is kept in some tier."""
        ...

    def put(self, value: T, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, None]:
        """Keep `value` as the answer of this call."""
        ...

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Kept[T] | None]:
        """What is kept of this call, with its tier, age and freshness; None if nothing is."""
        ...

    def get_many(self, calls: Iterable[tuple[Any, ...]]) -> Coroutine[Any, Any, list[Kept[T] | None]]:
        """`lookup` for several calls, each a tuple of positional arguments, in one round trip to each tier."""
        ...

    def put_many(self, answers: Iterable[tuple[tuple[Any, ...], T]]) -> Coroutine[Any, Any, None]:
        """`put` for several calls: pairs of a tuple of positional arguments, and the answer."""
        ...

    def invalidate_tags(self, *tags: str) -> Coroutine[Any, Any, None]:
        """Forget every answer with one of these tags, whichever function of this namespace gave it."""
        ...

    def clear(self) -> Coroutine[Any, Any, None]:
        """Forget every answer of this function, also those being computed."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The name of this call in a store; holds digests, never an argument's value."""
        ...

    def stats(self) -> CacheStats:
        """The figures: hits by tier, misses, joined, errors, stale, unstored, undecodable, entries, nbytes."""
        ...


class Controls(Generic[C]):
    """The doors of one decorated function; asking for a policy it does not wear is an error that says so."""

    def __init__(self, binding: Binding, bound: tuple[Any, ...], sync: bool | None) -> None:
        self._binding = binding
        self._bound = bound
        self._sync = sync

    @property
    def cache(self) -> C:
        """invalidate, refresh, peek, lookup, contains, put, get_many, put_many, clear, invalidate_tags, key, stats."""
        from scalekit._cache.policy import Cache

        policy = cast(Cache, self._policy("cache"))
        return cast(C, policy.controls(self._binding.target).bind(*self._bound, sync=self._sync))

    @property
    def limit(self) -> LimitControls:
        """state, update."""
        return cast(LimitControls, self._policy("limit").controls(self._binding.target))

    def _policy(self, kind: str) -> Policy:
        policy = self._binding.first(kind)
        if policy is None:
            worn = ", ".join(policy.kind for policy in self._binding.policies)
            raise ConfigurationError(f"{self._binding.target.name} wears no {kind}; it wears {worn}.")
        return policy


class SyncControls(Controls[CacheControl[P, T]]):
    """The doors of a sync function."""

    @property
    def sync(self) -> SyncControls[P, T]:
        """Itself: it is sync already."""
        return self


class AsyncControls(Controls[AsyncCacheControl[P, T]]):
    """The doors of an async function."""

    @property
    def sync(self) -> SyncControls[P, T]:
        """The same doors for sync code: nothing is awaited."""
        return SyncControls(self._binding, self._bound, True)


@overload
def controls(  # type: ignore[overload-overlap]  # a coroutine is a value too; the first that fits is meant
    function: Callable[P, Coroutine[Any, Any, T]], /
) -> AsyncControls[P, T]: ...
@overload
def controls(function: Callable[P, T], /) -> SyncControls[P, T]: ...
def controls(function: Callable[..., Any], /) -> Any:
    """What the policies around `function` know and can do: `.cache`, `.limit`, and `.sync` for sync code.

    `controls(obj.method)` fills in `self`; of a classmethod, `cls`.

    Raises:
        ConfigurationError: `function` wears no policy.

    >>> import scalekit
    >>> @scalekit.cache
    ... def ask(question: str) -> str:
    ...     return question.upper()
    >>> _ = ask("why?")
    >>> scalekit.controls(ask).cache.peek("why?")
    'WHY?'
    >>> scalekit.controls(ask).cache.invalidate("why?")
    True
    """
    plain = getattr(function, "__func__", function)
    binding = binding_of(plain)
    if binding is None:
        raise ConfigurationError(
            f"{function!r} wears no policy of scalekit: decorate it first, or pass the decorated one."
        )
    bound = () if plain is function else (function.__self__,)  # type: ignore[attr-defined]
    return (AsyncControls if binding.target.shape.is_async else SyncControls)(binding, bound, None)
