"""Counts what goes through a function (calls, refusals, tokens) where a provider's own counts are not known."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from scalekit._core.target import Shape, shape_of
from scalekit._signals.reading import status_of
from scalekit.cli.crowd import Upstream, tokens_of


class Meter:
    """Wrap the innermost function with `count`; `upstream()` is what went through it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._rejected = 0
        self._tokens: int | None = None

    def upstream(self) -> Upstream:
        return Upstream(self._calls, self._rejected, self._tokens if self._calls else 0)

    def count(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function in the same colour, counted."""
        colour = {
            Shape.FUNCTION: self._sync,
            Shape.COROUTINE: self._async,
            Shape.GENERATOR: self._stream,
            Shape.ASYNC_GENERATOR: self._async_stream,
        }[shape_of(function)]
        return functools.wraps(function)(colour(function))

    def _sync(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with _Passage(self) as passage:
                passage.result = function(*args, **kwargs)
            return passage.result

        return counted

    def _async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            with _Passage(self) as passage:
                passage.result = await function(*args, **kwargs)
            return passage.result

        return counted

    def _stream(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with _Passage(self) as passage:
                for passage.result in function(*args, **kwargs):
                    yield passage.result

        return counted

    def _async_stream(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with _Passage(self) as passage:
                async for passage.result in function(*args, **kwargs):
                    yield passage.result

        return counted

    def passed(self, result: Any, error: BaseException | None) -> None:
        tokens = tokens_of(result)
        with self._lock:
            self._calls += 1
            if error is not None and status_of(error) == 429:
                self._rejected += 1
            if tokens is not None:
                self._tokens = (self._tokens or 0) + tokens


class _Passage:
    """One call on its way through a meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.result: Any = None

    def __enter__(self) -> _Passage:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._meter.passed(self.result, error)
