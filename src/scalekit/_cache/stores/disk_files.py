"""Values too large for the database lie in files beside it, one each.

SQLite reads a large value page by page along a chain; a file is read in one go. A file is written under another name,
moved into place, and only then named by a row, so a row never names half a file. What a crash leaves behind is a file
that no row names: `orphans` finds those that are old enough not to be somebody's newest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["LARGE", "Files"]

LARGE: Final = 128 * 1024
"""A value above this many bytes gets a file."""

_GRACE: Final = 600.0


class Files:
    """The folder of large values. A file is named by its row and its birth."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, row: int, born: int) -> str:
        name = f"{row & (1 << 64) - 1:016x}-{born:x}"
        return os.path.join(self.folder, name[:2], name)

    def write(self, row: int, born: int, data: bytes) -> None:
        """Raises OSError, and leaves nothing behind then."""
        path = self.path(row, born)
        part = f"{path}.{os.getpid()}.part"
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
        except BaseException:
            os.close(file)
            _unlink(part)
            raise
        os.close(file)
        os.replace(part, path)

    def read(self, row: int, born: int) -> bytes | None:
        """None if it is not there."""
        try:
            with open(self.path(row, born), "rb", buffering=0) as file:
                return file.read()
        except OSError:
            return None

    def remove(self, row: int, born: int) -> None:
        _unlink(self.path(row, born))

    def sweep(self, named: Callable[[int, int], bool]) -> int:
        """Remove files that no row names, unless they are younger than ten minutes; how many they were."""
        count, old = 0, time.time() - _GRACE
        for path, name in self._all():
            row, _, born = name.partition("-")
            try:
                known = named(int.from_bytes(bytes.fromhex(row), "big", signed=True), int(born, 16))
            except ValueError:
                known = False
            try:
                if not known and os.stat(path).st_mtime < old:
                    os.unlink(path)
                    count += 1
            except OSError:
                pass
        return count

    def _all(self) -> Iterator[tuple[str, str]]:
        try:
            folders = os.listdir(self.folder)
        except OSError:
            return
        for folder in folders:
            inner = os.path.join(self.folder, folder)
            try:
                names = os.listdir(inner)
            except OSError:
                continue
            for name in names:
                yield os.path.join(inner, name), name


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
