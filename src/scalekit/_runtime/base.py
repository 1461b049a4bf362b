"""What a policy may ask of the world it runs in: the time, a pause, a way to be woken, somebody to lead a flight.

There are two runtimes. On an event loop (asyncio or trio, found at each wait) the methods suspend. In a thread they
block, and so the same `async def` of a policy finishes in a single step (see _core/drive.py). State never sees a
runtime.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Waiter(Protocol):
    """One caller that waits to be woken, once, from any thread."""

    def wake(self, here: Any = None) -> bool:
        """Wake it; False when its event loop is gone, so that what it was to get can go to the next one.

        `here` is the home of the calling code, if that is known: asking for it costs half a microsecond.
        """
        ...

    def wait(self, timeout: float | None = None) -> Awaitable[bool]:
        """Wait for `wake`, at most `timeout` seconds; False when the time was over first."""
        ...


class LoopWaiter(Waiter, Protocol):
    """A waiter on an event loop."""

    async def outlast(self, timeout: float) -> None:
        """Wait for `wake` whatever else asks this task to stop, at most `timeout` seconds."""
        ...


class Runtime(Protocol):
    """What differs between a thread and an event loop, and `blocking`, which tells which one it is."""

    blocking: bool

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause this caller alone."""
        ...

    def waiter(self) -> Waiter:
        """A waiter for the calling thread or task."""
        ...

    def home(self) -> Any:
        """Where this caller runs: its event loop, or its thread's number."""
        ...

    async def offload(self, work: Callable[[], T]) -> T:
        """Do something slow and sync: in this thread where that may block, else in a thread of its own."""
        ...
