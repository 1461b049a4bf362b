"""Equal arguments of equal types have one key, in every process; everything else has another."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import functools
import math
import pathlib
import re
import sys
import typing
import uuid
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreters import pythons, run

from scalekit._cache import key as key_module
from scalekit._cache.digest import digest
from scalekit._cache.key import canonical
from scalekit._cache.normal import key_maker


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    A = "a"


class Text(str):
    pass


class Pair(typing.NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


def a_function() -> None: ...


def same(a: Any, b: Any) -> bool:
    """Typed equality, written down without any thought of keys."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return _matched([*a.items()], [*b.items()])
    if isinstance(a, set | frozenset):
        return _matched([*a], [*b])
    if dataclasses.is_dataclass(a):
        return same([*vars(a).values()], [*vars(b).values()])
    if isinstance(a, Decimal):
        return str(a) == str(b)
    return bool(a == b)


def _matched(a: list[Any], b: list[Any]) -> bool:
    b = [*b]
    for one in a:
        place = next((place for place, other in enumerate(b) if same(one, other)), None)
        if place is None:
            return False
        del b[place]
    return not b


hashable_leaves = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2**70, "", "1", "a", "a:b", "None", b"", b"1", b"a", ..., int, str]),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, -math.nan, math.inf, 1e300, 0.5, 0j, -0j, 1 + 0j, complex(0, math.nan)]),
    st.sampled_from([Colour.RED, Level.LOW, Word.A, Text("a"), Decimal("1"), Decimal("1.0"), Decimal("-0")]),
    st.sampled_from(
        [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.timedelta(1), pathlib.PurePosixPath("a"), range(3)]
    ),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=2),
)
hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=4,
)
values = st.recursive(
    st.one_of(hashables, st.binary(max_size=2).map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.dictionaries(st.sampled_from(["role", "content", "a"]), inner, max_size=2), max_size=3),
        st.lists(st.sampled_from([0.0, -0.0, math.nan, 1.0, math.inf, -math.inf]), max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(hashables, inner, max_size=3),
        st.sets(hashables, max_size=3),
        st.builds(Point, inner, inner),
    ),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """A copy of the same value with every dict filled in the opposite order."""
    if type(value) is dict:
        return {turned(one): turned(value[one]) for one in reversed(value)}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(turned, value))
    return copy.deepcopy(value)


@settings(max_examples=400, deadline=None)
@given(values, values)
def test_two_values_have_one_tree_exactly_if_they_are_the_same(a: Any, b: Any) -> None:
    """Two arguments have one key, and one digest, exactly if they are equal and of the same types all the way down."""
    one, two = canonical(a), canonical(b)
    assert (one == two) is same(a, b)
    assert (digest(one) == digest(two)) is same(a, b)
    if one == two:
        assert hash(one) == hash(two)


@settings(max_examples=300, deadline=None)
@given(values)
def test_a_copy_filled_in_another_order_has_the_same_key(value: Any) -> None:
    """A copy of an argument, its dicts filled in another order, finds the answer of the original."""
    one, two = canonical(value), canonical(turned(value))
    assert one == two
    assert hash(one) == hash(two)
    assert digest(one) == digest(two)


@settings(max_examples=300, deadline=None)
@given(st.lists(values, min_size=2, max_size=2), st.lists(values, min_size=2, max_size=2))
def test_two_calls_have_one_key_exactly_if_all_arguments_are_the_same(a: list[Any], b: list[Any]) -> None:
    """Calls share an answer exactly if each of their arguments is the same."""

    def function(x: Any, y: Any) -> None: ...

    signature = key_maker(function)
    assert (signature.key(tuple(a), {}) == signature.key(tuple(b), {})) is (same(a[0], b[0]) and same(a[1], b[1]))


