"""The clock of a folder: every process of the machine reads it alike, and no step of the wall clock moves it.

It is the time since boot plus an offset that is stored in the folder once per boot. After a boot the time since boot
starts anew, so a new offset is chosen: the wall clock's, or, if that is behind what was already stamped, just beyond
the highest stamp.

Where the system has no name for a boot (it has one on Linux), the stored offset is kept as long as it does not lead
behind the highest stamp; expiries may then be late by the time the machine was off.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Clock", "boot", "choose", "ticks"]

UNNAMED: Final = "?"


def _ticks() -> Callable[[], int]:
    if sys.platform == "linux":
        return functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return functools.partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC)  # monotonic_ns() stops while it sleeps
    return time.monotonic_ns


ticks: Final = _ticks()
"""Nanoseconds since boot, suspended time included where the system counts it."""


def boot() -> str:
    """The name of this boot; "?" where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip() or UNNAMED
    except OSError:
        return UNNAMED


def choose(stored: tuple[str, int] | None, this: str, highest: int, since_boot: int, wall: int) -> int:
    """The offset for this boot: the `stored` one (boot, offset) if it was chosen in it, else a new one."""
    if stored is not None and stored[0] == this and since_boot + stored[1] > highest:
        return stored[1]
    return max(wall, highest + 1) - since_boot


class Clock:
    """`now()`: nanoseconds, each answer greater than the one before in the same thread."""

    __slots__ = ("_last", "offset")

    def __init__(self) -> None:
        self.offset = time.time_ns() - ticks()
        self._last = 0

    def now(self) -> int:
        now = ticks() + self.offset
        if now <= self._last:
            now = self._last + 1
        self._last = now
        return now
