"""The walk over a value that is about to become bytes.

MessagePack knows None, bool, 64-bit int, float, str, bytes, list and dict. A value made of nothing else goes to the C
encoder as it is, after a check of the types that costs a fraction of the encoding: msgspec itself would write a tuple
or a subclass of list as a list, and it would come back as one. Everything else becomes an extension: a code, and a body
of plain data that says all there is to say about the value.

Two plain things are seldom beyond MessagePack: an int of more than 64 bits, and a str with half a surrogate pair. The C
encoder refuses those, so the first walk takes them for plain, and only a value that is refused is walked again with
care.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

__all__ = ["DEPTH", "Encoding", "Refused", "Tree", "Writer", "ext"]

Tree: TypeAlias = Any  # what msgspec writes exactly: atoms, lists, dicts with atoms for keys, extensions
Writer: TypeAlias = "Callable[[Any, Encoding, int], Tree]"

DEPTH = 100  # levels of nesting, both ways
ITEMS = 1 << 23  # in all containers together; shared references multiply, and this is where they stop

ATOMS: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes})
CAREFUL_ATOMS = ATOMS - {int, str}
BIG, TEXT, MAP = 1, 2, 3

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def ext(code: int, body: Tree) -> Tree:
    """An extension whose body is MessagePack itself."""
    return msgspec.msgpack.Ext(code, encode(body))


class Refused(Exception):
    """This part of a value cannot be encoded; `path` leads to it, its last step first."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.path = type(value), reason, list[str]()

    def under(self, step: str) -> Refused:
        self.path.append(step)
        return self

    def __str__(self) -> str:
        steps = self.path[::-1]
        path = "".join(steps if len(steps) <= 12 else [*steps[:10], "…"])
        return f"answer{path} is of type {self.kind.__module__}.{self.kind.__qualname__}, {self.reason}"


class Encoding:
    """One value on its way: which types are plain, who writes the others, and how much may still come."""

    __slots__ = ("_atoms", "_learn", "_left", "_writers")

    def __init__(self, writers: Mapping[type, Writer], learn: Callable[[type], Writer], careful: bool) -> None:
        self._atoms = CAREFUL_ATOMS if careful else ATOMS
        self._writers: Mapping[type, Writer] = {**writers, int: _integer, str: _text} if careful else writers
        self._learn = learn
        self._left = ITEMS

    def tree(self, value: Any, depth: int) -> Tree:
        """`value` as the C encoder writes it exactly; raises `Refused`."""
        kind: type = type(value)
        if kind in self._atoms:
            return value
        if depth >= DEPTH:
            raise Refused(value, f"and lies deeper than {DEPTH} levels: the answer is too deep, or contains itself")
        if kind is list:
            return self.items(value, depth)
        if kind is dict:
            return self.mapping(value, depth)
        writer = self._writers.get(kind)
        if writer is None:
            try:
                writer = self._learn(kind)
            except Refused as refused:
                raise Refused(value, refused.reason) from None
        return writer(value, self, depth)

    def items(self, value: Any, depth: int) -> Tree:
        """The items of a sized container, one level deeper."""
        self._spend(value)
        if self._atoms.issuperset(map(type, value)):
            return value if type(value) is list else list(value)
        trees: list[Tree] = []
        try:
            for item in value:
                trees.append(self.tree(item, depth + 1))
        except Refused as refused:
            raise refused.under(f"[{len(trees)}]") from None
        return trees

    def mapping(self, value: Mapping[Any, Any], depth: int) -> Tree:
        """A dict: a map if its keys are plain, else an extension of pairs."""
        if not self._atoms.issuperset(map(type, value)):
            return ext(MAP, self.pairs(value, depth))
        self._spend(value)
        if self._atoms.issuperset(map(type, value.values())):
            return value
        return self._values(value, depth, "[{!r:.40}]")

    def fields(self, state: Mapping[str, Any], depth: int) -> Tree:
        """The state of an object: names, and values one level deeper."""
        self._spend(state)
        return self._values(state, depth, ".{}")

    def pairs(self, value: Mapping[Any, Any], depth: int) -> list[Tree]:
        """Key, value, key, value, …, in the order of the dict."""
        self._spend(value)
        trees: list[Tree] = []
        key: Any = None
        try:
            for key, item in value.items():
                trees.append(self.tree(key, depth + 1))
                trees.append(self.tree(item, depth + 1))
        except Refused as refused:
            raise refused.under(f"[{key!r:.40}]" if len(trees) % 2 else ".keys()") from None
        return trees

    def _values(self, value: Mapping[Any, Any], depth: int, step: str) -> dict[Any, Tree]:
        trees: dict[Any, Tree] = {}
        key: Any = None
        try:
            for key, item in value.items():
                trees[key] = self.tree(item, depth + 1)
        except Refused as refused:
            raise refused.under(step.format(key)) from None
        return trees

    def _spend(self, container: Any) -> None:
        self._left -= len(container) + 1
        if self._left < 0:
            raise Refused(container, f"and the answer has more than {ITEMS:,} items, or refers to the same ones again")


def _integer(value: int, encoding: Encoding, depth: int) -> Tree:
    if -(2**63) <= value < 2**64:
        return value
    return ext(BIG, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _text(value: str, encoding: Encoding, depth: int) -> Tree:
    try:
        value.encode()
    except UnicodeEncodeError:
        return ext(TEXT, value.encode("utf-8", "surrogatepass"))
    return value
