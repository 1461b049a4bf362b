"""The provider before the real openai client."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from scalekit.cli.provider import Provider, ProviderFailed, Settings

QUESTION = [
    {"role": "system", "content": "Answer from the text."},
    {"role": "user", "content": "Cats sleep most of the day. Dogs are awake at noon.\n\nWhat do cats do all day?"},
]


@asynccontextmanager
async def connected(provider: Provider) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any", max_retries=0, http_client=http) as client:
        yield client


def ask(provider: Provider, talk: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with connected(provider) as client:
            return await talk(client)

    return asyncio.run(main())


def complete(client: openai.AsyncOpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="demo-chat", messages=QUESTION, **options)  # type: ignore[call-overload]


def test_chat_is_answered_from_the_prompt_with_its_usage(provider: Provider) -> None:
    """A completion answers from the prompt's sentences, and its usage is what the provider counts as paid."""
    completion = ask(provider, complete)
    assert completion.choices[0].message.content == "Cats sleep most of the day."
    assert completion.choices[0].finish_reason == "stop"
    stats = provider.stats()
    assert completion.usage.prompt_tokens == stats["prompt_tokens"] > 20
    assert completion.usage.completion_tokens == stats["completion_tokens"] == 7
    assert completion.usage.total_tokens == stats["prompt_tokens"] + stats["completion_tokens"]


def test_a_stream_carries_the_same_answer_piece_by_piece(provider: Provider) -> None:
    """The pieces of a stream join to the whole answer; usage comes last, and only where it was asked for."""

    async def both(client: openai.AsyncOpenAI) -> tuple[list[Any], list[Any]]:
        silent = [event async for event in await complete(client, stream=True)]
        stream = await complete(client, stream=True, stream_options={"include_usage": True})
        return silent, [event async for event in stream]

    silent, events = ask(provider, both)
    for read in (silent, events):
        pieces = [event.choices[0].delta.content or "" for event in read if event.choices]
        assert "".join(pieces) == "Cats sleep most of the day."
        assert sum(bool(piece) for piece in pieces) > 3
    assert all(event.usage is None for event in silent)
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == 7


def test_a_stream_begins_before_it_ends() -> None:
    """The first piece of a stream comes after a third of the call's time."""

    async def times(client: openai.AsyncOpenAI) -> tuple[float, float]:
        await complete(client)
        began = time.perf_counter()
        stream = await complete(client, stream=True)
        await anext(aiter(stream))
        first = time.perf_counter() - began
        async for _ in stream:
            pass
        return first, time.perf_counter() - began

    with Provider(Settings(median=0.3, sigma=0.0, failures=0.0)) as slow:
        first, last = ask(slow, times)
    assert first < last - 0.1


def test_a_limited_answer_says_that_it_was_cut(provider: Provider) -> None:
    """`max_tokens` cuts the answer, and the finish reason is `length`."""
    completion = ask(provider, lambda client: complete(client, max_tokens=2))
    assert completion.choices[0].message.content == "Cats sle"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 2


def test_embeddings_are_near_for_near_texts(provider: Provider) -> None:
    """Equal texts have equal unit vectors, similar ones are nearer than others, in both encodings."""

    async def both(client: openai.AsyncOpenAI) -> tuple[Any, Any]:
        texts = ["cats sleep all day", "cats sleep all night", "prime numbers are odd"]
        packed = await client.embeddings.create(model="demo-embedding", input=texts)
        floats = await client.embeddings.create(model="demo-embedding", input=texts[0], encoding_format="float")
        return packed, floats

    packed, floats = ask(provider, both)
    one, two, other = (item.embedding for item in packed.data)
    assert one == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert math.hypot(*one) == pytest.approx(1.0, abs=1e-6)
    assert math.dist(one, two) < math.dist(one, other)
    assert packed.usage.total_tokens == packed.usage.prompt_tokens == 16


