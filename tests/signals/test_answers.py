"""What an answer says of itself: cut short, refused, the error of a tool."""

from __future__ import annotations

import enum
import importlib
from types import SimpleNamespace as Object
from typing import Any, NoReturn

import pytest
from colours import Colour
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

import scalekit
from scalekit._signals.answers import is_complete, is_refusal, is_tool_error, is_truncated
from scalekit._signals.reading import words


class FinishReason(str, enum.Enum):  # noqa: UP042  # as google-genai's
    STOP = "STOP"
    MAX_TOKENS = "MAX_TOKENS"
    SAFETY = "SAFETY"
    MALFORMED_FUNCTION_CALL = "MALFORMED_FUNCTION_CALL"


class Number(enum.IntEnum):  # as those of protobuf
    STOP = 1
    MAX_TOKENS = 2


def chat(*reasons: str, refusal: str | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Once upon a", "refusal": refusal}
    choices = [{"index": n, "finish_reason": reason, "message": message} for n, reason in enumerate(reasons)]
    return {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}


def response(status: str, reason: str | None = None, *, refusal: str | None = None) -> dict[str, Any]:
    text = {"type": "output_text", "text": "Once upon a", "annotations": []}
    content = text if refusal is None else {"type": "refusal", "refusal": refusal}
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": status,
        "incomplete_details": reason and {"reason": reason},
        "output": [
            {"type": "reasoning", "id": "t", "summary": []},
            {"type": "message", "id": "x", "role": "assistant", "status": "completed", "content": [content]},
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def anthropic(reason: str) -> Object:
    text = Object(type="text", text="Once upon a")
    return Object(type="message", role="assistant", content=[text], stop_reason=reason, stop_sequence=None)


def google(reason: Any, blocked: Any = None) -> Object:
    feedback = None if blocked is None else Object(block_reason=blocked, block_reason_message=None)
    return Object(candidates=[Object(finish_reason=reason, content=None)], prompt_feedback=feedback)


def langchain(content: Any = "Once upon a", *, refusal: str | None = None, **metadata: Any) -> Object:
    extra = {} if refusal is None else {"refusal": refusal}
    return Object(type="ai", content=content, additional_kwargs=extra, response_metadata=metadata)


def pydantic_ai(reason: str | None, state: str = "complete") -> Object:
    return Object(kind="response", parts=[], finish_reason=reason, state=state)


TRUNCATED: dict[str, Any] = {
    "openai chat": ChatCompletion.model_validate(chat("length")),
    "openai chat, the second choice": ChatCompletion.model_validate(chat("stop", "length")),
    "openai chat JSON": chat("length"),
    "openai response": Response.model_validate(response("incomplete", "max_output_tokens")),
    "openai response JSON": response("incomplete", "max_output_tokens"),
    "anthropic": anthropic("max_tokens"),
    "anthropic, window": anthropic("model_context_window_exceeded"),
    "anthropic, paused": anthropic("pause_turn"),
    "anthropic JSON": {"type": "message", "content": [], "stop_reason": "max_tokens"},
    "google": google(FinishReason.MAX_TOKENS),
    "google protobuf": google(Number.MAX_TOKENS),
    "google JSON": {"candidates": [{"finishReason": "MAX_TOKENS"}]},
    "bedrock": {"output": {"message": {}}, "stopReason": "max_tokens"},
    "langchain, openai": langchain(finish_reason="length"),
    "langchain, openai response": langchain(object="response", status="incomplete"),
    "langchain, anthropic": langchain(stop_reason="max_tokens"),
    "langchain, google": langchain(finish_reason="MAX_TOKENS"),
    "langchain, bedrock": langchain(stopReason="max_tokens"),
    "pydantic-ai": pydantic_ai("length"),
    "pydantic-ai, suspended": pydantic_ai(None, "suspended"),
    "pydantic-ai, result of a run": Object(output="Once upon a", response=pydantic_ai("length")),
}
REFUSED: dict[str, Any] = {
    "openai chat": ChatCompletion.model_validate(chat("stop", refusal="I cannot help with that.")),
    "openai chat JSON": chat("stop", refusal="I cannot help with that."),
    "openai chat, filtered": ChatCompletion.model_validate(chat("content_filter")),
    "openai response": Response.model_validate(response("completed", refusal="I cannot help with that.")),
    "openai response JSON": response("completed", refusal="I cannot help with that."),
    "anthropic": anthropic("refusal"),
    "google": google(FinishReason.SAFETY),
    "google, recitation": google("RECITATION"),
    "google, blocked": Object(candidates=None, prompt_feedback=Object(block_reason="PROHIBITED_CONTENT")),
    "google JSON, blocked": {"promptFeedback": {"blockReason": "SAFETY"}},
    "bedrock": {"stopReason": "guardrail_intervened"},
    "bedrock, filtered": {"stopReason": "content_filtered"},
    "langchain, openai": langchain(refusal="I cannot help with that.", finish_reason="stop"),
    "langchain, openai response": langchain([{"type": "refusal", "refusal": "No."}], status="completed"),
    "langchain, anthropic": langchain(stop_reason="refusal"),
    "pydantic-ai": pydantic_ai("content_filter"),
}
TOOL_ERRORS: dict[str, Any] = {
    "MCP": Object(content=[], isError=True),
    "MCP, version 2": Object(content=[], is_error=True),
    "MCP JSON": {"content": [{"type": "text", "text": "no such file"}], "isError": True},
    "langchain": Object(type="tool", content="no such file", tool_call_id="1", status="error"),
    "anthropic": {"type": "tool_result", "tool_use_id": "1", "content": "no such file", "is_error": True},
    "anthropic, in a message": {"role": "user", "content": [{"type": "tool_result", "is_error": True}]},
    "bedrock": {"toolUseId": "1", "content": [], "status": "error"},
    "bedrock, in a message": {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "status": "error"}}]},
}
UNFINISHED: dict[str, Any] = {
    "openai response, queued": Response.model_validate(response("queued")),
    "openai response, failed": Response.model_validate(response("failed")),
    "google": google(FinishReason.MALFORMED_FUNCTION_CALL),
    "bedrock": {"stopReason": "malformed_tool_use"},
    "pydantic-ai": pydantic_ai("error"),
}
COMPLETE: dict[str, Any] = {
    "openai chat": ChatCompletion.model_validate(chat("stop")),
    "openai chat, tool calls": ChatCompletion.model_validate(chat("tool_calls")),
    "openai chat JSON": chat("stop"),
    "openai response": Response.model_validate(response("completed")),
    "anthropic": anthropic("end_turn"),
    "anthropic, tool use": anthropic("tool_use"),
    "google": google(FinishReason.STOP),
    "google protobuf": google(Number.STOP),
    "google, not blocked": google(FinishReason.STOP, "BLOCKED_REASON_UNSPECIFIED"),
    "bedrock": {"stopReason": "end_turn"},
    "langchain": langchain(finish_reason="stop"),
    "langchain tool": Object(type="tool", content="text", tool_call_id="1", status="success"),
    "pydantic-ai": pydantic_ai("stop"),
    "MCP": Object(content=[], isError=False),
    "no answer of a model": {"status": "error", "state": "suspended", "refusal": "of my own", "object": "lamp"},
    "a refusal as text": "I cannot help with that.",
    **{repr(plain): plain for plain in ("", None, 0, 1.5, True, b"length", [], (), {}, "length", ["length"], [[0.5]])},
}
SAYINGS = {"truncated": TRUNCATED, "refused": REFUSED, "tool error": TOOL_ERRORS, "unfinished": UNFINISHED}


