"""One function's cache: its keys, its entries in the memory tier, its flights and its figures.

Everything here is plain and synchronous. The policy (policy.py) tells the story of a call; the compiled wrapper
(hot.py) answers the simplest hits before any of this runs.
"""

from __future__ import annotations

import functools
import gc
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet, ref

from scalekit import _units, events, settings
from scalekit._cache.copies import SHARED, Thaw, kept
from scalekit._cache.flights import Flights
from scalekit._cache.key import Tree
from scalekit._cache.normal import Signature, WrongCall, key_maker
from scalekit._cache.receiver import Identity
from scalekit._cache.stores.memory import Entry, Memory, Table
from scalekit._core.policy import Handler, Settings
from scalekit._core.target import Target

if TYPE_CHECKING:
    from scalekit._cache.identity import FunctionIdentity

FOREVER = float("inf")
ATOMS = frozenset({str, int, bool, float, bytes, type(None)})
LEVELS = 4
"""With up to so many arguments the fast index is a dict of dicts: faster than hashing a tuple of them."""
Values = tuple[Any, ...]


class Missing:
    """No value: `None` is one."""

    def __repr__(self) -> str:
        return "<missing>"

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


class CacheInfo(NamedTuple):
    """What `functools.lru_cache` tells; `maxsize` is the bound in entries."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheStats(NamedTuple):
    """Figures of one function, in this process, since it was decorated.

    `hits` were answered from memory, `misses` ran the function, `joined` shared the run of another caller. `errors`
    are runs that raised, `unstored` answers that were handed out and not kept. `entries` and `nbytes` are in memory
    now.
    """

    hits: int
    misses: int
    joined: int
    errors: int
    unstored: int
    entries: int
    nbytes: int


class Hot:
    """What a compiled wrapper holds in its cell: the fast index, and the figures, so that a hit counts with one
    addition.
    """

    __slots__ = ("errors", "fast", "hits", "joined", "misses", "open", "place", "unstored")

    def __init__(self, fast: dict[Any, Any]) -> None:
        self.fast = fast
        self.open = False
        self.place: tuple[Any, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Begin counting anew."""
        self.hits = self.misses = self.joined = self.errors = self.unstored = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return self.place  # in the cell of a wrapper that travels: "that cell of that binding"


