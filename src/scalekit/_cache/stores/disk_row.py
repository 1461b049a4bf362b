"""How a record lies in a row: a head of fixed form, sealed by a checksum, and the data, whose checksum is in the head.

SQLite does not notice flipped bytes, so each row proves itself. The head stands alone, because most decisions need no
data: whether a key was ended, whether a newer record is there, what a row takes of the room. A *tombstone* is a head
without key and data: nothing that was born before it may come to this id any more.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from scalekit._cache.stores.base import Record

__all__ = ["FILED", "INLINE", "TOMBSTONE", "Head", "identify", "label", "read_head", "seal", "tombstone"]

TOMBSTONE, INLINE, FILED = range(3)

_HEAD: Final = Struct("<IIBqqqqdQI")
_BODY: Final = Struct("<IBqqqqdQI")
_SUM: Final = Struct("<I")


class Head(NamedTuple):
    """What a row says of itself. `ended` is when its key was last invalidated (0: never), `size` its data in bytes."""

    seal: int
    sum: int
    kind: int
    born: int
    ended: int
    fresh: int
    expires: int
    cost: float
    size: int
    length: int


def identify(name: bytes) -> int:
    """The id of a key's row: 64 bits of its SHA-256, as SQLite counts them."""
    return int.from_bytes(sha256(name).digest()[:8], "little", signed=True)


def label(name: str) -> str:
    """A mark's name as rows list it, between zero characters."""
    return name.replace("\0", "\\0") if "\0" in name else name


def seal(name: bytes, record: Record, ended: int, kind: int) -> bytes:
    """The head of a record's row."""
    data, born, fresh, expires, cost, marks = record
    body = b"".join(
        (
            _BODY.pack(crc32(data), kind, born, ended, fresh, expires, cost, len(data), len(name)),
            name,
            "\0".join([label(mark) for mark in marks]).encode("utf-8", "surrogatepass"),
        )
    )
    return _SUM.pack(crc32(body)) + body


def tombstone(time: int, expires: int) -> bytes:
    """The head that stays when a key was ended at `time`."""
    body = _BODY.pack(0, TOMBSTONE, time, time, expires, expires, 0.0, 0, 0)
    return _SUM.pack(crc32(body)) + body


def read_head(head: Any) -> Head | None:
    """The head if it is whole; None if bytes of it have changed."""
    if type(head) is not bytes or len(head) < _HEAD.size:
        return None
    read = Head._make(_HEAD.unpack_from(head))
    return read if read.seal == crc32(head[4:]) and read.kind <= FILED else None


def read_record(head: bytes, read: Head, data: Any) -> Record | None:
    """The record if its data is what was written; None if not."""
    if type(data) is not bytes or crc32(data) != read.sum or len(data) != read.size:
        return None
    return Record(data, read.born, read.fresh, read.expires, read.cost, _marks(head[_HEAD.size + read.length :]))


def is_of(head: bytes, read: Head, name: bytes) -> bool:
    """Whether it is the row of this very key, and not of one with the same id."""
    return head[_HEAD.size : _HEAD.size + read.length] == name


@lru_cache(4096)
def _marks(text: bytes) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "surrogatepass").split("\0")) if text else ()
