"""What a layer may know of the function it is put around: how to call it, what it gives back, and where it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from scalekit._core.drive import Carried
from scalekit._core.policy import Handler
from scalekit._core.stream import PLAIN, Stream, open_async, open_sync
from scalekit._runtime.base import Runtime
from scalekit._runtime.blocking import BLOCKING
from scalekit.errors import ConfigurationError


class Shape(Enum):
    """The colour of a function and what a call of it gives."""

    FUNCTION = "def"
    COROUTINE = "async def"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def is_async(self) -> bool:
        return self in (Shape.COROUTINE, Shape.ASYNC_GENERATOR)

    @property
    def is_stream(self) -> bool:
        return self in (Shape.GENERATOR, Shape.ASYNC_GENERATOR)


def shape_of(function: Callable[..., Any]) -> Shape:
    """The shape of a function, also of a `def` that passes on what the async function it wraps gives back."""
    inner = function
    while True:
        if inspect.isasyncgenfunction(inner):
            return Shape.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(inner):
            return Shape.COROUTINE
        if inspect.isgeneratorfunction(inner):  # a def around one may give a list, or a context manager
            return Shape.GENERATOR if inner is function or isinstance(function, functools.partial) else Shape.FUNCTION
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif isinstance(getattr(inner, "__wrapped__", None), Callable):  # type: ignore[arg-type]
            inner = inner.__wrapped__  # type: ignore[attr-defined]
        else:
            call = getattr(type(inner), "__call__", None)  # noqa: B004  # of an object that is callable
            return Shape.COROUTINE if inspect.iscoroutinefunction(call) else Shape.FUNCTION


def name_of(function: Any) -> str:
    """ "module.qualname", of the function inside where there are wrappers without a name."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)
    return f"{function.__module__}.{function.__qualname__}"


class Target:
    """One decorated function. `states` holds what each policy value keeps for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = name_of(function)
        self.shape = shape_of(function)
        self.effect = bool(getattr(function, "__scalekit_effect__", False))
        self.states: dict[Any, Any] = {}
        self.runtime: Runtime = BLOCKING
        if self.shape.is_async:
            from scalekit._runtime.eventloop import EVENT_LOOP

            self.runtime = EVENT_LOOP

    @functools.cached_property
    def signature(self) -> inspect.Signature | None:
        """None for the few builtins that have none."""
        try:
            return inspect.signature(self.function)
        except (TypeError, ValueError):
            return None

    @functools.cached_property
    def own_signature(self) -> bool:
        """False where `__wrapped__` shows the parameters of another function, which this one may add to."""
        return self.signature == inspect.signature(self.function, follow_wrapped=False)

    @property
    def declares(self) -> Any:
        """What the return annotation says; "" if there is none."""
        return getattr(inspect.unwrap(self.function), "__annotations__", {}).get("return", "")

    @functools.cached_property
    def declares_stream(self) -> bool:
        annotation = self.declares
        text = annotation if isinstance(annotation, str) else repr(annotation)
        return any(word in text for word in ("Iterator", "Generator", "Stream"))

    def leaf(self) -> Handler:
        """The innermost handler. For an `async def` it is the function itself, and costs nothing."""
        function = self.function
        if self.shape is Shape.COROUTINE:
            return function if inspect.iscoroutinefunction(function) else self._passing_on()
        if self.shape is Shape.ASYNC_GENERATOR:

            async def leaf(*args: Any, **kwargs: Any) -> Any:
                return await open_async(function(*args, **kwargs))
        elif self.shape is Shape.GENERATOR:

            async def leaf(*args: Any, **kwargs: Any) -> Any:
                return await open_sync(function(*args, **kwargs))
        else:

            async def leaf(*args: Any, **kwargs: Any) -> Any:
                try:
                    value = function(*args, **kwargs)
                except StopIteration as stop:
                    raise Carried(stop) from None
                if type(value) not in PLAIN and hasattr(value, "__await__"):
                    raise self._unexpected(value)
                return value

        return leaf

    def _passing_on(self) -> Handler:
        function = self.function

        async def leaf(*args: Any, **kwargs: Any) -> Any:
            awaitable = function(*args, **kwargs)
            if not hasattr(awaitable, "__await__"):
                raise ConfigurationError(
                    f"{self.name} wraps an async function (its __wrapped__ says so), but it returned "
                    f"{type(awaitable).__name__}, which cannot be awaited. If it runs the coroutine itself, "
                    f"delete the wrapper's __wrapped__ before decorating it."
                )
            return await awaitable

        return leaf

    def _unexpected(self, value: Any) -> ConfigurationError:
        if inspect.iscoroutine(value):
            value.close()
        return ConfigurationError(
            f"{self.name} is a plain def, but it returned {type(value).__name__}, which must be awaited. Write it as "
            f"`async def`, or put functools.wraps of the async function on it, so that it is seen to be async."
        )

    async def opened(self, value: Any) -> Any:
        """`value`, or a Stream positioned on its first item where it is a live stream."""
        if type(value) is Stream:
            return value
        if isinstance(value, AsyncGeneratorType if self.shape.is_async else GeneratorType):
            stream = True
        else:
            stream = hasattr(type(value), "__anext__" if self.shape.is_async else "__next__") and (
                self.declares_stream or hasattr(value, "response")
            )
        if not stream:
            return value
        source: Any = value
        return await (open_async(source) if self.shape.is_async else open_sync(source))