class Site:
    """The cache of one function."""

    def __init__(self, target: Target, given: Settings, memory: Memory) -> None:
        self.target = target
        self.runtime: Any = target.runtime  # of event loops: only they have `here`
        self.ttl = FOREVER if given["ttl"] is None else _units.seconds(given["ttl"], "ttl")
        self.copy = given["copy"]
        self.version = given["version"]
        hung = given["flight_timeout"]
        self._flight_timeout = None if hung is None else _units.seconds(hung, "flight_timeout")
        self.memory = memory
        self.table = Table()
        self.flights = Flights()
        self.flights.on_fork(memory._after_fork)
        self.watching: WeakSet[Any] = WeakSet()
        """Event loops with a timer for flights that take too long."""
        self.watched: Any = None
        """The last one of them: the quick way to see that there is a timer."""
        self.hot = Hot(self.table.fast)
        self.inner: Handler = target.leaf()  # the rest of the stack, for a refresh
        self.method = _is_method(target) and _first_parameter(target) not in given["ignore"]
        self.signature: Signature = key_maker(target.function, given["ignore"], given["key"], self.method)

    @property
    def flight_timeout(self) -> float:
        """Seconds after which a flight is disowned."""
        return self._flight_timeout or settings.lookup("cache_flight_timeout")

    @functools.cached_property
    def identity(self) -> FunctionIdentity:
        """What tells this function from others in a store; reads its source, so only when first asked."""
        from scalekit._cache.identity import identity

        return identity(self.target.function, self.version)

    def key(self, args: Values, kwargs: dict[str, Any]) -> tuple[Values, Tree]:
        """The bound values and the key of a call; `WrongCall` if it does not fit the function."""
        signature = self.signature
        if signature.direct:
            try:
                values = signature.normal(*args, **kwargs)
            except TypeError as error:
                raise WrongCall(*error.args) from None
            return values, signature.tree(values)
        return (), signature.key(args, kwargs)

    def digest(self, args: Values, kwargs: dict[str, Any]) -> str:
        """The name of a call in a store: a digest, so that no argument's value stands in it."""
        from scalekit._cache.digest import digest

        _, tree = self.key(args, kwargs)
        return f"{self.identity.name}:{self.identity.digest}:{digest(tree)}"

    def get(self, values: Values, tree: Tree) -> Any:
        """The value in memory, fresh for this caller, or MISSING."""
        entry = self.table.entries.get(tree)
        if entry is None or time.monotonic() >= entry.expires:
            return MISSING
        value = entry.value
        if entry.thaw is not None:
            try:
                value = entry.thaw(value)
            except Exception:  # a copier of the user's that fails is a miss
                self.memory.remove(self.table, entry)
                return MISSING
        if self.memory.touches:
            self.memory.touch(entry)
        entry.hit = True
        self.hot.hits += 1
        if entry.alias is None and entry.thaw is None:
            self._open_fast(values, tree, entry)
        return value

    def knows(self, tree: Tree, now: float) -> bool:
        """True if a fresh answer is in memory."""
        entry = self.table.entries.get(tree)
        return entry is not None and now < entry.expires

    def keep(self, tree: Tree, values: Values, stored: Any, thaw: Thaw | None) -> bool:
        """Put a value into memory; False if it has no room there."""
        now = time.monotonic()
        entry = Entry(tree, stored, thaw, now + self.ttl)
        if not self.memory.put(self.table, entry, now):
            return False
        if thaw is None:
            self._open_fast(values, tree, entry)
        return True

    def _open_fast(self, values: Values, tree: Tree, entry: Entry) -> None:
        """Let the compiled wrapper answer this entry, if its arguments are atoms that `==` does not confuse."""
        if not self.hot.open:
            return
        if len(values) == 1 and not self.method:
            value = values[0]
            if not _atomic(value):
                return
            entry.kind, entry.alias = type(value), values
        else:
            rest = values
            if self.method:
                one, *others = values
                rest = tuple(others)
                if not (isinstance(one, type) or tree[0][0] is Identity) or gc.is_finalized(one):  # type: ignore[index]
                    return
                try:
                    # When the object dies, what is known of it leaves before its id can be another one's. The callback
                    # is `dict.pop(fast, id, ref)`, all in C, so no signal handler comes in between.
                    entry.receiver = ref(one, functools.partial(self.table.fast.pop, id(one)))
                except TypeError:
                    return
            for value in rest:
                if not _atomic(value):
                    return
            entry.kind = type(rest[0]) if len(rest) == 1 else tuple(map(type, rest))
            entry.alias = path_of(values, self.method)
        self.table.open_fast(entry)
        if self.table.entries.get(tree) is not entry:  # evicted meanwhile
            self.table.close_fast(entry)

    def freeze(self, value: Any) -> tuple[Any, Thaw | None]:
        """The form in which a value is kept."""
        return (value, None) if type(value) in SHARED else kept(value, self.copy)

    def unstored(self, reason: str) -> None:
        """Count and tell that an answer was handed out and not kept."""
        self.hot.unstored += 1
        if events.subscribers:
            events.emit(events.NotStored(self.target.name, reason))

    def stats(self) -> CacheStats:
        hot = self.hot
        return CacheStats(
            hits=hot.hits,
            misses=hot.misses,
            joined=hot.joined,
            errors=hot.errors,
            unstored=hot.unstored,
            entries=len(self.table.entries),
            nbytes=self.table.nbytes,
        )


def _atomic(value: Any) -> bool:
    """True for atoms that are equal only if they are the same, once their types are: not 0.0, -0.0 and nan."""
    kind = type(value)
    return kind in ATOMS and (kind is not float or 0 != value == value)


def path_of(values: Values, method: bool) -> Values:
    """Where the entry of these values stands in the fast index: one key for each level."""
    first: Values = ()
    if method:
        first, values = (id(values[0]),), values[1:]
    if len(values) > LEVELS or not (first or values):
        return (*first, values)
    return (*first, *values)


def _first_parameter(target: Target) -> str:
    return next(iter(target.signature.parameters), "") if target.signature is not None else ""


def _is_method(target: Target) -> bool:
    """True for a function of a class body whose first parameter is the object or the class."""
    name = getattr(target.function, "__qualname__", "").rpartition("<locals>.")[2]
    return "." in name and _first_parameter(target) in ("self", "cls", "mcs")
