"""Where an entry stands in the fast index: its key says it, so that no entry has to remember.

The key of a call of atoms holds the very arguments (normal.py): a lone str is its own key, other calls are
(types, *values), or (type, value) for one argument. A method's key has its object first, a scoped one its scope.

The index is a dict for each argument, the last argument outermost: what varies is mostly the first one (a question, a
text), and what follows is the same for many (a model, a temperature), so that few dicts hold many entries each. The
other way round, each entry would have a dict of its own, which is 230 bytes.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["LEVELS", "SCOPED", "path_of", "place_of"]

SCOPED: Final = "scope"
"""The first part of a key that was made inside of a scope: (SCOPED, path, sample, key)."""

LEVELS: Final = 4
"""With up to so many arguments the fast index is a dict of dicts: faster than hashing a tuple of them."""


def path_of(tree: Any, scoped: bool, receiver: int | None) -> tuple[Any, ...]:
    """One subscript for each level; `receiver` is the id of the object whose method it is."""
    if scoped:
        tree = tree[3]
    first: tuple[Any, ...] = ()
    if receiver is not None:
        first, tree = (receiver,), tree[1]
    if type(tree) is str:
        return (tree,)
    if len(tree) == 2:
        return (*first, tree[1])
    values = tree[1:]
    if len(values) > LEVELS or not (first or values):
        return (*first, values)
    return (*first, *values[::-1])


def place_of(tree: Any) -> tuple[tuple[Any, ...], int | None] | None:
    """The scope and the sample that a key belongs to."""
    return (tree[1], tree[2]) if type(tree) is tuple and tree and tree[0] == SCOPED else None
