"""A chat service on FastAPI that passes a model's tokens on as they come.

The model's server has four slots and answers 429 when all are taken, and sometimes when they are not. The owner
expects that every reader gets every token once and in order, that the server is never asked for a fifth stream, that
a refusal before the first token is tried again unseen, and that a reader who closes the tab gives the slot back.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

import scalekit

SLOTS = 4
provider = FastAPI()
service = FastAPI()
client = httpx.AsyncClient(trust_env=False)
provider_url = ""
open_streams = peak = 0
refused: list[str] = []


@provider.get("/completions")
async def completions(prompt: str) -> StreamingResponse:
    global open_streams, peak
    if open_streams >= SLOTS or (prompt.startswith("odd") and prompt not in refused):
        refused.append(prompt)
        raise HTTPException(429, "slow down", headers={"retry-after-ms": "20"})
    open_streams += 1
    peak = max(peak, open_streams)
    return StreamingResponse(tokens(prompt))


async def tokens(prompt: str) -> AsyncIterator[str]:
    global open_streams
    try:
        for index in range(200 if prompt == "essay" else 5):
            yield f"{prompt}{index}\n"
            await asyncio.sleep(0.005)
    finally:
        open_streams -= 1


@scalekit.retry(attempts=2)
@scalekit.limit(concurrency=SLOTS)
async def complete(prompt: str) -> AsyncIterator[str]:
    async with client.stream("GET", f"{provider_url}/completions", params={"prompt": prompt}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            yield line


@service.get("/chat")
async def chat(prompt: str) -> StreamingResponse:
    return StreamingResponse(f"{token} " async for token in complete(prompt))


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await running


async def scenario() -> None:
    global provider_url
    async with serving(provider) as provider_url, serving(service) as url, client:
        prompts = [f"{'odd' if number % 2 else 'even'}{number}-" for number in range(15)]
        answers = await asyncio.gather(*(client.get(f"{url}/chat", params={"prompt": p}) for p in prompts))
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer.text == "".join(f"{prompt}{index} " for index in range(5)), answer.text
        assert sorted(refused) == sorted(prompt for prompt in prompts if prompt.startswith("odd")), refused
        assert peak == SLOTS, peak

        async with client.stream("GET", f"{url}/chat", params={"prompt": "essay"}) as response:
            async for _ in response.aiter_text():
                assert scalekit.controls(complete).limit.state().in_flight == 1
                break
        async with asyncio.timeout(2):
            while scalekit.controls(complete).limit.state().in_flight or open_streams:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)


def main() -> None:
    asyncio.run(scenario())


if __name__ == "__main__":
    main()
