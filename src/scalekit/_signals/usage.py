"""How many tokens an answer cost, read from the answer itself: what a limit in tokens settles its estimate with.

    openai     .usage.total_tokens, and .prompt_tokens, .completion_tokens (chat) or .input_tokens, .output_tokens
    anthropic  .usage.input_tokens and .output_tokens, which has no total
    google     .usage_metadata.total_token_count, .prompt_token_count and .candidates_token_count

The same is found in dicts (the providers' JSON, LangChain's `usage_metadata`), in the stream events that carry it
(`message.usage` of anthropic's message_start, `response.usage` of openai's response.completed), and in a usage object
handed over alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from scalekit._signals.reading import get


class Usage(NamedTuple):
    """Tokens of one answer. `total` may exceed `input + output`: some providers count their thinking only there."""

    total: int
    input: int
    output: int


_TOTAL = ("total_tokens", "total_token_count", "totalTokenCount")
_INPUT = ("input_tokens", "prompt_tokens", "prompt_token_count", "promptTokenCount")
_OUTPUT = ("output_tokens", "completion_tokens", "candidates_token_count", "candidatesTokenCount")
_HOLDERS = ("usage", "usage_metadata", "usageMetadata")
_EVENTS = ("message", "response")


def usage(result: Any) -> Usage | None:
    """The tokens that `result` says it cost; None when it does not say. Never raises.

    >>> usage({"usage": {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42}})
    Usage(total=42, input=12, output=30)
    >>> usage("no tokens here")
    """
    for place in (result, *(get(result, event) for event in _EVENTS)):
        for holder in _HOLDERS:
            if (found := _read(get(place, holder))) is not None:
                return found
    return _read(result)


def _read(counts: Any) -> Usage | None:
    if counts is None:
        return None
    total, sent, received = (_first(counts, names) for names in (_TOTAL, _INPUT, _OUTPUT))
    if total is None and sent is None and received is None:
        return None
    sent, received = sent or 0, received or 0
    return Usage(sent + received if total is None else total, sent, received)


def _first(counts: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = get(counts, name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return int(value)
    return None