# fmt: off
DIFFERENT: list[Any] = [
    *(1, True, 1.0, "1", b"1", 1 + 0j, Decimal(1), Fraction(1), Level.LOW, np.int64(1), np.float64(1), np.bool_(True)),
    *(0, False, 0.0, -0.0, "0", Decimal("0"), Decimal("-0"), Decimal("0.0"), dt.timedelta(0), complex(0, -0.0)),
    *(None, "", b"", "None", (), [], {}, set(), frozenset(), bytearray(), range(0), deque(), Counter(), OrderedDict()),
    *(math.nan, "nan", Decimal("nan"), np.float64("nan"), [math.nan], [math.inf, -math.inf], (math.nan,)),
    *("a", Text("a"), Word.A, b"a", bytearray(b"a"), memoryview(b"a"), ["a"], ("a",), {"a"}, frozenset({"a"})),
    *(["a:b"], ["a", "b"], ["a", ["b"]], [["a"], "b"], [["a", "b"]], ["a,b"], "['a', 'b']", ("a", "b")),
    *({"a": 1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": None}, {Text("a"): 1}, {b"a": 1}, OrderedDict(a=1)),
    *({1: "x"}, {True: "x"}, {1.0: "x"}, {"1": "x"}, {"x": 1}, {None: "x"}, {(1,): "x"}, {(True,): "x"}, Counter("a")),
    *([{"a": 1}], [{"a": 1}, {"a": 1}], [{"a": 1, "b": 1}], [{"a": 1}, {"b": 1}], ({"a": 1},), [{}], [{}, {}], [None]),
    *(defaultdict(list, a=1), defaultdict(dict, a=1), {"a": {"b": 1}}, {"a": {"b": {}}}, {"a": ["b"]}, [("a", 1)]),
    *(Colour.RED, Colour.BLUE, Pair(1, 2), (1, 2), [1, 2], {1, 2}, range(1, 3), slice(1, 2), slice(1, 2, 1), slice(2)),
    *(Point(1), Point(1, 2), Point(True), {"x": 1, "y": None}, (1, None), int, bool, "int", list, list[int], list[str]),
    *(int | str, typing.List[int], typing.Literal["a"], typing.Any, a_function, same, len, str.lower),  # noqa: UP006
    *(functools.partial(same), functools.partial(same, 1), functools.partial(same, a=1), functools.partial(same, True)),
    *(dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, fold=1), dt.time(1), dt.time()),
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    *(uuid.UUID(int=1), uuid.UUID(int=2), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), NotImplemented),
    *(re.compile("a"), re.compile(b"a"), re.compile("a", re.I), re.compile("b"), array("d", [1]), array("i", [1]), ...),
    *(np.array([1]), np.array([1], "i4"), np.array([1.0]), np.array([[1]]), np.array([1, 1]), np.array([True])),
    *(np.array(1), np.array(["a"]), np.array(["a"], object), np.array([], "f4"), np.array([], "f8")),
    *(np.zeros(9000), np.zeros(9001), np.dtype("f4"), np.dtype("f8"), np.longdouble(1), np.datetime64("2020-01-01")),
    *(np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0]), np.array([(1,)], [("a", "i4")])),
    *(pd.Series([1]), pd.Series([1.0]), pd.Series([1], name="n"), pd.Series([1], index=[1]), pd.Series(["1"])),
    *(pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]}), pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": [1]}, [5])),
    *(pd.Categorical(["a"]), pd.Categorical(["a"], categories=["a", "b"]), pd.Categorical(["a"], ordered=True)),
    *(pd.Series(["a"], dtype="category"), pd.array([1, None]), pd.Timestamp("2020"), pd.Timedelta(1), pd.NaT, pd.NA),
    *(pd.Index([1]), pd.Index([1], name="n"), pd.MultiIndex.from_tuples([(1, "a")]), pd.date_range("2020", periods=2)),
    *(math.inf, -math.inf, 2**70, -(2**70), "\ud800", "é", "e\u0301", 10**5000),
]
# fmt: on


def test_what_can_be_told_apart_has_keys_apart() -> None:
    """No two of two hundred arguments that other libraries confuse, or might, share a key or a digest."""
    trees = [canonical(value) for value in DIFFERENT]
    digests = [digest(tree) for tree in trees]
    for place, value in enumerate(DIFFERENT):
        for other in range(place):
            assert trees[place] != trees[other], (value, DIFFERENT[other])
            assert digests[place] != digests[other], (value, DIFFERENT[other])
        again = value if type(value) is memoryview else copy.deepcopy(value)
        assert canonical(again) == trees[place], value


