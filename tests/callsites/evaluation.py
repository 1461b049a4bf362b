"""An evaluation that asks a model five times for the same prompt, and again tomorrow with a better judge.

Its author expects five different samples and not one answer five times, the same five in the next run, a way to look at
what is kept without paying, and a way to ask the model itself, past every cache.
"""

import asyncio
import tempfile

import scalekit

paid: list[str] = []


def sampler(folder: str) -> scalekit.Policy:
    return scalekit.cache(ttl="7d", tiers=["memory", scalekit.Disk(folder)])


async def draw(prompt: str) -> str:
    paid.append(prompt)
    number = len(paid)
    await asyncio.sleep(0.001)
    return f"{prompt} #{number}"


async def scenario(folder: str) -> None:
    ask = sampler(folder)(draw)

    async def sample(number: int) -> str:
        with scalekit.sample(number):
            return await ask("joke?")

    first = await asyncio.gather(*(sample(number) for number in range(5)))
    assert len(set(first)) == len(paid) == 5, first
    assert await asyncio.gather(*(sample(number) for number in range(5))) == first
    assert await ask("joke?") not in first, "a call outside of any sample is a call of its own"
    assert len(paid) == 6

    with scalekit.sample(3):
        kept = await scalekit.controls(ask).cache.lookup("joke?")
        assert kept is not None
        assert (kept.value, kept.tier, kept.fresh) == (first[3], "memory", True)
        assert 0 <= kept.age < 60

    with scalekit.bypass():
        assert await ask("joke?") not in first
    assert len(paid) == 7
    with scalekit.sample(3):
        assert await ask("joke?") == first[3], "a bypassed call was kept"

    ask.cache_clear()  # type: ignore[attr-defined]  # this process's memory; the disk still knows
    assert await asyncio.gather(*(sample(number) for number in range(5))) == first
    assert len(paid) == 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(folder))


if __name__ == "__main__":
    main()
