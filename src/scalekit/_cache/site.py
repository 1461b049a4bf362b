"""One function's cache: its keys, its entries in the memory tier, its flights and its figures.

Everything here is plain and synchronous. The policy (policy.py) tells the story of a call; the compiled wrapper (hot.py)
answers hits before any of this runs.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from scalekit import _units, events, settings
from scalekit._cache.copies import ATOMS, Thaw, kept
from scalekit._cache.flights import Flight, Flights
from scalekit._cache.stores.memory import Entry, Index, Memory, Table
from scalekit._core.policy import Settings
from scalekit._core.target import Target

FOREVER = float("inf")


class Missing:
    """No value: `None` is one."""

    def __repr__(self) -> str:
        return "<missing>"

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


class CacheInfo(NamedTuple):
    """What `functools.lru_cache` tells: `maxsize` is the bound in entries."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Figures of one function in this process since it was decorated.

    `hits` were answered from memory, `misses` ran the function, `joined` shared the run of another caller; `errors` are runs that
    raised, `unstored` answers that were handed out and not kept; `entries` and `nbytes` are what is in memory now, and
    `evicted` what had to leave it for want of room.
    """

    hits: int
    misses: int
    joined: int
    errors: int
    unstored: int
    evicted: int
    entries: int
    nbytes: int


class Counters:
    """The running figures; a wrapper's cell holds them, and counts a hit with one addition."""

    __slots__ = ("errors", "hits", "joined", "misses", "place", "unstored")

    def __init__(self) -> None:
        self.hits = self.misses = self.joined = self.errors = self.unstored = 0
        self.place: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.place  # "that cell of that binding"


class Site:
    """The cache of one function."""

    def __init__(self, target: Target, given: Settings, memory: Memory) -> None:
        self.target = target
        self.ttl: float = FOREVER if given["ttl"] is None else _units.seconds(given["ttl"], "ttl")
        self.copy = given["copy"]
        self.flight_timeout = given["flight_timeout"]
        self.memory = memory
        self.table = Table()
        self.flights = Flights()
        self.counters = Counters()

    @property
    def timeout(self) -> float:
        """Seconds after which a flight is disowned."""
        return settings.lookup("cache_flight_timeout", self.flight_timeout)
