"""The slower tiers of one function: the name of a call there, what comes back from them, and what goes in.

A flight asks them before it calls the function, in their order, and writes to all of them when it has landed. It goes
by their clocks: `stamps` are the times of its birth on each, so that an invalidation that came later wins wherever the
flight's answer arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scalekit import events
from scalekit._cache.freshness import FOREVER, Times
from scalekit._cache.key import Tree
from scalekit._cache.recorded import Recorded
from scalekit._cache.stores.base import NEVER, Record, Store
from scalekit._cache.twin import twin
from scalekit._runtime.base import Runtime
from scalekit.errors import CodecError, warn

if TYPE_CHECKING:
    from scalekit._cache.site import Site

__all__ = ["Answer", "Failure", "Found", "Tiers"]

_VALUE, _ERROR, _STREAM = b"v", b"e", b"s"
_SECOND = 1_000_000_000


class Failure:
    """An error that is kept as an answer (`negative=`)."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """`error` without what its tracebacks would keep alive."""
        return cls(_bare(error))

    def again(self) -> BaseException:
        """The error for one more caller, without the others' tracebacks."""
        return twin(self.error, None)


def _bare(error: BaseException, depth: int = 0) -> BaseException:
    bare = twin(error, None)
    if bare is not error:
        cause = error.__cause__
        bare.__cause__ = _bare(cause, depth + 1) if cause is not None and depth < 8 else None
        bare.__context__ = None
    return bare


class Found(NamedTuple):
    """What a tier gave back, the value and the bytes it was decoded from. Times are monotonic."""

    value: Any
    payload: bytes
    times: Times
    stored: float
    cost: float
    marks: tuple[str, ...]
    stamps: tuple[int, ...]
    tier: str


class Answer(NamedTuple):
    """What the tiers are given: `payload` are the value's bytes, if they are known. Times are monotonic."""

    name: str
    value: Any
    payload: bytes | None
    fresh: float
    expires: float
    cost: float
    marks: tuple[str, ...]
    stamps: tuple[int, ...]


