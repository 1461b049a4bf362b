"""The runtime of event loops: asyncio and trio, told apart at each wait, because one function may serve both.

anyio gives what both have in common: sleeping, and a scope that shields. It has no task without a parent and no wake-up
of a single waiter from another thread; these two are written here, once for each backend.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import _get_running_loop as running_loop
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    import trio

T = TypeVar("T")
Body = Coroutine[Any, Any, None]


class AsyncioWaiter:
    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[bool] = loop.create_future()

    def _set(self, result: bool) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def wake(self, here: Any = None) -> bool:
        if self._loop is (here or running_loop()):
            self._set(True)
            return True
        try:
            self._loop.call_soon_threadsafe(self._set, True)
        except RuntimeError:
            return False
        return True

    def wait(self, timeout: float | None = None) -> Awaitable[bool]:
        return self._future if timeout is None or self._future.done() else self._wait(timeout)

    async def _wait(self, timeout: float) -> bool:
        timer = self._loop.call_later(timeout, self._set, False)
        try:
            woken = await self._future
        finally:
            timer.cancel()
        if not woken:  # or the next wait would end at once, without ever suspending
            self._future = self._loop.create_future()
        return woken

    async def outlast(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with anyio.CancelScope(shield=True):
            while not self._future.done() and (left := deadline - time.monotonic()) > 0:
                try:
                    await asyncio.wait((self._future,), timeout=left)
                except asyncio.CancelledError:  # a bare task.cancel() knows no shield
                    pass


class AsyncioTask:
    """A task that belongs to its loop alone: no caller's cancellation reaches it."""

    __slots__ = ("_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        self._loop = loop
        self._task = task

    def cancel(self) -> None:
        if self._loop is running_loop():
            self._task.cancel()
        else:
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # the loop is closed, and so the task will not run again
                pass


class AsyncioLoop:
    """One asyncio event loop, as seen from a task of it."""

    __slots__ = ("home",)

    def __init__(self, home: asyncio.AbstractEventLoop) -> None:
        self.home = home

    def waiter(self) -> AsyncioWaiter:
        return AsyncioWaiter(self.home)

    def spawn(self, body: Body, context: Context) -> AsyncioTask:
        return AsyncioTask(self.home, self.home.create_task(body))

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        self.home.call_later(seconds, act)

    def soon(self, act: Callable[[], object]) -> None:
        self.home.call_soon(act)

    def asked_to_stop(self) -> bool:
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0


class TrioWaiter:
    __slots__ = ("_event", "_token")

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        import trio

        self._token = token
        self._event = trio.Event()

    def wake(self, here: Any = None) -> bool:
        import trio

        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return False
        return True

    async def wait(self, timeout: float | None = None) -> bool:
        with anyio.move_on_after(timeout):
            await self._event.wait()
        return self._event.is_set()

    async def outlast(self, timeout: float) -> None:
        with anyio.move_on_after(timeout, shield=True):
            await self._event.wait()


class TrioTask:
    """A system task under a scope of its own."""

    __slots__ = ("_scope", "_token")

    def __init__(self, token: trio.lowlevel.TrioToken, body: Body, context: Context) -> None:
        import trio

        self._scope = trio.CancelScope()
        self._token = token

        async def run() -> None:
            try:
                with self._scope:
                    await body
            except BaseException:  # the body told whom it concerns; a system task that raises ends the run
                pass

        trio.lowlevel.spawn_system_task(run, context=context)

    def cancel(self) -> None:
        import trio

        try:
            self._token.run_sync_soon(self._scope.cancel)
        except trio.RunFinishedError:  # the run is over, and so is the task
            pass


class TrioLoop:
    """One trio run, as seen from a task of it."""

    __slots__ = ("home",)

    def __init__(self) -> None:
        import trio

        self.home = trio.lowlevel.current_trio_token()

    def waiter(self) -> TrioWaiter:
        return TrioWaiter(self.home)

    def spawn(self, body: Body, context: Context) -> TrioTask:
        return TrioTask(self.home, body, context)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        async def body() -> None:
            await anyio.sleep(seconds)
            act()

        TrioTask(self.home, body(), Context())

    def soon(self, act: Callable[[], object]) -> None:
        self.home.run_sync_soon(act)

    def asked_to_stop(self) -> bool:
        return True  # only a scope cancels in trio, and no scope of the user's is around a task of ours


def in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


class EventLoop:
    """The runtime of async functions. `here()` is the loop of the calling task; the rest asks it each time."""

    blocking = False
    now = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def here(self) -> AsyncioLoop | TrioLoop:
        loop = running_loop()
        if (loop is None or asyncio.current_task(loop) is None) and in_trio():  # trio may be a guest of asyncio
            return TrioLoop()
        return AsyncioLoop(loop or asyncio.get_running_loop())  # which says so if there is no event loop at all

    def waiter(self) -> AsyncioWaiter | TrioWaiter:
        return self.here().waiter()

    def home(self) -> Any:
        return self.here().home

    async def offload(self, work: Callable[[], T]) -> T:
        import anyio.to_thread

        return await anyio.to_thread.run_sync(work)

    def runs(self, home: Any) -> bool:
        """True if this thread is running that event loop at this moment."""
        if isinstance(home, asyncio.AbstractEventLoop):
            return home is running_loop()
        return in_trio() and TrioLoop().home is home

    def gone(self, home: Any) -> bool:
        """True when that event loop will never run again."""
        if isinstance(home, asyncio.AbstractEventLoop):
            return home.is_closed()
        import trio

        try:
            home.run_sync_soon(int, idempotent=True)
        except trio.RunFinishedError:
            return True
        return False


EVENT_LOOP = EventLoop()