def sayings(*but: str) -> list[Any]:
    """The answers of all tables but these, as parameters."""
    tables = {**SAYINGS, "complete": COMPLETE}
    return [
        pytest.param(answer, id=f"{kind}: {name}")
        for kind, table in tables.items()
        if kind not in but
        for name, answer in table.items()
    ]


@pytest.mark.parametrize("answer", TRUNCATED.values(), ids=TRUNCATED)
def test_truncated(answer: Any) -> None:
    """An answer that a limit cut short, or whose turn is to be continued, is truncated and not worth keeping."""
    assert is_truncated(answer)
    assert not is_tool_error(answer)
    assert not is_complete(answer)


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_refused(answer: Any) -> None:
    """A refusal, and what a filter stopped or blocked, is a refusal and not worth keeping."""
    assert is_refusal(answer)
    assert not is_tool_error(answer)
    assert not is_complete(answer)


@pytest.mark.parametrize("answer", TOOL_ERRORS.values(), ids=TOOL_ERRORS)
def test_tool_errors(answer: Any) -> None:
    """A tool's failure that came back as its result is one, and not worth keeping."""
    assert is_tool_error(answer)
    assert not is_complete(answer)


@pytest.mark.parametrize("answer", UNFINISHED.values(), ids=UNFINISHED)
def test_unfinished(answer: Any) -> None:
    """An answer that failed, or is still queued, is not worth keeping."""
    assert not is_complete(answer)


@pytest.mark.parametrize("answer", COMPLETE.values(), ids=COMPLETE)
def test_complete(answer: Any) -> None:
    """A whole answer, and whatever says nothing of itself, is worth keeping."""
    assert is_complete(answer)


