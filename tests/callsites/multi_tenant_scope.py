"""A service for many customers that grew out of one for a single customer: no function has a tenant argument.

The author sets the tenant once, where a request comes in, and expects that every cache below keeps the tenants apart,
also in threads and tasks started on the way, and that a tenant can be named by an argument where there is one.
"""

import asyncio
from collections import Counter
from contextvars import ContextVar

import scalekit

NEEDS = 3
tenant: ContextVar[str] = ContextVar("tenant")
computed: Counter[tuple[str, str]] = Counter()


@scalekit.cache(ttl="10m")
def load(document: str) -> str:
    computed[tenant.get(), document] += 1
    return f"{document} of {tenant.get()}"


@scalekit.cache(ttl="10m")
async def answer(question: str) -> str:
    computed[tenant.get(), question] += 1
    return f"{question} {await asyncio.to_thread(load, 'handbook')}"


@scalekit.cache(ttl="10m", scope="customer")
async def invoice(customer: str, month: int) -> str:
    computed[customer, str(month)] += 1
    return f"{customer} {month}"


async def handle(name: str, question: str) -> str:
    tenant.set(name)
    with scalekit.scope(name):
        return await asyncio.create_task(answer(question))


async def scenario() -> None:
    names = ["acme", "globex", "initech"] * 20
    answers = await asyncio.gather(*(asyncio.create_task(handle(name, "holidays?")) for name in names))
    assert answers == [f"holidays? handbook of {name}" for name in names], answers
    assert set(computed.values()) == {1}
    assert len(computed) == 6

    with scalekit.scope("acme"):
        await scalekit.controls(answer).cache.clear()
    await handle("globex", "holidays?")
    assert computed["globex", "holidays?"] == 1, "clearing one tenant touched another"
    await handle("acme", "holidays?")
    assert computed["acme", "holidays?"] == 2

    assert await invoice("acme", 1) == await invoice("acme", 1) == "acme 1"
    assert computed["acme", "1"] == 1


def main() -> None:
    asyncio.run(scenario())


if __name__ == "__main__":
    main()
