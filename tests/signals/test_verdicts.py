"""What each SDK's failure means: real exceptions where the SDK is installed, else classes as the SDK writes them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import openai
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import scalekit.errors
from scalekit._signals.hints import parse_retry_after
from scalekit._signals.verdicts import Verdict, verdict

URL = "https://api.example.com/v1/chat/completions"
QUOTA = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
RETRYABLE = {408: "transient", 409: "transient", 500: "transient", 502: "transient", 504: "transient"} | dict.fromkeys(
    (429, 503, 529), "slow_down"
)
PERMANENT = (400, 401, 403, 404, 422, 501)


def caught(call: Callable[[], Any]) -> BaseException:
    """What `call` raises, with the causes that it has in life."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def answering(status: int, headers: dict[str, str] | None = None, body: Any = None) -> openai.OpenAI:
    """The real openai client in front of a server that always gives one answer."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if isinstance(body, str):
            return httpx2.Response(status, headers={"content-type": "text/event-stream"}, text=body)
        error = body or {"message": "no", "type": "x", "code": None}
        return httpx2.Response(status, headers=headers, json={"error": error})

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(api_key="x", max_retries=0, http_client=httpx2.Client(transport=transport))


def ask(client: openai.OpenAI, **options: Any) -> Any:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], **options)
    return list(answer) if options else answer


def like(module: str, name: str, *bases: type, **attributes: Any) -> Any:
    """An exception of a class with that name and module, as a library writes it."""
    cls = type(name, bases or (Exception,), {"__module__": module})
    error = cls(f"{name} of {module}")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


# openai and litellm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "kind"), sorted(RETRYABLE.items()))
def test_openai_statuses_worth_another_try(status: int, kind: str) -> None:
    """408, 409, 429 and 5xx of openai are retried; 429, 503, 529 slow everyone down; only 429 surely did nothing."""
    found = verdict(caught(lambda: ask(answering(status))))
    assert (found.kind, found.status, found.surely_without_effect) == (kind, status, status == 429)


@pytest.mark.parametrize("status", PERMANENT)
def test_openai_statuses_not_worth_it(status: int) -> None:
    """Requests that are wrong stay wrong."""
    assert verdict(caught(lambda: ask(answering(status)))).kind == "never"


def test_openai_spent_quota() -> None:
    """A spent quota is a 429 that waiting will not help, whatever the headers say."""
    spent = answering(429, {"retry-after": "3", "x-should-retry": "true"}, QUOTA)
    assert verdict(caught(lambda: ask(spent))).kind == "never"


def test_openai_should_retry_header() -> None:
    """The server's own x-should-retry beats the status, both ways."""
    assert verdict(caught(lambda: ask(answering(500, {"x-should-retry": "false"})))).kind == "never"
    assert verdict(caught(lambda: ask(answering(400, {"x-should-retry": "true"})))).kind == "transient"
    assert verdict(caught(lambda: ask(answering(429, {"X-Should-Retry": "FALSE"})))).kind == "never"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ('{"message": "boom", "type": "server_error", "code": null}', "transient"),
        ('{"message": "slow", "type": "requests", "code": "rate_limit_exceeded"}', "slow_down"),
        ('{"message": "bad gateway", "code": 502}', "transient"),
        ('{"message": "slow", "code": 429}', "slow_down"),
        ('{"message": "spent", "type": "insufficient_quota", "code": "insufficient_quota"}', "never"),
        ('{"message": "long", "type": "invalid_request_error", "code": "context_length_exceeded"}', "never"),
        ('{"message": "?", "type": "something_new", "code": null}', "unknown"),
    ],
)
def test_openai_inside_a_stream(error: str, kind: str) -> None:
    """A stream that breaks with a bare APIError is judged by its code, and surely had some effect."""
    chunk = '{"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}'
    broken = caught(lambda: ask(answering(200, body=f'data: {chunk}\n\ndata: {{"error": {error}}}\n\n'), stream=True))
    assert type(broken) is openai.APIError
    found = verdict(broken)
    assert (found.kind, found.surely_without_effect) == (kind, False)


