"""What a slow tier is: a store of sealed bytes under text keys, that keeps the one rule of invalidation.

The rule: *a marker with a time, written before `invalidate` returns, against which every older flight, read and queued
write loses.* All times of a store are nanoseconds on a clock of its own, which every process that shares the store
reads alike: `now()`. A flight asks for it before it looks anything up, and what it brings is `born` then. So a value
whose flight began before an invalidation is refused, whoever computed it and however late it comes.

A record ends by one of three: its time (`expires`), an invalidation of its key, or a *mark*: a name such as a tag or
"all answers of this function". A record lists the marks that concern it, and is dead once one of them was set at or
after its birth. Marks are times, not sets of keys, so setting one costs the same for a million records.

No method raises because of the store's own trouble: what cannot be read is a miss, what cannot be written is told as a
reason, and both are counted in `stats()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from scalekit._runtime.base import Runtime

__all__ = ["NEVER", "Later", "Record", "Store"]

NEVER: Final = 2**63 - 1
"""A time that does not come."""


class Later(Exception):
    """A read would hold up an event loop: do it in a thread."""


class Record(NamedTuple):
    """What is kept under one key: `data` is a sealed frame (see frame.py), times are nanoseconds of the store's clock.

    `fresh` is when it is out of date, `expires` when it is let go: between the two it can still be served while it is
    refreshed, or when the refresh fails. `cost` is how many seconds it took to compute.
    """

    data: bytes
    born: int
    fresh: int = NEVER
    expires: int = NEVER
    cost: float = 0.0
    marks: tuple[str, ...] = ()


class Store(Protocol):
    """A tier below memory. Methods that take a `runtime` suspend on an event loop and block in a thread."""

    tier: str
    """What statistics and events call it: "disk"."""

    proves: bool
    """Whether it verifies, by a checksum of its own, the bytes that it gives back."""

    def now(self) -> int:
        """Nanoseconds on the clock that all who share this store read alike; it never goes back."""
        ...

    def generation(self) -> int:
        """A number that grows with each invalidation or mark, whichever process made it; costs nanoseconds.

        An odd number: one is being made right now, so nothing is certain.
        """
        ...

    async def get(self, key: str, runtime: Runtime) -> Record | None:
        """The living record of `key`."""
        ...

    async def get_many(self, keys: Sequence[str], runtime: Runtime) -> list[Record | None]:
        """The living records, in one round trip."""
        ...

    async def put(self, key: str, record: Record, runtime: Runtime) -> str | None:
        """Keep a record, soon; None, or the reason why it will not be kept."""
        ...

    async def put_many(self, records: Sequence[tuple[str, Record]], runtime: Runtime) -> list[str | None]:
        """`put` for several, in one round trip."""
        ...

    async def invalidate(self, keys: Sequence[str], runtime: Runtime) -> bool:
        """End what is kept under these keys, and what flights that run now will bring; True if there was something.

        When it returns nobody, in no process, reads the old records any more.
        """
        ...

    async def mark(self, names: Sequence[str], runtime: Runtime) -> None:
        """End every record that lists one of these marks; as final as `invalidate`."""
        ...

    async def check(self, key: str, born: int, marks: Sequence[str], runtime: Runtime) -> bool:
        """Whether a copy of `key` that was born then is still good: neither its key nor a mark of it was ended since.

        Says nothing of whether the store still holds the record itself: one that it evicted is no reason for distrust.
        """
        ...

    def stats(self) -> Any:
        """The figures of now."""
        ...
