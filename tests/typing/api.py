"""Type-checked by mypy and pyright, never run: decorating changes nothing in a function's type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, assert_type, overload

import scalekit


@scalekit.cache
def bare(x: int, y: str = "") -> list[int]:
    return [x]


@scalekit.cache(ttl="1h", tiers=["memory"], ignore="y", version="2")
def with_settings(x: int, y: str = "") -> list[int]:
    return [x]


@scalekit.cache(ttl=timedelta(minutes=1), key="user:{x}", tiers=[scalekit.Memory(max_entries=10, max_bytes="1MB")])
@scalekit.retry(attempts=4, on=(ValueError, KeyError), wait="1s")
@scalekit.limit(concurrency=20, queue_timeout="5m", max_queue=100, name="provider")
async def ask(x: int, *, model: str) -> str:
    return model


@scalekit.retry
def bare_retry(x: int) -> int:
    return x


@scalekit.limit(concurrency=1)
def lines(path: str) -> Iterator[str]:
    yield path


@scalekit.limit(concurrency=1)
async def tokens(prompt: str) -> AsyncIterator[str]:
    yield prompt


@scalekit.effect
def send(to: str) -> None: ...


class Timeout(Exception): ...


@scalekit.cache(
    ttl=lambda answer: "1h" if answer else None,
    jitter=5,
    sliding="30m",
    stale="1m",
    stale_if_error=timedelta(hours=1),
    early=True,
    when=scalekit.is_complete,
    negative={LookupError: "1m", Timeout: 5},
    scope="x",
    tags=["doc:{x}", lambda answer: ["all"]],
    types=(Timeout,),
    tiers=["memory", scalekit.Disk("/tmp/x", max_bytes="1GB")],
)
def everything(x: int) -> dict[str, int]:
    return {}


class Agent:
    @scalekit.cache
    def sync_method(self, x: int) -> str:
        return str(x)

    @scalekit.cache
    async def method(self, x: int) -> str:
        return str(x)

    @classmethod
    @scalekit.limit(concurrency=1)
    def build(cls, x: int) -> Agent:
        return cls()

    @staticmethod
    @scalekit.cache
    def static(x: int) -> bytes:
        return bytes(x)


@overload
def either(x: int) -> int: ...
@overload
def either(x: str) -> str: ...
@scalekit.cache
def either(x: int | str) -> int | str:
    return x


production = scalekit.stack(scalekit.cache(ttl="10m"), scalekit.retry(), scalekit.limit(concurrency=8))


@production
def stacked(x: int) -> float:
    return x


async def use() -> None:
    assert_type(bare(1, y="a"), list[int])
    assert_type(with_settings(1), list[int])
    assert_type(await ask(1, model="m"), str)
    assert_type(bare_retry(1), int)
    assert_type(lines("p"), Iterator[str])
    assert_type(tokens("p"), AsyncIterator[str])
    assert_type(Agent().sync_method(1), str)
    assert_type(await Agent().method(1), str)
    assert_type(Agent.build(1), Agent)
    assert_type(Agent.static(1), bytes)
    assert_type(either(1), int)
    assert_type(either("a"), str)
    assert_type(stacked(1), float)
    wrapped: Callable[[int], Coroutine[Any, Any, str]] = production(Agent().method)
    assert_type(await wrapped(1), str)

    assert_type(scalekit.controls(bare).cache.peek(1), list[int] | None)
    assert_type(scalekit.controls(bare).cache.invalidate(1, y="a"), bool)
    assert_type(await scalekit.controls(ask).cache.refresh(1, model="m"), str)
    assert_type(scalekit.controls(ask).sync.cache.peek(1, model="m"), str | None)
    assert_type(scalekit.controls(Agent().sync_method).cache.contains(1), bool)
    assert_type(scalekit.controls(bare).cache.stats().hits, int)
    assert_type(scalekit.controls(ask).limit.state().in_flight, int)
    assert_type(scalekit.controls(bare).cache.key(1), str)
    await scalekit.controls(ask).cache.put("answer", 1, model="m")
    kept = scalekit.controls(everything).cache.lookup(1)
    if kept is not None:
        assert_type(kept.value, dict[str, int])
        assert_type(kept.age, float)
    several = await scalekit.controls(ask).cache.get_many([(1,), (2,)])
    assert_type(several[0].value if several[0] else None, str | None)
    await scalekit.controls(ask).cache.put_many([((1,), "answer")])
    await scalekit.controls(ask).cache.invalidate_tags("doc:7")
    scalekit.controls(everything).cache.invalidate_tags("doc:7", "all")
    with scalekit.scope("tenant-7"), scalekit.sample(3), scalekit.bypass():
        assert_type(everything(1), dict[str, int])
    scalekit.controls(ask).limit.update(concurrency=3)
    scalekit.no_store("truncated")
    scalekit.configure(limit_queue_timeout="1m")
    print(scalekit.explain(ask))
