"""What the provider says: texts, tokens and vectors as pure functions of the request.

An answer is made of the prompt's own sentences, those that share most words with its last line, so that a question over
retrieved context gets a readable and repeatable reply. Four characters are one token. A vector is a normalised bag of
hashed words: equal texts are equal, similar texts are near.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, cast

_WORD = re.compile(r"[a-z_][a-z0-9_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_CHUNK = re.compile(r"\S+\s*")
DIMENSIONS = 64


class BadRequest(ValueError):
    """The request's body is not what the API accepts; `param` is the part that is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class ChatRequest:
    """The fields of a chat completion request that this provider reads."""

    model: str
    messages: tuple[tuple[str, str], ...]
    stream: bool
    include_usage: bool
    max_tokens: int | None

    @property
    def prompt_tokens(self) -> int:
        return 3 + sum(4 + tokens(text) for _, text in self.messages)


@dataclass(frozen=True)
class Reply:
    """The text of an answer and what it cost."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def chunks(self, count: int = 12) -> list[str]:
        """The text in at most `count` pieces, split at words, as a stream delivers it."""
        words = _CHUNK.findall(self.text)
        size = max(1, math.ceil(len(words) / count))
        return ["".join(words[start : start + size]) for start in range(0, len(words), size)]


def tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def chat_request(body: Any) -> ChatRequest:
    """Check a decoded body of POST /v1/chat/completions."""
    fields = _mapping(body)
    messages = fields.get("messages")
    if not _is_list(messages) or not messages:
        raise BadRequest("'messages' must be a list with at least one message.", "messages")
    options = fields.get("stream_options")
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise BadRequest(f"'max_tokens' must be a positive integer, not {limit!r}.", "max_tokens")
    return ChatRequest(
        model=_model(fields),
        messages=tuple(_message(message, index) for index, message in enumerate(messages)),
        stream=bool(fields.get("stream")),
        include_usage=bool(_mapping(options).get("include_usage")) if options else False,
        max_tokens=limit,
    )


def messages_request(body: Any) -> ChatRequest:
    """Check a decoded body of POST /v1/messages, anthropic's."""
    fields = _mapping(body)
    limit = fields.get("max_tokens")
    if not isinstance(limit, int):
        raise BadRequest("max_tokens: Field required", "max_tokens")
    chat = chat_request(fields)
    if (system := fields.get("system")) is None:
        return chat
    return replace(chat, messages=(_message({"role": "system", "content": system}, 0), *chat.messages))


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest("We could not parse the JSON body of your request: an object is expected.")
    return cast(Mapping[str, Any], value)


def _model(fields: Mapping[str, Any]) -> str:
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", "model")
    return model


def _message(message: Any, index: int) -> tuple[str, str]:
    fields = _mapping(message)
    role, content = fields.get("role"), fields.get("content")
    if not isinstance(role, str):
        raise BadRequest(f"messages[{index}] has no 'role'.", f"messages[{index}].role")
    if _is_list(content):
        content = "\n".join(str(_mapping(part).get("text", "")) for part in content)
    if content is not None and not isinstance(content, str):
        raise BadRequest(f"messages[{index}].content must be a string or a list.", f"messages[{index}].content")
    return role, content or ""


def reply(request: ChatRequest) -> Reply:
    """The prompt's sentences nearest to its last line, about sixty words, in the order of the prompt."""
    prompt = next((text for role, text in reversed(request.messages) if role == "user"), request.messages[-1][1])
    context, _, question = prompt.strip().rpartition("\n")
    wanted = set(words(question))
    sentences = [" ".join(part.split()) for part in _SENTENCE_END.split(context) if len(part.split()) > 3]
    scores = [len(wanted & set(words(sentence))) for sentence in sentences]
    ranked = sorted(range(len(sentences)), key=lambda index: (-scores[index], index))
    chosen: list[int] = []
    length = 0
    for index in ranked:
        if length >= 60 or (chosen and not scores[index]):
            break
        chosen.append(index)
        length += len(sentences[index].split())
    text = " ".join(sentences[index] for index in sorted(chosen)) or f"You said: {question or prompt}"
    finish_reason = "stop"
    if request.max_tokens is not None and tokens(text) > request.max_tokens:
        text, finish_reason = text[: request.max_tokens * 4], "length"
    return Reply(text, finish_reason, request.prompt_tokens, tokens(text))


@dataclass(frozen=True)
class EmbeddingRequest:
    """The fields of an embeddings request that this provider reads."""

    model: str
    texts: tuple[str, ...]
    dimensions: int
    base64: bool

    @property
    def prompt_tokens(self) -> int:
        return sum(tokens(text) for text in self.texts)


def embedding_request(body: Any) -> EmbeddingRequest:
    """Check a decoded body of POST /v1/embeddings."""
    fields = _mapping(body)
    given = fields.get("input")
    texts: Sequence[Any] = [given] if isinstance(given, str) else cast(list[Any], given or [])
    if not isinstance(given, str | list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("'input' must be a string or a list of strings, none of them empty.", "input")
    dimensions = fields.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
        raise BadRequest(f"'dimensions' must be from 1 to 4096, not {dimensions!r}.", "dimensions")
    return EmbeddingRequest(_model(fields), tuple(texts), dimensions, fields.get("encoding_format") == "base64")


def embeddings(request: EmbeddingRequest) -> Iterable[str | list[float]]:
    """A vector for each text, as floats or as base64 of little-endian float32."""
    for text in request.texts:
        vector = embed(text, request.dimensions)
        yield base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if request.base64 else vector


def embed(text: str, dimensions: int) -> list[float]:
    vector = [0.0] * dimensions
    for word in words(text) or [text]:
        digest = zlib.crc32(word.encode())
        vector[digest % dimensions] += 1.0 if digest >> 31 else -1.0
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]
