"""Puts on their way to the disk: kept by key until a thread has written them, and readable meanwhile.

The caller of a put pays for an entry in a dict. One daemon thread writes what has gathered, after a pause of a few
milliseconds that makes one transaction of a burst. The queue is bounded in bytes: what comes beyond is refused, for a
cache that makes its callers wait for the disk is none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from scalekit._cache.stores.base import Record
from scalekit._cache.stores.disk_row import encode, identify

__all__ = ["Queue"]

ROOM: Final = 64 * 1024 * 1024
BATCH: Final = 200
_TAKE: Final = 5000
_BATCH_BYTES: Final = 8 * 1024 * 1024
_LINGER: Final = 0.005
_WAKEFUL: Final = 10  # looks in vain before it sleeps
_LOOK: Final = 0.05  # seconds between two ticks while there is much to write,
_LOOK_BYTES: Final = 1024 * 1024  # or bytes written: how far the store may grow above its bound
_OVERHEAD: Final = 300

Batch = list[tuple[str, Record, int]]


class Queue:
    """`write(batch)` is called in the thread, and must not raise; `tick()` from time to time."""

    def __init__(self, write: Callable[[Batch], None], tick: Callable[[], None], every: float) -> None:
        self._write = write
        self._tick = tick
        self._every = every
        self.pending: dict[str, tuple[Record, int]] = {}
        self.reset()

    def reset(self) -> None:
        """Empty and without a thread, as in a forked child."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._rung = False
        self._asleep = False
        self._stop = False
        self._thread: threading.Thread | None = None
        self._serial = 0
        self._looked = 0.0
        self._unlooked = 0
        self._written = threading.Condition(self._lock)
        self.pending.clear()
        self.nbytes = 0

    def put(self, key: str, record: Record) -> str | None:
        """Keep it for the thread; or the reason why not."""
        size = len(record.data) + len(key) + _OVERHEAD
        with self._lock:
            before = self.pending.get(key)
            if before is not None:
                if record.born <= before[0].born:
                    return "a newer one is about to be written"
                self._remove(key, before[0])
            if self.nbytes + size > ROOM:
                return f"the disk does not keep up: {self.nbytes:,} bytes wait to be written"
            self._serial += 1
            self.pending[key] = record, self._serial
            self.nbytes += size
            self._ring()
        return None

    def discard(self, key: str, born: int) -> bool:
        """Forget what waits under this key if it was born then or before."""
        with self._lock:
            before = self.pending.get(key)
            if before is None or before[0].born > born:
                return False
            self._remove(key, before[0])
            return True

    def clear(self) -> None:
        """Forget all that waits."""
        with self._lock:
            self.pending.clear()
            self.nbytes = 0

    def wake(self) -> None:
        """Let the thread look around soon."""
        with self._lock:
            self._ring()

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was put before is written, or refused; False if the time was over first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            serial = self._serial
            while self._waits(serial):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._ring(True)
                if self._thread is None:
                    break
                self._written.wait(0.05 if left is None else min(left, 0.05))
            else:
                return True
        while True:  # no thread can be started: the interpreter is about to end
            with self._lock:
                if not self._waits(serial):
                    return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self._turn()

    def stop(self, timeout: float) -> None:
        """End the thread once it has written what it is writing."""
        with self._lock:
            thread = self._thread
            if thread is not None:
                self._stop = True
                self._ring(True)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _waits(self, serial: int) -> bool:
        first = next(iter(self.pending.values()), None)
        return first is not None and first[1] <= serial

    def _remove(self, key: str, record: Record) -> None:
        del self.pending[key]
        self.nbytes -= len(record.data) + len(key) + _OVERHEAD

    def _ring(self, always: bool = False) -> None:
        if (self._asleep or always) and not self._rung:
            self._rung = True
            self._bell.release()
        if self._thread is None and not self._stop:
            thread = threading.Thread(target=self._run, name="scalekit disk", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is about to end
                return
            self._thread = thread

    def _run(self) -> None:
        """Awake, the thread looks by itself every few milliseconds, so that a put need not wake it; asleep, it waits
        for the bell, and looks around from time to time."""
        idle = 0
        while True:
            rung = self._bell.acquire(timeout=_LINGER if idle < _WAKEFUL else self._every)
            with self._lock:
                self._asleep = False
                if rung:
                    self._rung = False
                stop = self._stop
            idle += 1
            while self._turn():
                idle = 0
            if stop:
                self._look()
                with self._lock:
                    self._stop = False
                    self._thread = None
                return
            if idle >= _WAKEFUL:
                self._look()
                with self._lock:
                    self._asleep = not self.pending
                    idle = _WAKEFUL if self._asleep else 0

    def _turn(self) -> bool:
        """Write what is waiting now; False if there was nothing to write."""
        with self._writing:
            with self._lock:
                waiting = [(key, *entry) for key, entry in islice(self.pending.items(), _TAKE)]
            if not waiting:
                return False
            waiting.sort(key=_place)
            while waiting:
                batch = _cut(waiting)
                self._write(batch)
                with self._lock:
                    for key, record, serial in batch:
                        now = self.pending.get(key)
                        if now is not None and now[1] == serial:
                            self._remove(key, record)
                    self._written.notify_all()
                self._unlooked += sum(len(record.data) for _, record, _ in batch)
                if self._unlooked > _LOOK_BYTES or time.monotonic() - self._looked > _LOOK:
                    self._look()
        return True

    def _look(self) -> None:
        self._tick()
        self._looked = time.monotonic()
        self._unlooked = 0


def _place(entry: tuple[str, Record, int]) -> int:
    """Neighbours in the database share pages, and so a transaction of neighbours writes fewer of them."""
    return identify(encode(entry[0]))


def _cut(waiting: Batch) -> Batch:
    """The last of them, as many as make a transaction that others need not wait for long."""
    count = room = 0
    for _, record, _ in reversed(waiting):
        count, room = count + 1, room + len(record.data)
        if count == BATCH or room >= _BATCH_BYTES:
            break
    batch = waiting[-count:]
    del waiting[-count:]
    return batch
