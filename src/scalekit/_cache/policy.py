"""cache: an answer is computed once, kept in memory, and shared by those who ask at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from scalekit import _units
from scalekit._cache.controls import CacheControls
from scalekit._cache.copies import Copy
from scalekit._cache.flights import nearest
from scalekit._cache.hot import compiled
from scalekit._cache.miss import in_task, in_thread
from scalekit._cache.normal import WrongCall
from scalekit._cache.site import MISSING, Site, Values
from scalekit._cache.stores.memory import Memory
from scalekit._core.bind import Binding
from scalekit._core.effect import refused
from scalekit._core.lineage import current
from scalekit._core.policy import Handler, Policy, Settings
from scalekit._core.target import Target
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._units import Duration

F = TypeVar("F", bound=Callable[..., Any])


class Cache(Policy):
    """The policy value. Functions that wear it have entries of their own; a `Memory` in `tiers` is a bound they
    share.
    """

    kind = "cache"
    shares = False

    def __init__(self, name: str | None, settings: Settings) -> None:
        super().__init__(name, settings)
        if settings["ttl"] is not None:
            _units.seconds(settings["ttl"], "ttl")
        if settings["flight_timeout"] is not None:
            _units.seconds(settings["flight_timeout"], "flight_timeout")
        if settings["copy"] is True or not (settings["copy"] in ("auto", False) or callable(settings["copy"])):
            raise ConfigurationError(f'cache: copy={settings["copy"]!r} is none of "auto", False and a function.')
        if not isinstance(settings["version"], str | None):
            raise ConfigurationError(f'cache: version={settings["version"]!r} is not a text such as version="3".')
        self.memory = _memory(settings["tiers"])

    def site(self, target: Target) -> Site:
        """What this policy keeps for one function."""
        site: Site | None = target.states.get(self)
        if site is None:
            site = target.states[self] = Site(target, self.settings, self.memory or Memory())
        return site

    def around(self, proceed: Handler, target: Target) -> Handler:
        if target.shape.is_stream:
            raise ConfigurationError(
                f"{target.name} is a generator function, and streams cannot be cached yet. Cache the function that "
                f"collects its items, as in `list(...)`; limit and retry work on streams."
            )
        if target.effect:
            raise refused(target.name)
        site = self.site(target)
        site.inner = proceed

        async def cached(*args: Any, **kwargs: Any) -> Any:
            try:
                values, tree = site.key(args, kwargs)
            except WrongCall:
                pass
            else:
                value = site.get(values, tree)
                if value is MISSING:
                    value = await miss(site, values, tree, partial(proceed, *args, **kwargs))
                return value
            return await proceed(*args, **kwargs)  # which says in Python's own words what is wrong

        miss = in_thread if target.runtime.blocking else in_task
        return cached

    async def refresh(self, site: Site, args: Values, kwargs: dict[str, Any]) -> Any:
        """The answer of a call computed anew, whatever is known or being computed."""
        values, tree = site.key(args, kwargs)
        site.flights.change(tree, "refreshed", lambda: None)
        miss = in_thread if site.target.runtime.blocking else in_task
        return await miss(site, values, tree, partial(site.inner, *args, **kwargs), anew=True)

    def compiled(self, binding: Binding) -> Callable[..., Any] | None:
        """The wrapper that answers hits by itself, if this is the outermost layer."""
        return compiled(binding, self.site(binding.target))

    def describe(self, target: Target) -> Settings:
        memory = self.site(target).memory
        kept = "MB of memory" if memory.policy == "s3fifo" else f"MB of memory, {memory.policy}"
        bounds = [f"{memory.max_entries:,} entries, {memory.max_bytes / 1e6:,g} {kept}"]
        copy = None if self.settings["copy"] == "auto" else self.settings["copy"]
        return {**self.settings, "copy": copy, "tiers": bounds}

    def controls(self, target: Target) -> CacheControls:
        return CacheControls(self, self.site(target))

    def sugar(self, target: Target) -> dict[str, object]:
        control = self.controls(target)
        return {
            "cache": control,
            "cache_info": control.cache_info,
            "cache_clear": control.cache_clear,
            "cache_parameters": control.cache_parameters,
            "cache_invalidate": control.cache_invalidate,
            "cache_contains": control.cache_contains,
        }


def _memory(tiers: Sequence[Any] | None) -> Memory | None:
    if tiers is None or (isinstance(tiers, Sequence) and list(tiers) == ["memory"]):
        return None
    found = [tier for tier in tiers if isinstance(tier, Memory)] if isinstance(tiers, Sequence) else []
    if len(found) == 1 and len(tiers) == 1:
        return found[0]
    raise ConfigurationError(
        f'cache: tiers={tiers!r} is not known here. Write tiers=["memory"], or '
        f"tiers=[scalekit.Memory(max_entries=1_000)]."
    )


def no_store(reason: str = "no_store") -> None:
    """Keep the answer that is being computed out of every tier; its callers get it all the same.

    Called inside a cached function, or inside what it calls; `reason` is told in the event `NotStored`. Outside of one
    it does nothing.

    >>> import scalekit
    >>> @scalekit.cache
    ... def complete(prompt: str) -> str:
    ...     answer = prompt[:5]
    ...     if len(answer) < len(prompt):
    ...         scalekit.no_store("truncated")
    ...     return answer
    >>> complete("a long prompt"), complete.cache.stats().entries
    ('a lon', 0)
    """
    flight = nearest(current.get())
    if flight is not None and flight.unstorable is None:
        flight.unstorable = reason


@overload
def cache(function: F, /) -> F: ...


@overload
def cache(
    *,
    ttl: Duration | None = None,
    key: Callable[..., Any] | str | None = None,
    ignore: str | Iterable[str] = (),
    version: str | None = None,
    copy: Copy = "auto",
    tiers: Sequence[Memory | Literal["memory"]] | None = None,
    flight_timeout: Duration | None = None,
    name: str | None = None,
) -> Cache: ...


def cache(
    function: Any = None,
    /,
    *,
    ttl: Duration | None = None,
    key: Callable[..., Any] | str | None = None,
    ignore: str | Iterable[str] = (),
    version: str | None = None,
    copy: Copy = "auto",
    tiers: Sequence[Memory | Literal["memory"]] | None = None,
    flight_timeout: Duration | None = None,
    name: str | None = None,
) -> Any:
    """Compute an answer once, keep it, and let those who ask at the same time share it.

    Args:
        ttl: how long an answer is good, in seconds, as a timedelta or as "10m" (default: until it is evicted).
        key: what makes two calls the same: a function of the same arguments, or a text such as
            "user:{user.id}:{query}". Default: all arguments, by type and value.
        ignore: names of parameters that do not matter, such as a client or a request id.
        version: a text that stands for the function's code in keys of shared stores. Default: a hash of the code.
        copy: "auto" gives every caller a value of its own where it can be changed; False shares one; a function copies.
        tiers: ["memory"], or [Memory(...)] for other bounds or one bound of several functions. Default: 10,000 entries
            and 64 MB for each function.
        flight_timeout: after how long a hung call no longer holds its key (default 10 minutes).
        name: one policy of that name in this process.

    A caller's cancellation never touches the others who wait for the same call; errors are not kept; `None` is a value.
    Bare `@cache` works.

    Raises:
        ConfigurationError: at decoration: a wrong argument, a generator function, a function marked `@scalekit.effect`.
        UnkeyableArgument: at a call: an argument has no value to make a key of; the message names the remedies.
        ReentryError: at a call that waits for itself.
        DeadlineExceeded: the shared call took longer than `flight_timeout`.

    >>> import scalekit
    >>> @scalekit.cache(ttl="10m")
    ... def ask(question: str) -> str:
    ...     return question.upper()
    >>> ask("why?"), ask("why?"), ask.cache.stats().hits
    ('WHY?', 'WHY?', 1)
    """
    if not isinstance(ignore, Iterable):
        raise ConfigurationError(f'cache: ignore={ignore!r} is no name of a parameter. Write ignore=("client",).')
    given: Settings = {
        "ttl": ttl,
        "key": key,
        "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore),
        "version": version,
        "copy": copy,
        "tiers": tiers,
        "flight_timeout": flight_timeout,
    }
    policy = Cache.named(name, given)
    decorated: Any = function
    return policy if decorated is None else policy(decorated)