@pytest.mark.parametrize(
    ("cause", "without_effect"),
    [
        (httpx2.ConnectError, True),
        (httpx2.ConnectTimeout, True),
        (httpx2.PoolTimeout, True),
        (httpx2.ReadTimeout, False),
        (httpx2.ReadError, False),
        (httpx2.RemoteProtocolError, False),
    ],
)
def test_openai_connection(cause: type[Exception], without_effect: bool) -> None:
    """A connection fault of openai is transient; its cause tells whether the request was surely never sent."""

    def fail(request: httpx2.Request) -> httpx2.Response:
        raise cause("no")

    client = openai.OpenAI(api_key="x", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(fail)))
    error = caught(lambda: ask(client))
    assert isinstance(error, openai.APIConnectionError)
    assert verdict(error) == Verdict("transient", surely_without_effect=without_effect)


def test_openai_refused_for_real() -> None:
    """A port that nobody listens on: transient, and without effect."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with openai.OpenAI(api_key="x", max_retries=0, base_url=url) as client:
        assert verdict(caught(lambda: ask(client))) == Verdict("transient", surely_without_effect=True)


def test_litellm() -> None:
    """litellm's subclasses of openai's errors: the status, headers of its own, a quota that only the cause tells."""
    response = httpx2.Response(429, request=httpx2.Request("POST", URL))
    error = openai.RateLimitError("slow", response=response, body=None)
    error.code, error.type = "429", "throttling_error"
    error.litellm_response_headers = {"Retry-After": "4"}
    assert verdict(error) == Verdict("slow_down", 4.0, True, 429)
    error.__cause__ = openai.RateLimitError("spent", response=response, body=QUOTA)
    assert verdict(error).kind == "never"
    assert verdict(like("litellm.exceptions", "BudgetExceededError", status_code=429)).kind == "never"
    midway = like("litellm.exceptions", "MidStreamFallbackError", status_code=429, generated_content="so far")
    assert verdict(midway) == Verdict("slow_down", status=429)


# anthropic ----------------------------------------------------------------------------------------------------------


def anthropic(status: int, kind: str | None, headers: dict[str, str] | None = None) -> Any:
    """anthropic's APIStatusError: `.type` is `body["error"]["type"]`."""
    response = httpx.Response(status, headers=headers, request=httpx.Request("POST", URL))
    body = {"type": "error", "error": {"type": kind, "message": "..."}}
    return like(
        "anthropic", "APIStatusError", type=kind, status_code=status, response=response, body=body, message="..."
    )


def test_anthropic() -> None:
    """anthropic's statuses, 529 among them, and its Retry-After."""
    assert verdict(anthropic(429, "rate_limit_error", {"retry-after": "9"})) == Verdict("slow_down", 9.0, True, 429)
    assert verdict(anthropic(529, "overloaded_error")) == Verdict("slow_down", status=529)
    assert verdict(anthropic(503, "api_error")).kind == "slow_down"
    assert verdict(anthropic(400, "invalid_request_error")).kind == "never"
    assert verdict(anthropic(400, "billing_error")).kind == "never"


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("overloaded_error", "slow_down"),
        ("rate_limit_error", "slow_down"),
        ("api_error", "transient"),
        ("timeout_error", "transient"),
        ("invalid_request_error", "never"),
        (None, "unknown"),
    ],
)
def test_anthropic_inside_a_stream(word: str | None, kind: str) -> None:
    """An error inside a stream has status 200: its type decides, and an effect is possible."""
    found = verdict(anthropic(200, word))
    assert (found.kind, found.surely_without_effect) == (kind, False)


def test_anthropic_before_it_had_a_type() -> None:
    """Releases without `.type` have the word in the body."""
    error = anthropic(200, "overloaded_error")
    del error.type
    assert verdict(error).kind == "slow_down"


# google -------------------------------------------------------------------------------------------------------------


def google(code: int, status: str, delay: str | None = None, **more: Any) -> Any:
    details: list[Any] = [{"@type": "type.googleapis.com/google.rpc.Help", "links": []}]
    if delay is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    payload = {"error": {"code": code, "message": "...", "status": status, "details": details}}
    return like("google.genai.errors", "ClientError", code=code, status=status, details=payload, response=None, **more)


def test_google() -> None:
    """google's number is in `.code` and its hint in the body."""
    assert verdict(google(429, "RESOURCE_EXHAUSTED", "12s")) == Verdict("slow_down", 12.0, True, 429)
    assert verdict(google(429, "RESOURCE_EXHAUSTED", "1.5s")).retry_after == 1.5
    assert verdict(google(503, "UNAVAILABLE")) == Verdict("slow_down", status=503)
    assert verdict(google(500, "INTERNAL")).kind == "transient"
    assert verdict(google(400, "INVALID_ARGUMENT")).kind == "never"
    assert verdict(google(404, "NOT_FOUND")).kind == "never"


