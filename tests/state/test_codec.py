"""A value comes back from its bytes exactly as it was, or is refused with its place; bytes are bounded both ways."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import io
import math
import pathlib
import struct
import subprocess
import sys
import tracemalloc
import uuid
import zoneinfo
from typing import Any

import msgspec
import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from scalekit._cache.codec import Codec
from scalekit._cache.codec_walk import DEPTH
from scalekit.errors import CodecError

CODEC = Codec("ask")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
pack = msgspec.msgpack.encode


def exact(one: Any, other: Any) -> bool:
    """Same types all the way down, same values, same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        extra = isinstance(one, collections.defaultdict) and one.default_factory is not other.default_factory
        return not extra and exact(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return exact(sorted(one, key=repr), sorted(other, key=repr))
    if isinstance(one, list | tuple | collections.deque):
        bound = getattr(one, "maxlen", None) == getattr(other, "maxlen", None)
        return bound and len(one) == len(other) and all(map(exact, one, other))
    same = isinstance(one, decimal.Decimal) or one == other or one != one  # a signalling nan cannot be asked
    return repr(one) == repr(other) and bool(same)


def returned(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


VALUES = [
    *(None, True, False, 0, -1, 2**63, -(2**63), 2**64, -(2**63) - 1, 10**4_000, -(10**30), 1.5, 0.0, -0.0),
    *(math.nan, math.inf, -math.inf, 5e-324, 1j, complex(-0.0, math.nan), "", "é😀\0", "\ud800", "a\udcffb"),
    *(b"", b"\x00\xff", bytearray(b"ab"), [], {}, (), ((),), set(), frozenset(), {1, "a", (2,)}, frozenset({b"x"})),
    *(range(3), range(9, 1, -2), range(2**70), [1, [2.0, ["x"]]], (1, [2, (3,)]), [2**80, "\ud800", 1]),
    *({"b": 1, "a": 2}, {1: "int", 2.0: "float", None: 0, b"x": 1, "s": 2}, {(1, "a"): {"deep": (1,)}}, {"\ud800": 1}),
    *({True: "yes"}, {2**70: 1}, {frozenset({1}): [1]}, {dt.date(2026, 1, 2): decimal.Decimal("1.10")}),
    *(dt.datetime(2026, 1, 2, 3, 4, 5, 6), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.datetime.min, dt.datetime.max),
    *(dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN), dt.datetime(2026, 10, 25, 2, 30, fold=1)),
    *(dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3), "X")), dt.date.min, dt.date(2026, 1, 2)),
    *(dt.time(1, 2, 3, 4), dt.time(1, fold=1), dt.time(1, tzinfo=dt.UTC), dt.timedelta(-1, 5, 7), dt.timedelta.max),
    *(dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), dt.timezone(dt.timedelta(0), "GMT"), BERLIN),
    *(
        uuid.UUID(int=5),
        decimal.Decimal("-0"),
        decimal.Decimal("1.10"),
        decimal.Decimal("sNaN7"),
        fractions.Fraction(-1, 3),
    ),
    *(decimal.Decimal("1E+999999"), fractions.Fraction(2**90, 3), pathlib.PurePosixPath("/a/b"), pathlib.Path("x/é")),
    *(pathlib.PureWindowsPath("c:/x"), pathlib.PurePosixPath("/\udcff"), collections.deque([1, (2,)], maxlen=3)),
    *(collections.OrderedDict(b=(1,), a=2), collections.Counter("aab"), collections.defaultdict(list, {"a": [1]})),
    *(collections.defaultdict(None, {1: 2}), collections.deque(), collections.Counter({("a", 1): -2})),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_of_the_standard_library_come_back_exactly(value: Any) -> None:
    """Same type, equal, same order and same repr, alone and inside of others."""
    assert exact(returned(value), value)
    assert exact(returned([value, {"k": (value,)}]), [value, {"k": (value,)}])


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(codec=None, exclude_categories=())),
    st.binary(),
    st.datetimes(timezones=st.one_of(st.none(), st.just(dt.UTC), st.timezones())),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.fractions(),
)
HASHABLE = st.deferred(lambda: ATOMS | st.lists(ATOMS, max_size=3).map(tuple) | st.frozensets(ATOMS, max_size=3))
TREES: st.SearchStrategy[Any] = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
        st.lists(inner, max_size=3).map(collections.deque),
        st.sets(HASHABLE, max_size=3),
    ),
    max_leaves=20,
)


