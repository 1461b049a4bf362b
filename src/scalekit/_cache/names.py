"""What modules, classes and functions are called in what outlives the process.

Two names depend on how a program was started, not on what it is: a script's module is `__main__` when it is run and
`script` when it is imported (or sent by value to a worker, whose own `__main__` is something else), and CPython 3.13
calls pathlib's classes `pathlib._local`. Keys that are shared between processes use one name for both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["module_name", "qualified"]

_MOVED = {"pathlib._local": "pathlib"}


def module_name(module: str, space: Mapping[str, Any] | None = None) -> str:
    """`module`, or for `__main__` what it would be called if it were imported; `space` are the globals, if known."""
    if module != "__main__":
        return _MOVED.get(module, module)
    if space is None:
        space = vars(sys.modules[module]) if module in sys.modules else {}
    spec = space.get("__spec__")
    if spec is not None:
        return str(spec.name)
    file = space.get("__file__")
    if not file:
        return module
    stem = os.path.splitext(os.path.basename(file))[0]
    package = space.get("__package__")
    return f"{package}.{stem}" if package else stem


def qualified(thing: Any) -> str:
    """ "module:qualname" of a class or a function."""
    module = getattr(thing, "__module__", None) or "builtins"
    space = getattr(thing, "__globals__", None)
    if space is None and module == "__main__":  # a class that was sent by value: its methods know where it is from
        spaces = (getattr(member, "__globals__", None) for member in cast("dict[str, Any]", vars(thing)).values())
        space = next((one for one in spaces if one is not None and one.get("__name__") == "__main__"), None)
    return f"{module_name(module, space)}:{thing.__qualname__}"