def test_models_are_listed(provider: Provider) -> None:
    """GET /v1/models names a chat and an embedding model."""

    async def names(client: openai.AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert ask(provider, names) == ["demo-chat", "demo-embedding"]


def test_the_call_that_finds_no_slot_is_told_when_to_come_back() -> None:
    """One call more than there are slots gets a 429 with `retry-after-ms`, and a call after that time is answered."""

    async def crowd(client: openai.AsyncOpenAI) -> tuple[list[Any], Any]:
        results = await asyncio.gather(*(complete(client) for _ in range(5)), return_exceptions=True)
        refusals = [result for result in results if isinstance(result, openai.RateLimitError)]
        await asyncio.sleep(int(refusals[0].response.headers["retry-after-ms"]) / 1000)
        return results, await complete(client)

    with Provider(Settings(slots=4, median=0.4, sigma=0.0, failures=0.0)) as slow:
        results, later = ask(slow, crowd)
        stats = slow.stats()
    (refusal,) = (result for result in results if isinstance(result, openai.RateLimitError))
    assert 1 <= int(refusal.response.headers["retry-after-ms"]) <= 400
    assert refusal.response.headers["retry-after"] == "1"
    assert (refusal.code, refusal.type) == ("rate_limit_exceeded", "requests")
    assert later.choices[0].message.content == "Cats sleep most of the day."
    assert (stats["calls"], stats["accepted"], stats["rejected"], stats["peak_in_flight"]) == (6, 5, 1, 4)
    assert stats["in_flight"] == 0


def test_an_answered_call_has_freed_its_slot(provider: Provider) -> None:
    """As many callers as slots, each asking again the moment it is answered, never meet a 429."""

    async def busy(client: openai.AsyncOpenAI) -> None:
        async def user() -> None:
            for _ in range(5):
                await complete(client)

        await asyncio.gather(*(user() for _ in range(4)))

    ask(provider, busy)
    assert provider.stats()["accepted"] == 20
    assert provider.stats()["rejected"] == 0


def test_rate_limit_headers_count_down(provider: Provider) -> None:
    """Every answer says what is left of the quotas and when they are whole again."""

    async def headers(client: openai.AsyncOpenAI) -> Any:
        raw = await client.chat.completions.with_raw_response.create(model="demo-chat", messages=QUESTION)  # type: ignore[arg-type]
        return raw.headers

    seen = ask(provider, headers)
    assert seen["x-ratelimit-limit-requests"] == "60000"
    assert 59_000 < int(seen["x-ratelimit-remaining-requests"]) <= 60_000
    assert seen["x-ratelimit-reset-tokens"].endswith("ms")


def test_a_spent_quota_refuses_until_it_refills() -> None:
    """Beyond its tokens per minute the provider answers 429 of type `tokens` with the time that is missing."""

    async def twice(client: openai.AsyncOpenAI) -> Any:
        await complete(client)
        with pytest.raises(openai.RateLimitError) as raised:
            await complete(client)
        return raised.value

    with Provider(Settings(median=0.0, failures=0.0, tokens_per_minute=60)) as small:
        error = ask(small, twice)
    assert error.type == "tokens"
    assert 5_000 < int(error.response.headers["retry-after-ms"]) < 60_000


def test_failures_are_drawn_from_the_seed() -> None:
    """The share of 500s is what was asked for, the same calls fail in every run, and failed calls cost no tokens."""

    async def outcomes(client: openai.AsyncOpenAI) -> list[bool]:
        async def one() -> bool:
            try:
                await complete(client)
            except openai.InternalServerError as error:
                return error.type != "server_error"
            return True

        return [await one() for _ in range(30)]

    with Provider(Settings(median=0.0, failures=0.3, seed=7)) as failing:
        first = ask(failing, outcomes)
        paid = failing.stats()["completion_tokens"]
        failing.reset()
        assert ask(failing, outcomes) == first
    assert 3 <= first.count(False) <= 18
    assert paid == 7 * first.count(True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(stream: bool) -> None:
    """Cancelling a call, before its answer or within its stream, frees the slot at once and is counted."""

    async def leave(client: openai.AsyncOpenAI) -> None:
        if stream:
            events = await complete(client, stream=True)
            await anext(aiter(events))
            await events.close()
        else:
            call = asyncio.ensure_future(complete(client))
            while not slow.stats()["in_flight"]:  # noqa: ASYNC110 - the state is in another process
                await asyncio.sleep(0.02)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with Provider(Settings(slots=1, median=0.9 if stream else 60.0, sigma=0.0, failures=0.0)) as slow:
        ask(slow, leave)
        deadline = time.monotonic() + 5
        while slow.stats()["in_flight"] and time.monotonic() < deadline:
            time.sleep(0.02)
        stats = slow.stats()
    assert (stats["in_flight"], stats["cancelled"], stats["completion_tokens"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages[0].role"),
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_a_bad_request_is_named(provider: Provider, options: dict[str, Any], wrong: str) -> None:
    """What the API would not accept is a 400 that names the parameter, and is not counted as a call."""

    async def refused(client: openai.AsyncOpenAI) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(**{"model": "m", "messages": QUESTION, **options})
        return raised.value

    assert ask(provider, refused).param == wrong
    assert provider.stats()["calls"] == 0


def test_wrong_settings_are_refused_before_a_process_starts() -> None:
    """A setting out of its range raises at once and says what would be right."""
    with pytest.raises(ValueError, match=r"failures=1\.5 is out of range: give 0 to 1"):
        Settings(failures=1.5)


def test_a_provider_that_is_not_running_says_so() -> None:
    """Asking a provider outside its `with` block is an error that says what to write."""
    with pytest.raises(ProviderFailed, match="use it in a `with` block"):
        Provider().stats()
