"""Faults below HTTP: the connection that was refused, reset, or never came about, and the time that ran out.

The builtin families are known by type. The HTTP libraries' own are known by the name of a class in their MRO *and* the
library it comes from: a user's exception that is called ReadTimeout is the user's, and unknown exceptions are not
retried.

For a function with side effects one more thing counts: was the request surely never sent? A connection that was refused
proves it, one that broke while the answer was read does not. Many libraries raise one wide class for both, so the chain
of causes is followed through wide classes until a narrow one answers; a chain without an answer proves nothing.
"""

from __future__ import annotations

import errno
from enum import Enum

from scalekit._signals.reading import elements, get, words


class Fault(Enum):
    """What is known of a fault of the connection."""

    NEVER_SENT = "never sent"
    MAYBE_SENT = "maybe sent"
    NEVER = "never works"


_LIBRARIES = words(
    """aiohttp anthropic anyio botocore cerebras cohere google groq http httpcore httpcore2 httpx httpx2 huggingface_hub
    litellm mistralai openai pydantic_ai redis requests socket ssl together trio urllib3 valkey xai_sdk"""
)
_NEVER_SENT = words(
    """ClientConnectorDNSError ClientConnectorError ClientProxyConnectionError ConnectError ConnectTimeout
    ConnectTimeoutError ConnectionTimeoutError EmptyPoolError EndpointConnectionError NameResolutionError
    NewConnectionError PoolTimeout ProxyConnectionError gaierror herror"""
)
_MAYBE_SENT = words(
    """BrokenResourceError ChunkedEncodingError ClientConnectionError ClientOSError ClientPayloadError ClientSSLError
    CloseError ConnectionClosedError IncompleteRead NetworkError ProtocolError ReadError ReadTimeout ReadTimeoutError
    RemoteProtocolError ResponseStreamingError SSLEOFError SSLError SSLZeroReturnError ServerDisconnectedError
    ServerTimeoutError SocketTimeoutError TimeoutError TimeoutException TooSlowError WriteError WriteTimeout"""
)
_WIDE = words(  # their cause says which of the two it was
    """APIConnectionError APITimeoutError ConnectionError HTTPClientError MaxRetryError ModelConnectionError
    ModelRequestTimeout ProxyError Timeout"""
)
_NEVER = words(
    """CertificateError ClientConnectorCertificateError InvalidProxyURL InvalidSchema InvalidURL LocalProtocolError
    MissingSchema SSLCertVerificationError ServerFingerprintMismatch TooManyRedirects UnsupportedProtocol"""
)

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ECONNREFUSED})


def fault_of(error: BaseException) -> Fault | None:
    """What is known of `error` as a fault of the connection; None when it is none, or none that is known."""
    own = _own(error)
    if own is None or own is Fault.NEVER:
        return own
    chain = _chain(error)
    if any(_own(cause) is Fault.NEVER for cause in chain):
        return Fault.NEVER  # a certificate that is not trusted now is not trusted in two seconds
    phase = get(error, "phase")  # pydantic-ai says it
    if isinstance(phase, str) and phase in ("pool", "connect"):
        return Fault.NEVER_SENT
    for link in (error, *chain):
        if (found := _own(link)) is not None and not _is_wide(link):
            return found
    return Fault.MAYBE_SENT


def _own(error: BaseException) -> Fault | None:
    """What the type alone says, the most derived class first."""
    for cls in type(error).__mro__:
        if cls is ConnectionRefusedError:
            return Fault.NEVER_SENT
        if cls is ConnectionError or cls is TimeoutError:
            return Fault.MAYBE_SENT
        if cls is OSError:
            number = get(error, "errno")
            return Fault.NEVER_SENT if isinstance(number, int) and number in _UNREACHABLE else None
        name = cls.__name__
        if name.startswith("API") and name in _WIDE:  # Stainless generates these two for many an SDK
            return Fault.MAYBE_SENT
        if cls.__module__.partition(".")[0] in _LIBRARIES:
            if name in _NEVER:
                return Fault.NEVER
            if name in _NEVER_SENT:
                return Fault.NEVER_SENT
            if name in _MAYBE_SENT or name in _WIDE:
                return Fault.MAYBE_SENT
    return None


def _is_wide(error: BaseException) -> bool:
    """Whether the first class that is known is a wide one."""
    for cls in type(error).__mro__:
        if cls.__name__ in _WIDE and cls.__module__ != "builtins":
            return True
        if cls.__name__ in _NEVER_SENT or cls.__name__ in _MAYBE_SENT or cls.__module__ == "builtins":
            return False
    return False


def _chain(error: BaseException) -> list[BaseException]:
    """The causes of an exception, nearest first: `__cause__`, or the exception it was made of (requests, urllib3)."""
    chain: list[BaseException] = []
    seen = {id(error)}
    link: BaseException | None = error
    while link is not None and len(chain) < 20:
        candidates = (link.__cause__, get(link, "reason"), *elements(get(link, "args")))
        link = next((c for c in candidates if isinstance(c, BaseException) and id(c) not in seen), None)
        if link is not None:
            seen.add(id(link))
            chain.append(link)
    return chain
