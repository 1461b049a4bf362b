"""A search index whose owner embeds the same paragraphs again and again.

Half the corpus is boilerplate, every nightly run embeds all of it, and the code that follows scales the vectors in
place. The owner expects that a text is embedded once, that the vectors of the cache stay as the model gave them, that
another model's vectors are never mixed in, and that memory stays bounded.
"""

import asyncio
import hashlib
from collections import Counter

import numpy as np
from tenacity import wait_fixed

import scalekit

CORPUS = [f"Paragraph {number} speaks of topic{number % 7}." for number in range(40)]
CORPUS += ["All rights reserved.", "Subscribe to our newsletter."] * 20
embedded: Counter[str] = Counter()
running = peak = 0


@scalekit.cache(ttl="30d", tiers=[scalekit.Memory(max_entries=5_000, max_bytes="16MB")], ignore="timeout")
@scalekit.retry(attempts=3, wait=wait_fixed(0.01))
@scalekit.limit(concurrency=8)
async def embed(text: str, model: str = "hashing-64", *, timeout: float = 10) -> list[float]:
    global running, peak
    embedded[text] += 1
    running += 1
    peak = max(peak, running)
    try:
        await asyncio.sleep(0.001)
        if embedded[text] == 1 and text.endswith("topic3."):
            raise ConnectionResetError("the embedding server is warming up")
        vector = [0.0] * int(model.removeprefix("hashing-"))
        for word in text.lower().split():
            vector[int.from_bytes(hashlib.blake2b(word.encode()).digest()[:4]) % len(vector)] += 1.0
        return vector
    finally:
        running -= 1


async def index(texts: list[str]) -> np.ndarray:
    vectors = await asyncio.gather(*(embed(text, timeout=len(text)) for text in texts))
    for vector in vectors:
        length = sum(x * x for x in vector) ** 0.5
        vector[:] = [x / length for x in vector]  # in place: the cache must not feel it
    return np.array(vectors)


async def pipeline() -> None:
    first = await index(CORPUS)
    calls = embedded.total()
    distinct = len(set(CORPUS))
    warmed_up = len({text for text in CORPUS if text.endswith("topic3.")})
    assert calls == distinct + warmed_up, (calls, distinct, warmed_up)
    assert peak <= 8, peak

    second = await index(CORPUS)
    assert embedded.total() == calls, "the nightly run paid again"
    assert np.array_equal(first, second)
    assert sum(await embed("All rights reserved.")) == 3.0, "the index scaled the cache's own vector"

    query = np.array(await embed("topic5. newsletter"))
    best = CORPUS[int(np.argmax(first @ query))]
    assert "topic5." in best or "newsletter" in best, best

    assert len(await embed(CORPUS[0], "hashing-16")) == 16
    assert len(await embed(CORPUS[0])) == 64

    before = embedded[CORPUS[0]]
    await scalekit.controls(embed).cache.invalidate(CORPUS[0])
    await embed(text=CORPUS[0], model="hashing-64")
    assert embedded[CORPUS[0]] == before + 1

    stats = scalekit.controls(embed).cache.stats()
    assert stats.hits >= len(CORPUS), stats


def main() -> None:
    asyncio.run(pipeline())


if __name__ == "__main__":
    main()
