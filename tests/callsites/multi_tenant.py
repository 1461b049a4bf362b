"""A service that answers for many customers, each from documents that the others must never see.

Its author names the tenant in the arguments, and so in the key. They expect that no tenant ever reads another's
answer, whatever the names look like; that what varies from request to request (a trace id, a database handle) does not
cost hits; and that one tenant's new document drops that tenant's answers only.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from uuid import uuid4

import scalekit

DOCUMENTS = {"acme": "42", "globex": "7", "a": "public", "a:b": "secret"}
computed: Counter[tuple[str, str]] = Counter()


@dataclass(frozen=True)
class Request:
    tenant: str
    question: str
    trace_id: str


class Database:
    """A connection: it has no value to make a key of."""

    def read(self, tenant: str) -> str:
        return DOCUMENTS[tenant]


@scalekit.cache(ttl="10m", key="{request.tenant}:{request.question}")
@scalekit.limit(concurrency=10)
async def answer(request: Request, database: Database) -> str:
    computed[request.tenant, request.question] += 1
    await asyncio.sleep(0.01)
    return f"{request.question}: {database.read(request.tenant)}"


@scalekit.cache(ttl="10m", ignore=("database", "trace_id"))
async def summary(tenant: str, database: Database, trace_id: str) -> list[str]:
    computed[tenant, "summary"] += 1
    return [database.read(tenant)]


def request(tenant: str, question: str) -> Request:
    return Request(tenant, question, trace_id=uuid4().hex)


async def scenario() -> None:
    asked = [request(tenant, "total") for tenant in ("acme", "globex") for _ in range(50)]
    answers = await asyncio.gather(*(answer(each, Database()) for each in asked))
    assert answers == ["total: 42"] * 50 + ["total: 7"] * 50
    assert computed == {("acme", "total"): 1, ("globex", "total"): 1}, computed

    assert await answer(request("a:b", "c"), Database()) == "c: secret"
    assert await answer(request("a", "b:c"), Database()) == "b:c: public", "two tenants, one key"

    mine = await summary("acme", Database(), uuid4().hex)
    mine.append("a note for acme alone")
    assert await summary("acme", Database(), uuid4().hex) == ["42"]
    assert await summary("globex", Database(), uuid4().hex) == ["7"]

    DOCUMENTS["acme"] = "43"
    await scalekit.controls(answer).cache.invalidate(request("acme", "total"), Database())
    assert await answer(request("acme", "total"), Database()) == "total: 43"
    assert await answer(request("globex", "total"), Database()) == "total: 7"
    assert computed["globex", "total"] == 1


def main() -> None:
    asyncio.run(scenario())

    @scalekit.cache
    def careless(tenant: str, database: Database) -> str:
        return database.read(tenant)

    try:
        advice = careless("acme", Database())
    except scalekit.UnkeyableArgument as error:
        advice = str(error)
    assert "database" in advice, advice
    assert "ignore=" in advice, advice


if __name__ == "__main__":
    main()
