"""Every error that scalekit itself raises, in one tree.

    ScalekitError
    ├── ConfigurationError (ValueError)     a decorator or setting was written wrongly: fix the code
    ├── UnkeyableArgument (TypeError)       an argument cannot be part of a cache key: `ignore=`, `key=`
    ├── CodecError                          a value cannot be stored as bytes, or bytes are not a value
    ├── Overloaded                          too many wait already: shed, or try again after `retry_after`
    │   ├── QueueFull                       `max_queue` callers were waiting
    │   └── QueueTimeout                    no permit came within `queue_timeout`
    ├── CircuitOpen                         a breaker is open: try again after `retry_after`
    ├── DeadlineExceeded (TimeoutError)     the time given to the call is over
    ├── StreamInterrupted                   the rest of a shared stream will not come to this reader: call again
    ├── ReentryError (RuntimeError)         a call waits for itself: break the cycle
    ├── BlockingError (RuntimeError)        waiting here would block the event loop that must finish first
    ├── StoreUnavailable                    a tier does not answer
    └── ReplayMiss                          the recording holds no such call

The user's own exceptions are not in it: they pass through as they were raised.
"""

from __future__ import annotations

import sys
import warnings

__all__ = [
    "BlockingError",
    "CircuitOpen",
    "CodecError",
    "ConfigurationError",
    "DeadlineExceeded",
    "Overloaded",
    "QueueFull",
    "QueueTimeout",
    "ReentryError",
    "ReplayMiss",
    "ScalekitError",
    "ScalekitWarning",
    "StoreUnavailable",
    "UnkeyableArgument",
]


class ScalekitError(Exception):
    """The root: `except scalekit.ScalekitError` catches what scalekit raised, and nothing of yours."""

    __module__ = "scalekit"


class ConfigurationError(ScalekitError, ValueError):
    """A decorator, a setting or a unit is wrong; the message shows what was given and what would be right."""

    __module__ = "scalekit"


class UnkeyableArgument(ScalekitError, TypeError):
    """An argument has no canonical form, so a cache key cannot be made of it; the message names the remedies."""

    __module__ = "scalekit"


class CodecError(ScalekitError):
    """A value cannot be encoded, or bytes cannot be decoded."""

    __module__ = "scalekit"


class Overloaded(ScalekitError):
    """The limit refused this call so that others are answered in time; never retried by scalekit itself.

    `retry_after` is in seconds (None: unknown), `depth` the number of callers that were waiting.
    """

    __module__ = "scalekit"

    def __init__(self, message: str, *, depth: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.depth = depth
        self.retry_after = retry_after


class QueueFull(Overloaded):
    """As many callers as `max_queue` allows were waiting already."""

    __module__ = "scalekit"


class QueueTimeout(Overloaded):
    """No permit came within `queue_timeout`; the message names who holds them."""

    __module__ = "scalekit"


class CircuitOpen(ScalekitError):
    """The breaker is open; `retry_after` is in seconds."""

    __module__ = "scalekit"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(ScalekitError, TimeoutError):
    """The time given to this call is over."""

    __module__ = "scalekit"


class ReentryError(ScalekitError, RuntimeError):
    """A cached call waits, directly or through others, for its own result."""

    __module__ = "scalekit"


class BlockingError(ScalekitError, RuntimeError):
    """A sync function would block the thread of the very event loop whose tasks must finish first."""

    __module__ = "scalekit"


class StreamInterrupted(ScalekitError):
    """The rest of a shared stream will not come; the items that came before are good."""

    __module__ = "scalekit"


class StoreUnavailable(ScalekitError):
    """A tier does not answer."""

    __module__ = "scalekit"


class ReplayMiss(ScalekitError):
    """The recording holds no such call."""

    __module__ = "scalekit"


class ScalekitWarning(UserWarning):
    """Something works, but not as well as it could; said once."""

    __module__ = "scalekit"


def warn(message: str) -> None:
    """Warn at the first line outside of scalekit: the one with the decorator."""
    level, frame = 2, sys._getframe(1)  # 1 would be this function
    while frame.f_back is not None and (
        str(frame.f_globals.get("__name__", "")).startswith("scalekit.")
        or frame.f_code.co_filename.startswith("<scalekit ")  # a compiled wrapper
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ScalekitWarning, stacklevel=level)