@given(TREES)
def test_any_tree_comes_back_exactly(value: Any) -> None:
    """Whatever is made of the kinds above, in any nesting."""
    assert exact(returned(value), value)


@given(TREES)
def test_bytes_are_the_same_in_another_codec(value: Any) -> None:
    """Nothing of one codec is in its bytes: another function's, or another process's, reads them."""
    assert exact(Codec("other").decode(CODEC.encode(value)), value)


ARRAYS = [
    numpy.arange(6, dtype="<i2").reshape(2, 3),
    numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)),
    numpy.arange(20.0)[::3],
    numpy.array([1 + 2j, numpy.nan]),
    numpy.array(["a", "bé"]),
    numpy.array([b"a\0b"]),
    numpy.array([True, False]),
    numpy.array(["2026-01-02", "NaT"], dtype="M8[ns]"),
    numpy.array([5], dtype=">u4"),
    numpy.array(7),
    numpy.zeros((0, 3)),
    numpy.zeros(2, dtype=[("id", "<i4"), ("v", "<f4", (2,)), ("in", [("a", "|u1")])]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_arrays_keep_dtype_shape_order_and_content(array: Any) -> None:
    """A numpy array comes back equal and writable, in C or Fortran order as it was."""
    back = returned(array)
    assert type(back) is numpy.ndarray
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable
    assert back.flags.f_contiguous >= (array.flags.f_contiguous and not array.flags.c_contiguous)


SCALARS = [
    *(numpy.float64(1.5), numpy.float32("nan"), numpy.int8(-3), numpy.uint64(2**64 - 1), numpy.bool_(True)),
    *(
        numpy.complex64(1j),
        numpy.datetime64("2026-01-02"),
        numpy.timedelta64(3, "s"),
        numpy.str_("a\0"),
        numpy.bytes_(b"a\0"),
    ),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_numpy_scalars_are_not_taken_for_their_python_cousins(scalar: Any) -> None:
    """float64 is a float, and str_ a str; they come back as what they were."""
    back = returned([scalar])[0]
    assert type(back) is type(scalar)
    assert repr(back) == repr(scalar)


NAMELESS = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"
"""A file of a time zone, from nowhere."""


class Words(list[str]):
    pass


class Table(dict[str, int]):
    pass


class Client:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"choices": [{"client": Client()}]},
            r"answer\['choices'\]\[0\]\['client'\] is of type tests\.state\.test_codec\.Client, which",
        ),
        ((1, Words()), r"answer\[1\] is of type tests\.state\.test_codec\.Words, a subclass of list"),
        ({"a": Table()}, r"answer\['a'\] is of type tests\.state\.test_codec\.Table, a subclass of dict"),
        ({(1, 2): {3, Client}}, r"answer\[\(1, 2\)\]\[.\] is of type builtins\.type"),
        ({Client(): 1}, r"answer\.keys\(\) is of type tests\.state\.test_codec\.Client"),
        ([open], "builtin_function_or_method"),
        (memoryview(b""), "answer is of type builtins.memoryview, which"),
        (ValueError("x"), "ValueError"),
        (pandas.DataFrame(), "DataFrame"),
        (numpy.array([object()]), "dtype object"),
        (numpy.ma.masked_array([1]), "MaskedArray"),
        (collections.defaultdict(lambda: 0), "factory"),
        (zoneinfo.ZoneInfo.from_file(io.BytesIO(NAMELESS)), "no key"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_says_where_and_what(value: Any, message: str) -> None:
    """What has no form as bytes is never flattened into something else; the message leads to it."""
    with pytest.raises(CodecError, match=message) as caught:
        CODEC.encode(value)
    assert str(caught.value).startswith("ask: answer")


def test_a_cycle_is_refused() -> None:
    """A list in itself, a dict in itself through a tuple: an error, not a recursion."""
    ring: list[Any] = []
    ring.append(ring)
    knot: dict[str, Any] = {}
    knot["k"] = (1, knot)
    for value in (ring, knot):
        with pytest.raises(CodecError, match="contains itself"):
            CODEC.encode(value)


def test_shared_references_become_copies_until_they_are_too_many() -> None:
    """One object in two places comes back as two; 2**90 of them are refused in seconds, not written for ever."""
    part = [1]
    one, other = returned([part, part])
    assert one == other == [1]
    assert one is not other
    value: Any = [0]
    for _ in range(90):
        value = [value, value]
    with pytest.raises(CodecError, match="refers to the same ones again"):
        CODEC.encode(value)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {(1,): v}])
