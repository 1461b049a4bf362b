"""cache: an answer is computed once, kept in the tiers of its function, and shared by those who ask meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from scalekit import _units
from scalekit._cache.arrange import Arrangement
from scalekit._cache.bring import extend
from scalekit._cache.controls import CacheControls
from scalekit._cache.copies import Copy
from scalekit._cache.flight import nearest
from scalekit._cache.freshness import Freshness
from scalekit._cache.hot import compiled
from scalekit._cache.index import Values
from scalekit._cache.landing import seen
from scalekit._cache.miss import behind, in_task, in_thread
from scalekit._cache.normal import WrongCall
from scalekit._cache.recorded import Recorded, replay
from scalekit._cache.site import MISSING, Site
from scalekit._cache.stores.memory import Memory
from scalekit._core.bind import Binding
from scalekit._core.effect import refused
from scalekit._core.lineage import current
from scalekit._core.policy import Handler, Policy, Settings
from scalekit._core.stream import Stream, collected
from scalekit._core.target import Target
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._cache.codec import CustomCodec
    from scalekit._cache.stores.base import Store
    from scalekit._units import Duration

F = TypeVar("F", bound=Callable[..., Any])
Label = str | Callable[[Any], str | Iterable[str]]


class Foreign(Protocol):
    """A cache of cachetools, diskcache or aiocache."""

    def get(self, key: Any, /) -> Any: ...


class Cache(Policy):
    """The policy value. Functions that wear it have entries of their own; a `Memory` in `tiers` is a bound they
    share.
    """

    kind = "cache"
    shares = False

    def __init__(self, name: str | None, settings: Settings) -> None:
        super().__init__(name, settings)
        self.arrangement = Arrangement(settings["tiers"])
        Freshness(settings)  # complains now, not at the first function
        if settings["flight_timeout"] is not None:
            _units.seconds(settings["flight_timeout"], "flight_timeout")
        if settings["max_bytes"] is not None:
            _units.size(settings["max_bytes"], "max_bytes")
        if settings["copy"] is True or not (settings["copy"] in ("auto", False) or callable(settings["copy"])):
            raise ConfigurationError(f'cache: copy={settings["copy"]!r} is none of "auto", False and a function.')
        if not isinstance(settings["version"], str | None):
            raise ConfigurationError(f'cache: version={settings["version"]!r} is not a text such as version="3".')
        if settings["when"] is not None and not callable(settings["when"]):
            raise ConfigurationError(
                f"cache: when={settings['when']!r} is no function of the answer, such as when=scalekit.is_complete."
            )
        codec = settings["codec"]
        if codec is not None and not (hasattr(codec, "encode") and hasattr(codec, "decode")):
            raise ConfigurationError(
                f"cache: codec={codec!r} has no encode(answer) -> bytes and decode(bytes) -> answer."
            )
        if not all(isinstance(kind, type) for kind in settings["types"]):
            raise ConfigurationError(f"cache: types={settings['types']!r} are not classes: types=(Answer, Source).")

    def site(self, target: Target) -> Site:
        """What this policy keeps for one function."""
        site: Site | None = target.states.get(self)
        if site is None:
            site = target.states[self] = Site(target, self.settings, self.arrangement)
        return site

    def around(self, proceed: Handler, target: Target) -> Handler:
        if target.effect:
            raise refused(target.name)
        site = self.site(target)
        site.inner = proceed
        if site.each is not None:
            return self._around_lists(proceed, site)

        async def cached(*args: Any, **kwargs: Any) -> Any:
            if site.asks_where and site.bypassed():
                return await proceed(*args, **kwargs)
            try:
                values, tree = site.key(args, kwargs)
            except WrongCall:
                pass
            else:
                now = site.now()
                value: Any = MISSING
                entry = site.find(tree, now)
                if entry is not None:
                    if now >= entry.until:
                        behind(site, values, tree, partial(proceed, *args, **kwargs))
                    value = site.take(entry, values, now)
                    if value is not MISSING and entry.life is not None and now >= entry.life.rewrite:
                        await extend(site, entry, tree, runtime)
                if value is MISSING:
                    value = await miss(site, values, tree, partial(proceed, *args, **kwargs))
                return value if type(value) is not Recorded else replay(value)
            return await proceed(*args, **kwargs)  # which says in Python's own words what is wrong

        runtime = target.runtime
        miss = in_thread if runtime.blocking else in_task
        return cached

    def _around_lists(self, proceed: Handler, site: Site) -> Handler:
        from scalekit._cache.listed import ListCall

        async def cached(*args: Any, **kwargs: Any) -> Any:
            if site.asks_where and site.bypassed():
                return await proceed(*args, **kwargs)
            try:
                call = ListCall(site, proceed, args, kwargs)
            except WrongCall:
                pass
            else:
                return await call.answer()
            return await proceed(*args, **kwargs)

        return cached

    async def refresh(self, site: Site, args: Values, kwargs: dict[str, Any]) -> Any:
        """The answer of a call computed anew, whatever is known or being computed."""
        if site.each is not None:
            from scalekit._cache.listed import ListCall

            return await ListCall(site, site.inner, args, kwargs).answer(anew=True)
        values, tree = site.key(args, kwargs)
        site.flights.change(tree, "refreshed", lambda: None)
        miss = in_thread if site.target.runtime.blocking else in_task
        value = await miss(site, values, tree, partial(site.inner, *args, **kwargs), anew=True)
        return await collected(value) if type(value) is Stream else seen(value)

    def compiled(self, binding: Binding) -> Callable[..., Any] | None:
        """The wrapper that answers hits by itself, if this is the outermost layer."""
        site = self.site(binding.target)
        return compiled(binding, site) if site.each is None else None

    def describe(self, target: Target) -> Settings:
        site, tiers = self.site(target), list[str]()
        memory = site.memory
        if site.in_memory:
            kept = "MB of memory" if memory.policy == "s3fifo" else f"MB of memory, {memory.policy}"
            tiers.append(f"{memory.max_entries:,} entries, {memory.max_bytes / 1e6:,g} {kept}")
        reach = site.reach()
        if reach is not None:
            tiers += map(repr, reach.stores)
        copy = None if self.settings["copy"] == "auto" else self.settings["copy"]
        early = self.settings["early"] or None
        return {**self.settings, "copy": copy, "early": early, "tiers": tiers}

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
    if flight is not None:
        for one in (flight, *flight.party):
            one.unstorable = one.unstorable or reason


@overload
def cache(function: F, /) -> F: ...


@overload
def cache(
    *,
    ttl: Duration | Callable[[Any], Duration | None] | None = None,
    jitter: Duration | None = None,
    sliding: Duration | None = None,
    stale: Duration | None = None,
    stale_if_error: Duration | None = None,
    early: bool | float = False,
    when: Callable[[Any], object] | None = None,
    negative: Mapping[type[Exception], Duration] | None = None,
    key: Callable[..., Any] | str | None = None,
    ignore: str | Iterable[str] = (),
    version: str | None = None,
    scope: Callable[..., Any] | str | None = None,
    tags: Label | Iterable[Label] | None = None,
    copy: Copy = "auto",
    types: Iterable[type] = (),
    codec: CustomCodec | None = None,
    each: str | None = None,
    tiers: Sequence[Store | Memory | Foreign | Literal["memory", "disk"]] | None = None,
    max_bytes: int | str | None = None,
    flight_timeout: Duration | None = None,
    name: str | None = None,
) -> Cache: ...


def cache(
    function: Any = None,
    /,
    *,
    ttl: Duration | Callable[[Any], Duration | None] | None = None,
    jitter: Duration | None = None,
    sliding: Duration | None = None,
    stale: Duration | None = None,
    stale_if_error: Duration | None = None,
    early: bool | float = False,
    when: Callable[[Any], object] | None = None,
    negative: Mapping[type[Exception], Duration] | None = None,
    key: Callable[..., Any] | str | None = None,
    ignore: str | Iterable[str] = (),
    version: str | None = None,
    scope: Callable[..., Any] | str | None = None,
    tags: Label | Iterable[Label] | None = None,
    copy: Copy = "auto",
    types: Iterable[type] = (),
    codec: CustomCodec | None = None,
    each: str | None = None,
    tiers: Sequence[Store | Memory | Foreign | Literal["memory", "disk"]] | None = None,
    max_bytes: int | str | None = None,
    flight_timeout: Duration | None = None,
    name: str | None = None,
) -> Any:
    """Compute an answer once, keep it, and let those who ask at the same time share it.

    Durations are seconds, a timedelta or a text such as "10m".

    Args:
        ttl: how long an answer is fresh, or a function of the answer that says so (default: until it is evicted).
        jitter: up to so much is taken off each `ttl`, at random, so that not all expire in one moment.
        sliding: an answer that nobody asked for during this time is gone; `ttl` bounds it all the same.
        stale: for so long after `ttl` the old answer is served at once, while one refresh runs behind.
        stale_if_error: for so long after `ttl` the old answer is served if computing a new one fails.
        early: True begins the refresh behind shortly before `ttl` ends, at a random moment (XFetch); a number above 1
            begins earlier.
        when: a function of the answer; if it is not true, the answer is handed out and not kept.
        negative: errors that are answers, and how long they are kept: {LookupError: "1m"}.
        key: what makes two calls the same: a function of the same arguments, or a text such as
            "user:{user.id}:{query}". Default: all arguments, by type and value.
        ignore: names of parameters that do not matter, such as a client or a request id.
        version: a text that stands for the function's code in keys of shared stores. Default: a hash of the code.
        scope: the argument that says whose answer it is, "tenant" or "request.user.id", or a function of the arguments;
            besides the scope that the call is in (`with scalekit.scope(...)`).
        tags: names by which answers are invalidated together: a text such as "doc:{doc.id}", a function of the answer,
            or several of them.
        copy: "auto" gives every caller a value of its own where it can be changed; False shares one; a function copies.
        types: classes, besides those that the return annotation names, that stored bytes may become objects of.
        codec: an object with `encode(answer) -> bytes` and `decode(bytes) -> answer` in place of the built-in one.
        tiers: from the fastest to the slowest: ["memory"], ["memory", "disk"], [Memory(...), Disk(...)], ["disk"].
            A cache of cachetools, diskcache or aiocache is a tier too. Default: memory (10,000 entries and 64 MB for
            each function), and the disk if the setting `disk_dir` names one and the function has a `ttl`.
        each: the parameter that is a list whose items are answered one by one: only those that are not known go
            inward, as one list. The function returns a list, in their order, or a dict by item.
        max_bytes: how much of one stream is recorded (default 8 MB): a longer one is handed on, and not kept.
        flight_timeout: after how long a hung call no longer holds its key (default 10 minutes).
        name: one policy of that name in this process.

    A caller's cancellation never touches the others who wait for the same call; errors are not kept unless `negative`
    says so; `None` is a value. Bare `@cache` works.

    Raises:
        ConfigurationError: at decoration: a wrong argument, a function marked `@scalekit.effect`.
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
        "jitter": jitter,
        "sliding": sliding,
        "stale": stale,
        "stale_if_error": stale_if_error,
        "early": early,
        "when": when,
        "negative": negative,
        "key": key,
        "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore),
        "version": version,
        "scope": scope,
        "tags": tags,
        "copy": copy,
        "types": tuple(types),
        "codec": codec,
        "tiers": tiers,
        "each": each,
        "max_bytes": max_bytes,
        "flight_timeout": flight_timeout,
    }
    policy = Cache.named(name, given)
    decorated: Any = function
    return policy if decorated is None else policy(decorated)
