"""What was read of a live stream so far. Every reader reads it from its first item, at a pace of its own.

It is a chain of chunks. A reader holds its chunk and its place there, the recording holds the first one; so once nobody
can join any more and the recording lets go of its head, what all have read is freed by itself. One writer appends,
readers take no lock: an item is in its list before anybody is woken, and a reader that waits looks once more after it
lined up in `waiting`. Everything else (`places`) changes under the lock of the flights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from scalekit._runtime.base import Waiter

__all__ = ["Chunk", "Place", "Recording"]

ITEMS: Final = 256
NBYTES: Final = 64 * 1024


class Chunk:
    """Up to 256 items, or about 64 kB (an eighth of the limit, if that is less): what a reader takes at once counts as
    read. `start`: the bytes before it; `next` is set when this one is complete.
    """

    __slots__ = ("items", "next", "start")

    def __init__(self, start: int) -> None:
        self.items: list[Any] = []
        self.next: Chunk | None = None
        self.start = start


class Place:
    """How far one reader is; `cut`: it kept the others waiting for too long, and holds nothing any more."""

    __slots__ = ("at", "chunk", "cut")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk: Chunk | None = chunk
        self.at = 0
        self.cut = False

    @property
    def more(self) -> bool:
        """Whether there is something to read, or nothing any more."""
        chunk = self.chunk
        return chunk is None or chunk.next is not None or len(chunk.items) > self.at

    @property
    def behind(self) -> Chunk | None:
        """The chunk that it has not read to its end yet."""
        chunk = self.chunk
        if chunk is None or len(chunk.items) > self.at:
            return chunk
        return chunk.next

    def read(self) -> Sequence[Any]:
        """What is there and was not read yet, at most to the end of a chunk."""
        chunk = self.chunk
        if chunk is None:
            return ()
        following = chunk.next  # before the length: what has a next one grows no more
        items = chunk.items[self.at :]
        if items or following is None:
            self.at += len(items)
            return items
        self.chunk, items = following, following.items[:]
        self.at = len(items)
        if self.cut:
            self.chunk = None
        return items


class Recording:
    """The items of one live stream. Past `limit` bytes it is `long`: no longer kept, and nobody can join."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._step = self._full = min(NBYTES, limit // 8)
        self.plain = True
        """No item is one that has to be `taken`."""
        self.nbytes = 0
        self.long = False
        self.tail = Chunk(0)
        self.head: Chunk | None = self.tail
        self.places: dict[Waiter, Place] = {}
        self.waiting: deque[Waiter] = deque()

    def append(self, item: Any, size: int) -> bool:
        """Add an item; True if that completed a chunk."""
        items = self.tail.items
        items.append(item)
        self.nbytes += size
        if self.nbytes < self._full and len(items) < ITEMS:
            return False
        self._full = self.nbytes + self._step
        tail, self.tail = self.tail, Chunk(self.nbytes)
        tail.next = self.tail
        return True

    @property
    def too_long(self) -> bool:
        """True if it has become too long to be kept, and is not yet `long`."""
        return self.nbytes > self.limit and not self.long

    def enter(self, waiter: Waiter) -> None:
        """A reader from the beginning on."""
        if self.head is not None:
            self.places[waiter] = Place(self.head)

    def let_go(self) -> None:
        """It became too long: nobody can enter any more."""
        self.long, self.head = True, None

    @property
    def crowded(self) -> bool:
        """True if the slowest reader is so far behind that the others have to wait for it."""
        return self.long and self.nbytes - min(self._starts(), default=self.nbytes) > self.limit

    def cut(self) -> None:
        """Wait no longer for the slowest readers: they have missed items, and will be told."""
        first = min(self._starts(), default=0)
        for place in self.places.copy().values():
            if (chunk := place.behind) is not None and chunk.start == first:
                place.cut, place.chunk = True, None

    def _starts(self) -> list[int]:
        return [chunk.start for place in self.places.copy().values() if (chunk := place.behind) is not None]

    def whole(self) -> list[Any]:
        """All items; the head must be here."""
        items: list[Any] = []
        chunk = self.head
        while chunk is not None:
            items += chunk.items
            chunk = chunk.next
        return items

    def drain(self) -> list[Waiter]:
        """Those who wait for more, to be woken."""
        waiters: list[Waiter] = []
        while self.waiting:
            try:
                waiters.append(self.waiting.popleft())
            except IndexError:  # another thread drains too
                break
        return waiters
