"""HTTP/1.1 as raw bytes: what a careless or unlucky client sends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from scalekit.cli.provider import Provider

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(CHAT), CHAT)
GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


@contextmanager
def talk(provider: Provider) -> Iterator[tuple[socket.socket, IO[bytes]]]:
    port = int(provider.base_url.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire, wire.makefile("rb") as answers:
        yield wire, answers


def read(answers: IO[bytes]) -> tuple[int, dict[str, str], bytes]:
    status = int(answers.readline().split()[1])
    headers: dict[str, str] = {}
    while line := answers.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return status, headers, answers.read(int(headers.get("content-length", 0)))


def test_requests_in_pieces_and_in_one_go_are_answered_in_order(provider: Provider) -> None:
    """A request may come byte by byte, and several may come at once; the connection stays open."""
    with talk(provider) as (wire, answers):
        for byte in GET:
            wire.sendall(bytes([byte]))
        assert read(answers)[0] == 200
        wire.sendall(POST + GET + POST)
        kinds = [json.loads(read(answers)[2])["object"] for _ in range(3)]
    assert kinds == ["chat.completion", "list", "chat.completion"]


@pytest.mark.parametrize(
    "head", [b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n", b"GET /v1/models HTTP/1.0\r\n\r\n"]
)
def test_a_connection_closes_when_the_client_wants_it(provider: Provider, head: bytes) -> None:
    """`Connection: close` and HTTP/1.0 end the connection after the answer."""
    with talk(provider) as (wire, answers):
        wire.sendall(head)
        status, headers, _ = read(answers)
        assert (status, headers["connection"]) == (200, "close")
        assert answers.read() == b""


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (b"GET /v2/other HTTP/1.1\r\n\r\n", 404, "this provider serves /v1/chat/completions"),
        (b"GET /v1/embeddings HTTP/1.1\r\n\r\n", 405, "accepts POST, not GET"),
        (b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 2\r\n\r\n{]", 400, "could not parse the JSON"),
        (b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 2\r\n\r\n[]", 400, "an object is expected"),
    ],
)
def test_a_wrong_request_is_answered_and_the_connection_lives(
    provider: Provider, request_: bytes, status: int, says: str
) -> None:
    """Unknown paths, methods and bodies get the API's error body; the next request is served."""
    with talk(provider) as (wire, answers):
        wire.sendall(request_)
        answered, _, body = read(answers)
        assert answered == status
        assert says in json.loads(body)["error"]["message"]
        wire.sendall(GET)
        assert read(answers)[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", 400),
        (b"POST /reset HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /reset HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"POST /reset HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/3\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000, 431),
    ],
)
def test_bytes_that_are_no_request_end_the_connection_politely(
    provider: Provider, request_: bytes, status: int
) -> None:
    """What cannot be read is answered with its status, and only that connection closes."""
    with talk(provider) as (wire, answers):
        wire.sendall(request_)
        assert read(answers)[0] == status
        assert answers.read() == b""
    assert provider.stats()["in_flight"] == 0


def test_a_client_may_ask_before_it_sends_a_body(provider: Provider) -> None:
    """`Expect: 100-continue` is answered before the body comes."""
    head, body = POST.replace(b"host: x", b"host: x\r\nexpect: 100-continue").split(b"\r\n\r\n")
    with talk(provider) as (wire, answers):
        wire.sendall(head + b"\r\n\r\n")
        assert read(answers)[0] == 100
        wire.sendall(body)
        assert read(answers)[0] == 200
