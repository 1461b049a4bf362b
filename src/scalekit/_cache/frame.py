"""The envelope in which a value lies on a disk or goes over a wire.

Stores give back other bytes than they were given: SQLite does not notice a flipped bit, files are cut short by a crash,
two versions of a program share one folder. So every value carries a header that says what it is, and a checksum over
all of it; whatever does not fit is a `CodecError`, which a cache takes for a miss. Large payloads are compressed where
that pays.

    format  version  flags  checksum  length of the payload  body: the payload, or its zstd frame
    1       1        1      4         8 bytes, little-endian

The checksum (CRC-32 of the first three bytes and all that follows it) is against accidents, not against an attacker:
what a hostile body may do is bounded here (by the length, which a decompressor never exceeds) and in `codec.py`.
"""

from __future__ import annotations

import functools
import importlib
import struct
from typing import Any
from zlib import crc32

from scalekit.errors import CodecError

__all__ = ["seal", "unseal"]

FORMAT, VERSION = 0xA5, 1
COMPRESSED = 1
COMPRESS_ABOVE = 4 * 1024  # bytes; below, a frame's overhead and the time eat the gain
WORTHWHILE = 0.9
MAX_COMPRESSED = 256 * 1024 * 1024  # bytes of payload: a larger one is not compressed, and nothing inflates beyond

_START, _LENGTH = struct.Struct("<BBBI"), struct.Struct("<Q")
_SIZE = _START.size + _LENGTH.size
_unpack = struct.Struct("<BBBIQ").unpack_from
_SEEDS = [crc32(bytes((FORMAT, VERSION, flags))) for flags in (0, COMPRESSED)]
_LEVEL = 3


def seal(payload: bytes) -> bytes:
    """`payload` in a frame: with its checksum, and compressed if it is larger than 4 KiB and shrinks by a tenth."""
    flags, body, zstd = 0, payload, _zstd()
    if zstd is not None and COMPRESS_ABOVE < len(payload) <= MAX_COMPRESSED:
        smaller: bytes = zstd.compress(payload, _LEVEL)
        if len(smaller) <= len(payload) * WORTHWHILE:
            flags, body = COMPRESSED, smaller
    rest = _LENGTH.pack(len(payload)) + body
    return _START.pack(FORMAT, VERSION, flags, crc32(rest, _SEEDS[flags])) + rest


def unseal(frame: bytes | memoryview, proven: bool = False) -> bytes:
    """The payload of a frame; `proven`: a store has verified these bytes by a checksum of its own.

    Raises:
        CodecError: these are not the bytes that `seal` gave, or zstd is missing where they were compressed.
    """
    if len(frame) < _SIZE:
        raise CodecError(f"a frame has at least {_SIZE} bytes, not {len(frame)}: it was cut short.")
    form, version, flags, checksum, length = _unpack(frame)
    if form != FORMAT or version != VERSION or flags > COMPRESSED:
        raise CodecError(f"unknown format of a frame: {bytes(frame[:3])!r}. Another version of scalekit wrote it.")
    if not proven and checksum != crc32(frame[_START.size :], _SEEDS[flags]):
        raise CodecError("the checksum of a frame is wrong: its bytes have changed since they were written.")
    body = frame[_SIZE:]
    payload = _inflated(body, length) if flags else body if type(body) is bytes else bytes(body)
    if len(payload) != length:
        raise CodecError(f"a frame promised {length} bytes and holds {len(payload)}.")
    return payload


def _inflated(body: bytes | memoryview, length: int) -> bytes:
    zstd = _zstd()
    if zstd is None:
        raise CodecError("a frame is compressed with zstd, which is missing here: pip install 'agent-scalekit[zstd]'.")
    if length > MAX_COMPRESSED:
        raise CodecError(f"a compressed frame promises {length} bytes; {MAX_COMPRESSED} are allowed.")
    decompressor = zstd.ZstdDecompressor()
    try:
        payload: bytes = decompressor.decompress(body, max_length=length)
        if not decompressor.eof and decompressor.decompress(b"", max_length=1):
            raise CodecError(f"a compressed frame inflates to more than the {length} bytes it promised.")
    except zstd.ZstdError as error:
        raise CodecError(f"a compressed frame does not decompress: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise CodecError("a compressed frame does not end where it should.")
    return payload


@functools.cache
def _zstd() -> Any:
    """The zstd module of Python 3.14 or its backport; None if neither is there."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
