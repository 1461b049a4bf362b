"""What the memory tier keeps of a value, so that nobody's change to an answer reaches the next caller.

Immutable values are shared. Everything that the codec can give back exactly as it was is kept as its bytes, the same
that go to the slower tiers, and decoded anew for each hit: measured, ten chat messages take a tenth of what
`copy.deepcopy` takes, an embedding of 1,536 floats as well. What it cannot is deep-copied. An object that cannot be
copied, such as a client with its sockets, is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any, Literal

from scalekit.errors import CodecError

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
_DEPTH = 100


def immutable(value: Any, depth: int = 0) -> bool:
    """True for values that nobody can change, all the way down."""
    kind = type(value)
    if kind in SHARED:
        return True
    if kind is tuple or kind is frozenset:
        return depth < _DEPTH and all(immutable(item, depth + 1) for item in value)
    return isinstance(value, Enum | type) or kind.__qualname__ in _SHARED_BY_NAME.get(kind.__module__, ())


def copied(value: Any, encode: Callable[[Any], bytes], decode: Thaw) -> tuple[Any, Thaw | None]:
    """The form in which a value that can be changed is kept, and what makes a fresh one of it (None: it is shared)."""
    try:
        return encode(value), decode
    except CodecError:
        pass
    try:
        return copy.deepcopy(value), copy.deepcopy
    except Exception:  # locks, sockets, modules: opaque
        return value, None
