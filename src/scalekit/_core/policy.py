"""What a policy is: a value that decorates, and one layer around a call.

A layer has the shape of the function itself, `async def (*args, **kwargs)`: there is no call object to build and to
take apart at every layer. A policy's `around` runs once, at decoration; what it returns runs once a call. It awaits
only the runtime, a store, or `proceed`. What all functions of a policy share (a pool, a budget) lives on the policy
value; what it keeps for one function lives in `target.states`, so that another layer outside finds it again.

A call's value may be a stream (see stream.py). A layer that must outlive the opening of a stream, or must fail before
its first item, passes what `proceed` returned through `target.opened` unless its type is in `stream.PLAIN`.

Pickled, a policy is its name and settings: the state stays behind, and policies with a name meet again where they
arrive.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from weakref import WeakValueDictionary

from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._core.target import Target

Handler = Callable[..., Awaitable[Any]]
F = TypeVar("F", bound=Callable[..., Any])
Settings = dict[str, Any]

CANONICAL_ORDER = ("fallback", "cache", "batch", "timeout", "retry", "hedge", "breaker", "limit")
"""Kinds of policy, outermost first: hits take no permit, and no permit is held while a retry waits."""


class Policy:
    """The base of every policy. `kind` is its place in the canonical order; `settings` are what was written."""

    kind: ClassVar[str]
    shares: ClassVar[bool] = True
    """Whether functions that wear one value have something in common: a pool, a budget."""

    def __init__(self, name: str | None, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.wearers: set[str] = set()
        self._token: str | None = None

    def __call__(self, function: F, /) -> F:
        """The function with one more layer around it: a real function of the same colour and signature."""
        from scalekit._core.bind import bind

        return bind((self,), function)

    def around(self, proceed: Handler, target: Target) -> Handler:
        """One layer: an `async def (*args, **kwargs)` around `proceed` for the function described by `target`."""
        raise NotImplementedError

    def controls(self, target: Target) -> object:
        """What `controls(f)` shows of this policy at `target`."""
        raise NotImplementedError

    def describe(self, target: Target) -> Settings:
        """The settings in force at `target`, as `explain` shows them."""
        return self.settings

    def sugar(self, target: Target) -> dict[str, object]:
        """The attributes that a decorated function gets, for those who do not write `controls(f)`."""
        return {self.kind: self.controls(target)}

    def fresh(self) -> Self:
        """The same settings with new state; a name is not kept, because a name means shared state."""
        return type(self)(None, self.settings)

    @classmethod
    def named(cls, name: str | None, settings: Settings) -> Self:
        """The one policy of that name; without a name, a new one."""
        if name is None:
            return cls(None, settings)
        with _lock:
            existing = _named.get((cls.kind, name))
            if existing is None:
                created = _named[cls.kind, name] = cls(name, settings)
                return created
        if not isinstance(existing, cls) or not _same(existing.settings, settings):
            raise ConfigurationError(
                f"{cls.kind}(name={name!r}) exists with other settings: {shown(existing.settings)}; now it was given "
                f"{shown(settings)}. One name is one {cls.kind}: use the same settings, or another name."
            )
        return existing

    def __reduce__(self) -> tuple[Any, ...]:
        if self._token is None:
            self._token = new_token()
        tokens[self._token] = self
        return _rejoin, (type(self), self.name, self.settings, self._token)

    def __repr__(self) -> str:
        return f"{self.kind}({shown({'name': self.name, **self.settings})})"


_lock = Lock()


def _after_fork() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_named: WeakValueDictionary[tuple[str, str], Policy] = WeakValueDictionary()
tokens: WeakValueDictionary[str, Any] = WeakValueDictionary()
_arrived: OrderedDict[str, Any] = OrderedDict()
_KEEP = 1_000  # what arrived by pickle stays this long although no function may hold it between two tasks of a worker


def new_token() -> str:
    """A name for something that is about to be pickled."""
    import uuid

    return uuid.uuid4().hex


def arrived(token: str, build: Callable[[], Any]) -> Any:
    """What `token` stands for in this process: built when it first comes, the same object afterwards."""
    thing = tokens.get(token)
    if thing is None:
        thing = build()
        with _lock:
            tokens[token] = _arrived[token] = thing
            if len(_arrived) > _KEEP:
                _arrived.popitem(last=False)
    return thing


def _rejoin(cls: type[Policy], name: str | None, settings: Settings, token: str) -> Policy:
    def build() -> Policy:
        policy = cls.named(name, settings)
        policy._token = token
        return policy

    policy: Policy = arrived(token, build)
    return policy


def _same(one: Settings, other: Settings) -> bool:
    def alike(a: Any, b: Any) -> bool:
        return bool(a == b) or (type(a) is type(b) and bool(getattr(a, "__dict__", None)) and vars(a) == vars(b))

    return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)


def shown(settings: Settings) -> str:
    """Settings as they would be written in code, without those that were left out."""
    return ", ".join(
        f"{key}={getattr(value, '__qualname__', None) or repr(value)}"
        for key, value in settings.items()
        if value is not None and value != ()
    )
