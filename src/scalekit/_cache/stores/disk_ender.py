"""Ending: keys, marks, everything; known to all processes before it returns.

First in the database. Where that takes no write, because the disk is full or somebody holds it for too long, by the
floor of the page: then everything older is ended with it. Where not even the page can be written, in this process
alone, which serves none of it any more, and tells the others as soon as it can.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from scalekit._cache.stores.disk_change import Change
from scalekit._cache.stores.disk_connections import Closed
from scalekit._cache.stores.disk_page import TURN

if TYPE_CHECKING:
    from scalekit._cache.stores.disk_shared import Shared

__all__ = ["Ender"]

_PATIENCE: Final = 2.0
_STEP: Final = 1000


class Ender:
    """Invalidations for one folder."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._marks: dict[str, int] = {}  # set in this process alone

    def end(self, keys: Sequence[str]) -> bool:
        """End these keys; True if one of them was there."""
        shared = self.shared
        now = shared.clock.now()
        found = [shared.queue.discard(key, now) for key in keys]
        for at in range(0, len(keys), _STEP):
            some = keys[at : at + _STEP]

            def work(change: Change, some: Sequence[str] = some) -> None:
                found.extend([change.end(key, now) for key in some])

            if not self._make(work, now):
                shared.reader.ended.update(dict.fromkeys(some, now))
        return any(found)

    def mark(self, names: Sequence[str]) -> None:
        """Set these marks."""
        now = self.shared.clock.now()
        self._mark(dict.fromkeys(names, now), now)

    def _mark(self, times: dict[str, int], now: int) -> None:
        shared = self.shared

        def work(change: Change) -> int:
            turn = max(shared.clock.now(), shared.words[TURN] + 1)
            for name, time in times.items():
                change.mark([name], time, turn)
            return turn

        if not self._make(work, now):
            self._marks.update(times)
        known = shared.reader.marks
        for name, time in times.items():
            known[name] = max(known.get(name, 0), time)

    def clear(self) -> None:
        """End everything."""
        shared = self.shared
        now = shared.clock.now()
        shared.queue.clear()

        def work(change: Change) -> None:
            change.floor = now

        if not self._make(work, now):
            shared.reader.floor = now

    def make_up(self) -> None:
        """Tell all what only this process knew."""
        reader, (marks, self._marks) = self.shared.reader, (self._marks, {})
        if not (marks or reader.ended or reader.floor):
            return
        ended, floor, now = dict(reader.ended), reader.floor, self.shared.clock.now()

        def work(change: Change) -> int:
            turn = max(self.shared.clock.now(), self.shared.words[TURN] + 1)
            for key, time in ended.items():
                change.end(key, time)
            for name, time in marks.items():
                change.mark([name], time, turn)
            change.floor = floor
            return turn

        if not self._make(work, now):
            self._marks = marks | self._marks
        else:
            reader.ended = {key: time for key, time in reader.ended.items() if time > ended.get(key, 0)}
            reader.floor = 0 if reader.floor == floor else reader.floor

    def _make(self, work: Callable[[Change], int | None], now: int) -> bool:
        """Do it in a transaction, or by the floor; False if it is for this process alone."""
        shared = self.shared
        for _ in range(3):
            folder = shared.folder or shared.open()
            if folder is None or not folder.writable:
                break
            odd, turn = 0, None
            try:
                with folder.connections.transaction(_PATIENCE, polite=False) as cursor:
                    change = Change(cursor, shared.clock.now())
                    turn = work(change)
                    change.settle()
                    odd = folder.page.begin()
            except Closed:
                continue
            except sqlite3.Error as error:
                folder.page.lift(now)
                if odd:
                    folder.page.end(odd)
                shared.trouble(error, "written")
                if folder is shared.folder and folder.current():
                    return True
                continue
            folder.page.end(odd, change.floor, turn or 0)
            for row, born in change.gone:
                folder.files.remove(row, born)
            shared.queue.wake()
            if folder.current():
                return True
            shared.reopen()  # another process began a new one, and does not know of this
        shared.extra += 2
        shared.say("local", "takes no writes: what is invalidated here is so in this process only, until it does.")
        return False
