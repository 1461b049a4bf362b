"""How much memory a value takes, well enough for a bound: exact for text and bytes, sampled beyond 100 items.

`sys.getsizeof` sees one object, and a full walk of a large value costs more than keeping it. So a container of more
than 100 items is judged by 100 of them, and a walk ends after 2,000 objects; what is left is taken to be like what was
seen. Classes, functions and modules belong to the program and weigh nothing, an object that is met twice weighs once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import islice
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, cast

__all__ = ["sizeof"]

_PROGRAM = (type, FunctionType, BuiltinFunctionType, ModuleType)
_LEAVES = frozenset({str, bytes, int, float, complex, bytearray})
_FREE = frozenset({type(None), bool, type(...)})
_FLAT = 8
_SAMPLE = 100
_WALK = 2000


def sizeof(value: object) -> int:
    """An estimate in bytes."""
    kind = type(value)
    if kind in _LEAVES:
        return sys.getsizeof(value)
    if isinstance(value, tuple) and kind is tuple and len(value) <= _FLAT:
        total = sys.getsizeof(value)
        for item in value:
            part = type(item)
            if part in _LEAVES:
                total += sys.getsizeof(item)
            elif not (part in _FREE or part is type or (part is tuple and item and type(item[0]) is type)):
                return _walk(value)  # (a tuple of types is the program's, and stands in every key of a function)
        return total
    return _walk(value)


def _walk(value: object) -> int:
    total = 0.0
    seen: set[int] = set()
    waiting: list[tuple[object, float]] = [(value, 1.0)]
    while waiting and len(seen) < _WALK:
        item, weight = waiting.pop()
        kind: type[Any] = type(item)
        if kind in _FREE or isinstance(item, _PROGRAM) or id(item) in seen:
            continue
        seen.add(id(item))
        total += weight * _own(item, kind)
        if kind in _LEAVES or kind.__module__.startswith(("numpy", "pandas")):
            continue
        children, count = _children(item)
        if count > _SAMPLE:
            step = count // _SAMPLE
            children = [*islice(children, 0, step * _SAMPLE, step)]
            weight *= count / _SAMPLE
        waiting += [(child, weight) for child in children]
    if waiting:
        total += total / len(seen) * len(waiting)
    return int(total)


def _own(item: Any, kind: type[Any]) -> int:
    try:
        size = sys.getsizeof(item)
        if kind.__module__.startswith("numpy"):
            return max(size, int(item.nbytes))  # a view's data is another's
    except Exception:  # a `__sizeof__` of the user's
        return 64
    return size


def _children(item: Any) -> tuple[Iterable[Any], int]:
    if isinstance(item, dict):
        pairs: list[tuple[Any, Any]] = [*item.copy().items()]  # pyright: ignore[reportUnknownMemberType]
        return [one for pair in pairs for one in pair], 2 * len(pairs)
    if isinstance(item, (list, tuple, set, frozenset)):
        found: tuple[Any, ...] = tuple(cast("Iterable[Any]", item))
        return found, len(found)
    own = getattr(item, "__dict__", None)
    parts: list[Any] = [own] if own else []
    for base in type(item).__mro__:
        slots = base.__dict__.get("__slots__", ())
        parts += [getattr(item, name, None) for name in ((slots,) if isinstance(slots, str) else slots)]
    return parts, len(parts)
