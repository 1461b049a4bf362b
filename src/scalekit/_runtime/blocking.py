"""The runtime of threads: every method blocks, none suspends, so a policy's coroutine ends in its first step."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from threading import Lock, get_ident
from typing import Any, TypeVar

T = TypeVar("T")


class BlockingWaiter:
    """A lock that is taken at birth and released by `wake`: the cheapest one-shot event a thread can wait for."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def wake(self, here: Any = None) -> bool:
        if self._lock.locked():
            self._lock.release()
        return True

    async def wait(self, timeout: float | None = None) -> bool:
        return self._lock.acquire(True, -1 if timeout is None else max(0.0, timeout))


class Blocking:
    blocking = True
    now = staticmethod(time.monotonic)
    waiter = BlockingWaiter

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # in this runtime nothing suspends

    def home(self) -> int:
        return get_ident()

    async def offload(self, work: Callable[[], T]) -> T:
        return work()


BLOCKING = Blocking()


def on_event_loop() -> bool:
    """True when this thread is running an event loop, which would stand still while we block."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    return (asyncio is not None and asyncio._get_running_loop() is not None) or (
        trio is not None and trio.lowlevel.in_trio_run()
    )
