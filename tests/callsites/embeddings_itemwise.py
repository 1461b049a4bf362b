"""An embeddings pipeline whose model takes lists. Its owner wants lists to stay lists and texts to be paid once.

They expect that a list with nine known texts and one new one sends the new one only, that lists that overlap while
they run never send a text twice, and that order and duplicates come back as they were given.
"""

import asyncio
from collections import Counter

import scalekit

NEEDS = 4
sent: Counter[str] = Counter()
requests: list[list[str]] = []


@scalekit.cache(ttl="30d", each="texts")
@scalekit.limit(concurrency=4)
async def embed(texts: list[str], model: str = "small") -> list[list[float]]:
    requests.append(texts)
    sent.update(texts)
    await asyncio.sleep(0.01)
    return [[float(len(text)), float(len(model))] for text in texts]


async def scenario() -> None:
    known = [f"text {number}" for number in range(9)]
    await embed(known)
    vectors = await embed([*known[::-1], "a new one", known[0]])
    assert requests[1:] == [["a new one"]], requests
    assert vectors == [[6.0, 5.0]] * 9 + [[9.0, 5.0], [6.0, 5.0]], vectors
    vectors[0].clear()
    assert await embed([known[8]]) == [[6.0, 5.0]]

    lists = [[f"late {number + offset}" for number in range(5)] for offset in range(5)]
    answers = await asyncio.gather(*(embed(texts) for texts in lists))
    assert [len(answer) for answer in answers] == [5] * 5
    assert set(sent.values()) == {1}, sent

    assert await embed([], "small") == []
    assert (await embed(["a new one"], "large"))[0][1] == 5.0
    assert sent["a new one"] == 2


def main() -> None:
    asyncio.run(scenario())


if __name__ == "__main__":
    main()
