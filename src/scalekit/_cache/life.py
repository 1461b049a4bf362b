"""What there is to think about before an entry in memory is served."""

from __future__ import annotations

from typing import Any

from scalekit._cache.freshness import FOREVER, Times
from scalekit._cache.marks import MARKS

__all__ = ["Life"]


class Life:
    """What there is to think about before an entry is served: its times, what may have ended it, where it belongs.

    `born` is when its flight began, `stamps` the same on the clocks of the slower tiers. `version` and `generation` say
    up to which invalidations it was looked at, `index` up to which closing of the fast index. With `sliding=`, `end` is
    the last moment it can be extended to, and `rewrite` when the slower tiers are to hear of it.
    """

    __slots__ = (
        *("born", "cost", "end", "fresh", "generation", "index", "marks", "place"),
        *("rewrite", "stamps", "usable", "version"),
    )

    def __init__(
        self,
        times: Times,
        born: float,
        cost: float,
        place: Any,
        marks: tuple[str, ...] = (),
        stamps: tuple[int, ...] = (),
        generation: int = 0,
    ) -> None:
        self.fresh = times.fresh
        self.usable = times.usable
        self.born = born
        self.cost = cost
        self.end = FOREVER
        self.place = place
        self.marks = marks
        self.stamps = stamps
        self.version = MARKS.version
        self.generation = generation
        self.index = -1
        self.rewrite = FOREVER
