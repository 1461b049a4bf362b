"""How a record lies in a row: a head of fixed form, sealed by a checksum, and the data, whose checksum is in the head.

SQLite does not notice flipped bytes, so each row proves itself. The head stands alone, because most decisions need no
data: whether a key was ended, whether a newer record is there, what a row takes of the room. A *tombstone* is a head
without key and data: nothing that was born before it may come to this id any more.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from scalekit._cache.stores.base import Record

__all__ = ["FILED", "INLINE", "TOMBSTONE", "Corrupt", "Head", "decode", "encode", "identify", "read_head", "seal"]

TOMBSTONE, INLINE, FILED = range(3)
_HEAD: Final = Struct("<IIBqqqqdQI")
_BODY: Final = Struct("<IBqqqqdQI")
_SUM: Final = Struct("<I")
_SIZE: Final = _HEAD.size
_unpack: Final = _HEAD.unpack_from
_from_bytes: Final = int.from_bytes
_new: Final = tuple.__new__


class Corrupt(Exception):
    """A row is not what was written."""


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


def encode(key: str) -> bytes:
    """A key as rows name it; any text has a name, lone surrogates too."""
    return key.encode("utf-8", "surrogatepass")


def decode(name: bytes) -> str:
    """The key or mark of a name."""
    return name.decode("utf-8", "surrogatepass")


def identify(name: bytes) -> int:
    """The id of a key's row: 64 bits of its BLAKE2b, as SQLite counts them."""
    return _from_bytes(blake2b(name, digest_size=8).digest(), "little", signed=True)


def seal(name: bytes, record: Record, ended: int, kind: int) -> bytes:
    """The head of a record's row."""
    data, born, fresh, expires, cost, marks = record
    body = _BODY.pack(crc32(data), kind, born, ended, fresh, expires, cost, len(data), len(name))
    body += name + (_listed(marks) if marks else b"")
    return _SUM.pack(crc32(body)) + body


def tombstone(time: int, until: int) -> bytes:
    """The head that stays `until` then when a key was ended at `time`."""
    body = _BODY.pack(0, TOMBSTONE, time, time, until, until, 0.0, 0, 0)
    return _SUM.pack(crc32(body)) + body


def read_head(sealed: Any) -> Head | None:
    """The head if it is whole; None if bytes of it have changed."""
    if type(sealed) is not bytes or len(sealed) < _SIZE:
        return None
    head = Head._make(_unpack(sealed))
    return head if head.seal == crc32(sealed[4:]) and head.kind <= FILED else None


def is_of(sealed: bytes, head: Head, name: bytes) -> bool:
    """Whether it is the row of this very key, and not of one with the same id."""
    return sealed[_SIZE : _SIZE + head.length] == name


def unseal(sealed: Any, data: Any, name: bytes) -> Record | None:
    """The record of this key; None for a tombstone or another key's; raises Corrupt if any byte has changed."""
    try:
        total, check, kind, born, _, fresh, expires, cost, size, length = _unpack(sealed)
        if total != crc32(sealed[4:]):
            raise Corrupt
        end = _SIZE + length
        if kind == TOMBSTONE or sealed[_SIZE:end] != name:
            return None
        if check != crc32(data) or size != len(data) or type(data) is not bytes:
            raise Corrupt
        marks = _marks(sealed[end:]) if len(sealed) > end else ()
        return _new(Record, (data, born, fresh, expires, cost, marks))
    except Exception as error:  # not bytes at all, or too few
        raise Corrupt from error


@lru_cache(4096)
def _listed(marks: tuple[str, ...]) -> bytes:
    return json.dumps(marks).encode()


@lru_cache(4096)
def _marks(listed: bytes) -> tuple[str, ...]:
    return tuple(json.loads(listed))
