"""The verdict on a failure: try again, slow down, never, or unknown. `retry`, `limit` and `breaker` all ask here.

    transient   another try may work: 408, 409 (lock), 500, 502, 503, 504, 529, faults of the connection
    slow_down   the same, and everyone behind the same limit should wait: 429, 503, 529, or any with a Retry-After
    never       it will fail again, or must not be tried again: 400, 401, 403, 404, 422, a spent quota, a cancellation
    unknown     an exception that no SDK raises: retried only if the user says so

What decides, in this order: cancellation and our own errors (final: nothing overrules them); a spent quota; what AWS
calls it; the server's own `x-should-retry`; the status; a code inside a stream that had begun with status 200; the
faults of the connection. The facts were read from the SDKs' current releases (tests/signals); none is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from scalekit._signals.faults import Fault, fault_of
from scalekit._signals.hints import hint
from scalekit._signals.reading import aws_code, codes_of, header, inside_stream, status_of, words
from scalekit.errors import ScalekitError

Kind = Literal["transient", "slow_down", "never", "unknown"]


class Verdict(NamedTuple):
    """What one failure means.

    `retry_after` is the server's hint in seconds, capped. `surely_without_effect` is True when the request certainly
    did nothing (never sent, or refused with 429): even a function with side effects may run again. `status` is the HTTP
    status, if there was one. `final` marks cancellation and scalekit's own errors: no `on=` makes them retryable.
    """

    kind: Kind
    retry_after: float | None = None
    surely_without_effect: bool = False
    status: int | None = None
    final: bool = False

    @property
    def retryable(self) -> bool:
        """True for `transient` and `slow_down`."""
        return self.kind in ("transient", "slow_down")


_SLOW_STATUSES = frozenset({429, 503, 529})
_TRANSIENT_STATUSES = frozenset({408, 409, 425})
_PERMANENT_STATUSES = frozenset({501, 505, 511})  # of the 5xx: the server will not learn it in two seconds


def _table(*, slow_down: str, transient: str, never: str) -> dict[str, Kind]:
    table: dict[str, Kind] = dict.fromkeys(words(slow_down), "slow_down")
    table.update(dict.fromkeys(words(transient), "transient"))
    table.update(dict.fromkeys(words(never), "never"))
    return table


_SPENT = words("insufficientquota billinghardlimitreached billingnotactive billingerror budgetexceeded")
_SPENT_CLASSES = frozenset({"BudgetExceededError", "ModelQuotaExceededError"})  # litellm, pydantic-ai

# Compared without case, underscores and hyphens: a Bedrock stream says throttlingException, over HTTP it has a capital.
_AWS = _table(  # the union that botocore's own retries know, and Bedrock's
    slow_down="throttling throttlingexception throttledexception requestthrottledexception requestthrottled slowdown "
    "toomanyrequestsexception provisionedthroughputexceededexception requestlimitexceeded bandwidthlimitexceeded "
    "limitexceededexception transactioninprogressexception priorrequestnotcomplete ec2throttledexception "
    "serviceunavailableexception serviceunavailable modelnotreadyexception",
    transient="requesttimeout requesttimeoutexception internalservererror internalserverexception internalerror "
    "internalfailure modeltimeoutexception modelstreamerrorexception",
    never="servicequotaexceededexception validationexception accessdeniedexception resourcenotfoundexception",
)
_CODES = _table(  # of openai, anthropic and google, where a stream had begun and the status says nothing
    slow_down="ratelimitexceeded ratelimiterror overloadederror overloaded engineoverloaded resourceexhausted "
    "toomanyrequests serviceunavailable serviceunavailableerror unavailable throttlingerror",
    transient="servererror internalservererror internalerror internal apierror timeouterror timeout "
    "requesttimeout deadlineexceeded gatewaytimeout aborted",
    never="invalidrequesterror authenticationerror permissionerror permissiondeniederror notfounderror "
    "invalidargument invalidapikey contextlengthexceeded contentfilter contentpolicyviolation modelnotfound "
    "requesttoolarge requesttoolargeerror unauthenticated permissiondenied notfound failedprecondition",
)
_WITHOUT_EFFECT = frozenset(code for code, kind in _AWS.items() if kind == "slow_down") - {
    "serviceunavailableexception",
    "serviceunavailable",
    "transactioninprogressexception",
}
_CATEGORIES: dict[str, Kind] = {  # pydantic-ai's, for failures that came without an HTTP status
    "ModelRateLimitError": "slow_down",
    "ModelUnavailableError": "slow_down",
    "ModelServerError": "transient",
    "ModelRequestRejectedError": "never",
}
_WORST: tuple[Kind, ...] = ("never", "unknown", "slow_down", "transient")


def verdict(
    error: BaseException,
    *,
    max_retry_after: float = 120.0,
    wall_clock: Callable[[], float] = time.time,
) -> Verdict:
    """What `error` means; never raises.

    `max_retry_after` (seconds) caps the server's hint. `wall_clock` is what an HTTP date in Retry-After is read by. A
    group is as bad as its worst member, and waits for the longest hint among them.

    >>> verdict(ConnectionRefusedError())
    Verdict(kind='transient', retry_after=None, surely_without_effect=True, status=None, final=False)
    >>> verdict(ValueError("bad JSON")).kind
    'unknown'
    """
    if isinstance(error, BaseExceptionGroup):
        return _of_group(error, max_retry_after, wall_clock)  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(error, Exception) or isinstance(error, ScalekitError) or _is_cancellation(error):
        return Verdict("never", final=True)
    found = _judge(error)
    wait = hint(error, wall_clock, max_retry_after)
    if wait is None:
        return found
    return found._replace(kind="slow_down" if found.retryable else found.kind, retry_after=wait)


def _judge(error: Exception) -> Verdict:
    status, streaming = status_of(error), inside_stream(error)
    codes = [_plain(code) for code in codes_of(error)]
    if _is_spent(error, codes):
        return Verdict("never", status=status)
    if (code := aws_code(error)) is not None and (kind := _AWS.get(_plain(code))) is not None:
        untouched = _plain(code) in _WITHOUT_EFFECT and type(error).__name__ != "EventStreamError"
        return Verdict(kind, status=status, surely_without_effect=untouched)
    if status is None or status < 300:  # a stream that had begun: only its words, or a number among them, tell
        numbers = [int(code) for code in codes if code.isdecimal() and len(code) == 3]
        if numbers and numbers[0] >= 400:
            status, streaming = numbers[0], True
    if status is not None and status >= 300:
        kind = _of_status(status, header(error, "x-should-retry"))
        return Verdict(kind, status=status, surely_without_effect=status == 429 and not streaming)
    for code in codes:
        if (kind := _CODES.get(code)) is not None:
            return Verdict(kind, status=status)
    for cls in type(error).__mro__:
        if (kind := _CATEGORIES.get(cls.__name__)) is not None and cls.__module__.startswith("pydantic_ai."):
            return Verdict(kind, status=status)
    match fault_of(error):
        case None:
            explicit = type(error).__name__ == "TryAgain" and type(error).__module__.startswith("tenacity")
            return Verdict("transient" if explicit else "unknown", status=status)
        case Fault.NEVER:
            return Verdict("never", status=status)
        case fault:
            return Verdict("transient", status=status, surely_without_effect=fault is Fault.NEVER_SENT)


def _of_status(status: int, should_retry: str | None) -> Kind:
    asked = None if should_retry is None else {"true": True, "false": False}.get(should_retry.lower())
    worth = status in _TRANSIENT_STATUSES or status == 429 or (status >= 500 and status not in _PERMANENT_STATUSES)
    if not (worth if asked is None else asked):
        return "never"
    return "slow_down" if status in _SLOW_STATUSES else "transient"


def _of_group(group: BaseExceptionGroup[Any], cap: float, wall_clock: Callable[[], float]) -> Verdict:
    members = [verdict(member, max_retry_after=cap, wall_clock=wall_clock) for member in group.exceptions]
    worst = min(members, key=lambda member: (not member.final, _WORST.index(member.kind)))
    hints = [member.retry_after for member in members if member.retry_after is not None]
    return worst._replace(
        retry_after=max(hints, default=None),
        surely_without_effect=all(member.surely_without_effect for member in members),
    )


def _is_spent(error: BaseException, codes: list[str]) -> bool:
    """A quota that waiting will not refill; wrappers such as litellm keep the word only on their cause."""
    if not _SPENT.isdisjoint(codes) or any(cls.__name__ in _SPENT_CLASSES for cls in type(error).__mro__):
        return True
    cause = error.__cause__
    return isinstance(cause, Exception) and not _SPENT.isdisjoint(_plain(code) for code in codes_of(cause))


def _is_cancellation(error: Exception) -> bool:
    """`concurrent.futures.CancelledError` is an Exception; asyncio's and trio's are not, and need no name here."""
    return any(
        cls.__name__ == "CancelledError" and cls.__module__.startswith("concurrent.") for cls in type(error).__mro__
    )


def _plain(code: str) -> str:
    return code.replace("_", "").replace("-", "").lower()