def test_google_headers() -> None:
    """A header wins over the hint in the body."""
    error = google(429, "RESOURCE_EXHAUSTED", "12s")
    error.response = httpx.Response(429, headers={"retry-after": "3"}, request=httpx.Request("POST", URL))
    assert verdict(error).retry_after == 3.0


# plain HTTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_httpx(library: Any) -> None:
    """Both httpx namespaces: the status of the response, and the faults below it."""
    request = library.Request("GET", URL)
    for status, kind in RETRYABLE.items():
        assert verdict(caught(library.Response(status, request=request).raise_for_status)).kind == kind
    for status in PERMANENT:
        assert verdict(caught(library.Response(status, request=request).raise_for_status)).kind == "never"
    assert verdict(library.ConnectError("no")) == Verdict("transient", surely_without_effect=True)
    assert verdict(library.ReadTimeout("no")) == Verdict("transient")
    assert verdict(library.UnsupportedProtocol("no")).kind == "never"
    assert verdict(library.InvalidURL("no")).kind == "never"
    assert verdict(library.DecodingError("no")).kind == "unknown"


class RequestsResponse:
    """Its truth is whether it went well, as in requests."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.headers = status, headers or {}

    def __bool__(self) -> bool:
        return self.status_code < 400


def test_requests() -> None:
    """The response of a failed request is falsy, and is read all the same."""
    error = like("requests.exceptions", "HTTPError", OSError, response=RequestsResponse(429, {"Retry-After": "5"}))
    assert verdict(error) == Verdict("slow_down", 5.0, True, 429)
    assert verdict(like("requests.exceptions", "HTTPError", OSError, response=RequestsResponse(404))).kind == "never"


def test_requests_connection() -> None:
    """requests has one ConnectionError for all: what it was made of tells which."""
    wide = type("ConnectionError", (OSError,), {"__module__": "requests.exceptions"})
    refused = like("urllib3.exceptions", "MaxRetryError", reason=like("urllib3.exceptions", "NewConnectionError"))
    assert verdict(wide(refused)) == Verdict("transient", surely_without_effect=True)
    aborted = like("urllib3.exceptions", "ProtocolError")
    aborted.args = ("Connection aborted.", ConnectionResetError())
    assert verdict(wide(aborted)) == Verdict("transient")
    assert verdict(wide("out of the blue")) == Verdict("transient")
    assert verdict(like("requests.exceptions", "MissingSchema", OSError, ValueError)).kind == "never"


def test_aiohttp() -> None:
    """aiohttp has the status on the error, and its headers may be None."""
    error = like("aiohttp.client_exceptions", "ClientResponseError", status=503, headers=None)
    assert verdict(error) == Verdict("slow_down", status=503)
    error.headers = {"retry-after-ms": "1500", "Retry-After": "9"}
    assert verdict(error).retry_after == 1.5
    connector = like("aiohttp.client_exceptions", "ClientConnectorError", OSError)
    assert verdict(connector) == Verdict("transient", surely_without_effect=True)
    assert verdict(like("aiohttp.client_exceptions", "ServerDisconnectedError")) == Verdict("transient")
    assert verdict(like("aiohttp.client_exceptions", "ClientConnectorCertificateError")).kind == "never"


# boto3, pydantic-ai -------------------------------------------------------------------------------------------------


def boto(code: str, status: int | None = 400, name: str = "ClientError", **headers: str) -> Any:
    response: dict[str, Any] = {"Error": {"Code": code, "Message": "..."}}
    if status is not None:
        response["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return like("botocore.exceptions", name, response=response, operation_name="Converse")


def test_boto() -> None:
    """boto3's code says more than the status: throttling is a 400; what the code does not tell, the status does."""
    throttled = boto("ThrottlingException", **{"retry-after": "3"})
    assert verdict(throttled) == Verdict("slow_down", 3.0, True, 400)
    assert verdict(boto("ServiceUnavailableException", 503)) == Verdict("slow_down", status=503)
    assert verdict(boto("ModelTimeoutException", 408)).kind == "transient"
    assert verdict(boto("ServiceQuotaExceededException")).kind == "never"
    assert verdict(boto("ValidationException")).kind == "never"
    assert verdict(boto("SomethingNew", 500)).kind == "transient"
    assert verdict(boto("SomethingNew", 400)).kind == "never"
    assert verdict(like("botocore.exceptions", "EndpointConnectionError")) == Verdict(
        "transient", surely_without_effect=True
    )


