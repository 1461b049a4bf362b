"""What a cache tells of itself and of one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

__all__ = ["CacheInfo", "CacheStats", "Kept"]


class CacheInfo(NamedTuple):
    """What `functools.lru_cache` tells; `maxsize` is the bound in entries."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheStats(NamedTuple):
    """Figures of one function, in this process, since it was decorated.

    `hits` were answered from a tier (`tiers` says how many by which), `misses` ran the function, `joined` shared the
    run of another caller. `errors` are runs that raised, `stale` answers that were served although out of date,
    `unstored` answers that were handed out and not kept (or not in every tier), `undecodable` stored bytes that were no
    answer, and so were misses. `entries` and `nbytes` are in memory now.
    """

    hits: int
    misses: int
    joined: int
    errors: int
    unstored: int
    entries: int
    nbytes: int
    stale: int
    undecodable: int
    tiers: Mapping[str, int]


class Kept(NamedTuple, Generic[T]):
    """What is kept of one call: `value`, in which `tier` it was found, its `age` in seconds, whether it is still
    `fresh`, and the seconds until it is `gone` (None: it stays). `error` is an exception that is kept as the answer.
    """

    value: T
    tier: str
    age: float
    fresh: bool
    gone: float | None
    error: BaseException | None = None
