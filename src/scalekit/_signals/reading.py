"""What an exception carries, wherever its SDK put it: a status, codes, headers.

Every SDK has its own place for the same three facts, and some places bite: `bool(requests.Response)` is False on the
very responses of interest, `httpx.RequestError.request` raises when it was not set, aiohttp's headers may be None,
botocore's response is a dict, google's status is a word and its code the number. So everything is read through `get`,
which never raises, and nothing asks for the truth of an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

_CARRIERS = ("body", "details", "headers", "provider_error_code", "response")


def words(text: str) -> frozenset[str]:
    """The words of a table."""
    return frozenset(text.split())


def get(thing: Any, name: str) -> Any:
    """An item of a mapping or an attribute of anything else; None when there is none, or when reading it fails."""
    try:
        if isinstance(thing, Mapping):
            return cast(Mapping[str, Any], thing).get(name)
        return getattr(thing, name, None)
    except Exception:
        return None


def elements(thing: Any) -> Sequence[Any]:
    """The elements of a list or tuple; of anything else, none."""
    return thing if type(thing) in (list, tuple) else ()


def status_of(error: BaseException) -> int | None:
    """The HTTP status: `.status_code`, `.status` (aiohttp), `.code` (google, urllib), or the response's.

    A number in `.code` counts only where the exception also carries what comes with a response: other exceptions have
    codes that are no status, such as `xml.parsers.expat.ExpatError`.
    """
    response = get(error, "response")
    for value in (
        get(error, "status_code"),
        get(error, "status"),
        get(error, "code") if _carries(error) else None,
        *_response_status(response),
    ):
        if (status := _status(value)) is not None:
            return status
    return None


def inside_stream(error: BaseException) -> bool:
    """True where the answer had begun with a good status, so that the request may have had its effect."""
    if get(error, "in_stream") is True or get(error, "generated_content") is not None:  # pydantic-ai, litellm
        return True
    statuses = [status for value in _response_status(get(error, "response")) if (status := _status(value)) is not None]
    return bool(statuses) and statuses[0] < 300


def aws_code(error: BaseException) -> str | None:
    """botocore's `.response["Error"]["Code"]`, which says more than the status: throttling often is a 400."""
    response = get(error, "response")
    code = get(get(response, "Error"), "Code") if isinstance(response, Mapping) else None
    return code if isinstance(code, str) else None


def codes_of(error: BaseException) -> Iterator[str]:
    """Machine-readable words for what went wrong, and numbers as text, the most specific first."""
    if not _carries(error):
        return  # a `.code` or `.type` of somebody else's exception
    body = get(error, "body")
    details = get(error, "details")
    places: tuple[Any, ...] = (error, get(body, "error"), body, get(details, "error"), details)
    for name in ("provider_error_code", "provider_error_type", "code", "type", "status"):
        for place in places:
            value = get(place, name) if place is error or isinstance(place, Mapping) else None
            if isinstance(value, str | int) and not isinstance(value, bool):
                yield str(value)


def headers_of(error: BaseException) -> Iterator[Any]:
    """Every set of response headers that the exception carries."""
    response = get(error, "response")
    for headers in (
        get(response, "headers"),
        get(get(response, "ResponseMetadata"), "HTTPHeaders"),
        get(error, "litellm_response_headers"),
        get(error, "headers"),
    ):
        if headers is not None:
            yield headers


def header(error: BaseException, name: str) -> str | None:
    """The first header of that name (lower case), whatever the case it was sent in."""
    for headers in headers_of(error):
        value = get(headers, name)
        if value is None and isinstance(headers, Mapping):
            value = next((v for k, v in _items(headers) if isinstance(k, str) and k.lower() == name), None)
        if value is None and callable(reader := get(headers, "get")):  # multidicts and email messages are no Mappings
            try:
                value = reader(name)
            except Exception:
                value = None
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value).strip()
    return None


def _carries(error: BaseException) -> bool:
    """Whether the exception carries what comes with a response."""
    return any(get(error, name) is not None for name in _CARRIERS)


def _response_status(response: Any) -> tuple[Any, ...]:
    metadata = get(response, "ResponseMetadata") if isinstance(response, Mapping) else None
    return (get(response, "status_code"), get(response, "status"), get(metadata, "HTTPStatusCode"))


def _status(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return int(value)
    return None


def _items(headers: Any) -> list[tuple[Any, Any]]:
    try:
        return list(cast(Mapping[Any, Any], headers).items())
    except Exception:
        return []
