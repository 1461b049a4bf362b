"""Just enough HTTP/1.1 for SDK clients, written on `asyncio.Protocol` because it shares two cores with its load.

A thousand users who are refused at once cost the provider one parse and one write each; a framework would be the
bottleneck of the demo. Supported: keep-alive, pipelined requests (answered in order), bodies with Content-Length,
`Expect: 100-continue`, chunked responses for event streams, HTTP/1.0 and `Connection: close`. Not supported, and
answered as such: chunked request bodies (501), heads above 64 kB (431), bodies above 32 MB (413).

A connection knows nothing of the API. It hands each request to a handler together with a `Responder`, and if the
client goes away first it calls back whatever the handler left with `Responder.on_abandoned`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

MAX_HEAD = 64 * 1024
MAX_BODY = 32 * 1024 * 1024


class Malformed(Exception):
    """The bytes are no request that this server can answer; the connection closes after saying so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Head:
    """The start line and the headers of a request, names in lower case."""

    method: str
    path: str
    keep_alive: bool
    headers: Mapping[str, str]
    length: int


@dataclass(frozen=True)
class Request:
    """One complete request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def parse_head(data: bytes) -> Head:
    """Read a head, without its final blank line."""
    start, *lines = data.decode("latin-1").split("\r\n")
    parts = start.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise Malformed(400, f"this is no HTTP request line: {start[:80]!r}")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Malformed(505, f"{version} is not spoken here: use HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed(400, f"this is no HTTP header: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise Malformed(501, "chunked request bodies are not supported: send Content-Length")
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise Malformed(400, f"Content-Length is not a number: {declared[:80]!r}")
    if int(declared) > MAX_BODY:
        raise Malformed(413, f"the body is {declared} bytes long, at most {MAX_BODY} are accepted")
    connection = headers.get("connection", "").lower()
    keep_alive = connection == "keep-alive" if version == "HTTP/1.0" else connection != "close"
    return Head(method, target.partition("?")[0], keep_alive, headers, int(declared))


def head_bytes(status: int, headers: Mapping[str, str]) -> bytes:
    """The start of a response, up to and with its blank line."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Responder:
    """The answer to one request: `send` it whole, or `start` it, `chunk` it and `end` it."""

    def __init__(self, connection: Connection, keep_alive: bool) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self.on_abandoned: Callable[[], None] | None = None

    def send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        fixed = {"content-type": "application/json", "content-length": str(len(content))}
        self._write(head_bytes(status, {**fixed, **(headers or {}), **self._closing()}) + content)
        self._done()

    def start(self, headers: Mapping[str, str]) -> None:
        fixed = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        self._write(head_bytes(200, {**fixed, **headers, **self._closing()}))

    def chunk(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self._write(b"0\r\n\r\n")
        self._done()

    def drop(self) -> None:
        """Close the connection in the middle of the answer."""
        self.on_abandoned = None
        self._connection.drop()

    def _closing(self) -> dict[str, str]:
        return {} if self._keep_alive else {"connection": "close"}

    def _write(self, data: bytes) -> None:
        self._connection.write(data)

    def _done(self) -> None:
        self.on_abandoned = None
        self._connection.answered(self._keep_alive)


Handler = Callable[[Request, Responder], None]


class Connection(asyncio.Protocol):
    """One client's connection: bytes in, requests out to the handler one at a time."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: Head | None = None
        self._responder: Responder | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        responder, self._responder = self._responder, None
        if responder is not None and responder.on_abandoned is not None:
            responder.on_abandoned()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._responder is None:
            self._advance()
        elif len(self._buffer) > MAX_HEAD + MAX_BODY and self._transport is not None:
            self._transport.pause_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def answered(self, keep_alive: bool) -> None:
        """The responder is through: close, or go on with what was pipelined meanwhile."""
        self._responder = None
        if self._transport is None:
            return
        if not keep_alive:
            self._transport.close()
            return
        self._transport.resume_reading()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        if self._responder is not None or self._transport is None or self._transport.is_closing():
            return
        try:
            request = self._next_request()
        except Malformed as error:
            self._responder = Responder(self, keep_alive=False)
            self._responder.send(error.status, {"error": {"message": str(error), "type": "invalid_request_error"}})
            return
        if request is not None:
            head, self._head = cast(Head, self._head), None
            self._responder = Responder(self, head.keep_alive)
            self._handler(request, self._responder)

    def _next_request(self) -> Request | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD:
                if len(self._buffer) > MAX_HEAD:
                    raise Malformed(431, f"the request's head is longer than {MAX_HEAD} bytes")
                return None
            self._head = parse_head(bytes(self._buffer[:end]).lstrip(b"\r\n"))
            del self._buffer[: end + 4]
            if self._head.headers.get("expect", "").lower() == "100-continue" and len(self._buffer) < self._head.length:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._buffer) < self._head.length:
            return None
        body = bytes(self._buffer[: self._head.length])
        del self._buffer[: self._head.length]
        return Request(self._head.method, self._head.path, self._head.headers, body)
