"""A web application in which every request embeds one or two texts, before a model that is fast on lists only.

The owner expects that texts of many requests travel in one call without changing any caller, that known and repeated
texts do not travel at all, that an idle service answers at once, and that one poisoned text fails its own request only.
"""

import asyncio
import time

import scalekit

NEEDS = 8
batches: list[list[str]] = []


@scalekit.cache(ttl="30d", each="texts")
@scalekit.batch(max_size=64, split_on_error=True)
@scalekit.limit(concurrency=1)
async def embed(texts: list[str]) -> list[list[float]]:
    batches.append(texts)
    await asyncio.sleep(0.01)
    if "poison" in texts:
        raise ValueError("the tokenizer cannot read this")
    return [[float(len(text))] for text in texts]


async def handle(user: int) -> list[list[float]]:
    return await embed([f"question of user {user}", "the system prompt"])


async def scenario() -> None:
    answers = await asyncio.gather(*(handle(user) for user in range(500)))
    assert [answer[0] for answer in answers] == [[float(len(f"question of user {user}"))] for user in range(500)]
    assert len(batches) <= 2 + 500 // 64, len(batches)
    assert all(len(batch) <= 64 for batch in batches)
    assert sum(batch.count("the system prompt") for batch in batches) == 1

    began = time.perf_counter()
    assert await scalekit.controls(embed).one("alone") == [5.0]
    assert time.perf_counter() - began < 1

    good, bad, fine = await asyncio.gather(embed(["good"]), embed(["poison"]), embed(["fine"]), return_exceptions=True)
    assert (good, fine) == ([[4.0]], [[4.0]])
    assert isinstance(bad, ValueError)


def main() -> None:
    asyncio.run(scenario())


if __name__ == "__main__":
    main()
