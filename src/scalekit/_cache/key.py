"""The canonical form of an argument: a hashable tree that is equal for equal arguments of equal types, and only then.

Every library that joins strings, or trusts `==`, answers somebody with somebody else's value: `1 == True == 1.0`,
`"a:b"` is `"a"` and `"b"` joined, `0.0 == -0.0`, a `StrEnum` equals its string, a dict remembers the order in which it
was filled. So a key here is built from pairs *(type, body)*, where the type alone decides what the body means:

    str int bool bytes None     the value itself
    float                       the value; for 0.0, -0.0 and nan, which `==` gets wrong, their text
    list, tuple                 (the type of all items, *bodies), or (the type of each item, *bodies);
                                floats only: (float, their 8 bytes each); dicts only: see `_rows`
    dict with str keys          (keys in order, types of the values, *bodies)
    other dicts, sets           a frozenset of nodes, with counts where two nodes are equal
    everything else             see kinds.py; a class that stands there says how

What is distinguishable is kept apart (`Decimal("1.0")` and `Decimal("1.00")`, one instant in two time zones): a hit
less costs a call, a wrong answer costs a user. Classes are in the tree as objects, so that two classes of one name
differ in memory; digest.py writes their names. The tree holds builtins, classes and functions only, hence comparing
and hashing it never runs code of the user's.

It is walked once per call that the fast index cannot answer, so the shape is what CPython does well: the types of a
whole container by one `map(type, ...)`, atoms taken over as they are, and for a dict one `itemgetter` of the sorted
keys, kept for each tuple of keys that was seen. A chat of 20 messages, 18 kB, is keyed and looked up in a fifth of the
time of json.dumps(sort_keys=True) and sha256.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable
from itertools import chain, islice, repeat
from math import isnan, nan
from operator import itemgetter
from typing import Any, Final, cast

from scalekit.errors import UnkeyableArgument

__all__ = [
    "ATOMS",
    "BODIES",
    "Body",
    "Kind",
    "Refused",
    "Tree",
    "attributes",
    "bag",
    "blob",
    "canonical",
    "keyed",
    "kind_of",
    "node",
    "sequence",
    "table",
]

Tree = Hashable
Body = Callable[[Any, int], Tree]
Kind = type[Any]

ATOMS: Final[frozenset[Kind]] = frozenset({str, int, bool, bytes, type(None)})
DEEPEST: Final = 200
_STRINGS: Final[set[Kind]] = {str}
_LARGE: Final = 1 << 16


class Refused(Exception):
    """Something has no canonical form; each container on the way out adds where it stood."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = type(value)
        self.reason = reason
        self.parts: list[str] = []

    def under(self, part: str) -> Refused:
        self.parts.append(part)
        return self


def canonical(value: Any, path: str = "value", function: str | None = None) -> Tree:
    """The tree of `value`. `path` and `function` are for the message of `UnkeyableArgument`."""
    kind = kind_of(value)
    return (kind, keyed(BODIES[kind], value, path, function))


def keyed(body: Body, value: Any, path: str, function: str | None = None) -> Tree:
    """`body(value)`; whatever stands in the way becomes an `UnkeyableArgument` that says where and what to do."""
    for _ in range(5):
        try:
            return body(value, 1)
        except Refused as refused:
            raise _unkeyable(refused, path, function) from None
        except RecursionError:
            raise _unkeyable(_too_deep(value), path, function) from None
        except RuntimeError as error:  # another thread changed a container between two of its items
            if "during iteration" not in str(error):
                raise
        except TypeError as error:
            if "unhashable type" not in str(error):
                raise
            raise _unkeyable(Refused(value, f"cannot be hashed ({error})"), path, function) from error
    raise _unkeyable(Refused(value, "kept changing while it was read"), path, function)


def kind_of(value: object) -> Kind:
    """`type(value)`, for type checkers that know nothing of the type of Any."""
    return type(value)


def node(value: object, depth: int) -> Tree:
    """(type, body) of a value inside another one."""
    kind: Kind = type(value)
    if kind in ATOMS:
        return (kind, value)
    if depth > DEEPEST:
        raise _too_deep(value)
    return (kind, BODIES[kind](value, depth))


