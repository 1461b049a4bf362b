"""A stream that ended well, as it is kept: its items, and the value that a generator returned.

Items that cannot be changed are shared. The others are kept as any answer is (copies.py): as bytes that are decoded
anew for each reader. On a disk a recording is one value: runs of items that are encoded together, and each changeable
item by itself, so that it comes back to memory in the form in which memory keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from scalekit._core.stream import End, Stream
from scalekit.errors import CodecError

if TYPE_CHECKING:
    from scalekit._cache.site import Site

__all__ = ["Frozen", "Recorded", "frozen", "replay", "taken"]


class Frozen:
    """An item that can be changed. The first reader gets the original, the others a copy each."""

    __slots__ = ("original", "stored", "thaw")

    def __init__(self, original: Any, stored: Any, thaw: Callable[[Any], Any]) -> None:
        self.original: list[Any] | None = [original]
        self.stored = stored
        self.thaw = thaw

    def take(self) -> Any:
        original = self.original
        if original:
            try:
                return original.pop()
            except IndexError:  # another thread was faster
                pass
        return self.thaw(self.stored)


def frozen(site: Site, item: Any) -> Any:
    """The form in which an item is kept. Runs a `copy=` of the user's."""
    stored, thaw = site.freeze(item)
    return stored if thaw is None else Frozen(item, stored, thaw)


def taken(item: Any) -> Any:
    """The item for one reader."""
    return item.take() if type(item) is Frozen else item


class Recorded:
    """A whole stream. `plain`: no item is a `Frozen`."""

    __slots__ = ("end", "items", "plain")

    def __init__(self, items: list[Any], end: Any) -> None:
        self.items = items
        self.end = end
        self.plain = not any(type(item) is Frozen for item in items)

    @classmethod
    def of(cls, site: Site, items: Iterable[Any], end: Any = None) -> Recorded:
        """A recording that did not come from a stream."""
        return cls([frozen(site, item) for item in items], frozen(site, end))

    def settle(self) -> None:
        """Let go of the originals: they are some reader's by now."""
        for item in (*self.items, self.end):
            if type(item) is Frozen:
                item.original = None

    def copied(self) -> Recorded:
        """The same with all copies made: a copier of the user's may fail."""
        return Recorded([taken(item) for item in self.items], taken(self.end))

    def answer(self) -> list[Any]:
        """The items as a list, fresh for who asks: what `when=`, `tags=` and the controls see of a stream."""
        return [item.thaw(item.stored) if type(item) is Frozen else item for item in self.items]

    def encode(self, site: Site) -> bytes:
        """The bytes of it; raises CodecError."""
        import msgspec

        from scalekit._cache.codec import Codec

        codec, decode = site.codec, site.decode
        together = isinstance(codec, Codec)
        parts: list[tuple[bool, bytes]] = []
        run: list[Any] = []
        for item in (self.end, *self.items):
            if type(item) is not Frozen and together:
                run.append(item)
                continue
            if run:
                parts.append((True, codec.encode(run)))
                run = []
            if type(item) is Frozen:
                parts.append((False, item.stored if item.thaw is decode else codec.encode(item.stored)))
            else:
                parts.append((False, codec.encode(item)))
        if run:
            parts.append((True, codec.encode(run)))
        return msgspec.msgpack.encode(parts)

    @classmethod
    def decode(cls, site: Site, payload: bytes) -> Recorded:
        """The recording of bytes, every item of it; raises CodecError."""
        import msgspec

        try:
            parts = msgspec.msgpack.decode(payload, type=list[tuple[bool, bytes]])
        except msgspec.MsgspecError as error:
            raise CodecError(f"{site.target.name}: these bytes are not a recorded stream: {error}") from error
        items: list[Any] = []
        for together, part in parts:
            value = site.codec.decode(part)
            if not together:
                stored, thaw = site.thawed(value, part)
                items.append(stored if thaw is None else Frozen(value, stored, thaw))
            elif type(value) is list:
                items += value
            else:
                raise CodecError(f"{site.target.name}: these bytes are not a recorded stream")
        if not items:
            raise CodecError(f"{site.target.name}: these bytes are not a recorded stream")
        return cls(items[1:], items[0])


def replay(recorded: Recorded) -> Stream:
    """A stream of what was recorded."""
    items: Iterator[Any] = iter(recorded.items) if recorded.plain else map(taken, recorded.items)
    end = End()

    async def following() -> Any:
        for item in items:
            return item
        end.value = taken(recorded.end)
        return end

    async def close() -> None:
        return None

    def ready() -> Iterator[Any]:
        return items

    for first in items:
        return Stream(first, following, close, None, ready)
    end.value = taken(recorded.end)
    return Stream(end, following, close, None)