def test_the_seen_keys_of_dicts_do_not_let_other_types_of_keys_through() -> None:
    """A dict whose keys only equal the strings of a dict seen before has a key of its own."""
    plain = canonical({"a": 1, "b": 2})
    assert canonical({Text("a"): 1, "b": 2}) != plain
    assert canonical({Word.A: 1, "b": 2}) != plain
    assert canonical([{"a": 1}, {Word.A: 1}]) != canonical([{"a": 1}, {"a": 1}])


def test_nan_is_equal_to_every_nan() -> None:
    """A nan finds the answer of a nan, also in lists, dicts, arrays and as a negative one."""
    for wrap in (
        lambda x: x,
        lambda x: [x],
        lambda x: [x, 1],
        lambda x: {"a": x},
        np.float64,
        lambda x: np.array([x, 0.0]),
    ):
        assert canonical(wrap(math.nan)) == canonical(wrap(-math.nan)) == canonical(wrap(float("inf") - float("inf")))


def test_two_plain_objects_in_a_set_are_counted() -> None:
    """A set of two objects of one value is not the set of one of them."""

    @dataclasses.dataclass(eq=False)
    class Loose:
        x: int

    one, two = canonical({Loose(1)}), canonical({Loose(1), Loose(1)})
    assert one != two == canonical({Loose(1), Loose(1)})
    assert canonical({math.nan: 1, float("nan"): 1, float("nan"): 2}) != canonical(
        {math.nan: 1, float("nan"): 2, -math.nan: 2}
    )


def test_the_shapes_of_dicts_that_are_remembered_are_bounded() -> None:
    """A hundred thousand differently shaped dicts leave no more than a thousand behind, nor do large ones stay."""
    for place in range(3000):
        canonical({f"key{place}": 1})
    canonical(dict.fromkeys(map(str, range(100)), 1))
    assert len(key_module._SHAPES) <= 1024
    assert max(map(len, key_module._SHAPES)) <= 64


def test_the_key_of_a_large_array_is_small() -> None:
    """A ten-megabyte array is keyed by its SHA-256, not by a copy of its bytes."""
    array = np.arange(1_250_000)
    tree = canonical(array)
    assert len(repr(tree)) < 300
    array[77] += 1
    assert canonical(array) != tree


ELSEWHERE = """
import json, math, datetime, decimal, uuid, pathlib, enum, re, collections, functools
from scalekit._cache.key import canonical
from scalekit._cache.digest import digest
class Level(enum.IntEnum):
    LOW = 1
values = [
    1, True, 1.0, -0.0, math.nan, "a", "\\ud800", b"a", None, 2 ** 70, -1, 10 ** 5000, 1j, ..., int,
    [1, "a"], (1, 2), {"b": 1, "a": [0.5, -0.0, math.nan]}, {1: 2, "x": {3, "y"}}, {"a", "b"}, frozenset({1, 2.0}),
    [{"role": "user", "content": "hi"}, {"content": "x", "role": "y", "z": None}], [0.1] * 20000, Level.LOW,
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1), decimal.Decimal("1.5"), uuid.UUID(int=5),
    pathlib.PurePosixPath("a/b"), re.compile("a+"), range(3), collections.OrderedDict(a=1), collections.Counter("ab"),
    functools.partial(json.dumps, sort_keys=True), len, json.dumps, list[int], bytearray(b"x"),
]
print(json.dumps([digest(canonical(value)) for value in values]))
"""


def test_digests_are_the_same_in_every_process_and_python() -> None:
    """A digest is the same under other hash seeds and other Pythons, and so it is for ever."""
    found = [run(python, ELSEWHERE, seed) for seed, python in enumerate([sys.executable, *pythons()])]
    assert all(one == found[0] for one in found)
    assert len({*found[0]}) == len(found[0])
    assert digest(canonical([{"role": "user", "content": "hi"}])) == "8ee1a0a0a4c3096d1ea7042c7157b5378fb035a3"


def test_keys_need_and_load_no_other_package() -> None:
    """Keying imports neither numpy, pandas, pydantic nor slow parts of the standard library."""
    program = """
import json
from scalekit._cache import digest, identity, normal
normal.key_maker(lambda a, b=1: None).key(({"a": [1.5]},), {})
unwanted = "numpy pandas pydantic attrs msgspec decimal datetime uuid pathlib asyncio typing_extensions".split()
print(json.dumps(sorted({*unwanted} & sys.modules.keys())))
"""
    assert run(sys.executable, program, 0) == []
