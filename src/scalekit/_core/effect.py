"""@scalekit.effect: this function changes the world, so never answer it from memory, and never do it twice by
chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from scalekit._core.bind import binding_of
from scalekit.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


def effect(function: F, /) -> F:
    """Mark a function that sends, pays, writes or deletes.

    `cache` refuses it; `retry` gives it another attempt only if the request surely never took effect (the
    connection was refused, or a 429 came back).

    Raises:
        ConfigurationError: the function is cached already, or is none.

    >>> import scalekit
    >>> @scalekit.retry(attempts=3)
    ... @scalekit.effect
    ... def send_mail(to: str) -> str:
    ...     return f"sent to {to}"
    >>> send_mail("ada@example.com")
    'sent to ada@example.com'
    """
    if isinstance(function, staticmethod | classmethod):
        effect(function.__func__)
        return cast(F, function)
    if not callable(function):
        raise ConfigurationError(
            f"effect marks functions, and was given {function!r}. Write @scalekit.effect above a def."
        )
    binding = binding_of(function)
    if binding is not None:
        if binding.first("cache") is not None:
            raise refused(binding.target.name)
        binding.target.effect = True
    try:
        function.__scalekit_effect__ = True  # type: ignore[attr-defined]
    except AttributeError:
        raise ConfigurationError(
            f"effect marks functions written in Python, and {function!r} takes no mark. Wrap it in a def and mark that."
        ) from None
    return function


def refused(name: str) -> ConfigurationError:
    """What `cache` says to a function with side effects."""
    return ConfigurationError(
        f"{name} is marked @scalekit.effect, and a cache would answer from memory instead of doing it. Take one of "
        f"the two away: cache what is read, not what is done."
    )
