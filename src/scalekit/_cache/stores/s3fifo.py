"""S3-FIFO: which entry leaves when a new one needs room.

Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction" (SOSP '23). Most keys are asked for
once. So an entry starts in a *small* queue of a tenth of the room; if it was asked for again before it reaches the end,
it moves to the *main* queue, else it leaves and only its fingerprint stays for a while (the *ghost*), with which it
comes straight to main next time. At the end of main an entry that was asked for since goes round again.

A hit touches no queue: it is `entry.hits += 1` without a lock (a lost increment is not worth one), and an entry's
frequency is what `hits` gained over `mark`, three at most. The queues are linked through the entries themselves, so an
entry that is removed from the middle (invalidated, replaced) leaves nothing behind that would keep its value alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalekit._cache.stores.memory import Entry

__all__ = ["S3Fifo"]


class _Queue:
    """A FIFO of entries, linked through `older` and `newer`."""

    __slots__ = ("count", "first", "last", "nbytes")

    def __init__(self) -> None:
        self.first: Entry | None = None
        self.last: Entry | None = None
        self.count = 0
        self.nbytes = 0

    def append(self, entry: Entry) -> None:
        entry.older = self.last
        if self.last is None:
            self.first = entry
        else:
            self.last.newer = entry
        self.last = entry
        self.count += 1
        self.nbytes += entry.size

    def remove(self, entry: Entry) -> None:
        older, newer = entry.older, entry.newer
        if older is None:
            self.first = newer
        else:
            older.newer = newer
        if newer is None:
            self.last = older
        else:
            newer.older = older
        entry.older = entry.newer = None
        self.count -= 1
        self.nbytes -= entry.size


class S3Fifo:
    """The order of one Memory's entries. Everything runs under the Memory's lock."""

    touches = False

    def __init__(self) -> None:
        self.small = _Queue()
        self.main = _Queue()
        self._ghosts: dict[int, int] = {}  # fingerprint: the number of its eviction
        self._evictions = 0

    def add(self, entry: Entry) -> None:
        """A new entry: into small, or into main if it was evicted not long ago."""
        number = self._ghosts.pop(_fingerprint(entry), None) if self._ghosts else None
        entry.main = number is not None and self._evictions - number <= self.main.count + self.small.count
        (self.main if entry.main else self.small).append(entry)

    def discard(self, entry: Entry) -> None:
        """An entry that was removed for another reason than room."""
        (self.main if entry.main else self.small).remove(entry)

    def replace(self, old: Entry, new: Entry) -> None:
        """A new value of the same key: it keeps what the old one earned, and begins its way through the queue anew."""
        self.discard(old)
        new.main, new.hits, new.mark = old.main, old.hits, old.mark
        (self.main if new.main else self.small).append(new)

    def touch(self, entry: Entry) -> None:
        """Nothing: the count of hits is enough."""

    def victim(self, arrived: Entry, now: float, small_entries: int, small_bytes: int) -> Entry:
        """Take one entry out, never the one that just `arrived`. What has expired goes as soon as it is seen."""
        small, main = self.small, self.main
        while True:
            head = small.first
            full = small.count > small_entries or small.nbytes > small_bytes
            if head is not None and head is not arrived and (full or main.first is None or main.first is arrived):
                small.remove(head)
                if head.expires <= now:
                    return head
                if head.hits - head.mark > 1:
                    head.mark = head.hits
                    head.main = True
                    main.append(head)
                    continue
                self._remember(head)
                return head
            head = main.first
            assert head is not None, "there is always an entry besides the one that arrived"
            main.remove(head)
            if head is not arrived and (head.expires <= now or head.hits <= head.mark):
                return head
            head.mark = head.hits - min(3, head.hits - head.mark) + 1 if head.hits > head.mark else head.mark
            main.append(head)

    def _remember(self, entry: Entry) -> None:
        self._evictions += 1
        self._ghosts[_fingerprint(entry)] = self._evictions
        room = self.main.count + self.small.count
        if len(self._ghosts) > 2 * room + 16:  # forget the old ones, all at once and seldom
            oldest = self._evictions - room
            self._ghosts = {one: number for one, number in self._ghosts.items() if number > oldest}


def _fingerprint(entry: Entry) -> int:
    return hash((id(entry.table), entry.key))
