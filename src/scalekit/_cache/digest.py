"""A tree as one short text that is the same in every process, on every platform and Python: the name of a stored entry.

Each node is written with its kind and its length, so that no two trees have the same bytes: nothing is joined, nothing
is escaped. Classes and functions are written by name, members of a frozenset in the order of their bytes. SHA-256
because every build of CPython has it, FIPS ones included, and processors have instructions for it; 160 bits of it,
since whoever shares a cache with strangers should not be able to search for two questions with one key.
"""

from __future__ import annotations

import struct
from types import BuiltinFunctionType, FunctionType
from typing import Any, cast

from scalekit._cache.key import Tree, kind_of
from scalekit._cache.names import qualified
from scalekit._cache.receiver import Identity
from scalekit.errors import UnkeyableArgument

__all__ = ["digest", "encoded", "stable"]

_NAMES: dict[type[Any], bytes] = {}


def digest(tree: Tree) -> str:
    """40 hexadecimal digits. A tree that holds an `Identity` has none: ask `stable` first."""
    import hashlib

    return hashlib.sha256(encoded(tree)).hexdigest()[:40]


def stable(tree: Tree) -> bool:
    """False if something in the tree is keyed by identity, which means nothing to another process."""
    open_nodes: list[Any] = [tree]
    while open_nodes:
        one = open_nodes.pop()
        if type(one) is Identity:
            return False
        if type(one) is tuple or type(one) is frozenset:
            open_nodes.extend(cast("tuple[Any, ...]", one))
    return True


def encoded(tree: Tree) -> bytes:
    """The bytes that `digest` takes the hash of: different for different trees."""
    parts: list[bytes] = []
    _write(tree, parts)
    return b"".join(parts)


def _write(node: Any, parts: list[bytes]) -> None:
    kind = kind_of(node)
    if kind is str:
        data = node.encode("utf-8", "surrogatepass")
        parts += (b"s%d:" % len(data), data)
    elif kind is tuple:
        parts.append(b"(%d:" % len(node))
        for child in node:
            _write(child, parts)
    elif isinstance(node, type):
        parts.append(_NAMES.get(node) or _named(node))
    elif kind is int:
        parts.append(b"i%x;" % node)
    elif node is None:
        parts.append(b"n")
    elif kind is bool:
        parts.append(b"t" if node else b"f")
    elif kind is float:
        parts.append(struct.pack("<cd", b"d", node))
    elif kind is bytes:
        parts += (b"b%d:" % len(node), node)
    elif kind is frozenset:
        parts.append(b"{%d:" % len(node))
        parts += sorted([encoded(child) for child in node])
    elif kind is Identity:
        raise UnkeyableArgument(
            f"An object of type {node.named} is keyed by identity, which means nothing to another process: only the "
            f"memory tier can keep this answer. Give its class a `__scalekit_key__`, make it a frozen dataclass, use "
            f'tiers=["memory"], or, if the answer does not depend on it, leave it out with ignore=.'
        )
    else:
        assert isinstance(node, FunctionType | BuiltinFunctionType) or hasattr(node, "__qualname__")
        parts.append(b"m")
        _write(qualified(node), parts)


def _named(kind: type[Any]) -> bytes:
    name = qualified(kind).encode("utf-8", "surrogatepass")
    written = b"c%d:" % len(name) + name
    if len(_NAMES) >= 1024:
        _NAMES.clear()
    if kind.__module__ != "__main__":  # whose name can still change while a program starts
        _NAMES[kind] = written
    return written
