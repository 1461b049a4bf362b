"""The runtime of event loops: asyncio and trio, told apart at each wait, because one function may serve both.

anyio gives what both have in common: sleeping, and a scope that shields. It has no task without a parent and no wake-up
of a single waiter from another thread; these two are written here, once for each backend.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anyio


if TYPE_CHECKING:
    import trio

Body = Callable[[], Coroutine[Any, Any, None]]


class AsyncioWaiter:
    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def _set(self, result: bool) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def wake(self) -> bool:
        if self._loop is running_loop():
            self._set(True)
            return True
        try:
            self._loop.call_soon_threadsafe(self._set, True)
        except RuntimeError:
            return False
        return True

    async def wait(self, timeout: float | None = None) -> bool:
        if timeout is None or self._future.done():
            return await self._future
        timer = self._loop.call_later(timeout, self._set, False)
        try:
            return await self._future
        finally:
            timer.cancel()

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

    def __init__(self, body: Body, context: Context, ended: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(body(), context=context)

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                task.exception()  # the body told whom it concerns
            ended()  # also for a task cancelled before its first step, which never enters its body

        self._task.add_done_callback(done)

    def cancel(self) -> None:
        if self._loop is running_loop():
            self._task.cancel()
        else:
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # the loop is closed, and so the task will not run again
                pass


class TrioWaiter:
    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def wake(self) -> bool:
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

    def __init__(self, body: Body, context: Context, ended: Callable[[], object]) -> None:
        import trio

        self._scope = trio.CancelScope()
        self._token = trio.lowlevel.current_trio_token()

        async def run() -> None:
            try:
                with self._scope:
                    await body()
            except BaseException:  # noqa: S110  # the body told whom it concerns; a system task that raises ends the run
                pass
            finally:
                ended()

        trio.lowlevel.spawn_system_task(run, context=context)

    def cancel(self) -> None:
        import trio

        try:
            self._token.run_sync_soon(self._scope.cancel)
        except trio.RunFinishedError:  # the run is over, and so is the task
            pass


def in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


class EventLoop:
    blocking = False
    now = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def waiter(self) -> AsyncioWaiter | TrioWaiter:
        return TrioWaiter() if in_trio() else AsyncioWaiter()

    def home(self) -> asyncio.AbstractEventLoop | trio.lowlevel.TrioToken:
        if in_trio():
            import trio

            return trio.lowlevel.current_trio_token()
        return asyncio.get_running_loop()

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

    def spawn(self, body: Body, context: Context, ended: Callable[[], object]) -> AsyncioTask | TrioTask:
        """Run `body` in a task of its own on this loop, in `context`; `ended` is called when it is over, however."""
        return TrioTask(body, context, ended) if in_trio() else AsyncioTask(body, context, ended)

    def asked_to_stop(self) -> bool:
        """True if the cancellation that the current task sees came from outside, and was not raised by its own code."""
        if in_trio():
            return True  # only a scope cancels in trio, and no scope of the user's is around a task of ours
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0


EVENT_LOOP = EventLoop()
