"""The envelope in which a value lies on a disk or goes over a wire.

Stores give back other bytes than they were given: SQLite does not notice a flipped bit, files are cut short by a crash,
two versions of a program share one folder. So every value carries a header that says what it is, and a checksum over
all of it; whatever does not fit is a `CodecError`, which a cache takes for a miss. Large payloads are compressed where
that pays.

    format  version  flags  checksum  length of the payload  body: the payload, or its zstd frame
    1       1        1      4         8 bytes, little-endian

The checksum (CRC-32) is against accidents, not against an attacker: what a hostile body may do is bounded here (by the
length, which a decompressor never exceeds) and in `codec.py`.
"""

from __future__ import annotations

import functools
import importlib
import struct
import zlib
from typing import Any

from scalekit.errors import CodecError

__all__ = ["seal", "unseal"]

FORMAT, VERSION = 0xA5, 1
COMPRESSED = 1
COMPRESS_ABOVE = 4 * 1024  # bytes; below, a frame's overhead and the time eat the gain
WORTHWHILE = 0.9
MAX_COMPRESSED = 256 * 1024 * 1024  # bytes of payload: a larger one is not compressed, and nothing inflates beyond

_HEADER = struct.Struct("<BBBIQ")
_LEVEL = 3


def seal(payload: bytes) -> bytes:
    """`payload` in a frame: with its checksum, and compressed if it is larger than 4 KiB and shrinks by a tenth."""
    flags, body, zstd = 0, payload, _zstd()
    if zstd is not None and COMPRESS_ABOVE < len(payload) <= MAX_COMPRESSED:
        smaller: bytes = zstd.compress(payload, _LEVEL)
        if len(smaller) <= len(payload) * WORTHWHILE:
            flags, body = COMPRESSED, smaller
    return _HEADER.pack(FORMAT, VERSION, flags, _checksum(flags, len(payload), body), len(payload)) + body


def unseal(frame: bytes | memoryview) -> bytes:
    """The payload of a frame.

    Raises:
        CodecError: these are not the bytes that `seal` gave, or zstd is missing where they were compressed.
    """
    if len(frame) < _HEADER.size:
        raise CodecError(f"a frame has at least {_HEADER.size} bytes, not {len(frame)}: it was cut short.")
    form, version, flags, checksum, length = _HEADER.unpack_from(frame)
    if form != FORMAT or version != VERSION or flags & ~COMPRESSED:
        raise CodecError(f"unknown format of a frame: {bytes(frame[:3])!r}. Another version of scalekit wrote it.")
    body = memoryview(frame)[_HEADER.size :]
    if _checksum(flags, length, body) != checksum:
        raise CodecError("the checksum of a frame is wrong: its bytes have changed since they were written.")
    payload = _inflated(body, length) if flags else bytes(body)
    if len(payload) != length:
        raise CodecError(f"a frame promised {length} bytes and holds {len(payload)}.")
    return payload


def _checksum(flags: int, length: int, body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(_HEADER.pack(FORMAT, VERSION, flags, 0, length)))


def _inflated(body: memoryview, length: int) -> bytes:
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
