"""limit: at most so many calls at once, whoever calls them, and a fair, bounded queue for the rest."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from scalekit import _units, events, settings
from scalekit._core.lineage import current, living
from scalekit._core.policy import Handler, Policy, Settings
from scalekit._core.stream import PLAIN, Stream
from scalekit._core.target import Target
from scalekit._limit.permits import LimitState, Permit, Pool, Refusal
from scalekit._runtime.base import Runtime
from scalekit._runtime.blocking import on_event_loop
from scalekit.errors import BlockingError, ConfigurationError, QueueFull, QueueTimeout

if TYPE_CHECKING:
    from scalekit._units import Duration

EXAMPLE = "@scalekit.limit(concurrency=20)"


class Limit(Policy):
    """The policy value: every function that wears it shares its pool."""

    kind = "limit"

    def __init__(self, name: str | None, settings: Settings) -> None:
        super().__init__(name, settings)
        self.pool = Pool(_units.count(settings["concurrency"], "concurrency"))
        given = settings["queue_timeout"]
        self.queue_timeout = None if given is None else _units.seconds(given, "queue_timeout", zero=True)
        given = settings["max_queue"]
        self.max_queue = None if given is None else _units.count(given, "max_queue", minimum=0)

    def around(self, proceed: Handler, target: Target) -> Handler:
        pool, runtime, who = self.pool, target.runtime, target.name
        free, queue, settle = pool.free, pool.queue, pool.settle
        pop, push = free.pop, free.append
        get, put, reset = current.get, current.set, current.reset

        async def limited(*args: Any, **kwargs: Any) -> Any:
            permit: Permit | None = None
            if not queue:
                try:
                    slot = pop()
                except IndexError:
                    pass
                else:
                    outer = get()
                    permit = slot.permit = Permit(outer and living(outer), slot, who, get_ident())
            if permit is None:
                permit = await self._wait(runtime, who)
            token = put(permit)
            try:
                value = await proceed(*args, **kwargs)
                if type(value) not in PLAIN:
                    value = await target.opened(value)
                    if type(value) is Stream:
                        value, permit = leased(value, Lease(permit), target), None
                return value
            finally:
                if permit is not None:
                    permit.ended = True
                    if permit.lent or permit.lender is not None or permit.slot.permit is not permit:
                        pool.leave(permit)
                    else:
                        slot = permit.slot
                        slot.permit = None
                        push(slot)
                        if queue:
                            settle()
                try:
                    reset(token)
                except ValueError:  # closed by the collector, in a context that is not ours
                    pass

        return limited

    async def _wait(self, runtime: Runtime, who: str) -> Permit:
        """The way of a caller who found no free permit."""
        pool = self.pool
        max_queue: int = settings.lookup("limit_max_queue", self.max_queue)
        timeout: float = settings.lookup("limit_queue_timeout", self.queue_timeout)
        began = runtime.now()
        waiter = runtime.waiter()
        ticket = pool.line_up(living(current.get()), who, waiter, max_queue)
        if isinstance(ticket, Refusal):
            raise self._refused(who, ticket.depth, max_queue)
        if ticket.permit is None:
            if runtime.blocking and on_event_loop() and pool.stuck(ticket):
                pool.give_up(ticket)
                raise BlockingError(
                    f"{who} would block this thread until a permit of {self} comes back, but those who hold or await "
                    f"it run on this thread's event loop. Call it from a thread, as in `await asyncio.to_thread(...)`."
                )
            try:
                woken = await waiter.wait(timeout)
            except BaseException:
                pool.give_up(ticket)
                raise
            if not woken:
                pool.give_up(ticket)
                raise self._timed_out(who, timeout)
        if events.subscribers:
            events.emit(events.Waited(who, self.name or self.kind, runtime.now() - began))
        return cast(Permit, ticket.permit)

    def _refused(self, who: str, depth: int, max_queue: int) -> QueueFull:
        if events.subscribers:
            events.emit(events.Refused(who, self.name or self.kind, depth, "max_queue"))
        return QueueFull(
            f"{who}: {depth} callers wait already for a permit of {self}, and max_queue is {max_queue}. Shed this "
            f"call, try again later, or raise max_queue.",
            depth=depth,
        )

    def _timed_out(self, who: str, timeout: float) -> QueueTimeout:
        state = self.pool.state()
        if events.subscribers:
            events.emit(events.Refused(who, self.name or self.kind, state.waiting, "queue_timeout"))
        holders = ", ".join(f"{name} ({count})" for name, count in state.holders.items())
        return QueueTimeout(
            f"{who}: no permit of {self} came within {timeout:g} s. {state.in_flight} of {state.concurrency} are "
            f"held, by {holders or 'nobody'}; {state.waiting} callers wait. If these calls wait for each other through "
            f"two limits, or through a thread that did not get their context, that is why; else raise concurrency or "
            f"queue_timeout.",
            depth=state.waiting,
        )

    def controls(self, target: Target) -> LimitControls:
        return LimitControls(self)


class LimitControls:
    """`controls(f).limit`: what is going on at this limit, and turning it while it runs."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit

    def state(self) -> LimitState:
        """A frozen snapshot: concurrency, in_flight, waiting, holders."""
        return self._limit.pool.state()

    def update(self, *, concurrency: int) -> None:
        """Another concurrency from now on. Calls that run are not touched; a smaller limit is reached as they end."""
        self._limit.pool.resize(_units.count(concurrency, "concurrency"))


