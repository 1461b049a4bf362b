"""What the memory tier keeps of a value, so that nobody's change to an answer reaches the next caller.

Immutable values are shared. Plain data (lists and dicts of strings, numbers, bytes) is kept as MessagePack bytes and
decoded anew for each hit: measured, ten chat messages take a tenth of what `copy.deepcopy` takes, an embedding of 1,536
floats as well. What MessagePack would not give back exactly as it was is deep-copied. An object that cannot be
copied, such as a client with its sockets, is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any, Literal

Thaw = Callable[[Any], Any]
Copy = Literal["auto"] | bool | Callable[[Any], Any]

SHARED: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, type, FunctionType, BuiltinFunctionType),
        type(...),
        type(NotImplemented),
    }
)
_SHARED_BY_NAME = {  # not imported for their names' sake
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "uuid": {"UUID"},
    "pathlib": {"PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"},
    "pathlib._local": {"PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"},
}
_WIRE = frozenset({type(None), bool, float, str, bytes})
_DEPTH = 100


def immutable(value: Any, depth: int = 0) -> bool:
    """True for values that nobody can change, all the way down."""
    kind = type(value)
    if kind in SHARED:
        return True
    if kind is tuple or kind is frozenset:
        return depth < _DEPTH and all(immutable(item, depth + 1) for item in value)
    return isinstance(value, Enum | type) or kind.__qualname__ in _SHARED_BY_NAME.get(kind.__module__, ())


def _wire(value: Any, depth: int = 0) -> bool:
    """True for what MessagePack gives back exactly: same types, same order, same identity of nothing."""
    kind = type(value)
    if kind in _WIRE:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if depth >= _DEPTH:
        return False
    if kind is list:
        return _WIRE.issuperset(map(type, value)) or all(_wire(item, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(_wire(item, depth + 1) for item in value.values())
    return False


def kept(value: Any, how: Copy = "auto") -> tuple[Any, Thaw | None]:
    """The form in which a value is kept, and the function that makes a fresh value of it (None: it is shared)."""
    if how is False or immutable(value):
        return value, None
    if callable(how):
        return how(value), how
    try:
        if _wire(value):
            import msgspec

            return msgspec.msgpack.encode(value), msgspec.msgpack.decode
    except UnicodeEncodeError:  # half a surrogate pair is a str, but no text
        pass
    try:
        return copy.deepcopy(value), copy.deepcopy
    except Exception:  # locks, sockets, modules: opaque
        return value, None
