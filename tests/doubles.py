"""Stand-ins for what the pure state is given: a waiter that counts, and a lock under which something happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Bell:
    """A waiter that counts how often it was woken; a dead one is on an event loop that was closed."""

    def __init__(self, alive: bool = True) -> None:
        self.alive = alive
        self.rung = 0

    def wake(self, here: Any = None) -> bool:
        self.rung += self.alive
        return self.alive

    async def wait(self, timeout: float | None = None) -> bool:
        return self.rung > 0


class Interrupted:
    """A lock: just before it is given back, while it is still held, `act` happens once, as the collector or another
    thread may make it happen."""

    def __init__(self, lock: Any, act: Callable[[], object]) -> None:
        self.lock = lock
        self.act: Callable[[], object] | None = act

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return bool(self.lock.acquire(blocking, timeout))

    def release(self) -> None:
        if self.act is not None:
            act, self.act = self.act, None
            act()
        self.lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()
