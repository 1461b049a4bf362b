"""For cache.py: answers that are many, lists item by item and streams."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

from _rounds import Contestant, Race

import scalekit

ITEMS = 1000
KNOWN = [f"text {number}" for number in range(ITEMS * 9 // 10)]
_new = count()


def mixed(some: int) -> list[Any]:
    """Lists of 1,000 texts, 100 of them new."""
    return [[*KNOWN, *(f"new {next(_new)}" for _ in range(ITEMS - len(KNOWN)))] for _ in range(some)]


async def embed(texts: list[str]) -> list[list[float]]:
    """Eight floats for each text."""
    return [[float(len(text))] * 8 for text in texts]


def lists() -> Race:
    """A list of 1,000 items, in memory."""
    room = [scalekit.Memory(200_000, "1GB")]
    known, new = scalekit.cache(each="texts", tiers=room)(embed), scalekit.cache(each="texts", tiers=room)(embed)
    asyncio.run(known(KNOWN))
    asyncio.run(new(KNOWN))
    return Race(
        "a list of 1,000 texts, 8 floats each",
        [
            Contestant("the bare function", "await ask(item)", {"ask": embed}, mixed),
            Contestant("scalekit, 9 in 10 known", "await ask(item)", {"ask": new}, mixed),
            Contestant("scalekit, all known", "await ask(texts)", {"ask": known, "texts": KNOWN + KNOWN[:100]}),
        ],
    )


async def tokens(number: int) -> AsyncIterator[str]:
    """A stream that never has to wait."""
    for _ in range(ITEMS):
        yield "token"


def streams() -> Race:
    """A stream of 1,000 items."""
    live, again = scalekit.cache(tokens), scalekit.cache(tokens)

    async def read() -> None:
        async for _ in again(0):
            pass

    asyncio.run(read())
    numbers = count()

    def fresh(some: int) -> list[int]:
        return [next(numbers) for _ in range(some)]

    every = "async for _ in read(item): pass"
    return Race(
        "a stream of 1,000 items",
        [
            Contestant("async generator", every, {"read": tokens}, fresh),
            Contestant("scalekit, live", every, {"read": live}, fresh),
            Contestant("scalekit, replayed", "async for _ in read(0): pass", {"read": again}),
            Contestant(
                "scalekit, the first item",
                "stream = read(0); await anext(stream); await stream.aclose()",
                {"read": again},
            ),
        ],
    )


def trips(folder: Path) -> Counter[str]:
    """How often a list of 1,000 items, 90 % of them on the disk, asks each tier and the function."""
    disk, counted = scalekit.Disk(folder / "each"), Counter[str]()
    for name in ("get", "get_many", "put", "put_many"):
        real = getattr(disk, name)

        def counting(*args: Any, real: Any = real, name: str = name) -> Any:
            counted[f"disk {name}"] += 1
            return real(*args)

        setattr(disk, name, counting)

    def ask(texts: list[str]) -> list[str]:
        counted["function"] += 1
        return [text.upper() for text in texts]

    scalekit.cache(each="texts", ttl="1h", tiers=[disk])(ask)(KNOWN)
    counted.clear()
    texts = mixed(1)[0]
    assert scalekit.cache(each="texts", ttl="1h", tiers=["memory", disk])(ask)(texts) == [
        text.upper() for text in texts
    ]
    return counted


def crowd() -> tuple[int, int]:
    """A stream read by 100 at once: how many sources were opened, and how many read all of it."""
    opened = 0

    @scalekit.cache
    async def answer() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        for number in range(ITEMS):
            if number % 100 == 0:
                await asyncio.sleep(0.001)
            yield number

    async def read() -> bool:
        return [number async for number in answer()] == [*range(ITEMS)]

    async def main() -> list[bool]:
        return await asyncio.gather(*(read() for _ in range(100)))

    whole = asyncio.run(main())
    return opened, sum(whole)
