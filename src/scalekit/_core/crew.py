"""Threads for work that nobody waits for: refreshing what is still served.

They are daemons, so that a slow call does not keep a program from ending, few, so that a thousand answers that get old
at once do not start a thousand threads, and end when they were idle for a while. There is no queue: work that finds
nobody free is refused, and whoever asks next offers it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from scalekit._core.guarded import Guarded

__all__ = ["CREW", "Crew"]

IDLE: Final = 10.0


class Crew(Guarded):
    """At most `size` threads."""

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.threads = 0
        self._free = 0
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        super().__init__()

    def offer(self, work: Callable[[], object]) -> bool:
        """Do it soon, in another thread; False if all are busy, or the interpreter is about to end."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._work.put(work)
                return True
            if self.threads >= self.size:
                return False
            self.threads += 1
        try:
            threading.Thread(target=self._run, args=(work,), name="scalekit refresh", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self.threads -= 1
            return False
        return True

    def _run(self, work: Callable[[], object] | None) -> None:
        queue = self._work
        while work is not None:
            try:
                work()
            except BaseException:  # the work told whom it concerns
                pass
            work = None
            with self._lock:
                self._free += 1
            try:
                work = queue.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if self._free:
                        self._free -= 1
                        self.threads -= 1
                        return
                work = queue.get()  # it was offered in this very moment

    def _after_fork(self) -> None:
        self.threads = self._free = 0
        self._work = SimpleQueue()


CREW = Crew()
