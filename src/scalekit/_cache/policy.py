"""cache: an answer is computed once, kept in memory, and shared by those who ask at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from scalekit import _units, events
from scalekit._cache.controls import CacheControls
from scalekit._cache.copies import Copy
from scalekit._cache.flights import Flight, State, nearest
from scalekit._cache.hot import compiled
from scalekit._cache.normal import WrongCall
from scalekit._cache.site import MISSING, Site, Values
from scalekit._cache.stores.memory import Memory
from scalekit._core.bind import Binding
from scalekit._core.effect import refused
from scalekit._core.lineage import Frame, current
from scalekit._core.policy import Handler, Policy, Settings
from scalekit._core.stream import PLAIN, Stream
from scalekit._core.target import Target
from scalekit._runtime.base import Waiter
from scalekit._runtime.blocking import BLOCKING, on_event_loop
from scalekit.errors import BlockingError, ConfigurationError, DeadlineExceeded, ReentryError

if TYPE_CHECKING:
    from scalekit._runtime.eventloop import AsyncioLoop, TrioLoop
    from scalekit._units import Duration

    Loop = AsyncioLoop | TrioLoop

F = TypeVar("F", bound=Callable[..., Any])

Call = Callable[[], Awaitable[Any]]

LOOK = 1.0
"""Seconds between two looks whether another event loop, which may end without a word, still runs our flight."""


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

        miss = self._in_thread if target.runtime.blocking else self._in_task
        return cached

    async def refresh(self, site: Site, args: Values, kwargs: dict[str, Any]) -> Any:
        """The answer of a call computed anew, whatever is known or being computed."""
        assert site.inner is not None
        values, tree = site.key(args, kwargs)
        site.flights.change(tree, "refreshed", lambda: None)
        miss = self._in_thread if site.target.runtime.blocking else self._in_task
        return await miss(site, values, tree, partial(site.inner, *args, **kwargs), anew=True)

    def compiled(self, binding: Binding) -> Callable[..., Any] | None:
        """The wrapper that answers hits by itself, if this is the outermost layer."""
        return compiled(binding, self.site(binding.target))

    async def _in_task(self, site: Site, values: Values, tree: Any, call: Call, anew: bool = False) -> Any:
        """A miss on an event loop: the flight is a task of its own, and this caller waits for it like any other."""
        runtime, flights, frame = site.runtime, site.flights, current.get()
        loop = runtime.here()
        while True:
            waiter = loop.waiter()
            flight, first = self._board(site, tree, frame, loop.home, waiter, anew)
            if flight is None:
                value = site.get(values, tree)
                if value is MISSING:
                    continue
                return value
            if first:
                body = self._fly(site, flight, values, call, loop)
                try:
                    flight.task = loop.spawn(body, copy_context())
                except BaseException:  # this loop takes no task any more
                    body.close()
                    flights.land(flight, State.ABANDONED)
                    raise
                if site.watched is not loop.home:
                    self._watch(site, loop)
            try:
                if flight.home is loop.home:
                    if flight.state is State.FLYING:
                        await waiter.wait()
                else:
                    while not await waiter.wait(LOOK) and flight.state is State.FLYING:
                        if runtime.gone(flight.home):
                            flights.land(flight, State.ABANDONED)
            except GeneratorExit:
                flights.leave_unheard(flight, frame, first, waiter)
                raise
            except BaseException:
                last_word = loop.waiter()
                if flights.leave(flight, frame, first, waiter, last_word):
                    flight.task.cancel()
                    if not flight.started:  # a task cancelled before its first step never enters its body
                        flights.land(flight, State.ABANDONED)
                    if flight.home is loop.home:
                        await last_word.outlast(flight.deadline - runtime.now())
                raise
            if frame is not None:
                flights.arrive(flight, frame, first)
            if flight.state is not State.ABANDONED:
                return self._outcome(site, flight, first)

    async def _fly(self, site: Site, flight: Flight, values: Values, call: Call, loop: Loop) -> None:
        """The flight itself, in its own task and in a copy of its first caller's context."""
        flight.started = True
        current.set(flight)
        try:
            value = await call()
            if type(value) not in PLAIN:
                _refuse_stream(value, site.target)
        except GeneratorExit:
            site.flights.land(flight, State.ABANDONED)
            raise
        except BaseException as error:
            stopped = not isinstance(error, Exception | KeyboardInterrupt | SystemExit) and loop.asked_to_stop()
            site.flights.land(flight, State.ABANDONED if stopped else State.FAILED, error)
            self._failed(site, flight, error)
            if stopped:
                raise
        else:
            self._land(site, flight, values, value)

    def _watch(self, site: Site, loop: Loop) -> None:
        """See to it that this loop gives up what takes longer than `flight_timeout`: one timer for all flights."""
        if loop.home not in site.watching:
            site.watching.add(loop.home)
            loop.later(site.flight_timeout, partial(self._give_up_the_late, site, loop))
        site.watched = loop.home

    def _give_up_the_late(self, site: Site, loop: Loop) -> None:
        now = site.runtime.now()
        late, soonest = site.flights.overdue(now)
        for flight in late:
            site.flights.land(flight, State.OVERDUE)
            if flight.task is not None:
                flight.task.cancel()
        if soonest is not None:
            loop.later(soonest - now, partial(self._give_up_the_late, site, loop))
        else:
            site.watching.discard(loop.home)
            site.watched = None

    async def _in_thread(self, site: Site, values: Values, tree: Any, call: Call, anew: bool = False) -> Any:
        """A miss in a thread: the first caller flies, the others block until it has landed."""
        runtime, flights, frame = BLOCKING, site.flights, current.get()
        here = runtime.home()
        while True:
            waiter = runtime.waiter()
            flight, first = self._board(site, tree, frame, here, waiter, anew)
            if flight is None:
                value = site.get(values, tree)
                if value is MISSING:
                    continue
                return value
            if first:
                try:
                    return await self._fly_here(site, flight, values, call)
                finally:
                    if frame is not None:
                        flights.arrive(flight, frame, first)
            if flight.home == here and on_event_loop():
                flights.leave_unheard(flight, frame, first, waiter)
                raise BlockingError(
                    f"{site.target.name} would block this thread until another call of it has ended, but that one "
                    f"runs on this very thread. Call it from a thread, as in `await asyncio.to_thread(...)`."
                )
            try:
                if not await waiter.wait(flight.deadline - runtime.now()):
                    flights.land(flight, State.OVERDUE)
            finally:
                if frame is not None:
                    flights.arrive(flight, frame, first)
            if flight.state is not State.ABANDONED:
                return self._outcome(site, flight, first)

    async def _fly_here(self, site: Site, flight: Flight, values: Values, call: Call) -> Any:
        token = current.set(flight)
        try:
            value = await call()
            if type(value) not in PLAIN:
                _refuse_stream(value, site.target)
        except BaseException as error:
            site.flights.land(flight, State.FAILED if isinstance(error, Exception) else State.ABANDONED, error)
            self._failed(site, flight, error)
            raise
        finally:
            current.reset(token)
        self._land(site, flight, values, value)
        return value

    def _board(
        self, site: Site, tree: Any, frame: Frame | None, home: Any, waiter: Waiter, anew: bool
    ) -> tuple[Flight | None, bool]:
        known = _unknown if anew else site.knows
        now = site.runtime.now()
        flight, first = site.flights.board(tree, frame, home, now, site.flight_timeout, waiter, known)
        if flight is None:
            if not first:
                raise ReentryError(
                    f"{site.target.name} was called, with the same arguments, by code that its own running call waits "
                    f"for: it would wait for itself for ever. Break the circle, or call the undecorated function "
                    f"(its __wrapped__) inside."
                )
        elif first:
            site.hot.misses += 1
        else:
            site.hot.joined += 1
            if events.subscribers:
                events.emit(events.Joined(site.target.name))
        return flight, first

    def _land(self, site: Site, flight: Flight, values: Values, value: Any) -> None:
        stored, thaw = site.freeze(value)
        if thaw is not None:
            flight.copy = partial(thaw, stored)
        room = site.flights.deliver(flight, value, site.keep, values, stored, thaw)
        if flight.unstorable is not None:
            site.unstored(flight.unstorable)
        elif not room:
            site.unstored("larger than the memory tier")
        if events.subscribers:
            self._computed(site, flight, None)

    def _failed(self, site: Site, flight: Flight, error: BaseException) -> None:
        site.hot.errors += 1
        if events.subscribers:
            self._computed(site, flight, error)

    def _computed(self, site: Site, flight: Flight, error: BaseException | None) -> None:
        seconds = site.runtime.now() - flight.began
        events.emit(events.Computed(site.target.name, seconds, error, flight.callers))

    def _outcome(self, site: Site, flight: Flight, first: bool) -> Any:
        if flight.state is State.LANDED:
            return flight.value if first or flight.copy is None else flight.copy()
        if flight.state is State.FAILED:
            error = flight.take_error(first)
            try:
                raise error
            finally:
                del error  # or the traceback would hold the frame that holds the exception
        raise DeadlineExceeded(
            f"{site.target.name}: the call that {flight.callers} callers waited for took longer than flight_timeout "
            f"({site.flight_timeout:g} s), and was given up. Its key is free; the next caller starts anew."
        )

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


def _unknown(tree: Any, now: float) -> bool:
    return False


def _refuse_stream(value: Any, target: Target) -> None:
    if type(value) in PLAIN:
        return
    if type(value) is Stream or hasattr(value, "__anext__") or hasattr(value, "__next__"):
        raise ConfigurationError(
            f"{target.name} returned {type(value).__name__}, a stream that can be read once, and streams cannot be "
            f"cached yet. Cache a function that returns the collected items; limit and retry work on streams."
        )


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
