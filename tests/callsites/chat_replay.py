"""A help desk that streams its answers; most visitors of the morning ask what the others ask.

The owner expects that visitors who ask together read one stream, each at their own pace and from its start, that later
ones read the recording, that a visitor who leaves harms nobody, and that a broken answer is never replayed.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import scalekit

NEEDS = 4
opened: list[str] = []


@scalekit.cache(ttl="1h")
@scalekit.retry(attempts=3)
@scalekit.limit(concurrency=2)
async def answer(question: str) -> AsyncGenerator[str, None]:
    opened.append(question)
    for number, token in enumerate(["Turn", " it", " off", "", " and", " on"]):
        await asyncio.sleep(0.002)
        if question == "broken?" and opened.count(question) == 1 and number == 3:
            raise ConnectionResetError("lost in the middle")
        yield token


async def read(question: str, pace: float = 0) -> str:
    tokens: list[str] = []
    async for token in answer(question):
        tokens.append(token)
        await asyncio.sleep(pace)
    return "".join(tokens)


async def leave_early(question: str) -> None:
    async with aclosing(answer(question)) as tokens:
        async for _ in tokens:
            break


async def scenario() -> None:
    visitors = [read("printer?", pace) for pace in (0, 0.001, 0.005)]
    _, *answers = await asyncio.gather(leave_early("printer?"), *visitors)
    assert answers == ["Turn it off and on"] * 3, answers
    assert await read("printer?") == "Turn it off and on"
    assert opened == ["printer?"], opened

    try:
        await read("broken?")
    except ConnectionResetError:
        pass
    else:
        raise AssertionError("a half answer was given out as a whole one")
    assert await read("broken?") == await read("broken?") == "Turn it off and on"
    assert opened.count("broken?") == 2


def main() -> None:
    asyncio.run(scenario())


if __name__ == "__main__":
    main()
