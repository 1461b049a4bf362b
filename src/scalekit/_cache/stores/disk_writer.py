"""Putting: what is refused at once, and what the queue's thread does with a batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from scalekit._cache.stores.base import Record
from scalekit._cache.stores.disk_change import Change
from scalekit._cache.stores.disk_connections import Closed
from scalekit._cache.stores.disk_files import LARGE
from scalekit._cache.stores.disk_queue import Batch
from scalekit._cache.stores.disk_row import encode, identify

if TYPE_CHECKING:
    from scalekit._cache.stores.disk_shared import Shared

__all__ = ["Writer"]

_PATIENCE: Final = 2.0


class Writer:
    """Puts for one folder."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.refuse_until = 0.0
        self.log_full = False

    def put(self, key: str, record: Record) -> str | None:
        """Keep it soon; or the reason why not."""
        reason = self._refusal(key, record)
        if reason is None:
            reason = self.shared.queue.put(key, record)
        if reason is not None:
            self.shared.refused += 1
        return reason

    def _refusal(self, key: str, record: Record) -> str | None:
        shared = self.shared
        folder = shared.folder or shared.open()
        if folder is None or not folder.writable:
            return "the disk store cannot be written"
        if len(record.data) > shared.max_bytes // 4:
            return f"{len(record.data):,} bytes are more than a quarter of max_bytes={shared.max_bytes:,}"
        if not shared.reader.lives(key, record):
            return "it was invalidated meanwhile, or has expired"
        if self.refuse_until and time.monotonic() < self.refuse_until:
            return "the disk store could not be written a moment ago"
        if self.log_full:
            return "the write-ahead log cannot be emptied: a process that reads it seems to be stopped"
        return None

    def write(self, batch: Batch) -> None:
        """Write what waited, in one transaction."""
        if not self._write(batch):
            self._write(batch)

    def _write(self, batch: Batch) -> bool:
        """False if the folder was closed meanwhile."""
        shared = self.shared
        folder = shared.folder or shared.open()
        if folder is None or not folder.writable:
            shared.refused += len(batch)
            return True
        filed: list[tuple[int, int]] = []
        try:
            kept = [(key, record) for key, record, _ in batch if shared.reader.lives(key, record)]
            for key, record in kept:
                if len(record.data) > LARGE:
                    filed.append((identify(encode(key)), record.born))
                    folder.files.write(*filed[-1], record.data)
            with folder.connections.transaction(_PATIENCE) as cursor:
                change = Change(cursor, shared.clock.now())
                count = change.put(kept)
                change.settle()
        except Closed:
            return False
        except Exception as error:
            shared.refused += len(batch)
            shared.trouble(error, "written")
            for row, born in filed:
                folder.files.remove(row, born)
            return True
        shared.refused += len(batch) - count
        shared.corrupt += change.corrupt
        for row, born in change.gone:
            folder.files.remove(row, born)
        return True
