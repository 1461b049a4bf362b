"""S3-FIFO, with a small queue that finds its own size: which entry leaves when a new one needs room.

Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction" (SOSP '23). Most keys are asked for
once. So an entry starts in a *small* queue; if it was asked for again before it reaches the end, it moves to the *main*
queue, else it leaves and only its fingerprint stays for a while (a *ghost*), with which it comes straight to main next
time. At the end of main an entry that was asked for since goes round again.

The paper gives small a tenth of the room. Where popularity moves on, that loses up to 15 points of hit ratio against
LRU, because main is full of yesterday, and more than 40 where each question comes twice, some time apart. So the share
adapts as in ARC (Megiddo, Modha, FAST '03) and in CAR, its relative with clocks for queues (Bansal, Modha, FAST '04): a
miss that small's ghosts know says that small was too small, one that main's ghosts know says the opposite. Two things
are not as in CAR, both for the worst case against LRU, and the step is simpler (benchmarks/eviction.py):

* Only a ghost of small comes straight back to main. One of main had its time there and begins anew, else main fills
  with what was popular once, and a loop a little larger than the cache drives itself out (5 % hits instead of 76 %).
* Only a recent ghost moves the share. Those of small reach back as far as main is long, so that keys which would fit
  into the cache are always recognised the second time, however stale main is. But were the old ones counted, small
  would grow at the cost of the popular (2 points on Zipf).

A hit touches no queue: it is `entry.hit = True`, without a lock. (The paper counts to three. On the same traces that
gains 0.1 to 0.3 points of hit ratio, and makes every hit a tenth slower.) The queues are linked through the entries
themselves, so an entry that is removed from the middle (invalidated, replaced) leaves nothing behind that would keep
its value alive.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scalekit._cache.stores.memory import Entry

__all__ = ["S3Fifo"]

START: Final = 0.3
STEP: Final = 0.015
LEAST: Final = 0.02
MOST: Final = 0.8
RECENT: Final = 0.3
MAIN_GHOSTS: Final = 0.25
"""This and RECENT are parts of the number of entries."""


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


class _Ghosts(OrderedDict[int, int]):
    """Fingerprints of what left a queue, the last `room` of them, numbered."""

    left = 0

    def add(self, fingerprint: int, room: float) -> None:
        self.left += 1
        self[fingerprint] = self.left
        while len(self) > room:
            self.popitem(last=False)

    def take(self, fingerprint: int) -> int | None:
        """How many left since; None if it is not known."""
        number = self.pop(fingerprint, None)
        return None if number is None else self.left - number


class S3Fifo:
    """The order of one Memory's entries. Everything runs under the Memory's lock."""

    touches = False

    def __init__(self) -> None:
        self.small = _Queue()
        self.main = _Queue()
        self.share = START
        self._small_ghosts = _Ghosts()
        self._main_ghosts = _Ghosts()

    def add(self, entry: Entry) -> None:
        """A new entry: into small, or into main if it was evicted not long ago."""
        if self._small_ghosts or self._main_ghosts:
            fingerprint = _fingerprint(entry)
            age = self._small_ghosts.take(fingerprint)
            if age is not None:
                entry.main = True
                if age <= RECENT * (self.small.count + self.main.count):
                    self.share = min(MOST, self.share + STEP)
            elif self._main_ghosts.take(fingerprint) is not None:
                self.share = max(LEAST, self.share - STEP)
        (self.main if entry.main else self.small).append(entry)

    def discard(self, entry: Entry) -> None:
        """An entry that was removed for another reason than room."""
        (self.main if entry.main else self.small).remove(entry)

    def replace(self, old: Entry, new: Entry) -> None:
        """A new value of the same key: it keeps what the old one earned, and begins its way through the queue anew."""
        self.discard(old)
        new.main, new.hit = old.main, old.hit
        (self.main if new.main else self.small).append(new)

    def touch(self, entry: Entry) -> None:
        """Nothing: the flag is enough."""

    def victim(self, arrived: Entry, now: float, entries: float, nbytes: float) -> Entry:
        """Take one entry out, never the one that just `arrived`. What has expired goes as soon as it is seen.

        `entries` and `nbytes` are the room there is, infinite where the bound is not the one that is exceeded.
        """
        small, main = self.small, self.main
        count = small.count + main.count
        while True:
            full = small.count > self.share * entries or small.nbytes > self.share * nbytes
            head = small.first
            if head is not None and head is not arrived and (full or main.first is None or main.first is arrived):
                small.remove(head)
                if head.expires <= now:
                    return head
                if head.hit:
                    head.hit = False
                    head.main = True
                    main.append(head)
                    continue
                self._small_ghosts.add(_fingerprint(head), max(RECENT * count, main.count))
                return head
            head = main.first
            assert head is not None, "there is always an entry besides the one that arrived"
            main.remove(head)
            if head is not arrived:
                if head.expires <= now:
                    return head
                if not head.hit:
                    self._main_ghosts.add(_fingerprint(head), MAIN_GHOSTS * count)
                    return head
                head.hit = False
            main.append(head)


def _fingerprint(entry: Entry) -> int:
    return hash((id(entry.table), entry.key))
