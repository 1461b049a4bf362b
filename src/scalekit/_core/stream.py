"""A stream is a call whose value is still arriving: positioned on its first item, and it must be closed.

A generator function (sync, async, or one that returns such an iterator) passes through the policies as
`Stream(first, next, close)`: `first` is the item already read, `next` reads another one, and an `End` in place of an
item says that there are no more. So `retry` can re-open until the first item was handed out, and `limit` keeps its
permit until `close`. Around the outermost policy it becomes again what the user's function gave: a generator, or the
SDK's own object in a thin proxy.

`send`, `asend`, `throw` and `athrow` are refused: a stream may one day have several readers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from itertools import chain
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from scalekit._core.drive import drive

PLAIN: frozenset[type] = frozenset(
    {type(None), bool, int, float, complex, str, bytes, list, dict, tuple, set, frozenset}
)
"""Types that are surely no stream: the check that a layer makes of every value."""


class End:
    """In place of an item: the stream ended; `value` is what a generator returned."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value = value


class Stream:
    """An open stream: `first` is an item or an `End`; `next()` gives the following ones; `close()` is called once.

    `source` is what the function gave; None where that is nothing but its items. `ready()`, if there is one, iterates
    over those of the following items that are at hand; `items`, if there is one, is the iterator (an async one on an
    event loop) that `next` reads and does nothing else with.
    """

    __slots__ = ("close", "first", "items", "next", "ready", "source")

    def __init__(
        self,
        first: Any,
        next: Callable[[], Coroutine[Any, Any, Any]],  # noqa: A002  # the word of the protocol
        close: Callable[[], Coroutine[Any, Any, None]],
        source: Any,
        ready: Callable[[], Iterator[Any]] | None = None,
        items: Any = None,
    ) -> None:
        self.first = first
        self.next = next
        self.close = close
        self.source = source
        self.ready = ready
        self.items = items

    def at_hand(self, item: Any) -> Iterable[Any]:
        """`item`, and what can be had without asking."""
        return (item,) if self.ready is None else chain((item,), self.ready())


async def open_sync(source: Iterator[Any]) -> Stream:
    """Read the first item of a generator or iterator."""

    async def step() -> Any:
        try:
            return next(source)
        except StopIteration as done:
            return End(done.value)

    async def close() -> None:
        if (method := getattr(source, "close", None)) is not None:
            method()

    return Stream(await step(), step, close, source, None, source)


async def open_async(source: AsyncIterator[Any]) -> Stream:
    """Read the first item of an async generator or async iterator."""

    async def step() -> Any:
        try:
            return await anext(source)
        except StopAsyncIteration:
            return End()

    async def close() -> None:
        if (method := getattr(source, "aclose", None) or getattr(source, "close", None)) is not None:
            await method()

    return Stream(await step(), step, close, source, None, source)


def generator_function(opening: Callable[..., Any]) -> Callable[..., Generator[Any, None, Any]]:
    """The generator function of a handler that opens streams."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        stream: Stream = drive(opening(*args, **kwargs))
        item = stream.first
        try:
            while type(item) is not End:
                for one in stream.at_hand(item):
                    try:
                        sent = yield one
                    except Exception as thrown:  # and not the end of the reader: it is closed, or cancelled
                        raise _refused("throw()") from thrown
                    if sent is not None:
                        raise _refused("send()")
                item = drive(stream.next())
            return item.value
        finally:
            drive(stream.close())

    return wrapper


def async_generator_function(opening: Callable[..., Any]) -> Callable[..., AsyncGenerator[Any, None]]:
    """The async generator function of a handler that opens streams."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        stream: Stream = await opening(*args, **kwargs)
        item = stream.first
        try:
            while type(item) is not End:
                for one in stream.at_hand(item):
                    try:
                        sent = yield one
                    except Exception as thrown:  # and not the end of the reader: it is closed, or cancelled
                        raise _refused("athrow()") from thrown
                    if sent is not None:
                        raise _refused("asend()")
                item = await stream.next()
        finally:
            await stream.close()

    return wrapper


def _refused(what: str) -> TypeError:
    return TypeError(f"{what} into a generator under a scalekit policy is refused: a stream may have several readers")


class _Proxy:
    """An SDK's stream object, its items read through the policies; everything else is the object's own."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._stream.source, name)

    def __repr__(self) -> str:
        return f"<scalekit stream of {self._stream.source!r}>"


class StreamProxy(_Proxy):
    """A sync iterator that must be closed: `with` it, read it to its end, or call `close()`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._items = _generated(stream)

    def __iter__(self) -> StreamProxy:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        self._items.close()
        drive(self._stream.close())  # a generator that never started does not close it

    def __enter__(self) -> StreamProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncStreamProxy(_Proxy):
    """An async iterator that must be closed: `async with` it, read it to its end, or await `close()`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._items = _agenerated(stream)

    def __aiter__(self) -> AsyncStreamProxy:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._items)

    async def close(self) -> None:
        await self._items.aclose()
        await self._stream.close()

    aclose = close

    async def __aenter__(self) -> AsyncStreamProxy:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _generated(stream: Stream) -> Generator[Any, None, Any]:
    async def opened() -> Stream:
        return stream

    return generator_function(opened)()


def _agenerated(stream: Stream) -> AsyncGenerator[Any, None]:
    async def opened() -> Stream:
        return stream

    return async_generator_function(opened)()


def lowered(stream: Stream, is_async: bool) -> Any:
    """What the caller gets for a stream that a function returned: the same kind of thing that the function gave."""
    if stream.source is None or isinstance(stream.source, AsyncGeneratorType | GeneratorType):
        return _agenerated(stream) if is_async else _generated(stream)
    return AsyncStreamProxy(stream) if is_async else StreamProxy(stream)


async def collected(stream: Stream) -> list[Any]:
    """All items of a stream, which is closed then."""
    items: list[Any] = []
    item = stream.first
    try:
        while type(item) is not End:
            items += stream.at_hand(item)
            item = await stream.next()
    finally:
        await stream.close()
    return items
