"""Tokens of an answer, wherever the provider counts them."""

from __future__ import annotations

from types import SimpleNamespace as Object
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from scalekit._signals.usage import Usage, usage

CHAT = {
    "id": "a",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [],
    "usage": {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42},
}
EMBEDDINGS = {"object": "list", "model": "m", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
ANTHROPIC = Object(input_tokens=12, output_tokens=30, cache_read_input_tokens=None)
GOOGLE = Object(prompt_token_count=12, candidates_token_count=20, thoughts_token_count=10, total_token_count=42)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ChatCompletion.model_validate(CHAT), Usage(42, 12, 30)),
        (CHAT, Usage(42, 12, 30)),
        (CreateEmbeddingResponse.model_validate(EMBEDDINGS), Usage(8, 8, 0)),
        (Object(usage=Object(input_tokens=1, output_tokens=2, total_tokens=3)), Usage(3, 1, 2)),
        (Object(usage=ANTHROPIC), Usage(42, 12, 30)),
        (Object(type="message_start", message=Object(usage=ANTHROPIC)), Usage(42, 12, 30)),
        (Object(type="message_delta", usage=Object(output_tokens=30)), Usage(30, 0, 30)),
        (
            Object(type="response.completed", response={"usage": {"input_tokens": 1, "output_tokens": 1}}),
            Usage(2, 1, 1),
        ),
        (Object(usage_metadata=GOOGLE), Usage(42, 12, 20)),
        ({"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 11}}, Usage(11, 5, 6)),
        (Object(usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}), Usage(3, 1, 2)),
        (ANTHROPIC, Usage(42, 12, 30)),
        ({"total_tokens": 7}, Usage(7, 0, 0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_usage(result: Any, expected: Usage) -> None:
    """openai, anthropic, google, their JSON, LangChain, stream events and a usage alone are read."""
    assert usage(result) == expected


@pytest.mark.parametrize(
    "result",
    ["text", None, 7, b"", [], {}, {"usage": None}, Object(usage="much"), Object(usage=Object(total_tokens=True))],
)
def test_no_usage(result: Any) -> None:
    """What does not say its tokens has none: nothing is guessed."""
    assert usage(result) is None


@given(
    st.recursive(st.integers() | st.text() | st.none(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5)
)
def test_usage_never_raises(result: Any) -> None:
    """Whatever comes back from a function can be asked."""
    found = usage(result)
    assert found is None or found.total >= 0