def sequence(items: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
    """The body of an ordered container, whose items were taken out at once so that nobody can change them."""
    distinct: set[Kind] = {*map(type, items)}
    if len(distinct) == 1:
        (kind,) = distinct
        if kind in ATOMS:
            return (kind, *items)
        if kind is float:
            return (kind, _packed(items))
        if depth > DEEPEST:
            raise _too_deep(items[0])
        if kind is dict:
            return (kind, *_rows(items, depth + 1))
        body = BODIES[kind]
        bodies: list[Tree] = []
        try:
            for item in items:
                bodies.append(body(item, depth + 1))
        except Refused as refused:
            raise refused.under(f"[{len(bodies)}]") from None
        return (kind, *bodies)
    kinds: tuple[Kind, ...] = tuple(map(type, items))
    if ATOMS.issuperset(distinct):
        return (kinds, *items)
    return (kinds, *_mixed(kinds, items, depth, "[{}]", range(len(items))))


def table(keys: tuple[str, ...], values: tuple[Any, ...], depth: int, label: str) -> tuple[Any, ...]:
    """The body of what has named values: a dict, the fields of an object. `keys` are in their final order."""
    kinds: tuple[Kind, ...] = tuple(map(type, values))
    if ATOMS.issuperset(kinds):
        return (keys, kinds, *values)
    return (keys, kinds, *_mixed(kinds, values, depth, label, keys))


def attributes(names: Iterable[str], value: Any, depth: int) -> tuple[Any, ...]:
    """The body of an object's attributes `names`; one that is not set is left out."""
    missing = object()
    pairs = [(name, read) for name in names if (read := getattr(value, name, missing)) is not missing]
    return table(tuple([name for name, _ in pairs]), tuple([read for _, read in pairs]), depth, ".{}")


def bag(nodes: list[Tree]) -> Tree:
    """The body of what has no order. Nodes can be equal where the values were not: two nan, two plain objects."""
    alone = frozenset(nodes)
    if len(alone) == len(nodes):
        return alone
    counts: dict[Tree, int] = {}
    for one in nodes:
        counts[one] = counts.get(one, 0) + 1
    return ("counted", frozenset(counts.items()))


def blob(data: bytes) -> Tree:
    """The bytes of an array; a large one is kept as its SHA-256, so that a key is not as large as the data."""
    if len(data) <= _LARGE:
        return data
    import hashlib

    return ("sha256", len(data), hashlib.sha256(data).digest())


def _rows(items: tuple[dict[Any, Any], ...], depth: int) -> tuple[Any, ...]:
    """The body of several dicts, as a chat has them: the keys of each (once, if all have the same), then all values.

    Column by column everything is done in C, which is five times as fast as dict by dict.
    """
    if len(items) == 1:
        try:
            only: Any = _dict(items[0], depth)
        except Refused as refused:
            raise refused.under("[0]") from None
        return only if type(only) is tuple and type(only[0]) is tuple else (None, only)
    keys: list[tuple[Any, ...]] = [*map(tuple, items)]
    if {*map(type, chain.from_iterable(keys))} != _STRINGS or () in keys:
        bodies: list[Tree] = []
        try:
            for item in items:
                bodies.append(_dict(item, depth))
        except Refused as refused:
            raise refused.under(f"[{len(bodies)}]") from None
        return (None, *bodies)
    try:
        if keys.count(keys[0]) == len(keys):
            ordered, read = _SHAPES.get(keys[0]) or _shape(keys[0])
            rows: Iterable[tuple[str, ...]] = repeat(ordered)
            names: tuple[Any, ...] = ordered
            values: tuple[Any, ...] = (*chain.from_iterable(map(read, items)),)
        else:
            shapes = [_SHAPES.get(one) or _shape(one) for one in keys]
            rows = names = tuple([ordered for ordered, _ in shapes])
            values = (*chain.from_iterable([read(one) for (_, read), one in zip(shapes, items, strict=True)]),)
            if names.count(names[0]) == len(names):  # the same keys, filled in another order
                names = names[0]
    except KeyError:  # another thread took a key away
        return _rows(tuple([item.copy() for item in items]), depth)
    kinds: tuple[Kind, ...] = tuple(map(type, values))
    if not ATOMS.issuperset(kinds):
        places = (f"[{row}][{_shown(key)}]" for row, ordered in enumerate(rows) for key in ordered)
        values = tuple(_mixed(kinds, values, depth, "{}", places))
    return (names, kinds, *values)


def _mixed(
    kinds: tuple[Kind, ...], values: tuple[Any, ...], depth: int, label: str, places: Iterable[Any]
) -> list[Tree]:
    if depth > DEEPEST:
        raise _too_deep(values[0])
    bodies: list[Tree] = []
    try:
        for kind, value in zip(kinds, values, strict=True):
            bodies.append(value if kind in ATOMS else BODIES[kind](value, depth + 1))
    except Refused as refused:
        (place,) = islice(places, len(bodies), len(bodies) + 1)
        raise refused.under(label.format(_shown(place) if label == "[{}]" else place)) from None
    return bodies


def _packed(items: tuple[float, ...]) -> Tree:
    if isnan(sum(items)):  # or inf - inf: then nothing changes
        items = tuple([item if item == item else nan for item in items])
    return blob(struct.pack(f"<{len(items)}d", *items))


def _float(value: float, depth: int) -> Tree:
    return value if value == value and value != 0 else repr(value)


def _list(value: list[Any], depth: int) -> Tree:
    return sequence(tuple(value), depth)


_SHAPES: dict[tuple[str, ...], tuple[tuple[str, ...], Callable[[Any], Any]]] = {}


def _dict(value: dict[Any, Any], depth: int) -> Tree:
    keys: tuple[Any, ...] = tuple(value)
    if {*map(type, keys)} != _STRINGS:
        return _pairs(value, depth)
    try:
        ordered, read = _SHAPES[keys]
    except KeyError:
        ordered, read = _shape(keys)
    try:
        values: tuple[Any, ...] = read(value)
    except KeyError:  # another thread took a key away
        return _dict(value.copy(), depth)
    kinds: tuple[Kind, ...] = tuple(map(type, values))
    if ATOMS.issuperset(kinds):
        return (ordered, kinds, *values)
    return (ordered, kinds, *_mixed(kinds, values, depth, "[{}]", ordered))


def _shape(keys: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[Any], Any]]:
    ordered = tuple(sorted(keys))
    if len(ordered) == 1:
        (only,) = ordered

        def read(value: Any) -> Any:  # itemgetter of one key gives the bare value
            return (value[only],)

        found: tuple[tuple[str, ...], Callable[[Any], Any]] = ordered, read
    else:
        found = ordered, cast(Callable[[Any], Any], itemgetter(*ordered))
    if len(keys) <= 64:
        if len(_SHAPES) >= 1024:
            _SHAPES.clear()
        _SHAPES[keys] = found
    return found


