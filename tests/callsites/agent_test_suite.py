"""The tests of somebody's agent, whose functions are decorated where they are defined.

The author expects that one test's answers never leak into the next, that the plain function is a `__wrapped__` away,
that a prepared answer can be put in, and that `SCALEKIT_DISABLE=1` gives the undecorated program.
"""

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from tenacity import wait_fixed

import scalekit

calls: list[str] = []


@scalekit.cache(ttl="1h")
@scalekit.retry(attempts=3, wait=wait_fixed(0.01))
@scalekit.limit(concurrency=5)
async def ask(question: str) -> str:
    calls.append(question)
    number = len(calls)
    await asyncio.sleep(0)
    if question == "flaky?" and calls.count(question) < 3:
        raise ConnectionResetError("try again")
    return f"{question} {number}"


async def agent(question: str) -> str:
    draft, check = await asyncio.gather(ask(question), ask(question))
    return draft if draft == check else "I am not sure"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
async def clean(anyio_backend: str) -> AsyncIterator[None]:
    calls.clear()
    yield
    await scalekit.controls(ask).cache.clear()


@pytest.mark.anyio
@pytest.mark.parametrize("attempt", [1, 2])
async def test_each_test_starts_with_an_empty_cache(attempt: int) -> None:
    assert await scalekit.controls(ask).cache.peek("why?") is None
    assert await agent("why?") == "why? 1"
    assert calls == ["why?"]


@pytest.mark.anyio
async def test_a_prepared_answer_needs_no_model() -> None:
    await scalekit.controls(ask).cache.put("because", "why?")
    assert await agent("why?") == "because"
    assert calls == []


@pytest.mark.anyio
async def test_the_plain_function_is_within_reach() -> None:
    plain = inspect.unwrap(ask)
    with pytest.raises(ConnectionResetError):
        await plain("flaky?")
    assert await ask("flaky?") == "flaky? 3"


def test_sync_code_can_clear_too() -> None:
    assert asyncio.run(ask("why?")) == "why? 1"
    scalekit.controls(ask).sync.cache.clear()
    assert asyncio.run(ask("why?")) == "why? 2"


def test_the_decorated_agent_looks_like_the_plain_one() -> None:
    assert inspect.iscoroutinefunction(ask)
    assert str(inspect.signature(ask)) == "(question: str) -> str"
    layers = str(scalekit.explain(ask))
    assert layers.index("cache") < layers.index("retry") < layers.index("limit"), layers


def main() -> None:
    if os.environ.get("SCALEKIT_DISABLE"):
        assert asyncio.run(agent("why?")) == "I am not sure", "disabled, and yet an answer was shared"
        assert calls == ["why?", "why?"]
        return
    alone = ["-q", "--noconftest", "-c", os.devnull, "--rootdir", os.curdir, "-p", "no:cacheprovider"]
    assert pytest.main([*alone, __file__]) == 0
    subprocess.run([sys.executable, __file__], env={**os.environ, "SCALEKIT_DISABLE": "1"}, check=True)


if __name__ == "__main__":
    main()
