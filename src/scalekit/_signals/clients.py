"""Clients that retry by themselves, seen where they are bound to a function: stacked retries multiply.

openai and anthropic try a request 2 more times unless they are told `max_retries=0`, boto3 2 or 4 more times. Under
three attempts of ours one call becomes nine requests, or fifteen; a user saw 45. A retry cannot see inside a client's
call, but at decoration it can see the clients that the function is bound to: in its closure, its defaults, the globals
that its body names, the object of a bound method, the arguments of a partial. A client that comes in as an argument or
on `self` is not seen, which is why the documentation says `max_retries=0`.

Attributes are read statically, without calling any `__getattr__` or property: a lazy proxy must not wake at import.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any
from weakref import WeakSet

from scalekit.errors import warn

_CLIENT_MARKS = ("_base_url", "base_url", "api_key", "_client", "client", "async_client")
_MISSING = object()
_told: WeakSet[Any] = WeakSet()


def retrying_clients(function: Callable[..., Any]) -> list[str]:
    """Clients bound to `function` that retry by themselves, as in "client (OpenAI, max_retries=2)"; [] if none is seen.

    >>> class Client:
    ...     max_retries, api_key = 2, "..."
    >>> client = Client()
    >>> def ask(question, client=client): ...
    >>> retrying_clients(ask)
    ['client (Client, max_retries=2)']
    """
    found: dict[int, str] = {}
    for name, value in _bound(function):
        if id(value) not in found and (setting := _retries(value)) is not None:
            found[id(value)] = f"{name} ({type(value).__name__}, {setting})"
    return list(found.values())


def warn_of_retrying_clients(function: Callable[..., Any], name: str) -> None:
    """One `ScalekitWarning` for a function under `retry` whose clients retry too; said once a function."""
    clients = retrying_clients(function)
    if not clients or any(told is function for told in _told):
        return
    with contextlib.suppress(TypeError):  # of what takes no weak reference: it may hear this twice
        _told.add(function)
    warn(
        f"{name} is under scalekit.retry, and {' and '.join(clients)} retries by itself too, so attempts multiply. "
        f"Switch those off where the client is made: max_retries=0."
    )


def _bound(function: Any) -> Iterator[tuple[str, Any]]:
    """What the function is bound to, with the name it has there."""
    seen: set[int] = set()
    while id(function) not in seen:
        seen.add(id(function))
        if isinstance(function, functools.partial):
            for value in (*function.args, *function.keywords.values()):
                yield "an argument of the partial", value
            function = function.func
            continue
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType | type):
            yield "the object of the method", owner
            yield "the client of the method", inspect.getattr_static(owner, "_client", None)
            function = getattr(function, "__func__", function)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield from _held(function, code)
        function = getattr(function, "__wrapped__", function)


def _held(function: Any, code: CodeType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    yield from zip(positional[len(positional) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for name in _globals(code):
        value = function.__globals__.get(name, _MISSING)
        if value is not _MISSING:
            yield name, value


def _globals(code: CodeType) -> set[str]:
    """Names that the body reads as globals, and not merely as attributes."""
    import dis

    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _globals(constant)
    return names


def _retries(value: Any) -> str | None:
    """How the client says that it retries, or None."""
    if value is None or isinstance(value, ModuleType | type | str | bytes | int | float):
        return None
    retries = _static(value, "max_retries")
    if isinstance(retries, int) and not isinstance(retries, bool) and retries > 0:
        return f"max_retries={retries}" if any(_static(value, mark) is not None for mark in _CLIENT_MARKS) else None
    return _boto_retries(value)


def _boto_retries(value: Any) -> str | None:
    if not any(cls.__module__ == "botocore.client" for cls in type(value).__mro__):
        return None
    options: Any = getattr(getattr(getattr(value, "meta", None), "config", None), "retries", None) or {}
    usual = 5 if options.get("mode", "legacy") == "legacy" else 3
    total = options.get("total_max_attempts") or options.get("max_attempts", usual - 1) + 1
    return f"retries={{'total_max_attempts': {total}}}" if total > 1 else None


def _static(value: Any, name: str) -> Any:
    try:
        return inspect.getattr_static(value, name, None)
    except Exception:
        return None
