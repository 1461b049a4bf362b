"""A frame gives back the payload that was sealed, or a CodecError: whatever happened to its bytes in between."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
import zlib

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from scalekit._cache import frame
from scalekit._cache.frame import COMPRESS_ABOVE, seal, unseal
from scalekit.errors import CodecError

TEXT = b"the same words again and again, " * 400
NOISE = random.Random(1).randbytes(20_000)


def framed(body: bytes, length: int, flags: int = 1, form: int = 0xA5, version: int = 1) -> bytes:
    """A frame whose checksum is right, whatever it holds."""
    rest = struct.pack("<Q", length) + body
    return struct.pack("<BBBI", form, version, flags, zlib.crc32(rest, zlib.crc32(bytes((0xA5, 1, flags))))) + rest


@given(st.binary(max_size=COMPRESS_ABOVE * 2))
def test_what_was_sealed_is_what_is_there(payload: bytes) -> None:
    """Any payload comes back, from bytes and from a memoryview."""
    assert unseal(seal(payload)) == payload
    assert unseal(memoryview(seal(payload))) == payload


def test_large_payloads_are_compressed_if_it_pays() -> None:
    """Text shrinks; noise and small payloads are stored as they are."""
    assert len(seal(TEXT)) < len(TEXT) / 10
    assert unseal(seal(TEXT)) == TEXT
    for payload in (NOISE, TEXT[: COMPRESS_ABOVE - 1]):
        assert seal(payload).endswith(payload)


def test_the_format_is_written_down() -> None:
    """These very bytes are in files: reading them must work for ever."""
    assert seal(b"abc") == bytes.fromhex("a50100c4a71e950300000000000000616263")
    assert unseal(bytes.fromhex("a50100c4a71e950300000000000000616263")) == b"abc"


@pytest.mark.parametrize("payload", [b"abc", TEXT, NOISE[:500]], ids=["small", "compressed", "noise"])
def test_no_flipped_bit_goes_unnoticed(payload: bytes) -> None:
    """Each byte, with one bit or all of them flipped."""
    sealed = seal(payload)
    for place in range(len(sealed)):
        for mask in (1, 0x80, 0xFF):
            broken = bytearray(sealed)
            broken[place] ^= mask
            with pytest.raises(CodecError):
                unseal(bytes(broken))


@pytest.mark.parametrize("payload", [b"", b"abc", TEXT], ids=["empty", "small", "compressed"])
def test_no_cut_or_extended_frame_is_read(payload: bytes) -> None:
    """Truncated at every byte, and with bytes behind it."""
    sealed = seal(payload)
    for broken in [
        *(sealed[:length] for length in range(len(sealed))),
        sealed + b"\0",
        sealed + sealed,
        b"\0" + sealed,
    ]:
        with pytest.raises(CodecError):
            unseal(broken)


BOMB = zstd.compress(bytes(100_000_000))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (framed(BOMB, 1_000), "more than the 1000 bytes"),
        (framed(BOMB, 2**60), "are allowed"),
        (framed(BOMB, 0), "more than the 0 bytes"),
        (framed(zstd.compress(b"abc"), 5_000), "promised 5000 bytes and holds 3"),
        (framed(zstd.compress(b"abc") + b"x", 3), "does not end where it should"),
        (framed(zstd.compress(b"abc") * 2, 6), "does not end where it should"),
        (framed(zstd.compress(TEXT)[:-5], len(TEXT)), "does not end|does not decompress"),
        (framed(b"no zstd frame", 13), "does not decompress"),
        (framed(b"", 0), "does not end"),
        (framed(b"abc", 4, flags=0), "promised 4 bytes and holds 3"),
        (framed(b"abc", 2**63, flags=0), "promised"),
        (framed(b"abc", 3, flags=2), "unknown format"),
        (framed(b"abc", 3, flags=0, version=2), "Another version"),
        (framed(b"abc", 3, flags=0, form=0), "unknown format"),
        (b"", "cut short"),
    ],
)
def test_hostile_frames_are_errors_within_bounds(broken: bytes, message: str) -> None:
    """Bombs, lies about the length, unknown versions and flags, though their checksums be right."""
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=message):
            unseal(broken)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_without_zstd_nothing_is_compressed_and_compressed_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional: frames are read by whoever can, and the others are told what to install."""
    compressed = seal(TEXT)
    monkeypatch.setattr(frame, "_zstd", lambda: None)
    assert seal(TEXT).endswith(TEXT)
    assert unseal(seal(TEXT)) == TEXT
    with pytest.raises(CodecError, match=r"agent-scalekit\[zstd\]"):
        unseal(compressed)


def test_random_bytes_are_no_frame() -> None:
    """Nothing but seal makes a frame."""
    for length in (0, 14, 15, 16, 100):
        with pytest.raises(CodecError):
            unseal(os.urandom(length))
