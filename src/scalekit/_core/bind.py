"""Puts layers around a function and gives back a real function: same colour, name, signature and annotations.

A pile of decorators is one pipeline: a decorated function carries its `Binding`, and another policy binds the original
function anew with one more layer, so no call passes through two wrappers. What a policy keeps for the function lives
in the `Target`, which all bindings of one function share.

cloudpickle takes a function of `__main__` apart into its code and its cells. So a wrapper's cells hold only things that
pickle as "that cell of that binding", and a binding pickles as its function and its policies: the state stays behind.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from scalekit import settings
from scalekit._core.drive import drive
from scalekit._core.policy import CANONICAL_ORDER, Handler, Policy, arrived, new_token, tokens
from scalekit._core.stream import Stream, async_generator_function, generator_function, lowered
from scalekit._core.target import Shape, Target
from scalekit.errors import ConfigurationError, warn

F = TypeVar("F", bound=Callable[..., Any])
Wrapper = Callable[..., Any]


class Cell(functools.partial[Any]):
    """A handler as it stands in a wrapper's cell: as fast to call as the function, and pickled as its place."""

    binding: Binding

    def __reduce__(self) -> tuple[Any, ...]:
        return cell_of(self.binding, "handler")


@runtime_checkable
class Placed(Protocol):
    """What a wrapper holds and pickles as its place."""

    place: tuple[Any, ...]


class Binding:
    """One function and the policies around it, outermost first. `cells` are what its wrapper closes over."""

    def __init__(self, target: Target, policies: tuple[Policy, ...]) -> None:
        self.target = target
        self.policies = policies
        self.cells: dict[str, Any] = {}
        self.token: str | None = None
        handler: Handler = target.leaf()
        disabled: bool = settings.lookup("disable")
        for policy in reversed(policies):
            policy.wearers.add(target.name)
            if not disabled:
                handler = policy.around(handler, target)
        self.handler = handler
        cell = self.cells["handler"] = Cell(handler)
        cell.binding = self
        compiled: Callable[[Binding], Wrapper | None] | None = getattr(policies[0], "compiled", None)
        wrapper = (compiled and not disabled and compiled(self)) or _wrapper(target.shape, cell)
        self.wrapper = cast(FunctionType, functools.update_wrapper(wrapper, _named(target.function)))
        wrapper.__wrapped__ = target.function  # type: ignore[attr-defined]
        wrapper.__scalekit__ = self  # type: ignore[attr-defined]
        if target.effect:
            wrapper.__scalekit_effect__ = True  # type: ignore[attr-defined]
        for policy in reversed(policies):
            for name, control in policy.sugar(target).items():
                setattr(wrapper, name, control)
                if isinstance(control, Placed):
                    self.cells[name] = control
                    control.place = cell_of(self, name)

    def first(self, kind: str) -> Policy | None:
        """The outermost policy of that kind."""
        return next((policy for policy in self.policies if policy.kind == kind), None)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.token is None:
            self.token = new_token()
        tokens[self.token] = self
        return _rebound, (self.target.function, self.policies, self.token)


def _rebound(function: Callable[..., Any], policies: tuple[Policy, ...], token: str) -> Binding:
    return cast(Binding, arrived(token, lambda: Binding(Target(function), policies)))


def cell_of(binding: Binding, name: str) -> tuple[Any, ...]:
    """How something in a cell of a wrapper pickles."""
    return _cell, (binding, name)


def _cell(binding: Binding, name: str) -> Any:
    return binding.cells[name]


def binding_of(function: Any) -> Binding | None:
    """The binding that `function` was made by; None for a function that only copied our attributes
    (functools.wraps).
    """
    binding = function.__dict__.get("__scalekit__") if isinstance(function, FunctionType) else None
    if isinstance(binding, Binding) and function.__code__ == binding.wrapper.__code__:
        return binding
    return None


def bind(policies: tuple[Policy, ...], function: F) -> F:
    """`function` with `policies` around it, outermost first, outside of those it already wears."""
    if isinstance(function, staticmethod | classmethod):
        inner: Any = type(function)(bind(policies, function.__func__))
        return cast(F, inner)
    _check(policies, function)
    existing = binding_of(function)
    if existing is None:
        target = Target(function)
    else:
        target = existing.target
        _warn_of_order(target, policies, existing.policies)
        if twice := [policy for policy in policies if policy in existing.policies]:
            raise ConfigurationError(f"{target.name} wears {twice[0]} already: take one of the two away.")
        policies = (*policies, *existing.policies)
    return cast(F, Binding(target, policies).wrapper)


def _check(policies: tuple[Policy, ...], function: Any) -> None:
    kind = policies[0].kind
    if inspect.isclass(function):
        raise ConfigurationError(
            f"{kind} was put on the class {function.__qualname__}. Decorate the methods that do the work, for example "
            f"{function.__qualname__}.__call__."
        )
    if isinstance(function, property | functools.cached_property):
        raise ConfigurationError(
            f"{kind} was put on a property. Decorate a method, and let the property call it: a property has no "
            f"arguments and no place for controls."
        )
    if getattr(function, "__globals__", None) is vars(contextlib):
        raise ConfigurationError(
            f"{kind} was put on {function.__qualname__}, a context manager: it would end before the `with` block "
            f"begins. Decorate the functions that are called inside of it."
        )
    if not callable(function):
        raise ConfigurationError(
            f"{kind} decorates functions, and was given {function!r} of type {type(function).__name__}. "
            f"Write its arguments by name, as in @scalekit.{kind}(...), above a def."
        )


def _warn_of_order(target: Target, new: tuple[Policy, ...], worn: tuple[Policy, ...]) -> None:
    pairs = [(outer.kind, inner.kind) for outer in new for inner in worn]
    for outer, inner in pairs:
        if CANONICAL_ORDER.index(outer) <= CANONICAL_ORDER.index(inner):
            continue
        why = {
            (
                "retry",
                "cache",
            ): "every attempt asks the cache again, and callers that share a flight retry it each alone",
            ("limit", "cache"): "a hit takes a permit it does not need",
            ("limit", "retry"): "the permit is held while a retry waits",
        }.get((outer, inner), f"the canonical order is {' > '.join(CANONICAL_ORDER)}")
        warn(
            f"{target.name}: {outer} is outside of {inner}: {why}. Put @{inner} above @{outer}, or let "
            f"scalekit.stack({inner}(...), {outer}(...)) order them."
        )


def _named(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function if hasattr(function, "__name__") else type(function).__call__


def _wrapper(shape: Shape, handler: Cell) -> Wrapper:
    if shape is Shape.GENERATOR:
        return generator_function(handler)
    if shape is Shape.ASYNC_GENERATOR:
        return async_generator_function(handler)

    async def awaiting(*args: Any, **kwargs: Any) -> Any:
        value = await handler(*args, **kwargs)
        return value if type(value) is not Stream else lowered(value, True)

    def blocking(*args: Any, **kwargs: Any) -> Any:
        value = drive(handler(*args, **kwargs))
        return value if type(value) is not Stream else lowered(value, False)

    return awaiting if shape is Shape.COROUTINE else blocking
