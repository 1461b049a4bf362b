"""A service that resells one provider account to its customers, a noisy one among them.

The owner expects that the account's requests and tokens per minute are kept for all customers together, that each
customer has a share of their own, that the noisy one waits behind itself, and that tokens are settled from the answer.
"""

import asyncio
import time
from dataclasses import dataclass

import scalekit

NEEDS = 6
account = scalekit.limit(
    concurrency=8, rate=["50/s", "10k/d"], tokens="200k/m", cost=200, fair="tenant", name="account"
)
per_customer = scalekit.limit(rate="20/s", per="tenant", max_queue=100, queue_timeout="2s")
started: list[tuple[float, str]] = []


@dataclass
class Usage:
    total_tokens: int


@dataclass
class Completion:
    text: str
    usage: Usage


@scalekit.stack(per_customer, account)
async def complete(tenant: str, prompt: str) -> Completion:
    started.append((time.monotonic(), tenant))
    await asyncio.sleep(0.01)
    return Completion(prompt.upper(), Usage(total_tokens=150))


async def ask(tenant: str, number: int) -> bool:
    try:
        return (await complete(tenant, f"question {number}")).text == f"QUESTION {number}"
    except scalekit.Overloaded:
        return False


async def scenario() -> None:
    noisy = [asyncio.create_task(ask("noisy", number)) for number in range(200)]
    began = time.monotonic()
    quiet = await asyncio.gather(*(ask(f"quiet {number}", number) for number in range(9)))
    assert all(quiet)
    assert time.monotonic() - began < 1, "the quiet customers waited for the noisy one"
    answered = sum(await asyncio.gather(*noisy))
    assert 20 <= answered < 200, answered

    times = sorted(when for when, tenant in started if tenant == "noisy")
    windows = [sum(when <= other < when + 1 for other in times) for when in times]
    assert max(windows) <= 20, max(windows)


def main() -> None:
    asyncio.run(scenario())


if __name__ == "__main__":
    main()
