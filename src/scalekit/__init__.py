"""Decorators that carry agent functions from ten users to ten thousand: tiered caching, limits, retries."""

from scalekit._cache.policy import cache, no_store
from scalekit._cache.stores.memory import Memory
from scalekit._controls import controls
from scalekit._core.effect import effect
from scalekit._core.policy import Policy
from scalekit._limit.policy import limit
from scalekit._retry.policy import retry
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
    UnkeyableArgument,
)
from scalekit.settings import configure

__all__ = [
    "BlockingError",
    "CircuitOpen",
    "CodecError",
    "ConfigurationError",
    "DeadlineExceeded",
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
    "UnkeyableArgument",
    "cache",
    "configure",
    "controls",
    "effect",
    "explain",
    "limit",
    "no_store",
    "retry",
    "stack",
]