def test_boto_inside_a_stream() -> None:
    """Bedrock's event stream writes its codes with a small letter, has no status, and may have had an effect."""
    assert verdict(boto("throttlingException", None, "EventStreamError")) == Verdict("slow_down")


def test_pydantic_ai() -> None:
    """pydantic-ai's status, hint, phase, stream mark and categories."""
    module = "pydantic_ai.exceptions"
    found = verdict(like(module, "ModelHTTPError", status_code=429, retry_after=4.0, headers=None, in_stream=False))
    assert found == Verdict("slow_down", 4.0, True, 429)
    assert verdict(like(module, "ModelHTTPError", status_code=429, in_stream=True)) == Verdict("slow_down", status=429)
    assert verdict(like(module, "ModelConnectionError", phase="connect")).surely_without_effect
    assert verdict(like(module, "ModelConnectionError", phase="read")) == Verdict("transient")
    assert (
        verdict(like(module, "ModelOverloadedError", type(like(module, "ModelUnavailableError")))).kind == "slow_down"
    )
    assert verdict(like(module, "ModelQuotaExceededError", status_code=429)).kind == "never"
    assert verdict(like(module, "ModelRequestRejectedError")).kind == "never"


# below HTTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), Verdict("transient", surely_without_effect=True)),
        (ConnectionResetError(), Verdict("transient")),
        (BrokenPipeError(), Verdict("transient")),
        (TimeoutError(), Verdict("transient")),
        (concurrent.futures.TimeoutError(), Verdict("transient")),
        (trio.TooSlowError(), Verdict("transient")),
        (trio.BrokenResourceError(), Verdict("transient")),
        (OSError(errno.ENETUNREACH, "no way"), Verdict("transient", surely_without_effect=True)),
        (OSError(errno.ETIMEDOUT, "late"), Verdict("transient")),
        (socket.gaierror(socket.EAI_AGAIN, "later"), Verdict("transient", surely_without_effect=True)),
        (ssl.SSLCertVerificationError(1, "who are you"), Verdict("never")),
        (FileNotFoundError(2, "gone"), Verdict("unknown")),
        (PermissionError(13, "no"), Verdict("unknown")),
        (OSError(28, "full"), Verdict("unknown")),
        (ValueError("bad JSON"), Verdict("unknown")),
        (KeyError("x"), Verdict("unknown")),
    ],
    ids=repr,
)
def test_builtins(error: Exception, expected: Verdict) -> None:
    """Connections and time are transient, a refused connection surely did nothing, the rest is not our business."""
    assert verdict(error) == expected


def test_certificates_deep_in_the_chain() -> None:
    """A certificate that is not trusted is not trusted in two seconds, however deep it is wrapped."""
    error = httpx.ConnectError("handshake")
    error.__cause__ = ssl.SSLCertVerificationError(1, "self-signed")
    assert verdict(error).kind == "never"


def test_a_users_exceptions_are_unknown() -> None:
    """Names, codes and causes of the user's own exceptions do not make them transient."""
    assert verdict(like("shop.errors", "ReadTimeout")).kind == "unknown"
    assert verdict(like("shop.errors", "OrderError", code=503)).kind == "unknown"
    assert verdict(like("shop.errors", "OrderError", code="timeout", type="server_error")).kind == "unknown"
    wrapped = ValueError("could not order")
    wrapped.__cause__ = ConnectionRefusedError()
    assert verdict(wrapped).kind == "unknown"


# what is never retried ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(503),
        GeneratorExit(),
        concurrent.futures.CancelledError(),
        scalekit.errors.QueueFull("full", retry_after=3.0),
        scalekit.errors.CircuitOpen("open"),
        scalekit.errors.DeadlineExceeded("late"),
        scalekit.errors.StoreUnavailable("down"),
    ],
    ids=repr,
)
def test_final(error: BaseException) -> None:
    """Cancellation and scalekit's own errors are never retried, and nothing overrules that."""
    found = verdict(error)
    assert (found.kind, found.final) == ("never", True)


