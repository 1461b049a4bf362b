"""The functions of this process whose entries can be ended by name: their fast indexes close when a mark is set."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from scalekit._cache.marks import MARKS
from scalekit._core.guarded import Guarded

if TYPE_CHECKING:
    from scalekit._cache.site import Site

__all__ = ["MARKED", "Marked"]


class Marked(Guarded):
    """The functions of this process whose entries have marks."""

    def __init__(self) -> None:
        self._sites: WeakSet[Site] = WeakSet()
        super().__init__()

    def add(self, site: Site) -> None:
        with self._lock:
            self._sites.add(site)

    def set(self, names: tuple[str, ...], now: float) -> None:
        """End, in this process's memory, all that lists one of these names."""
        MARKS.set(names, now)
        with self._lock:
            sites = [*self._sites]
        for site in sites:
            site.table.clear_fast()


MARKED = Marked()
