"""Streams of the real openai and anthropic clients, from the demo's provider over SSE: async, sync, aborted, failing
half-way, and read again. Every chunk must be equal to what the bare client reads.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from colours import Colour, Thread
from openai.types.chat import ChatCompletionChunk

import scalekit
from scalekit.cli.provider import Provider, Settings

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # the clients' own, on trio

TEXT = " ".join(f"Sentence {number} tells of printers and their paper." for number in range(12))
MESSAGES: Any = [{"role": "user", "content": f"{TEXT}\nWhat of printers?"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(Settings(slots=50, median=0.05, sigma=0.0, failures=0.0)) as running:
        yield running


@pytest.fixture(scope="module")
def broken() -> Iterator[Provider]:
    with Provider(Settings(slots=50, median=0.05, sigma=0.0, failures=0.0, broken=1.0)) as running:
        yield running


@pytest.fixture(params=["openai", "anthropic"])
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bare(colour: Colour, sdk: str, provider: Provider, max_tokens: int = 500) -> Callable[[], Any]:
    """A generator function that asks the client of this SDK and this colour."""
    ask: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": max_tokens}
    given: dict[str, Any] = {"base_url": provider.base_url, "api_key": "demo", "max_retries": 0}
    if sdk == "anthropic":
        given["base_url"] = provider.base_url.removesuffix("/v1")
    if colour.name == "thread":

        def chunks() -> Iterator[ChatCompletionChunk]:
            with openai.OpenAI(**given) as client, client.chat.completions.create(**ask) as stream:
                yield from stream

        def events() -> Iterator[RawMessageStreamEvent]:
            with anthropic.Anthropic(**given) as client, client.messages.create(**ask) as stream:
                yield from stream

        return chunks if sdk == "openai" else events

    async def later_chunks() -> AsyncIterator[ChatCompletionChunk]:
        async with openai.AsyncOpenAI(**given) as client, await client.chat.completions.create(**ask) as stream:
            async for chunk in stream:
                yield chunk

    async def later_events() -> AsyncIterator[RawMessageStreamEvent]:
        async with anthropic.AsyncAnthropic(**given) as client, await client.messages.create(**ask) as stream:
            async for event in stream:
                yield event

    return later_chunks if sdk == "openai" else later_events


def alike(one: list[Any], other: list[Any]) -> bool:
    """Chunk for chunk, but for the answer's own id and time."""

    def plain(chunk: Any) -> Any:
        whole = chunk.model_dump()
        for place in (whole, whole.get("message") or {}):
            place.pop("id", None)
            place.pop("created", None)
        return type(chunk), whole, chunk.model_fields_set

    return [*map(plain, one)] == [*map(plain, other)]


async def test_a_live_and_a_replayed_stream_are_the_client_s(
    colour: Colour, sdk: str, provider: Provider, tmp_path: Any
) -> None:
    """First reader, second reader, replay and a replay from the disk: the chunks of the bare client, each complete."""
    function = bare(colour, sdk, provider)
    expected = await colour.collect(function())
    provider.reset()
    disk = scalekit.Disk(tmp_path / "store")
    types = [*{type(chunk) for chunk in expected}]
    wear: dict[str, Any] = {"ttl": "1h", "tiers": ["memory", disk], "types": types, "when": scalekit.is_complete}
    cached = scalekit.cache(version="1", **wear)(function)
    both = await colour.gather(*[lambda: colour.collect(cached()) for _ in range(2)])
    assert both[0] == both[1]
    assert alike(both[0], expected)
    assert both[0][0] is not both[1][0]
    assert await colour.collect(cached()) == both[0]
    again = scalekit.cache(version="1", **wear)(bare(colour, sdk, provider))
    replayed = await colour.collect(again())
    assert replayed == both[0]
    assert [chunk.model_fields_set for chunk in replayed] == [chunk.model_fields_set for chunk in both[0]]
    assert provider.stats()["calls"] == 1
    assert scalekit.controls(again).cache.stats().tiers["disk"] == 1


async def test_an_aborted_stream_frees_the_provider(colour: Colour, sdk: str, provider: Provider) -> None:
    """The only reader closes after two chunks: the request is closed, nothing is kept, and the next one is whole."""
    function = bare(colour, sdk, provider)
    expected = await colour.collect(function())
    provider.reset()
    cached = scalekit.cache(ttl="1h")(scalekit.limit(concurrency=1)(function))
    stream = cached()
    await colour.next(stream)
    await colour.next(stream)
    await colour.close(stream)
    await colour.until(lambda: provider.stats()["in_flight"] == 0)
    assert provider.stats()["cancelled"] == 1
    assert alike(await colour.collect(cached()), expected)
    assert scalekit.controls(cached).cache.stats().entries == 1


async def test_a_stream_that_breaks_is_told_and_not_kept(colour: Colour, sdk: str, broken: Provider) -> None:
    """The connection drops half-way: every reader gets what came and the client's own error; the next one asks anew."""
    broken.reset()
    cached = scalekit.cache(ttl="1h")(bare(colour, sdk, broken))
    for calls in (1, 2):
        came: list[list[Any]] = [[], []]

        async def read(into: list[Any]) -> None:
            stream = cached()
            with pytest.raises((httpx.RemoteProtocolError, openai.APIError, anthropic.APIError)):
                while True:
                    into.append(await colour.next(stream))

        await colour.gather(*[lambda into=into: read(into) for into in came])  # type: ignore[misc]
        assert came[0] == came[1] != []
        assert broken.stats()["calls"] == calls
    assert scalekit.controls(cached).cache.stats().entries == 0


async def test_a_truncated_stream_is_not_kept(colour: Colour, sdk: str, provider: Provider) -> None:
    """`when=is_complete` knows the end of a stream that max_tokens cut short, and of one that simply stopped."""
    provider.reset()
    cached = scalekit.cache(when=scalekit.is_complete)(bare(colour, sdk, provider, max_tokens=3))
    chunks = await colour.collect(cached())
    await colour.collect(cached())
    assert provider.stats()["calls"] == 2
    assert scalekit.is_truncated(chunks)
    whole = await colour.collect(bare(colour, sdk, provider)())
    assert scalekit.is_complete(whole)
    assert not scalekit.is_complete(whole[:-3])
    assert scalekit.is_complete([chunk.model_dump() for chunk in whole])


def test_threads_share_one_request(sdk: str, provider: Provider) -> None:
    """Twenty threads read one answer of the provider."""
    provider.reset()
    cached = scalekit.cache(bare(Thread(), sdk, provider))
    results: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: results.append([*cached()])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 20
    assert all(result == results[0] for result in results)
    assert provider.stats()["calls"] == 1
