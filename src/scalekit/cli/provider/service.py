"""The OpenAI API and anthropic's, over `state` and `answers`: which path does what, and when its answer is written.

A call that is admitted holds its slot for the time it drew; then the answer is written, or its 500. A stream writes its
first piece after a third of that time and the rest evenly. The slot is free *before* the last byte is written, so a
client that waits for its answer and then asks again never meets its own slot. A client that goes away frees it at once.

`GET /stats` and `POST /reset` are for the harness and are not counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from scalekit.cli.provider.answers import (
    BadRequest,
    ChatRequest,
    Reply,
    chat_request,
    embedding_request,
    embeddings,
    messages_request,
    reply,
)
from scalekit.cli.provider.state import Refusal, State, Ticket
from scalekit.cli.provider.wire import Request, Responder

MODELS = ("demo-chat", "demo-embedding")
_Route = Callable[[Request, Responder], None]
T = TypeVar("T")
_Form = Callable[[str, ChatRequest, Reply], T]


class Service:
    """Answers requests on the running event loop."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ids = itertools.count(1)
        self._routes: dict[str, tuple[str, _Route]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/messages": ("POST", self._messages),
            "/v1/embeddings": ("POST", self._embeddings),
            "/v1/models": ("GET", self._models),
            "/stats": ("GET", self._stats),
            "/reset": ("POST", self._reset),
        }

    def __call__(self, request: Request, responder: Responder) -> None:
        method, route = self._routes.get(request.path, ("", None))
        if route is None:
            known = ", ".join(self._routes)
            responder.send(404, _error(f"Unknown path {request.path}; this provider serves {known}.", code="not_found"))
        elif request.method != method:
            message = f"{request.path} accepts {method}, not {request.method}."
            responder.send(405, _error(message, code="method_not_allowed"), {"allow": method})
        else:
            try:
                route(request, responder)
            except BadRequest as error:
                responder.send(400, _error(str(error), param=error.param))

    def _models(self, request: Request, responder: Responder) -> None:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "scalekit"} for name in MODELS]
        responder.send(200, {"object": "list", "data": data})

    def _stats(self, request: Request, responder: Responder) -> None:
        responder.send(200, self._state.stats())

    def _reset(self, request: Request, responder: Responder) -> None:
        self._state.reset()
        responder.send(200, self._state.stats())

    def _chat(self, request: Request, responder: Responder) -> None:
        self._converse(chat_request(_decode(request.body)), responder, _completion, _chunks)

    def _messages(self, request: Request, responder: Responder) -> None:
        """Anthropic's API."""
        self._converse(messages_request(_decode(request.body)), responder, _message, _message_events)

    def _converse(self, chat: ChatRequest, responder: Responder, whole: _Form[Any], events: _Form[list[bytes]]) -> None:
        exchange = self._admit(chat.prompt_tokens, responder)
        if exchange is None:
            return
        answer = reply(chat)
        if chat.stream and not exchange.ticket.fails:
            exchange.stream(answer, events(exchange.name, chat, answer))
        else:
            exchange.whole(whole(exchange.name, chat, answer), answer.prompt_tokens, answer.completion_tokens)

    def _embeddings(self, request: Request, responder: Responder) -> None:
        wanted = embedding_request(_decode(request.body))
        exchange = self._admit(wanted.prompt_tokens, responder)
        if exchange is None:
            return
        data = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(embeddings(wanted))
        ]
        usage = {"prompt_tokens": wanted.prompt_tokens, "total_tokens": wanted.prompt_tokens}
        body = {"object": "list", "data": data, "model": wanted.model, "usage": usage}
        exchange.whole(body, wanted.prompt_tokens, 0)

    def _admit(self, tokens: int, responder: Responder) -> _Exchange | None:
        loop = asyncio.get_running_loop()
        verdict = self._state.admit(tokens, loop.time())
        name = f"{next(self._ids):08x}"
        if isinstance(verdict, Refusal):
            wait = math.ceil(verdict.retry_after * 1000)
            headers = {"retry-after-ms": str(wait), "retry-after": str(math.ceil(wait / 1000)), "x-request-id": name}
            body = _error(verdict.message, kind=verdict.kind, code="rate_limit_exceeded")
            responder.send(429, body, headers | self._state.limit_headers(loop.time()))
            return None
        return _Exchange(name, verdict, self._state, responder, loop)


