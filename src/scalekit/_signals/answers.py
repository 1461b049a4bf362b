"""What an answer says of itself: cut short, refused, the error of a tool. Such answers come back without an exception,
and a cache that keeps them replays them to everybody.

    openai      chat: .choices[*].finish_reason, .message.refusal (litellm: the same);
                responses: .status, .output[*].content[*].type
    anthropic   .stop_reason; of a tool_result block: .is_error
    google      .candidates[*].finish_reason, .prompt_feedback.block_reason, as enums or words
    bedrock     ["stopReason"]; of a toolResult: ["status"]
    langchain   .response_metadata, which holds its provider's word; ToolMessage.status
    pydantic-ai .finish_reason, .state; of a run's result: .response
    ollama      ["done_reason"]
    MCP         .isError, .is_error

The same is found in dicts (the providers' JSON), in a list or tuple of answers, and in the list of a stream's events:

    openai      chunks: .choices[*].finish_reason, .delta.refusal; of responses: the last event's .response
    anthropic   message_delta: .delta.stop_reason
    bedrock     ["messageStop"]["stopReason"]

A word counts only where it is known
whose it is: a dict of the user's own with a "status" says nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from scalekit._signals.reading import elements, get, words

_TRUNCATED = words(
    "length max_tokens model_context_window_exceeded "
    "pause_turn compaction continuation "  # the turn is to be continued by another request
    "incomplete suspended interrupted"
)
_REFUSED = words(
    "content_filter refusal content_filtered guardrail_intervened "
    "safety recitation language blocklist prohibited_content spii escalation pup_limited_disabled model_armor "
    "image_safety image_prohibited_content image_recitation"
)
_UNFINISHED = words(
    "error failed cancelled queued in_progress malformed_model_output malformed_tool_use "
    "malformed_function_call malformed_response unexpected_tool_call too_many_tool_calls missing_thought_signature "
    "other image_other no_image"
)
_UNFIT = _TRUNCATED | _REFUSED | _UNFINISHED
_REASONS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
_BEGINNINGS = words("message_start response.created response.queued response.in_progress")
_PLAIN = frozenset({str, bytes, int, float, bool, type(None), list, tuple})


def is_truncated(answer: Any) -> bool:
    """True if the model was cut short: by a limit of tokens, or in a turn that another request has to continue.

    Reads objects and JSON of openai, anthropic, google, bedrock, langchain, pydantic-ai and litellm; of a list or tuple
    of answers, True if one of them is. What it does not know is not truncated; never raises.

    >>> import scalekit
    >>> scalekit.is_truncated({"choices": [{"finish_reason": "length", "message": {"content": "Once upon a"}}]})
    True
    """
    return any(word in _TRUNCATED for one in _answers(answer) for word in _words(one))


def is_refusal(answer: Any) -> bool:
    """True if the model declined to answer, or a content filter stopped its answer or blocked the prompt.

    A refusal that is merely written as text is not seen. Reads what `is_truncated` reads; never raises.

    >>> import scalekit
    >>> scalekit.is_refusal({"type": "message", "content": [], "stop_reason": "refusal"})
    True
    """
    return any(word in _REFUSED for one in _answers(answer) for word in _words(one))


def is_tool_error(answer: Any) -> bool:
    """True if a tool reports its failure as its result: MCP's `isError`, LangChain's `ToolMessage(status="error")`,
    `is_error` of anthropic's tool_result, "error" of bedrock's toolResult.

    Of a list or tuple of results, True if one of them is; never raises.

    >>> import scalekit
    >>> scalekit.is_tool_error({"content": [{"type": "text", "text": "no such file"}], "isError": True})
    True
    """
    return any(_tool_failed(one) for one in _answers(answer))


def is_complete(answer: Any) -> bool:
    """True if an answer is worth keeping: not truncated, no refusal, no tool's error, and not failed or still queued.

    Made for `when=`. Of a list or tuple, True if all in it are; of the events of a model's stream, if one of them says
    that the answer has ended, and none that it was cut short. Texts, numbers, None and whatever says nothing of
    itself are complete; never raises.

    >>> import scalekit
    >>> @scalekit.cache(when=scalekit.is_complete)
    ... def complete(prompt: str, max_tokens: int) -> dict[str, object]:
    ...     words = prompt.split()
    ...     reason = "stop" if len(words) <= max_tokens else "length"
    ...     return {"choices": [{"finish_reason": reason, "message": {"content": words[:max_tokens]}}]}
    >>> answers = complete("to be or not to be", 99), complete("to be or not to be", 2)
    >>> complete.cache.contains("to be or not to be", 99), complete.cache.contains("to be or not to be", 2)
    (True, False)
    """
    begun = ended = False
    for one in _answers(answer):
        said = [word for word in _words(one) if word]
        if _tool_failed(one) or any(word in _UNFIT for word in said):
            return False
        begun, ended = begun or _is_event(one), ended or bool(said)
    return ended or not begun


def _answers(answer: Any) -> Iterator[Any]:
    """The answer, or those of a list; of lists in lists, such as embeddings, none."""
    for one in (answer, *elements(answer)):
        if type(one) not in _PLAIN:
            yield one


def _is_event(one: Any) -> bool:
    """Whether it is of a model's stream, whose last events say how it ended."""
    return _word(get(one, "object")) == "chat.completion.chunk" or _word(get(one, "type")) in _BEGINNINGS


def _words(answer: Any) -> Iterator[str]:
    if _word(get(answer, "type")) in _BEGINNINGS:  # an answer that has only begun is in it
        return
    for place in (answer, get(answer, "response_metadata"), get(answer, "response")):
        if type(place) not in _PLAIN:
            yield from _said(place)


def _said(place: Any) -> Iterator[str]:
    """All that one place says of how its answer ended, as the provider's words in lower case."""
    delta, stop = get(place, "delta"), get(place, "messageStop")
    for part in (place, delta, stop, *elements(get(place, "choices")), *elements(get(place, "candidates"))):
        for name in _REASONS:
            yield _word(get(part, name))
        if _word(get(get(part, "message"), "refusal")) or _word(get(get(part, "delta"), "refusal")):
            yield "refusal"
    if _word(get(place, "object")) == "response":  # openai's; other things have a status too
        yield _word(get(place, "status"))
    if _word(get(place, "kind")) == "response":  # pydantic-ai's
        yield _word(get(place, "state"))
    if _blocked(get(place, "prompt_feedback")) or _blocked(get(place, "promptFeedback")):
        yield "refusal"
    if _word(get(get(place, "additional_kwargs"), "refusal")):
        yield "refusal"
    for item in (place, *elements(get(place, "output"))):
        for block in elements(get(item, "content")):
            if _word(get(block, "type")) == "refusal":
                yield "refusal"


def _blocked(feedback: Any) -> bool:
    reason = _word(get(feedback, "block_reason")) or _word(get(feedback, "blockReason"))
    return reason not in ("", "blocked_reason_unspecified", "block_reason_unspecified")


def _tool_failed(answer: Any) -> bool:
    for block in (answer, *elements(get(answer, "content"))):
        for result in (block, get(block, "toolResult")):
            if get(result, "is_error") is True or get(result, "isError") is True:
                return True
            called = _word(get(result, "tool_call_id")) or _word(get(result, "toolUseId"))
            if called and _word(get(result, "status")) == "error":
                return True
    return False


def _word(value: Any) -> str:
    """A word or the name of an enum's member in lower case; "" for anything else."""
    if issubclass(type(value), str):
        return str.lower(value)
    if issubclass(type(value), Enum):
        return _word(get(value, "name"))
    return ""