class Tiers:
    """The stores below memory, for one function."""

    def __init__(self, site: Site, stores: Sequence[Store]) -> None:
        self.site = site
        self.stores = tuple(stores)
        self._warned = False
        self._complained = 0

    def generation(self) -> int:
        """Another number after each invalidation by any process; odd: one is under way."""
        if len(self.stores) == 1:
            return self.stores[0].generation()
        numbers = [store.generation() for store in self.stores]
        return sum(numbers) | any(number % 2 for number in numbers)

    def now(self) -> tuple[int, ...]:
        """The time on the clock of each."""
        return tuple([store.now() for store in self.stores])

    def name(self, tree: Tree) -> str | None:
        """The name of a call in a store; None where it has none, and only the place asked for a store."""
        from scalekit._cache.digest import digest, stable

        if not self.site.given["tiers"] and not stable(tree):
            if not self._warned:
                self._warned = True
                warn(
                    f"{self.site.target.name} keeps answers in this process's memory only: an argument is keyed by "
                    f"identity, which means nothing to another process. Give its class a `__scalekit_key__`, or, if "
                    f"the answer does not depend on it, leave it out with ignore=."
                )
            return None
        return f"{self.site.full_name}:{digest(tree)}"

    async def read(self, name: str, runtime: Runtime) -> Found | None:
        """What the first tier that knows the call has of it."""
        for place, store in enumerate(self.stores):
            record = await store.get(name, runtime)
            if record is not None and (found := self._found(place, record)) is not None:
                return found
        return None

    async def read_many(self, names: Sequence[str], runtime: Runtime) -> list[Found | None]:
        """`read` for several, in one round trip to each tier."""
        found: list[Found | None] = [None] * len(names)
        for place, store in enumerate(self.stores):
            open_places = [at for at, one in enumerate(found) if one is None]
            if not open_places:
                break
            records = await store.get_many([names[at] for at in open_places], runtime)
            for at, record in zip(open_places, records, strict=True):
                found[at] = None if record is None else self._found(place, record)
        return found

    async def write(self, answer: Answer, runtime: Runtime) -> str | None:
        """Give an answer to every tier; the reason if one of them does not keep it."""
        return (await self.write_many([answer], runtime))[0]

    async def write_many(self, answers: Sequence[Answer], runtime: Runtime) -> list[str | None]:
        """`write` for several, in one round trip to each tier."""
        reasons: list[str | None] = [None] * len(answers)
        sealed: list[tuple[int, Answer, bytes]] = []
        for at, answer in enumerate(answers):
            data = self._sealed(answer)
            if type(data) is bytes:
                sealed.append((at, answer, data))
            else:
                reasons[at] = str(data)
        now = self.site.now()
        for place, store in enumerate(self.stores):
            here, records = store.now(), list[tuple[str, Record]]()
            for _, one, data in sealed:
                fresh, expires = _there(one.fresh, now, here), _there(one.expires, now, here)
                records.append((one.name, Record(data, one.stamps[place], fresh, expires, one.cost, one.marks)))
            for (at, _, _), reason in zip(sealed, await store.put_many(records, runtime), strict=True):
                reasons[at] = reason or reasons[at]
        return reasons

    def _sealed(self, answer: Answer) -> bytes | str:
        """The bytes of an answer; a text that says why it has none."""
        from scalekit._cache.frame import seal

        value, payload = answer.value, answer.payload
        try:
            if type(value) is Failure:
                plain = _ERROR + self.site.codec.encode_error(value.error)
            elif type(value) is Recorded:
                plain = _STREAM + (value.encode(self.site) if payload is None else payload)
            else:
                plain = _VALUE + (self.site.codec.encode(value) if payload is None else payload)
        except CodecError as error:
            if not self._warned:
                self._warned = True
                warn(f"{self.site.target.name}: an answer cannot be kept outside of memory: {error}")
            return f"in memory only: {error}"
        self._complain()
        return seal(plain)

    def _complain(self) -> None:
        """Say once that other processes will not be able to read the answers."""
        codec = self.site.codec
        if self._complained == codec.learned:
            return
        self._complained = codec.learned
        if names := codec.unreached():
            warn(
                f"{self.site.target.name} gives objects of classes that its return annotation does not name: "
                f"{', '.join(names)}. Another process, and this one after a restart, will compute the answer anew "
                f"instead of building them: annotate what it returns, or name the classes with types=."
            )

    async def trusts(self, name: str, marks: Sequence[str], stamps: tuple[int, ...], runtime: Runtime) -> bool:
        """Whether a copy in memory is still good everywhere."""
        for store, stamp in zip(self.stores, stamps, strict=True):
            if not await store.check(name, stamp, marks, runtime):
                return False
        return True

    async def invalidate(self, names: Sequence[str], runtime: Runtime) -> bool:
        """End these calls everywhere; True if one of them was somewhere."""
        return any([await store.invalidate(names, runtime) for store in self.stores])

    async def mark(self, names: Sequence[str], runtime: Runtime) -> None:
        """Set marks everywhere."""
        for store in self.stores:
            await store.mark(names, runtime)

    def _found(self, place: int, record: Record) -> Found | None:
        from scalekit._cache.frame import unseal

        store, codec = self.stores[place], self.site.codec
        try:
            plain = unseal(record.data, store.proves)
            payload: bytes = plain[1:]
            if plain[:1] == _ERROR:
                value: Any = Failure(codec.decode_error(payload))
            elif plain[:1] == _VALUE:
                value = codec.decode(payload)
            elif plain[:1] == _STREAM:
                value = Recorded.decode(self.site, payload)
            else:
                raise CodecError(f"a value of an unknown kind {plain[:1]!r}")
        except CodecError as error:
            self.site.hot.undecodable += 1
            if events.subscribers:
                events.emit(events.Undecodable(self.site.target.name, store.tier, str(error)))
            return None
        now, here = self.site.now(), store.now()
        fresh, expires = _back(record.fresh, now, here), _back(record.expires, now, here)
        stored = now - max(0.0, (here - record.born) / _SECOND - record.cost)
        times = self.site.freshness.found(stored, fresh, expires, type(value) is Failure)
        stamps = tuple([record.born if at == place else other.now() for at, other in enumerate(self.stores)])
        return Found(value, payload, times, stored, record.cost, record.marks, stamps, store.tier)


def _there(time: float, now: float, here: int) -> int:
    return NEVER if time == FOREVER else here + int((time - now) * _SECOND)


def _back(time: int, now: float, here: int) -> float:
    return FOREVER if time >= NEVER else now + (time - here) / _SECOND