def test_depth_is_bounded_when_encoding(wrap: Any) -> None:
    """What lies 100 levels deep comes back; one level more is refused."""
    value: Any = ()
    for _ in range(DEPTH - 1):
        value = wrap(value)
    assert exact(returned(value), value)
    with pytest.raises(CodecError, match="too deep"):
        CODEC.encode(wrap(value))


def nested(levels: int) -> bytes:
    payload = pack(0)
    for _ in range(levels):
        payload = pack(Ext(6, b"\x91" + payload))
    return payload


HUGE = [
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"),
    *(b"\xc9\xff\xff\xff\xff\x06", b"\x91\xdd\x7f\xff\xff\xff\x01"),
    *(b"\x91" * 1_000_000 + b"\x90", nested(3_000), nested(DEPTH + 1)),
    pack(Ext(5, pack(10**12))),  # a bytearray of a length
    pack(Ext(18, pack(["1e999999999", 1]))),  # a Fraction that never ends
    pack(Ext(24, pack(["<f8", [2**31, 2**31], "C", b""]))),
    pack(Ext(24, pack(["<f8", [-1], "C", bytes(8)]))),
    pack(Ext(24, pack(["|V0", [2**40], "C", b""]))),
    pack(Ext(24, pack(["|O", [1], "C", bytes(8)]))),
    pack(Ext(24, pack([[["a", "|O8", []]], [1], "C", bytes(8)]))),
    pack(Ext(15, pack("../../etc/passwd"))),
    pack(Ext(13, pack([10**18, 0, 0]))),
    pack(Ext(9, pack([0, 1, 0]))),
    pack(Ext(99, pack(1))),
    pack(Ext(3, pack([1]))),
    pack(Ext(7, pack([[1]]))),
    b"",
    b"\xc1",
    b"\x01\x02",
]


@pytest.mark.parametrize("payload", HUGE, ids=lambda payload: payload[:12].hex())
def test_hostile_bytes_are_an_error_and_nothing_more(payload: bytes) -> None:
    """Lengths that are not there, depth without end, bodies of the wrong type: CodecError, within little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="ask"):
            CODEC.decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(payload) + 2_000_000
    finally:
        tracemalloc.stop()


def test_depth_is_bounded_where_the_interpreter_does_not() -> None:
    """A program that has raised the recursion limit to a million gets an error too, not a crash."""
    program = (
        "import sys; sys.setrecursionlimit(10**6)\n"
        "from scalekit._cache.codec import Codec\n"
        "codec = Codec('f')\n"
        "payloads = [b'\\x91' * 10**6 + b'\\x90', (b'\\x91\\xcb' + bytes(8) + b'\\x92\\xa1a') * 10**5,\n"
        "            b'\\xc7\\x0c\\xff' + b'\\x91' * 10**6, (b'\\x92\\xd4\\x05\\x90') * 10**6]\n"
        "for payload in payloads:\n"
        "    try: codec.decode(payload)\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(codec.decode(codec.encode([[float(i), {'k': [b'x', 2**70]}] for i in range(5_000)]))[-1][0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["CodecError"] * 4 + ["4999.0"], done.stderr
