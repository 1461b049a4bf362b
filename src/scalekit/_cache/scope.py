"""Where a call stands: in whose scope, which sample it is, and whether the cache is to keep out of it.

A function that answers for many tenants seldom has a tenant argument. So the tenant is said once, around the request,
and travels in a context variable: into tasks, and into threads that are given the context (`asyncio.to_thread`, anyio,
a web framework's workers). Scopes nest: inside of "acme", "bob" is "bob of acme", and what is cleared in "acme" is
cleared for bob too.

Until the first scope of a process is entered, nothing asks for one: the compiled hit looks into a plain dict. From then
on it looks into an `Index` (site.py), which asks first. There is no way back, because a task that was started inside
of a scope may outlive the `with`, and would be answered from another tenant's entries.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from threading import Lock
from typing import Any, NamedTuple, Self
from weakref import WeakSet

from scalekit._cache.key import Tree, canonical
from scalekit.errors import ConfigurationError

__all__ = ["Place", "ambient", "bypass", "sample", "scope", "watch"]


class Place(NamedTuple):
    """`path` are the scopes, outermost first; `sample` tells apart what is otherwise one call."""

    path: tuple[Tree, ...] = ()
    sample: int | None = None
    bypass: bool = False

    def within(self, tree: Tree) -> Place:
        """One scope further in; the scope that one is in already is no further."""
        return self if self.path[-1:] == (tree,) else self._replace(path=(*self.path, tree))


NOWHERE = Place()
ambient: ContextVar[Place | None] = ContextVar("scalekit.place", default=None)

_lock = Lock()
_used = False
_watching: WeakSet[Any] = WeakSet()


def _after_fork() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def watch(site: Any) -> None:
    """Call `site.ask_where()` once, now or when the first scope of this process is entered."""
    with _lock:
        _watching.add(site)
        used = _used
    if used:
        site.ask_where()


def _first_use() -> None:
    global _used
    with _lock:
        _used = True
        sites = [*_watching]
    for site in sites:
        site.ask_where()


class _Within:
    """A `with` that sets the place of the code inside of it."""

    __slots__ = ("_change", "_tokens")

    def __init__(self, change: Callable[[Place], Place]) -> None:
        self._change = change
        self._tokens: list[Token[Place | None]] = []

    def __enter__(self) -> Self:
        if not _used:
            _first_use()
        self._tokens.append(ambient.set(self._change(ambient.get() or NOWHERE)))
        return self

    def __exit__(self, *exc: object) -> None:
        ambient.reset(self._tokens.pop())


def scope(name: Any) -> _Within:
    """Keep what is computed inside of this `with` apart from every other scope's.

    Args:
        name: a tenant, a user, a session: anything that a cache key can be made of.

    It is carried into tasks, and into threads that are started in this context (`asyncio.to_thread`, anyio); a bare
    `ThreadPoolExecutor` needs `contextvars.copy_context().run`. With `configure(require_scope=True)`, a look-up in a
    shared tier outside of any scope is an error.

    Raises:
        ConfigurationError: the name is None or empty: a tenant that was not found is no tenant.
        UnkeyableArgument: the name has no value that a key could be made of.

    >>> import scalekit
    >>> @scalekit.cache
    ... def greeting() -> str:
    ...     return "hello"
    >>> for tenant in ("acme", "globex", "acme"):
    ...     with scalekit.scope(tenant):
    ...         _ = greeting()
    >>> greeting.cache.stats().misses
    2
    """
    if name is None or name == "":
        raise ConfigurationError(f'scope: {name!r} names nobody, and all who have no name would share: scope("acme").')
    tree = name if type(name) is str else canonical(name, "scope")
    return _Within(lambda place: place.within(tree))


def sample(number: int) -> _Within:
    """Keep several answers to one prompt: inside of this `with`, a call is the `number`-th sample of itself.

    >>> import scalekit
    >>> @scalekit.cache
    ... def joke(topic: str) -> str:
    ...     return f"{topic}!"
    >>> for number in (0, 1, 2, 0):
    ...     with scalekit.sample(number):
    ...         _ = joke("cats")
    >>> joke.cache.stats().misses
    3
    """
    if type(number) is not int:
        raise ConfigurationError(f"sample: {number!r} is no whole number: with scalekit.sample(3).")
    return _Within(lambda place: place._replace(sample=number))


def bypass() -> _Within:
    """Inside of this `with` every cached function is computed as if it were not cached: nothing is looked up, joined
    or kept. (`controls(f).cache.refresh` computes anew and keeps the answer.)

    >>> import scalekit
    >>> @scalekit.cache
    ... def ask(question: str) -> str:
    ...     return question.upper()
    >>> with scalekit.bypass():
    ...     ask("why?"), ask.cache.contains("why?")
    ('WHY?', False)
    """
    return _Within(lambda place: place._replace(bypass=True))