def test_trio_cancellation() -> None:
    """trio's Cancelled is one of them."""

    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            except BaseException as error:
                seen.append(error)
                raise

    seen: list[BaseException] = []
    trio.run(cancelled)
    assert verdict(seen[0]).final


def test_groups() -> None:
    """A group is as bad as its worst member, waits for the longest hint, and did nothing only if no member did."""
    slow = httpx.HTTPStatusError(
        "slow", request=httpx.Request("GET", URL), response=httpx.Response(429, headers={"retry-after": "7"})
    )
    refused = ConnectionRefusedError()
    assert verdict(ExceptionGroup("g", [refused])) == verdict(refused)
    assert verdict(ExceptionGroup("g", [slow, refused])) == Verdict("slow_down", 7.0, True, 429)
    assert not verdict(ExceptionGroup("g", [TimeoutError(), refused])).surely_without_effect
    assert verdict(ExceptionGroup("g", [slow, ValueError()])).kind == "unknown"
    assert verdict(ExceptionGroup("g", [ValueError(), ssl.SSLCertVerificationError(1, "no")])).kind == "never"
    assert verdict(ExceptionGroup("g", [refused, ExceptionGroup("h", [scalekit.errors.QueueFull("full")])])).final
    assert verdict(BaseExceptionGroup("g", [refused, KeyboardInterrupt()])).final


# hints --------------------------------------------------------------------------------------------------------------


def limited(**headers: str) -> httpx.HTTPStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.HTTPStatusError("slow", request=httpx.Request("GET", URL), response=httpx.Response(429, headers=named))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after_ms": "20", "retry_after": "7"}, 0.02),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry_after": "Wednesday, 21-Oct-15 07:28:30 GMT"}, 30.0),
        ({"retry_after": "Wed Oct 21 07:28:30 2015"}, 30.0),
        ({"retry_after": "Wed, 21 Oct 2015 07:00:00 GMT"}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2015 09:28:30 GMT"}, 120.0),
        ({"retry_after": "3600"}, 120.0),
        ({"retry_after": "9" * 400}, 120.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "later"}, None),
        ({"retry_after": ""}, None),
        ({}, None),
    ],
    ids=repr,
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, fractions, three HTTP dates against the given clock; milliseconds win; the rest is no hint; capped."""
    now = 1445412480.0  # Wed, 21 Oct 2015 07:28:00 GMT
    assert verdict(limited(**headers), wall_clock=lambda: now).retry_after == expected


def test_the_cap_is_an_argument() -> None:
    """`max_retry_after` caps the hint."""
    assert verdict(limited(retry_after="3600"), max_retry_after=10.0).retry_after == 10.0


def test_a_hint_slows_everyone_down() -> None:
    """A 500 with a Retry-After is for everyone behind the limit; a 404 with one is still a 404."""
    for status, kind in ((500, "slow_down"), (404, "never")):
        response = httpx.Response(status, headers={"retry-after": "2"})
        error = httpx.HTTPStatusError("x", request=httpx.Request("GET", URL), response=response)
        assert verdict(error) == Verdict(kind, 2.0, False, status)


@given(st.text(max_size=40))
def test_any_header_is_read(text: str) -> None:
    """No value of a header makes the reader fail or give a negative wait."""
    found = parse_retry_after(text, lambda: 0.0)
    assert found is None or found >= 0.0


class Hostile:
    """Whatever is asked of it fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None


VALUES = st.recursive(
    st.one_of(st.none(), st.integers(-10, 700), st.text(max_size=5), st.booleans(), st.builds(Hostile), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
CARRIED = """status_code status code type body response headers details retry_after phase reason errno args in_stream
    litellm_response_headers provider_error_code error"""
NAMES = st.sampled_from(CARRIED.split())


@given(
    st.dictionaries(NAMES, VALUES, max_size=6),
    st.sampled_from([Exception, OSError, httpx.ReadError, openai.OpenAIError]),
)
def test_it_never_raises(attributes: dict[str, Any], base: Any) -> None:
    """Whatever an exception carries, there is a verdict."""
    error = base("x")
    for name, value in attributes.items():
        try:
            setattr(error, name, value)
        except (TypeError, AttributeError):
            continue
    assert verdict(error).kind in ("transient", "slow_down", "never", "unknown")
