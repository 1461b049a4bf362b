"""A storm of bytes against the decoder: each input is a value or a CodecError, and nothing else happens.

Three kinds of inputs, from one seed: bytes of real values with some of their bits, bytes and stretches changed; trees
of MessagePack with extensions of any code and body, well formed throughout, so that they reach every maker; and sealed
frames that were damaged. While they are read, the interpreter reports (by audit events) every import, file, process,
socket and execution of code; classes whose objects may come back report every line of their own.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import os
import pathlib
import random
import sys
import uuid
import zoneinfo
from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy
import pydantic
import pytest
from msgspec.msgpack import Ext

from scalekit._cache.codec import OBJECT, Codec
from scalekit._cache.frame import seal, unseal
from scalekit._cache.names import qualified
from scalekit.errors import CodecError

COUNT = int(os.environ.get("SCALEKIT_FUZZ", "1000000"))
PARTS = 10
RAN: list[str] = []
HARMLESS = ("zoneinfo", "tzdata", "importlib")  # who reads time zones
WATCHED = ("import", "open", "exec", "subprocess", "socket", "os.", "ctypes", "pickle", "shutil", "code.")
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(WATCHED):
        what = str(arguments[0]) if arguments else ""
        if not any(name in what for name in HARMLESS):
            RAN.append(f"{event} {what}")


sys.addaudithook(_audit)


class Colour(enum.Enum):
    RED = 1


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2

    @classmethod
    def _missing_(cls, value: object) -> Any:
        if _watching:
            RAN.append("missing")
        return super()._missing_(value)


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = None

    def __post_init__(self) -> None:
        if _watching:
            RAN.append("post_init")


@attrs.define
class Slotted:
    x: Any

    def __attrs_post_init__(self) -> None:
        if _watching:
            RAN.append("attrs")


class Pair(NamedTuple):
    a: Any
    b: Any


class Struct(msgspec.Struct):
    x: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    n: int
    _private: int = 1

    @pydantic.field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        if _watching:
            RAN.append("validator")
        return n


class Failed(Exception):
    def __init__(self, *, code: int) -> None:
        if _watching:
            RAN.append("init")
        super().__init__(code)


def answer() -> Point | Slotted | Pair | Struct | Model | Colour | Rights: ...  # type: ignore[empty-body]


VALUES: list[Any] = [
    *(
        None,
        2**70,
        "\ud800",
        1j,
        b"x",
        bytearray(b"xy"),
        (1, ("a",)),
        {1, 2},
        frozenset({"a"}),
        range(5),
        {(1, 2): [3]},
    ),
    *(
        dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        dt.datetime(2026, 1, 2, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    ),
    *(
        dt.date(2026, 1, 2),
        dt.time(1, 2),
        dt.timedelta(1, 2),
        dt.timezone(dt.timedelta(hours=2), "X"),
        uuid.UUID(int=3),
    ),
    *(decimal.Decimal("1.1"), fractions.Fraction(1, 3), pathlib.Path("/a"), collections.deque([1], 3), Colour.RED),
    *(collections.OrderedDict(a=1), collections.Counter("aab"), collections.defaultdict(list, a=[1]), Rights(3)),
    *(
        numpy.arange(6.0).reshape(2, 3),
        numpy.array(["a", "b"]),
        numpy.float32(1.5),
        numpy.zeros(2, "i4,f8"),
        Point(1, "a"),
    ),
    *(
        Slotted([1]),
        Pair(1, Pair(2, 3)),
        Struct({"a": 1}),
        Model.model_validate({"n": 1, "more": [1]}),
        [Point(Model(n=2), Slotted(Pair(1, 2)))],
    ),
    [{"role": "user", "content": "hello " * 5, "n": 1, "f": 1.5, "b": True}] * 3,
]
NAMES = [
    *map(qualified, (Point, Slotted, Pair, Struct, Model, Colour, Rights, Failed)),
    "subprocess:Popen",
    "os:system",
]
CODEC = Codec("fuzz", answer, errors=(Failed, OSError))
PAYLOADS = [CODEC.encode(value) for value in VALUES]
ERRORS = [CODEC.encode_error(error) for error in (Failed(code=3), OSError(2, "x", "f"))]
LEAVE = {
    *map(type, VALUES),
    Failed,
    bool,
    int,
    float,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
    zoneinfo.ZoneInfo,
}
FRAMES = [seal(payload) for payload in [*PAYLOADS, b"text " * 2_000]]
SPICE = (
    [bytes([b]) for b in range(0x80, 0xA0)]
    + [bytes([b]) for b in range(0xC0, 0xE0)]
    + [b"\xff" * 4, b"\x7f\xff", b"\0"]
)


def mutated(rng: random.Random, payload: bytes) -> bytes:
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                data[at:at] = rng.choice(SPICE)
            case 3:
                del data[at : at + rng.randrange(1, 9)]
            case 4:
                other = rng.choice(PAYLOADS)
                begin = rng.randrange(len(other))
                data[at : at + rng.randrange(9)] = other[begin : begin + rng.randrange(1, 40)]
            case 5:
                data[at : at + 1] = rng.choice(SPICE)
            case _:
                del data[at:]
    return bytes(data)


def atom(rng: random.Random) -> Any:
    match rng.randrange(8):
        case 0:
            return rng.choice((None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 10**12))
        case 1:
            return rng.choice((0.5, float("nan"), float("inf"), -0.0, 1e300))
        case 2 | 3:
            return rng.choice(
                ("", "x", "y", "n", "a", "C", "<f8", "|O", "<M8[ns]", "list", "PosixPath", "1E+9999", "1e9999999")
            )
        case 4:
            return rng.choice(
                ("2026-01-02", "2026-01-02T03:04:05+00:00", "UTC", "../x", "RED", "READ", "_missing_", "__class__")
            )
        case 5:
            return rng.choice(NAMES)
        case _:
            return rng.randbytes(rng.choice((0, 1, 8, 16)))


def tree(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(6 if depth < 4 else 2):
        case 0 | 1:
            return atom(rng)
        case 2:
            return [tree(rng, depth + 1) for _ in range(rng.randrange(5))]
        case 3:
            return {
                rng.choice(("x", "y", "a", "b", "n", 1, b"k", None)): tree(rng, depth + 1)
                for _ in range(rng.randrange(4))
            }
        case 4:
            fields = {name: tree(rng, depth + 1) for name in rng.choice(("x", "xy", "ab", "n"))}
            rest: list[Any] = [
                rng.choice((None, None, [], {}, tree(rng, depth + 1))) for _ in range(rng.choice((0, 1, 2, 5)))
            ]
            return Ext(OBJECT, msgspec.msgpack.encode([rng.choice(NAMES), fields, *rest]))
        case _:
            return Ext(rng.choice((*range(1, 26), OBJECT, -1, 0, 99)), msgspec.msgpack.encode(tree(rng, depth + 1)))


def inputs(rng: random.Random, count: int) -> Iterator[tuple[Any, bytes]]:
    """What reads, and what it reads."""
    for _ in range(count):
        match rng.randrange(16):
            case 0:
                yield unseal, mutated(rng, rng.choice(FRAMES))
            case 1:
                yield CODEC.decode_error, mutated(rng, rng.choice(ERRORS))
            case 2 | 3 | 4 | 5:
                yield CODEC.decode, msgspec.msgpack.encode(tree(rng))
            case _:
                yield CODEC.decode, mutated(rng, rng.choice(PAYLOADS))


def storm(seed: int, count: int) -> int:
    """How many of `count` inputs were values; fails with the first that was something else."""
    global _watching
    values = 0
    CODEC.unreached()
    before = set(sys.modules)
    for read, data in inputs(random.Random(seed), count):
        _watching = True
        try:
            value = read(data)
        except CodecError:
            continue
        except BaseException as error:
            raise AssertionError(f"{data!r}: {error!r}") from error
        finally:
            _watching = False
        values += 1
        assert not RAN, f"{data!r} made {type(value)}: {RAN}"
        assert type(value) in LEAVE or isinstance(value, numpy.generic | OSError), f"{data!r} made {type(value)}"
    assert not RAN
    assert {name for name in set(sys.modules) - before if not name.startswith(HARMLESS)} == set()
    return values


def test_a_storm_in_the_ordinary_suite() -> None:
    """20,000 inputs; some are values, so that the storm reaches what lies behind the checks."""
    assert storm(seed=1, count=20_000) > 1_000


@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_inputs(part: int) -> None:
    """SCALEKIT_FUZZ inputs in all, a million by default, in ten parts."""
    assert storm(seed=100 + part, count=COUNT // PARTS) > 0
