"""stack(): several policies as one decorator, in the one order that wastes nothing; explain(): what a function wears.

Outermost first: fallback > cache > batch > timeout > retry > hedge > breaker > limit. Hits take no permit, a permit
is held for one attempt and never while a retry waits, and retries run inside the flight that all callers share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from scalekit._core.bind import bind, binding_of
from scalekit._core.policy import CANONICAL_ORDER, Policy, shown
from scalekit.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


class Stack:
    """A value and a decorator, as every policy: whoever wears it shares the limits and budgets inside."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: CANONICAL_ORDER.index(policy.kind)))

    def __call__(self, function: F, /) -> F:
        return bind(self.policies, function)

    def fresh(self) -> Stack:
        """The same settings with new state: no limit, budget or memory is shared with this one."""
        return Stack(tuple(policy.fresh() for policy in self.policies))

    def __repr__(self) -> str:
        return f"stack({', '.join(map(repr, self.policies))})"


def stack(*policies: Policy | Stack) -> Stack:
    """One decorator of several policies, put in the canonical order however they are listed.

    Two of a kind stay in the order given (the key's limit outside the tenant's).

    >>> import scalekit
    >>> production = scalekit.stack(scalekit.limit(concurrency=8), scalekit.cache(ttl="10m"), scalekit.retry())
    >>> [policy.kind for policy in production.policies]
    ['cache', 'retry', 'limit']
    """
    flat: list[Policy] = []
    for policy in policies:
        if isinstance(policy, Stack):
            flat.extend(policy.policies)
        elif isinstance(policy, Policy):
            flat.append(policy)
        else:
            raise ConfigurationError(
                f"stack takes policies, and was given {policy!r}. Write "
                f'stack(scalekit.cache(ttl="10m"), scalekit.retry(), scalekit.limit(concurrency=8)).'
            )
    if not flat:
        raise ConfigurationError(
            "stack was given no policy. Write stack(scalekit.retry(), scalekit.limit(concurrency=8))."
        )
    return Stack(tuple(flat))


class Explanation(str):
    """Text that a terminal and a notebook show as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(function: Callable[..., Any]) -> Explanation:
    """The layers of a decorated function, outermost first, with their settings and with whom they share them.

    >>> import scalekit
    >>> @scalekit.limit(concurrency=2)
    ... def ask(question: str) -> str:
    ...     return question
    >>> scalekit.explain(ask).splitlines()[1:]
    ['  limit  concurrency=2']
    """
    binding = binding_of(getattr(function, "__func__", function))
    if binding is None:
        raise ConfigurationError(f"{function!r} wears no policy of scalekit, so there is nothing to explain.")
    target = binding.target
    width = max(len(policy.kind) for policy in binding.policies)
    lines = [f"{target.name}: {target.shape.value}{', has side effects (@scalekit.effect)' if target.effect else ''}"]
    for policy in binding.policies:
        settings = shown({"name": policy.name, **policy.describe(target)})
        others = sorted(policy.wearers - {target.name})
        shared = f"  (shared with {', '.join(others)})" if others and policy.shares else ""
        lines.append(f"  {policy.kind:<{width}}  {settings}{shared}".rstrip())
    return Explanation("\n".join(lines))
