"""The fast index: where the compiled wrapper (hot.py) finds what it may answer by itself.

Only entries with atoms for arguments and a value that cannot be changed stand in it, under the bare arguments, one dict
for each. It is a plain dict as long as that is enough. Where it depends on more than the arguments (in whose scope the
call is, whether another process invalidated something) an `Index` stands in its place: it answers the first subscript
of the same compiled code, asks what has to be asked, and raises `KeyError` where it is not sure.
"""

from __future__ import annotations

import functools
import gc
from typing import TYPE_CHECKING, Any
from weakref import ref

from scalekit._cache.receiver import Identity
from scalekit._cache.scope import ambient
from scalekit._cache.stores.memory import Entry, Table

if TYPE_CHECKING:
    from scalekit._cache.recall import Tiers
    from scalekit._cache.site import Site

ATOMS = frozenset({str, int, bool, float, bytes, type(None)})
Values = tuple[Any, ...]


class Hot:
    """What a compiled wrapper holds in its cell: the fast index, and the figures, so that a hit counts with one
    addition.
    """

    __slots__ = (
        *("__weakref__", "errors", "fast", "hits", "joined", "misses", "open", "place", "recalled", "stale"),
        *("undecodable", "unstored"),
    )

    def __init__(self, fast: Any) -> None:
        self.fast = fast
        self.open = False
        self.place: tuple[Any, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Begin counting anew."""
        self.hits = self.misses = self.joined = self.errors = self.unstored = 0
        self.stale = self.undecodable = 0
        self.recalled: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return self.place  # in the cell of a wrapper that travels: "that cell of that binding"


class Index:
    """A fast index that asks where the call stands, and whether what it holds is still to be trusted."""

    __slots__ = ("generation", "table", "tiers")

    def __init__(self, table: Table, tiers: Tiers | None) -> None:
        self.table = table
        self.tiers = tiers
        self.generation = -1 if tiers is None else tiers.generation()

    def __getitem__(self, part: Any) -> Any:
        if self.tiers is not None and self.tiers.generation() != self.generation:
            raise KeyError
        place = ambient.get()
        if place is None:
            return self.table.fast[part]
        if place.bypass:
            raise KeyError
        return self.table.places[place.path, place.sample][part]


def open_fast(site: Site, values: Values, entry: Entry) -> None:
    """Let the compiled wrapper answer this entry, if its arguments are atoms that `==` does not confuse."""
    if not site.hot.open:
        return
    table, life, place = site.table, entry.life, None
    if life is not None:
        if not site.lasting:
            return
        life.index = table.cleared
        place = life.place
    rest = values[1:] if site.method else values
    if not all(map(_atomic, rest)):
        return
    if site.method:
        one = values[0]
        if place is not None or not _alive(site, entry, one):
            return
        try:
            # When the object dies, what is known of it leaves before its id can be another one's. The callback
            # is `dict.pop(fast, id, ref)`, all in C, so no signal handler comes in between.
            entry.receiver = id(one), ref(one, functools.partial(table.fast.pop, id(one)))
        except TypeError:
            return
    entry.kind = _kinds(entry.key, rest, place is not None, site.method)
    table.open_fast(entry)
    if table.entries.get(entry.key) is not entry or not (life is None or site.trusts(entry)):  # changed meanwhile
        table.close_fast(entry)


def _kinds(tree: Any, values: Values, scoped: bool, method: bool) -> Any:
    """The type of a lone argument; of several, the tuple of types that all their keys share."""
    if len(values) == 1:
        return type(values[0])
    if scoped:
        tree = tree[3]
    return tree[1][0] if method else tree[0]


def _alive(site: Site, entry: Entry, one: Any) -> bool:
    tree: Any = entry.key
    return (isinstance(one, type) or tree[0][0] is Identity) and not gc.is_finalized(one)


def _atomic(value: Any) -> bool:
    """True for atoms that are equal only if they are the same, once their types are: not 0.0, -0.0 and nan."""
    kind = type(value)
    return kind in ATOMS and (kind is not float or 0 != value == value)
