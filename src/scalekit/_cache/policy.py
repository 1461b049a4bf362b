"""cache: an answer is computed once, kept in memory, and shared by those who ask at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from scalekit import _units, events
from scalekit._cache.controls import CacheControls
from scalekit._cache.copies import Copy
from scalekit._cache.flights import Flight, Seat, State, nearest, twin
from scalekit._cache.hot import compiled
from scalekit._cache.normal import WrongCall
from scalekit._cache.site import MISSING, Site, Values
from scalekit._cache.stores.memory import Memory
from scalekit._core.bind import Binding
from scalekit._core.effect import refused
from scalekit._core.lineage import current
from scalekit._core.policy import Handler, Policy, Settings
from scalekit._core.stream import PLAIN, Stream
from scalekit._core.target import Target
from scalekit._runtime.base import Runtime
from scalekit._runtime.blocking import BLOCKING, on_event_loop
from scalekit.errors import BlockingError, ConfigurationError, DeadlineExceeded, ReentryError

if TYPE_CHECKING:
    from scalekit._runtime.eventloop import EventLoop
    from scalekit._units import Duration

F = TypeVar("F", bound=Callable[..., Any])

Call = Callable[[], Awaitable[Any]]
Boarded = tuple[Flight, Seat] | None

EXAMPLE = '@scalekit.cache(ttl="10m")'
LOOK = 1.0
"""Seconds between two looks whether another event loop, which may end without a word, still runs our flight."""


class Cache(Policy):
    """The policy value. Functions that wear it have entries of their own; a `Memory` given in `tiers` they share as a bound."""

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
                return await proceed(*args, **kwargs)  # which says so in Python's own words
            value = site.get(values, tree)
            if value is MISSING:
                value = await miss(site, values, tree, partial(proceed, *args, **kwargs))
            return value

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
        runtime, flights = cast("EventLoop", site.target.runtime), site.flights
        while True:
            boarded = self._board(site, tree, runtime, anew)
            if boarded is None:
                value = site.get(values, tree)
                if value is not MISSING:
                    return value
                continue
            flight, seat = boarded
            if seat.first:
                try:
                    flight.task = runtime.spawn(
                        partial(self._fly, site, flight, values, call),
                        copy_context(),
                        partial(flights.land, flight, State.ABANDONED),
                    )
                except BaseException:  # this loop takes no task any more
                    flights.land(flight, State.ABANDONED)
                    raise
            here = runtime.home()
            try:
                while flight.state is State.FLYING:
                    left = flight.deadline - runtime.now()
                    if left <= 0:
                        flights.land(flight, State.OVERDUE)
                        flight.task.cancel()
                    elif flight.home is here:
                        await seat.waiter.wait(left)
                    elif not await seat.waiter.wait(min(left, LOOK)) and runtime.gone(flight.home):
                        flights.land(flight, State.ABANDONED)
            except GeneratorExit:
                flights.leave_unheard(flight, seat)
                raise
            except BaseException:
                last_word = runtime.waiter()
                if flights.leave(flight, seat, last_word):
                    flight.task.cancel()
                    if flight.home is here:
                        await last_word.outlast(flight.deadline - runtime.now())
                raise
            flights.arrive(flight, seat)
            if flight.state is not State.ABANDONED:
                return self._outcome(site, flight, seat)

    async def _fly(self, site: Site, flight: Flight, values: Values, call: Call) -> None:
        """The flight itself, in its own task and in a copy of its first caller's context."""
        runtime, flights = cast("EventLoop", site.target.runtime), site.flights
        current.set(flight)
        began = runtime.now()
        try:
            value = await call()
            _refuse_stream(value, site.target)
        except GeneratorExit:
            flights.land(flight, State.ABANDONED)
            raise
        except BaseException as error:
            stopped = not isinstance(error, Exception | KeyboardInterrupt | SystemExit) and runtime.asked_to_stop()
            flights.land(flight, State.ABANDONED if stopped else State.FAILED, error=error)
            self._computed(site, flight, runtime.now() - began, error)
            if stopped:
                raise
        else:
            self._land(site, flight, values, value)
            self._computed(site, flight, runtime.now() - began, None)

    async def _in_thread(self, site: Site, values: Values, tree: Any, call: Call, anew: bool = False) -> Any:
        """A miss in a thread: the first caller flies, the others block until it has landed."""
        runtime, flights = BLOCKING, site.flights
        while True:
            boarded = self._board(site, tree, runtime, anew)
            if boarded is None:
                value = site.get(values, tree)
                if value is not MISSING:
                    return value
                continue
            flight, seat = boarded
            if seat.first:
                return await self._fly_here(site, flight, seat, values, call)
            if on_event_loop() and flight.home == runtime.home():
                flights.leave_unheard(flight, seat)
                raise BlockingError(
                    f"{site.target.name} would block this thread until another call of it has ended, but that one runs on "
                    f"this very thread. Call it from a thread, as in `await asyncio.to_thread(...)`."
                )
            try:
                if not await seat.waiter.wait(flight.deadline - runtime.now()):
                    flights.land(flight, State.OVERDUE)
            finally:
                flights.arrive(flight, seat)
            if flight.state is not State.ABANDONED:
                return self._outcome(site, flight, seat)

    async def _fly_here(self, site: Site, flight: Flight, seat: Seat, values: Values, call: Call) -> Any:
        runtime, flights = BLOCKING, site.flights
        token = current.set(flight)
        began = runtime.now()
        try:
            value = await call()
            _refuse_stream(value, site.target)
        except BaseException as error:
            flights.land(flight, State.FAILED if isinstance(error, Exception) else State.ABANDONED, error=error)
            self._computed(site, flight, runtime.now() - began, error)
            raise
        finally:
            current.reset(token)
            flights.arrive(flight, seat)
        self._land(site, flight, values, value)
        self._computed(site, flight, runtime.now() - began, None)
        return value

    def _board(self, site: Site, tree: Any, runtime: Runtime, anew: bool) -> Boarded:
        now = runtime.now()
        known = _unknown if anew else site.knows
        flight, seat = site.flights.board(
            tree, current.get(), runtime.home(), now, now + site.flight_timeout, runtime.waiter, known
        )
        if flight is None:
            return None
        if seat is None:
            raise ReentryError(
                f"{site.target.name} was called, with the same arguments, by code that its own running call waits for: it "
                f"would wait for itself for ever. Break the circle, or call the undecorated function "
                f"({site.target.function.__name__}.__wrapped__) inside."
            )
        if seat.first:
            site.hot.misses += 1
        else:
            site.hot.joined += 1
            if events.subscribers:
                events.emit(events.Joined(site.target.name))
        return flight, seat

    def _land(self, site: Site, flight: Flight, values: Values, value: Any) -> None:
        stored, thaw = site.freeze(value)
        if thaw is not None:
            flight.copy = partial(thaw, stored)
        room = True

        def keep() -> None:
            nonlocal room
            room = site.keep(values, flight.key, stored, thaw)

        site.flights.deliver(flight, value, keep)
        if flight.unstorable is not None:
            site.unstored(flight.unstorable)
        elif not room:
            site.unstored("larger than the memory tier")

    def _computed(self, site: Site, flight: Flight, seconds: float, error: BaseException | None) -> None:
        if error is not None:
            site.hot.errors += 1
        if events.subscribers:
            events.emit(events.Computed(site.target.name, seconds, error, flight.callers))

    def _outcome(self, site: Site, flight: Flight, seat: Seat) -> Any:
        if flight.state is State.OVERDUE:
            raise DeadlineExceeded(
                f"{site.target.name}: the call that {flight.callers} callers waited for took longer than flight_timeout "
                f"({site.flight_timeout:g} s), and was given up. Its key is free; the next caller starts anew."
            )
        if flight.state is State.FAILED:
            assert flight.error is not None
            raise flight.error if seat.first else twin(flight.error)
        return flight.value if seat.first or flight.copy is None else flight.copy()

    def describe(self, target: Target) -> Settings:
        memory = self.site(target).memory
        return {**self.settings, "tiers": [memory]}

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
    if type(value) is Stream or hasattr(value, "__anext__") or (hasattr(value, "__next__") and hasattr(value, "close")):
        raise ConfigurationError(
            f"{target.name} returned {type(value).__name__}, a stream that can be read once, and streams cannot be cached "
            f"yet. Cache a function that returns the collected items; limit and retry work on streams."
        )