@pytest.mark.parametrize(
    ("predicate", "answer"),
    [
        *[pytest.param(is_truncated, *one.values, id=f"truncated? {one.id}") for one in sayings("truncated")],
        *[pytest.param(is_refusal, *one.values, id=f"refused? {one.id}") for one in sayings("refused")],
        *[pytest.param(is_tool_error, *one.values, id=f"tool error? {one.id}") for one in sayings("tool error")],
    ],
)
def test_one_is_not_the_other(predicate: Any, answer: Any) -> None:
    """Each predicate sees its own kind and no other."""
    assert not predicate(answer)


@pytest.mark.parametrize("many", [list, tuple])
def test_of_many_answers(many: Any) -> None:
    """A list or tuple is complete if all in it are; each predicate says whether one of them is of its kind."""
    good = COMPLETE["openai chat"]
    for predicate, table in ((is_truncated, TRUNCATED), (is_refusal, REFUSED), (is_tool_error, TOOL_ERRORS)):
        for bad in table.values():
            answers = many([good, "text", bad])
            assert predicate(answers)
            assert not is_complete(answers)
        assert not predicate(many([good, "text"]))
    assert is_complete(many([good, "text", None, good]))


class Hostile:
    """Raises at whatever is asked of it."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(name)

    def __bool__(self) -> NoReturn:
        raise RuntimeError("bool")

    def __eq__(self, other: object) -> NoReturn:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        return 1


class Anything:
    """Has every attribute, as mocks do."""

    def __getattr__(self, name: str) -> Anything:
        return self


def test_hostile_answers() -> None:
    """What raises at every question, has every attribute, or contains itself is none of the three."""
    itself: list[Any] = []
    itself.append(itself)
    loop: dict[str, Any] = {}
    loop.update(response=loop, response_metadata=loop, choices=[loop], message=loop, content=[loop])
    inside = [
        {name: Hostile()} for name in ("choices", "finish_reason", "status", "tool_call_id", "is_error", "object")
    ]
    for answer in (Hostile(), Anything(), itself, loop, *inside, {"choices": [Hostile()]}, object, {1: Hostile()}):
        assert not is_truncated(answer)
        assert not is_refusal(answer)
        assert not is_tool_error(answer)
        assert is_complete(answer)


NAMES = st.sampled_from(
    sorted(
        words(
            "choices candidates message refusal finish_reason stop_reason stopReason status object kind state response "
            "content response_metadata prompt_feedback block_reason output type is_error isError toolResult "
            "tool_call_id"
        )
    )
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["length", "response", "error", "refusal"]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(NAMES | st.text(), inner)
        | st.dictionaries(NAMES, inner).map(lambda names: Object(**names))
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_never_raises(answer: Any) -> None:
    """Whatever comes back from a function can be asked, and a complete answer is none of the three."""
    fits = not (is_truncated(answer) or is_refusal(answer) or is_tool_error(answer))
    assert fits or not is_complete(answer)


async def test_only_what_is_complete_is_kept(colour: Colour) -> None:
    """With `when=is_complete` an incomplete answer is handed out and computed again; a complete one is kept."""
    for table in (*SAYINGS.values(), COMPLETE):
        for answer in table.values():
            calls: list[int] = []

            @scalekit.cache(when=is_complete, copy=False)
            @colour.define
            async def ask(x: int) -> Any:
                calls.append(x)  # noqa: B023
                return answer  # noqa: B023

            for _ in range(2):
                assert await colour.call(ask, 1) is answer
            assert len(calls) == (1 if table is COMPLETE else 2)


@pytest.mark.frameworks
def test_real_messages_of_frameworks() -> None:
    """The objects of langchain and pydantic-ai themselves are read."""
    messages, pydantic = (importlib.import_module(f"{name}.messages") for name in ("langchain_core", "pydantic_ai"))
    cut = messages.AIMessage("Once upon a", response_metadata={"finish_reason": "length"})
    refused = messages.AIMessage("", additional_kwargs={"refusal": "No."}, response_metadata={"finish_reason": "stop"})
    whole = messages.AIMessage("The end.", response_metadata={"finish_reason": "stop"})
    failed, fine = (messages.ToolMessage("text", tool_call_id="1", status=status) for status in ("error", "success"))
    said = {
        reason: pydantic.ModelResponse(parts=[], finish_reason=reason)
        for reason in ("length", "content_filter", "stop")
    }
    assert is_truncated(cut)
    assert is_truncated(said["length"])
    assert is_refusal(refused)
    assert is_refusal(said["content_filter"])
    assert is_tool_error(failed)
    assert is_complete([whole, fine, said["stop"]])
