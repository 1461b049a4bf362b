"""The standard library's values: what each is written as, and how it is made anew.

A code is for ever: it stands in files. The body of an extension is decoded before its maker sees it, so a maker has
plain data or finished values before it, of whatever types the bytes chose. A maker that would take more than it should
(`Fraction("1e999999999")` never ends, `bytearray(10**12)` is all memory) looks first; whatever it raises is a miss.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from scalekit._cache.codec_walk import BIG, MAP, TEXT, Encoding, Refused, Tree, Writer, ext

__all__ = ["MAKERS", "WRITERS", "Maker", "exactly", "writer"]

T = TypeVar("T")
Body = Callable[[Any, Encoding, int], Tree]
Maker = Callable[[Any], Any]

_ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")
_PATHS: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (PurePosixPath, PureWindowsPath, PosixPath, WindowsPath)
}
_FACTORIES: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, dict, tuple, set, frozenset, deque, Counter, OrderedDict)
}


def exactly(kind: type[T], body: Any) -> T:
    """`body`, if it is of this very type."""
    if type(body) is not kind:
        raise TypeError(f"{kind.__name__} was expected, not {type(body).__name__}")
    return body


# bodies ---------------------------------------------------------------------------------------------------------------


def _items(value: Any, encoding: Encoding, depth: int) -> Tree:
    return encoding.items(value, depth)


def _plain(read: Callable[[Any], Any]) -> Body:
    return lambda value, encoding, depth: encoding.tree(read(value), depth)


def _parts(read: Callable[[Any], Sequence[Any]]) -> Body:
    return lambda value, encoding, depth: encoding.items(read(value), depth)


def _moment(value: Any, encoding: Encoding, depth: int) -> Tree:
    """A datetime or time: ISO 8601, alone if that is all of it, else with `fold` and its time zone."""
    zone = value.tzinfo
    if not value.fold and (zone is None or zone is UTC):
        return value.isoformat()
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, encoding.tree(zone, depth + 1)]


def _zone(value: Any, encoding: Encoding, depth: int) -> Tree:
    if value.key is None or not _ZONE_KEY.fullmatch(value.key):
        raise Refused(value, "and has no key in the time zone database")
    return value.key


def _path(value: Any, encoding: Encoding, depth: int) -> Tree:
    return [type(value).__name__, encoding.tree(str(value), depth)]


def _deque(value: Any, encoding: Encoding, depth: int) -> Tree:
    return [value.maxlen, encoding.items(value, depth)]


def _bare_pairs(value: Any, encoding: Encoding, depth: int) -> Tree:
    """OrderedDict and Counter, whose objects may carry attributes as well."""
    if value.__dict__:
        raise Refused(value, "and carries attributes of its own")
    return encoding.pairs(value, depth)


def _defaultdict(value: Any, encoding: Encoding, depth: int) -> Tree:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and _FACTORIES.get(name) is not factory:
        raise Refused(value, f"and its factory {factory!r} is no builtin container or number")
    return [name, encoding.pairs(value, depth)]


# makers ---------------------------------------------------------------------------------------------------------------


def _spread(make: Callable[..., Any], *kinds: type) -> Maker:
    """Call `make` with the items of a list, each of which is of one of `kinds`, if they are given."""

    def spread(body: Any) -> Any:
        parts = exactly(list, body)
        if kinds and not all(type(part) in kinds for part in parts):
            raise TypeError(f"unexpected parts of {make}")
        return make(*parts)

    return spread


def _from_list(make: Callable[[list[Any]], Any]) -> Maker:
    return lambda body: make(exactly(list, body))


def _moment_from(kind: Any) -> Maker:
    def moment(body: Any) -> Any:
        if type(body) is str:
            return kind.fromisoformat(body)
        text, fold, zone = exactly(list, body)
        return kind.fromisoformat(text).replace(tzinfo=zone, fold=fold)

    return moment


def _zone_from(body: Any) -> ZoneInfo:
    if not _ZONE_KEY.fullmatch(exactly(str, body)):
        raise ValueError("no key of a time zone")
    return ZoneInfo(body)


def _path_from(body: Any) -> Any:
    name, text = exactly(list, body)
    return _PATHS[name](exactly(str, text))


def _deque_from(body: Any) -> Any:
    bound, items = exactly(list, body)
    return deque(exactly(list, items), bound)


def _pairs_from(body: Any) -> Iterator[tuple[Any, Any]]:
    items = iter(exactly(list, body))
    return zip(items, items, strict=True)


def _defaultdict_from(body: Any) -> Any:
    name, pairs = exactly(list, body)
    return defaultdict(None if name is None else _FACTORIES[name], _pairs_from(pairs))


def _counter_from(body: Any) -> Any:
    counter: Counter[Any] = Counter()
    dict.update(counter, _pairs_from(body))  # Counter's own would count the pairs
    return counter


_KINDS: Sequence[tuple[int, type, Body, Maker]] = [
    (4, complex, _parts(lambda value: (value.real, value.imag)), _spread(complex, float)),
    (5, bytearray, _plain(bytes), lambda body: bytearray(exactly(bytes, body))),
    (6, tuple, _items, _from_list(tuple)),
    (7, set, _items, _from_list(set)),
    (8, frozenset, _items, _from_list(frozenset)),
    (9, range, _parts(lambda value: (value.start, value.stop, value.step)), _spread(range, int)),
    (10, datetime, _moment, _moment_from(datetime)),
    (11, date, _plain(date.isoformat), date.fromisoformat),
    (12, time, _moment, _moment_from(time)),
    (13, timedelta, _parts(lambda value: (value.days, value.seconds, value.microseconds)), _spread(timedelta, int)),
    (14, timezone, _parts(lambda value: value.__getinitargs__()), _spread(timezone)),
    (15, ZoneInfo, _zone, _zone_from),
    (16, UUID, _plain(lambda value: value.bytes), lambda body: UUID(bytes=exactly(bytes, body))),
    (17, Decimal, _plain(str), lambda body: Decimal(exactly(str, body))),
    (18, Fraction, _parts(lambda value: (value.numerator, value.denominator)), _spread(Fraction, int)),
    *[(19, kind, _path, _path_from) for kind in _PATHS.values()],
    (20, deque, _deque, _deque_from),
    (21, OrderedDict, _bare_pairs, lambda body: OrderedDict(_pairs_from(body))),
    (22, defaultdict, _defaultdict, _defaultdict_from),
    (23, Counter, _bare_pairs, _counter_from),
]


def writer(code: int, body: Body) -> Writer:
    """Write a value as the extension `code` with this body."""
    return lambda value, encoding, depth: ext(code, body(value, encoding, depth))


WRITERS: Mapping[type, Writer] = {kind: writer(code, body) for code, kind, body, _ in _KINDS}
"""What writes the values of exactly this type."""

MAKERS: Mapping[int, Maker] = {
    **{code: make for code, _, _, make in _KINDS},
    BIG: lambda body: int.from_bytes(exactly(bytes, body), "little", signed=True),
    TEXT: lambda body: exactly(bytes, body).decode("utf-8", "surrogatepass"),
    MAP: lambda body: dict(_pairs_from(body)),
}
"""What makes a value of the decoded body of an extension."""