def _memory(tiers: Sequence[Any] | None) -> Memory | None:
    if tiers is None or list(tiers) == ["memory"]:
        return None
    found = [tier for tier in tiers if isinstance(tier, Memory)]
    if len(found) == len(tiers) == 1:
        return found[0]
    raise ConfigurationError(
        f'cache: tiers={tiers!r} is not known here. Write tiers=["memory"], or tiers=[scalekit.Memory(max_entries=1_000)].'
    )


def no_store(reason: str = "no_store") -> None:
    """Keep the answer that is being computed out of every tier; its callers get it all the same.

    Called inside a cached function, or inside what it calls; `reason` is told in the event `NotStored`. Outside of one it does nothing.

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
        key: what makes two calls the same: a function of the same arguments, or a text such as "user:{user.id}:{query}".
            Default: all arguments, by type and value.
        ignore: names of parameters that do not matter, such as a client or a request id.
        version: a text that stands for the function's code in keys of shared stores. Default: a hash of the code.
        copy: "auto" gives every caller a value of its own where it can be changed; False shares one; a function copies.
        tiers: ["memory"], or [Memory(...)] for other bounds or one bound of several functions. Default: 10,000 entries
            and 64 MB for each function.
        flight_timeout: after how long a hung call no longer holds its key (default 10 minutes).
        name: one policy of that name in this process.

    A caller's cancellation never touches the others who wait for the same call; errors are not kept; `None` is a value. Bare
    `@cache` works.

    Raises:
        ConfigurationError: at decoration: a wrong argument, a generator function, a function marked `@scalekit.effect`.
        UnkeyableArgument: at a call: an argument has no value to make a key of; the message names the remedies.
        ReentryError: at a call that waits for itself. DeadlineExceeded: the shared call took longer than `flight_timeout`.

    >>> import scalekit
    >>> @scalekit.cache(ttl="10m")
    ... def ask(question: str) -> str:
    ...     return question.upper()
    >>> ask("why?"), ask("why?"), ask.cache.stats().hits
    ('WHY?', 'WHY?', 1)
    """
    if function is not None and not (callable(function) or isinstance(function, staticmethod | classmethod)):
        raise ConfigurationError(f"cache({function!r}): settings go by name. Write {EXAMPLE} above the function.")
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
    return policy if function is None else policy(function)