def _pairs(value: dict[Any, Any], depth: int) -> Tree:
    nodes: list[Tree] = []
    for key, item in tuple(value.items()):
        try:
            named = node(key, depth + 1)
        except Refused as refused:
            raise refused.under(" (one of its keys)") from None
        try:
            nodes.append((named, node(item, depth + 1)))
        except Refused as refused:
            raise refused.under(f"[{_shown(key)}]") from None
    return bag(nodes)


def _set(value: frozenset[Any] | set[Any], depth: int) -> Tree:
    items = tuple(value)
    distinct: set[Kind] = {*map(type, items)}
    if len(distinct) == 1 and ATOMS.issuperset(distinct):
        return (*distinct, frozenset(items))
    try:
        return bag([node(item, depth + 1) for item in items])
    except Refused as refused:
        raise refused.under(" (one of its items)") from None


def _atom(value: Hashable, depth: int) -> Tree:
    return value


class _Bodies(dict[Kind, Body]):
    """The body of each type. Classes are looked at once, when they are first seen; see kinds.py."""

    def __missing__(self, kind: Kind) -> Body:
        from scalekit._cache.kinds import resolve

        if len(self) >= 2048:  # classes made by the thousand are let go
            for known in [*self]:
                if known not in _BUILTIN:
                    self.pop(known, None)
        self[kind] = body = resolve(kind)
        return body


_BUILTIN: Final[dict[Kind, Body]] = {
    **dict.fromkeys(ATOMS, _atom),
    float: _float,
    list: _list,
    tuple: sequence,
    dict: _dict,
    set: _set,
    frozenset: _set,
}
BODIES: Final = _Bodies(_BUILTIN)


def _shown(place: Any) -> str:
    if type(place) not in (str, bytes):
        return repr(place) if type(place) in (int, bool) and -(10**9) < place < 10**9 else f"<{type(place).__name__}>"
    return ascii(place if len(place) <= 40 else place[:37])


def _too_deep(value: Any) -> Refused:
    return Refused(value, f"contains itself, or is nested more than {DEEPEST} levels deep")


def _unkeyable(refused: Refused, path: str, function: str | None) -> UnkeyableArgument:
    parts = refused.parts[::-1]
    place = path + "".join(parts if len(parts) <= 8 else [*parts[:6], "..."])
    kind = refused.kind
    named = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    first = "Compute"
    if not parts:  # of something inside of an argument, the rest of the argument still decides the answer
        first = f"Leave it out with ignore=({path!r},), compute"
    return UnkeyableArgument(
        f"{f'{function}(): ' if function else ''}{place} is of type {named} and {refused.reason}: no cache key can be "
        f"made of it. {first} the key yourself with key=..., or give its class a `__scalekit_key__` (an attribute or "
        f"a method that returns what tells its objects apart)."
    )
