"""State under one short lock, which a finalizer may change too.

The collector can close a coroutine or a generator at any allocation, also at one inside our own critical section,
and in the same thread. Taking the lock there would deadlock. So whoever gives something back posts it and tries the
lock; if it is taken, its holder finds the post when it leaves. Nothing here ever blocks in a finalizer, and nothing
is lost.

    with self._lock:
        decision = ...          # decide under the lock
    self.settle()              # what was posted meanwhile
    act(decision)               # act outside it
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakSet

Action = Callable[[], object]

_guarded: WeakSet[Guarded] = WeakSet()
_forking = threading.Lock()  # one fork at a time, and none while `_guarded` grows
_held: list[Guarded] = []
_PATIENCE = 1.0  # seconds: a signal handler that forks inside a critical section must not wait for itself


class Guarded:
    """The base of what is shared between threads: `_lock`, `_post`, `settle`, and a way through `fork`."""

    def __init__(self) -> None:
        """Called last by who inherits: from here on a fork finds it, and it must be whole."""
        self._lock = threading.Lock()
        self._posted: deque[Callable[[], Action | None]] = deque()
        with _forking:
            _guarded.add(self)

    def _post(self, decide: Callable[[], Action | None]) -> None:
        """Run `decide` under the lock, here or by its holder; it returns what is to be done outside, if anything."""
        self._posted.append(decide)
        self.settle()

    def settle(self) -> None:
        """Do what was posted while the lock was taken."""
        while self._posted and self._lock.acquire(blocking=False):
            actions: list[Action] = []
            try:
                while self._posted:
                    action = self._next()
                    if action is not None:
                        actions.append(action)
            finally:
                self._lock.release()
                for action in actions:
                    action()

    def _next(self) -> Action | None:
        decide = self._posted.popleft()
        try:
            return decide()
        except (RecursionError, MemoryError):  # not for want of a reason: whoever comes next has more room
            self._posted.appendleft(decide)
            raise

    def _after_fork(self) -> None:
        """In a forked child: forget what other threads held, for they are not here."""


def _everyone() -> list[Guarded]:
    while True:
        try:
            return list(_guarded)
        except RuntimeError:  # another thread let go of one meanwhile
            continue


def _before_fork() -> None:
    if _forking.acquire(timeout=_PATIENCE):
        until = time.monotonic() + _PATIENCE
        for guarded in _everyone():
            if guarded._lock.acquire(timeout=max(0.0, until - time.monotonic())):
                _held.append(guarded)


def _after_fork_in_parent() -> None:
    held = [*_held]
    _held.clear()
    for guarded in held:
        guarded._lock.release()
    if _forking.locked():
        _forking.release()
    for guarded in held:
        guarded.settle()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.Lock()
    _held.clear()
    everyone = _everyone()
    for guarded in everyone:
        guarded._lock = threading.Lock()
    for guarded in everyone:
        guarded._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
