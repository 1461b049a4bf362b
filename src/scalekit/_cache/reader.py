"""One reader of a shared stream, and what may be shared at all.

Only what is nothing but its items is recorded: generators, and iterators without a public life of their own. An SDK's
stream object has its response, its context manager and its helpers, and nobody could give a second caller those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from scalekit._cache.flight import Flight, State
from scalekit._cache.recorded import taken
from scalekit._core.lineage import Frame
from scalekit._core.stream import End, Stream, open_async, open_sync
from scalekit._core.target import Target
from scalekit._runtime.base import LoopWaiter, Waiter
from scalekit._runtime.blocking import BLOCKING
from scalekit.errors import ConfigurationError, DeadlineExceeded, StreamInterrupted

if TYPE_CHECKING:
    from scalekit._cache.live import Live
    from scalekit._cache.site import Site

__all__ = ["LOOK", "Reader", "opened", "overdue"]

LOOK: Final = 1.0
"""Seconds between two looks whether another event loop, which may end without a word, still runs our flight."""
_OF_GENERATORS: Final = frozenset({"send", "throw", "close", "asend", "athrow", "aclose"})


class Reader:
    """A caller that reads a live stream. It waits for the flight as others wait for a value: until it has `left`."""

    def __init__(self, site: Site, flight: Flight, frame: Frame | None, first: bool, waiter: Waiter, loop: Any) -> None:
        self.site = site
        self.flight = flight
        self.live: Live = flight.live
        self.place = self.live.recording.places[waiter]
        self.frame = frame
        self.first = first
        self.waiter = waiter
        self.loop = loop  # None in threads
        self.left = False
        self._items: Iterator[Any] = iter(())

    async def stream(self) -> Stream:
        """The stream, positioned on its first item."""
        try:
            return Stream(await self.next(), self.next, self.close, None, self.ready)
        except BaseException:
            self.leave()
            raise

    async def next(self) -> Any:
        """The next item, or `End`."""
        recording, flight = self.live.recording, self.flight
        while True:
            for item in self._items:
                return item
            state = flight.state  # before the items: once it has ended, all of them are there
            if items := self.place.read():
                self._items = iter(items) if recording.plain else map(taken, items)
                if recording.long:
                    self.live.stir()
            elif self.place.cut or state is not State.FLYING:
                return self._end(state)
            elif self.loop is not None:
                await self._wait()
            else:
                await self._wait_in_thread()

    def ready(self) -> Iterator[Any]:
        """The items that are at hand."""
        return self._items

    async def close(self) -> None:
        """Read no more. The last reader to leave closes the source, and returns when it is closed."""
        if self.left:
            return
        flight, loop = self.flight, self.loop
        if loop is None or not self.site.runtime.runs(loop.home):
            self.leave()
            self._raise_trouble()
            return
        self.left = True
        last_word: LoopWaiter = loop.waiter()
        if not self.site.flights.leave(flight, self.frame, self.first, self.waiter, last_word):
            self.live.stir()
            return
        flight.stop()
        if flight.home is loop.home:
            await last_word.outlast(self.site.flight_timeout)
            self._raise_trouble()

    def leave(self) -> None:
        """`close` where nobody can wait, as in a finalizer."""
        if not self.left:
            self.left = True
            self.site.flights.leave_unheard(self.flight, self.frame, self.first, self.waiter)

    def __del__(self) -> None:
        if not self.left:
            self.leave()
            self._raise_trouble()  # of which Python says that it was ignored here

    def _raise_trouble(self) -> None:
        error, self.live.trouble = self.live.trouble, None
        if error is not None:
            raise error

    def _end(self, state: State) -> End:
        self.leave()
        name = self.site.target.name
        if self.place.cut:
            raise StreamInterrupted(
                f"{name}: this reader kept the others waiting for flight_timeout ({self.site.flight_timeout:g} s), "
                f"with max_bytes of the stream held back for it, and was cut off. Read without such pauses, or raise "
                f"max_bytes."
            )
        if state is State.LANDED:
            return End(taken(self.live.end))
        if state is State.FAILED:
            error = self.flight.take_error(self.first)
            try:
                raise error
            finally:
                del error  # or the traceback would hold the frame that holds the exception
        if state is State.OVERDUE:
            raise overdue(self.site, self.flight)
        raise StreamInterrupted(
            f"{name}: whoever read the shared stream was stopped (its event loop ended, or its thread was "
            f"interrupted), so the rest of it will not come. What came before is good; call again for a new one."
        )

    async def _wait(self) -> None:
        """Until there is more, on an event loop."""
        flight, waiting, waiter = self.flight, self.live.recording.waiting, self.loop.waiter()
        waiting.append(waiter)
        try:
            if self.place.more or flight.state is not State.FLYING:
                return
            self.live.stir()
            if flight.home is self.loop.home:
                await waiter.wait()
                return
            began = self.site.now()
            while not await waiter.wait(LOOK) and flight.state is State.FLYING:
                if self.site.runtime.gone(flight.home):
                    self.live.drop()
                elif self.site.now() - began >= self.site.flight_timeout and not self.live.recording.crowded:
                    self.site.flights.land(flight, State.OVERDUE)
        finally:
            _withdraw(waiting, waiter)

    async def _wait_in_thread(self) -> None:
        """Until there is more, in a thread, perhaps by getting it."""
        flight, live, recording = self.flight, self.live, self.live.recording
        if live.pull():
            return
        waiter = BLOCKING.waiter()
        recording.waiting.append(waiter)
        try:
            crowded = recording.crowded
            if self.place.more or flight.state is not State.FLYING or not (crowded or live.pulled):
                return
            timeout = self.site.flight_timeout if crowded else flight.deadline - self.site.now()
            if await waiter.wait(timeout):
                return
            if crowded:
                recording.cut()
            elif flight.late(self.site.now()):
                self.site.flights.land(flight, State.OVERDUE)
        finally:
            _withdraw(recording.waiting, waiter)


def _withdraw(waiting: deque[Waiter], waiter: Waiter) -> None:
    """It wants nothing any more; whoever woke it has taken it out."""
    try:
        waiting.remove(waiter)
    except ValueError:
        pass


def overdue(site: Site, flight: Flight) -> DeadlineExceeded:
    """What those hear who waited for a call that hangs."""
    return DeadlineExceeded(
        f"{site.target.name}: the call that {flight.callers} callers waited for took longer than flight_timeout "
        f"({site.flight_timeout:g} s), and was given up. Its key is free; the next caller starts anew."
    )


async def opened(value: Any, target: Target) -> Any:
    """What a function returned, as a `Stream` where it is one that can be recorded; one that cannot is refused."""
    source = value.source if type(value) is Stream else value
    step = "__anext__" if target.shape.is_async else "__next__"
    if type(value) is not Stream and not (hasattr(type(value), "__anext__") or hasattr(type(value), "__next__")):
        return value
    if source is not None and not _only_items(type(source), step):
        kind = type(source)
        await _close(value)
        raise ConfigurationError(
            f"{target.name} returned {kind.__module__}.{kind.__qualname__}, a stream that can be read once and has "
            f"more to it than its items, so it cannot be recorded for other callers. Cache a generator function that "
            f"passes the items on: `{'async ' if target.shape.is_async else ''}for item in stream: yield item`."
        )
    if type(value) is Stream:
        return value
    iterator: Any = value
    return await (open_async(iterator) if target.shape.is_async else open_sync(iterator))


def _only_items(kind: type, step: str) -> bool:
    if not hasattr(kind, step):
        return False
    if issubclass(kind, GeneratorType | AsyncGeneratorType):
        return True
    public = {name for name in dir(kind) if not name.startswith("_") or name in ("__enter__", "__aenter__")}
    return public <= _OF_GENERATORS


async def _close(value: Any) -> None:
    """As well as one can: what was opened is not to stay open because it is refused."""
    try:
        if type(value) is Stream:
            await value.close()
        elif (method := getattr(value, "aclose", None) or getattr(value, "close", None)) is not None:
            result = method()
            if hasattr(result, "__await__"):
                await result
    except Exception:
        return
