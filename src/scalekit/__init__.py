"""Decorators that carry agent functions from ten users to ten thousand: tiered caching, limits, retries.

A name is imported when it is first used (PEP 562), so that `import scalekit` costs next to nothing: a program that
imports it in a hundred places and decorates in one pays for that one.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from scalekit import events as events
    from scalekit._cache.policy import cache, no_store
    from scalekit._cache.scope import bypass, sample, scope
    from scalekit._cache.stores.disk import Disk
    from scalekit._cache.stores.memory import Memory
    from scalekit._controls import controls
    from scalekit._core.effect import effect
    from scalekit._core.policy import Policy
    from scalekit._limit.policy import limit
    from scalekit._retry.policy import retry
    from scalekit._signals.answers import is_complete, is_refusal, is_tool_error, is_truncated
    from scalekit._stack import Stack, explain, stack
    from scalekit.errors import (
        BlockingError,
        CircuitOpen,
        CodecError,
        ConfigurationError,
        DeadlineExceeded,
        Overloaded,
        QueueFull,
        QueueTimeout,
        ReentryError,
        ReplayMiss,
        ScalekitError,
        ScalekitWarning,
        StoreUnavailable,
        StreamInterrupted,
        UnkeyableArgument,
    )
    from scalekit.settings import configure

__all__ = [
    "BlockingError",
    "CircuitOpen",
    "CodecError",
    "ConfigurationError",
    "DeadlineExceeded",
    "Disk",
    "Memory",
    "Overloaded",
    "Policy",
    "QueueFull",
    "QueueTimeout",
    "ReentryError",
    "ReplayMiss",
    "ScalekitError",
    "ScalekitWarning",
    "Stack",
    "StoreUnavailable",
    "StreamInterrupted",
    "UnkeyableArgument",
    "bypass",
    "cache",
    "configure",
    "controls",
    "effect",
    "explain",
    "is_complete",
    "is_refusal",
    "is_tool_error",
    "is_truncated",
    "limit",
    "no_store",
    "retry",
    "sample",
    "scope",
    "stack",
]

_ROOMS = {
    "Disk": "_cache.stores.disk",
    "Memory": "_cache.stores.memory",
    "Policy": "_core.policy",
    "Stack": "_stack",
    "bypass": "_cache.scope",
    "cache": "_cache.policy",
    "configure": "settings",
    "controls": "_controls",
    "effect": "_core.effect",
    "explain": "_stack",
    "is_complete": "_signals.answers",
    "is_refusal": "_signals.answers",
    "is_tool_error": "_signals.answers",
    "is_truncated": "_signals.answers",
    "limit": "_limit.policy",
    "no_store": "_cache.policy",
    "retry": "_retry.policy",
    "sample": "_cache.scope",
    "scope": "_cache.scope",
    "stack": "_stack",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "events":
        return import_module("scalekit.events")
    if name not in __all__:
        raise AttributeError(f"module 'scalekit' has no attribute {name!r}")
    thing: object = getattr(import_module(f"scalekit.{_ROOMS.get(name, 'errors')}"), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return __all__
