"""A stream that several callers share while it is still arriving: who moves it on, and how it ends.

On an event loop the flight's own task reads the source, so that it is opened, read and closed in one task and one
context. It rests until a reader wants more than there is, and reads ahead only as long as the source has items at
hand: at most one read is begun that nobody asked for. In threads whoever needs the next item reads it, in a copy of
the first caller's context. (A thread of its own would read what nobody wants, and could not be interrupted.)

Past `max_bytes` a stream is no longer kept and nobody can join it; what its readers have all read is let go, and the
source waits for the slowest of them. One that lets the others wait longer than `flight_timeout` is cut off, and told.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from threading import Lock
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any

from scalekit._cache.flight import NOBODY, Flight, State
from scalekit._cache.flights import wake
from scalekit._cache.landing import Call, Origin, failed
from scalekit._cache.marks import MARKS
from scalekit._cache.recorded import Frozen, Recorded, frozen
from scalekit._cache.recording import Recording
from scalekit._cache.stores.sizes import sizeof
from scalekit._core.drive import drive
from scalekit._core.stream import End, Stream
from scalekit._runtime.base import Runtime, Waiter

if TYPE_CHECKING:
    from scalekit._cache.site import Site

__all__ = ["Live"]

Land = Callable[[Recorded, float], Coroutine[Any, Any, None]]


class Live:
    """The source of a live stream. It is its flight's: `land(recorded, cost)` keeps what was recorded."""

    def __init__(
        self,
        site: Site,
        flight: Flight,
        call: Call,
        origin: Origin | None,
        version: int,
        began: float,
        stream: Stream,
        land: Land,
    ) -> None:
        self.site = site
        self.flight = flight
        self.call = call
        self.origin = origin
        self.version = version
        self.stream = stream
        self.land = land
        self.recording = Recording(site.max_stream_bytes)
        self.end: Any = None
        self.trouble: BaseException | None = None  # of the source, as the last reader left
        self.resting = site.runtime.blocking
        self._idle: Waiter | None = None
        self._stopped = False
        self._pause: list[bool] = []  # not empty: stop reading ahead
        self._closed = False
        self._rested = 0.0
        self._began = began
        self._home = None if site.runtime.blocking else flight.home
        self._context = copy_context() if site.runtime.blocking else None
        self._pulling = Lock()
        first = self._frozen(stream.first)
        self.recording.plain = type(first) is not Frozen
        self.recording.append(first, _size(first))

    # on an event loop -------------------------------------------------------------------------------------------------

    async def run(self, loop: Any, watch: Callable[[], object]) -> None:
        """Read the source as its readers need it, to its end; in the flight's task."""
        try:
            try:
                await self._read(loop, watch)
            finally:
                await self._close()
        except Exception as error:
            if not self._stopped:
                raise
            self.trouble = error

    async def _read(self, loop: Any, watch: Callable[[], object]) -> None:
        flight, recording, timeout = self.flight, self.recording, self.site.flight_timeout
        pause, waiting, append = self._pause, recording.waiting, recording.append
        items: Any = self.stream.items
        if type(items) is not AsyncGeneratorType:  # another one may begin anew when it is asked for its iterator
            items = self
        while not self._stopped:
            pause.clear()
            loop.soon(partial(pause.append, True))  # others have had their turn
            flight.deadline = self.site.now() + timeout
            watch()
            async for item in items:
                complete = append(item, item.__sizeof__()) if type(item) is str else self._keep(item)
                if complete or waiting:
                    self._tell(complete)
                if complete or pause:
                    break
            else:
                await self._ended(None)
                return
            await self._demanded(loop)

    def __aiter__(self) -> Live:
        return self

    async def __anext__(self) -> Any:
        item = await self.stream.next()
        if type(item) is End:
            raise StopAsyncIteration
        return item

    async def _demanded(self, loop: Any) -> None:
        try:
            while not (self._stopped or self._wanted()):
                idle: Waiter = loop.waiter()
                self._idle, self.resting = idle, True
                if self._stopped or self._wanted():
                    break
                rested = self.site.now()
                crowded = self.recording.crowded
                if not await idle.wait(self.site.flight_timeout if crowded else None) and crowded:
                    self.recording.cut()
                self._rested += self.site.now() - rested
        finally:
            self._idle, self.resting = None, False

    def _wanted(self) -> bool:
        return not self.recording.crowded and bool(self.recording.waiting or NOBODY in self.flight.waiters)

    # in threads -------------------------------------------------------------------------------------------------------

    def pull(self, wait: bool = False) -> bool:
        """Read one more item in this thread; False if another thread does, or a slower reader has to come first."""
        if self.recording.crowded or not self._pulling.acquire(wait):
            return False
        assert self._context is not None
        try:
            if self.flight.state is State.FLYING:
                self.flight.deadline, self.resting = self.site.now() + self.site.flight_timeout, False
                self._pull(self._context)
        except BaseException as error:
            self._context.run(self._close_quietly)
            self.site.flights.land(
                self.flight, State.FAILED if isinstance(error, Exception) else State.ABANDONED, error
            )
            failed(self.site, self.flight, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.resting = True
            self._close_if_over(self._context)
            self._pulling.release()
            if self._stopped and self._pulling.acquire(False):  # it was stopped in this moment
                self._close_if_over(self._context)
                self._pulling.release()
            wake(self.recording.drain())
        return True

    def _pull(self, context: Context) -> None:
        try:
            items = self.stream.items
            item = context.run(next, items) if items is not None else context.run(drive, self.stream.next())
        except StopIteration as done:
            item = End(done.value)
        if type(item) is End:
            context.run(drive, self._ended(item.value))
        else:
            self._tell(context.run(self._keep, item))

    def _close_if_over(self, context: Context) -> None:
        """Nobody waits for more: it was given up, or left, while it was read."""
        if self._stopped or self.flight.state is not State.FLYING:
            context.run(self._close_quietly)

    def read_all(self) -> None:
        """Read to the end: nobody waits for it, it renews what is still served."""
        flight = self.flight
        while flight.state is State.FLYING and NOBODY in flight.waiters and self.pull(wait=True):
            pass
        if self._stopped:
            self.stop()

    @property
    def pulled(self) -> bool:
        """Whether a thread is reading the next item."""
        return self._pulling.locked()

    # both -------------------------------------------------------------------------------------------------------------

    async def _ended(self, value: Any) -> None:
        await self._close()
        recording = self.recording
        if recording.too_long:
            self._too_long()
            if self._stopped:
                return
        self.end = self._frozen(value)
        recorded = Recorded([] if recording.long else recording.whole(), self.end)
        await self.land(recorded, self.site.now() - self._began - self._rested)
        recorded.settle()

    def _keep(self, item: Any) -> bool:
        """Keep an item; True if it completed a chunk."""
        kept = self._frozen(item)
        if type(kept) is Frozen:
            self.recording.plain = False
        return self.recording.append(kept, _size(kept))

    def _tell(self, complete: bool) -> None:
        """Something was kept: wake those who wait for it."""
        if complete and self.recording.too_long:
            self._too_long()
        wake(self.recording.drain(), self._home)

    def _frozen(self, item: Any) -> Any:
        try:
            return frozen(self.site, item)
        except Exception as trouble:  # of a copier of the user's: all share the item, and it is not kept
            self.flight.unstorable = self.flight.unstorable or f"it could not be copied: {trouble!r}"
            return item

    def _too_long(self) -> None:
        site, flight = self.site, self.flight
        flight.unstorable = flight.unstorable or f"a stream of more than {self.recording.limit:,} bytes"
        if site.flights.let_go(flight):
            return
        self._stopped = True  # it was to renew what is still served, and cannot
        self._pause.append(True)
        entry = site.table.entries.get(flight.key)
        if entry is not None and entry.life is not None:
            site.rearm(entry, site.now())
        site.unstored(flight.unstorable)

    async def trusted(self, runtime: Runtime) -> bool:
        """False if what was read may have been invalidated since it was begun: who asks now is to have a new one."""
        site, origin, version = self.site, self.origin, MARKS.version
        quiet = origin is None or origin.tiers.generation() == origin.generation
        if version == self.version and quiet:
            return True
        if site.tags is not None and site.tags.of_answer:  # which nobody knows before it has ended
            return False
        try:
            tags = [] if site.tags is None else site.tags.of_call(self.call.args, self.call.keywords)
        except Exception:
            return False
        marks = site.marks(self.flight.key, tags, origin is not None)
        if MARKS.ended(marks, self.flight.began) is not None:
            return False
        return quiet or origin is None or await origin.tiers.trusts(origin.name, marks, origin.stamps, runtime)

    def stir(self) -> None:
        """Somebody wants more, or has left."""
        idle = self._idle
        if idle is not None:
            idle.wake()
        elif self._context is not None and self.recording.long:
            wake(self.recording.drain())

    def stop(self) -> None:
        """The last reader has left: close the source. Raises nothing: it may be a finalizer that calls."""
        self._stopped = True
        self._pause.append(True)
        if self._context is None:
            idle, task = self._idle, self.flight.task
            if idle is not None:
                if not idle.wake():
                    self.drop()
            elif task is not None:
                task.cancel()
            return
        if self._pulling.acquire(False):
            try:
                self._context.run(self._close_quietly)
            finally:
                self._pulling.release()
        self.site.flights.land(self.flight, State.ABANDONED)

    def drop(self) -> None:
        """Its event loop has ended, and nobody can close it there: let go of it, so that its permits come back."""
        self._closed = True
        self.stream = Stream(None, _nothing, _nothing, None)
        self.site.flights.land(self.flight, State.ABANDONED)

    def _close_quietly(self) -> None:
        try:
            drive(self._close())
        except BaseException as error:
            self.trouble = error

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.stream.close()


async def _nothing() -> None:
    return None


def _size(kept: Any) -> int:
    return sizeof(kept.stored) + 150 if type(kept) is Frozen else sizeof(kept) + 8