class _Exchange:
    """An admitted call: a timer that ends in an answer, or in the client's leaving."""

    def __init__(
        self, name: str, ticket: Ticket, state: State, responder: Responder, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.name = name
        self.ticket = ticket
        self._state = state
        self._responder = responder
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        responder.on_abandoned = self._abandoned

    def whole(self, body: Any, prompt_tokens: int, completion_tokens: int) -> None:
        def answer() -> None:
            self._state.finish(self.ticket, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
            if self.ticket.fails:
                message = f"The server had an error while processing your request (request id {self.name})."
                self._responder.send(500, _error(message, kind="server_error"), self._headers())
            else:
                self._responder.send(200, body, self._headers())

        self._timer = self._loop.call_at(self.ticket.ends, answer)

    def stream(self, answer: Reply, events: list[bytes]) -> None:
        """Send them one after another; of a stream that breaks, the first half."""
        first = self.ticket.ends - self.ticket.seconds * 2 / 3
        step = (self.ticket.ends - first) / len(events)
        rest = deque(events[: len(events) // 2] if self.ticket.breaks else events)
        self._timer = self._loop.call_at(first, self._open, answer, rest, first, step)

    def _open(self, answer: Reply, rest: deque[bytes], at: float, step: float) -> None:
        self._responder.start({"cache-control": "no-cache"} | self._headers())
        self._step(answer, rest, at, step)

    def _step(self, answer: Reply, rest: deque[bytes], at: float, step: float) -> None:
        event, breaks = rest.popleft(), self.ticket.breaks
        if not rest and breaks:
            self._state.drop(self.ticket)
        elif not rest:
            self._state.finish(
                self.ticket, prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens
            )
        self._responder.chunk(event)
        if rest:
            self._timer = self._loop.call_at(at + step, self._step, answer, rest, at + step, step)
        elif breaks:
            self._responder.drop()
        else:
            self._responder.end()

    def _abandoned(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._state.cancel(self.ticket)

    def _headers(self) -> dict[str, str]:
        return {
            "x-request-id": self.name,
            "openai-processing-ms": str(round(self.ticket.seconds * 1000)),
        } | self._state.limit_headers(self._loop.time())


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from error


def _error(
    message: str, *, kind: str = "invalid_request_error", code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _completion(name: str, chat: ChatRequest, answer: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}],
        "usage": answer.usage,
    }


def _chunks(name: str, chat: ChatRequest, answer: Reply) -> list[bytes]:
    base = {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": chat.model,
    } | ({"usage": None} if chat.include_usage else {})

    def choice(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    events = [choice({"role": "assistant", "content": ""}, None)]
    events += [choice({"content": piece}, None) for piece in answer.chunks()]
    events.append(choice({}, answer.finish_reason))
    if chat.include_usage:
        events.append(base | {"choices": [], "usage": answer.usage})
    return [*(_sse(_json(event)) for event in events), _sse("[DONE]")]


def _message(name: str, chat: ChatRequest, answer: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": chat.model,
        "content": [{"type": "text", "text": answer.text}],
        "stop_reason": _STOP_REASONS[answer.finish_reason],
        "stop_sequence": None,
        "usage": {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens},
    }


def _message_events(name: str, chat: ChatRequest, answer: Reply) -> list[bytes]:
    whole = _message(name, chat, answer)
    begun = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in answer.chunks()
    ]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": answer.completion_tokens}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\n".encode() + _sse(_json(event)) for event in events]


_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _json(event: dict[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _sse(data: str) -> bytes:
    return b"data: " + data.encode() + b"\n\n"