class Lease:
    """A permit that a stream keeps until it is closed, or collected."""

    __slots__ = ("permit",)

    def __init__(self, permit: Permit) -> None:
        self.permit: Permit | None = permit

    def __call__(self) -> None:
        permit, self.permit = self.permit, None
        if permit is not None:
            permit.slot.pool.leave(permit)

    __del__ = __call__


def leased(stream: Stream, lease: Lease, target: Target) -> Stream:
    """The stream with a permit: current while a step runs, given back when it closes."""
    permit = lease.permit
    if permit is not None and not target.shape.is_async:
        permit.home = 0  # each step of a sync stream may come from another thread

    async def step() -> Any:
        token = current.set(permit)
        try:
            return await stream.next()
        finally:
            try:
                current.reset(token)
            except ValueError:
                pass

    async def close() -> None:
        try:
            await stream.close()
        finally:
            lease()

    return Stream(stream.first, step, close, stream.source)


def limit(
    *misplaced: Callable[..., Any],
    concurrency: int | None = None,
    queue_timeout: Duration | None = None,
    max_queue: int | None = None,
    name: str | None = None,
) -> Limit:
    """At most `concurrency` calls at once, in threads and event loops together; the others wait in order.

    Args:
        concurrency: how many calls may run at once. Every function that wears this value, or one of the same
            `name`, counts.
        queue_timeout: how long a caller waits for its permit, in seconds, as "30s" or a timedelta (default 5
            minutes); 0 refuses whoever finds none free.
        max_queue: how many callers may wait (default 10,000); the next one is refused at once.
        name: one limit of that name in this process; the same name with other settings is a ConfigurationError.

    Raises:
        ConfigurationError: at decoration, for anything that is not as above.
        QueueFull, QueueTimeout: at a call; both are `Overloaded`.
        BlockingError: a sync function, called on an event loop's thread, would wait for tasks of that same loop.

    A stream (a generator, or an SDK's stream) keeps its permit until it is closed. A call inside a call of the same
    limit borrows its parent's permit when none is free, so nesting does not deadlock.

    >>> import scalekit
    >>> @scalekit.limit(concurrency=2)
    ... def ask(question: str) -> str:
    ...     return question.upper()
    >>> ask("how many?")
    'HOW MANY?'
    >>> scalekit.controls(ask).limit.state().in_flight
    0
    """
    if misplaced or concurrency is None:
        raise ConfigurationError(f"limit needs to know how many: write {EXAMPLE} above the function.")
    given: Settings = {"concurrency": concurrency, "queue_timeout": queue_timeout, "max_queue": max_queue}
    return Limit.named(name, given)
