"""The demo's agent: ordinary code that somebody wrote for one user, with the real OpenAI client.

It retrieves passages of the Python reference and asks a model to answer from them. Nothing below knows of scalekit
until `decorated`, whose lines the demo prints: they are all that changes.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

import scalekit
from scalekit.cli import corpus

Messages = list[ChatCompletionMessageParam]
INSTRUCTIONS = "Answer the question from the excerpts of the Python reference. Quote them; say so if they are silent."
client: openai.AsyncOpenAI
model: str


def connect(base_url: str, api_key: str, model_name: str, *, loopback: bool) -> openai.AsyncOpenAI:
    """One client for everyone. It must not retry by itself: stacked retries multiply.

    Its pool looks at every connection and every waiting request on each call, so at the default of 1,000 connections a
    call costs 7 ms of the processor and the crowd would measure the pool; at 100 it costs 3.
    """
    global client, model
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=100, max_keepalive_connections=100)
    transport = openai.DefaultAsyncHttpxClient(limits=limits, trust_env=not loopback)
    client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=120, http_client=transport)
    model = model_name
    return client


async def warm_up() -> None:
    """One call that nobody measures: the client builds its types when they are first needed."""
    with contextlib.suppress(openai.OpenAIError):
        await plain().ask("What is a decorator?")


def search(question: str) -> list[str]:
    return corpus.reference().search(question, 5)


async def complete(messages: Messages) -> ChatCompletion:
    return await client.chat.completions.create(model=model, messages=messages, temperature=0)


Complete = Callable[[Messages], Awaitable[ChatCompletion]]


@dataclass(frozen=True)
class Agent:
    """The two functions joined; decorating them changes neither this nor them."""

    search: Callable[[str], list[str]]
    complete: Complete

    async def ask(self, question: str) -> ChatCompletion:
        excerpts = "\n\n".join(self.search(question))
        return await self.complete(
            [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": f"{excerpts}\n\n{question}"},
            ]
        )


def plain(complete: Complete = complete) -> Agent:
    return Agent(search, complete)


def decorated(slots: int, complete: Complete = complete) -> Agent:
    production = scalekit.stack(
        scalekit.cache(ttl="10m"),
        scalekit.retry(attempts=8),
        scalekit.limit(concurrency=slots),
    )
    return Agent(search=scalekit.cache(search), complete=production(complete))


def decoration(slots: int) -> str:
    """The lines of `decorated`, as they run."""
    body = inspect.getsource(decorated).partition("\n")[2]
    return textwrap.dedent(body).replace("concurrency=slots", f"concurrency={slots}").strip()
