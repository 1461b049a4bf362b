"""What was invalidated by name in this process: tags, and scopes of a function.

Invalidating a tag by looking for its entries needs a set of keys for every tag, and such sets only grow. A mark is a
name with a time: an entry that lists the name and was born no later is dead. Setting one costs the same however many
entries it ends. Entries look only when the `version` has changed since they last did.

A mark must be remembered as long as an older entry or flight may live. The dict is bounded all the same: when it is
full, the older half is forgotten, and the newest of their times becomes the `floor`: what is as old as that, and
lists any name at all, counts as ended. Too much is computed anew then, never too little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from scalekit._cache.key import Tree
from scalekit._core.guarded import Guarded

__all__ = ["MARKS", "Ended", "Marks", "named"]

LONG_AGO = float("-inf")


class Ended:
    """When names were ended. Plain: whoever shares it guards it."""

    __slots__ = ("floor", "room", "times")

    def __init__(self, room: int, floor: float = LONG_AGO) -> None:
        self.room = room
        self.floor = floor
        self.times: dict[str, float] = {}

    def end(self, names: Iterable[str], time: float) -> None:
        """These names end what was born at `time` or before."""
        times = self.times
        for name in names:
            times[name] = max(time, times.pop(name, time))  # at the end: the dict stays in the order of time
        while len(times) > self.room:
            for name in [*times][: self.room // 2 + 1]:
                self.floor = max(self.floor, times.pop(name))

    def last(self, names: Iterable[str]) -> float:
        """When one of these names was last ended, or may have been."""
        return max(self.floor, *[self.times.get(name, LONG_AGO) for name in names])

    def since(self, names: Iterable[str], born: float) -> bool:
        """Whether one of these names was ended when or after something was born."""
        return born <= self.last(names)


class Marks(Guarded):
    """Names and the times at which they were last invalidated."""

    def __init__(self, room: int = 10_000) -> None:
        self.version = 0
        self._ended = Ended(room)
        super().__init__()

    def set(self, names: Iterable[str], now: float) -> None:
        """End what lists one of these names and was born at `now` or before."""
        with self._lock:
            self._ended.end(names, now)
            self.version += 1

    def ended(self, names: Sequence[str], born: float) -> float | None:
        """When one of these names was last invalidated, if that was at or after the birth of who asks; else None."""
        if not names:
            return None
        with self._lock:
            last = self._ended.last(names)
        return last if born <= last else None


MARKS = Marks()
"""Those of this process."""


def named(names: Iterable[str], path: tuple[Tree, ...], inside: bool) -> tuple[str, ...]:
    """The marks that `names` stand for in a scope: to set, those of this very scope; with `inside`, to list in an
    entry, those of all scopes around it as well."""
    places = _places(path)
    return tuple([f"{name}{place}" for name in names for place in (places if inside else places[-1:])])


@lru_cache(1024)
def _places(path: tuple[Tree, ...]) -> tuple[str, ...]:
    if not path:
        return ("",)
    from scalekit._cache.digest import digest

    return ("", *[f"@{digest(path[:length])[:16]}" for length in range(1, len(path) + 1)])
