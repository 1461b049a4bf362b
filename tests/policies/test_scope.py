"""cache: answers kept apart by scope and sample, and ended together by tag."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from colours import Colour

import scalekit


def counted(colour: Colour, policy: Any) -> tuple[Any, Counter[Any]]:
    """A cached function of the colour, and how often it ran for what."""
    calls: Counter[Any] = Counter()

    @policy
    @colour.define
    async def ask(question: Any, user: Any = None) -> str:
        calls[question, user] += 1
        return f"{question} {user} {calls[question, user]}"

    return ask, calls


async def test_scopes_are_kept_apart(colour: Colour) -> None:
    """One call in two scopes is two answers, on the fast path and off it, and no scope is one of its own."""
    ask, calls = counted(colour, scalekit.cache)
    for _ in range(3):
        for number, name in enumerate(("acme", "globex", 7, "7", ("a", 1))):
            with scalekit.scope(name):
                assert await colour.call(ask, "q") == f"q None {number + 1}"
        assert await colour.call(ask, "q") == "q None 6"
    assert calls["q", None] == 6


async def test_scopes_nest(colour: Colour) -> None:
    """A scope inside a scope is another one; the scope that one is in already changes nothing."""
    ask, calls = counted(colour, scalekit.cache)
    with scalekit.scope("acme"):
        await colour.call(ask, "q")
        with scalekit.scope("acme"):
            await colour.call(ask, "q")
        assert calls["q", None] == 1
        with scalekit.scope("bob"):
            assert await colour.call(ask, "q") == "q None 2"
        assert await colour.call(ask, "q") == "q None 1"
    with scalekit.scope("bob"):
        assert await colour.call(ask, "q") == "q None 3"
    with scalekit.scope("globex"), scalekit.scope("bob"):
        assert await colour.call(ask, "q") == "q None 4"


def test_a_task_that_outlives_its_scope_stays_in_it() -> None:
    """A task started inside of a `with` gets that scope's answers after the `with` has ended, and nobody else does."""
    calls: list[str] = []
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")

    @scalekit.cache
    async def ask(question: str) -> str:
        calls.append(tenant.get())
        return f"{question} {tenant.get()}"

    async def main() -> None:
        tenant.set("nobody")
        assert await ask("q") == "q nobody"
        gate = asyncio.Event()

        async def late() -> str:
            await gate.wait()
            return await ask("q")

        tenant.set("acme")
        with scalekit.scope("acme"):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        tenant.set("nobody")
        gate.set()
        assert await task == "q acme"
        assert await ask("q") == "q nobody"
        assert await asyncio.to_thread(lambda: asyncio.run(ask("q"))) == "q nobody"

    asyncio.run(main())
    assert calls == ["nobody", "acme"]


def test_a_scope_is_carried_into_threads_that_get_the_context() -> None:
    """`asyncio.to_thread` and `copy_context().run` carry it; what is computed in threads by us is in the caller's."""
    seen: list[Any] = []

    @scalekit.cache
    def ask(question: str) -> str:
        seen.append(question)
        return f"{question} {len(seen)}"

    async def main() -> None:
        with scalekit.scope("acme"):
            first = ask("q")
            assert await asyncio.to_thread(ask, "q") == first
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(contextvars.copy_context().run, ask, "q").result() == first
                assert pool.submit(ask, "q").result() != first

    asyncio.run(main())


async def test_a_refresh_behind_stays_in_its_scope(colour: Colour) -> None:
    """What is renewed while nobody waits is renewed for the scope that asked."""
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    calls: list[str] = []

    @scalekit.cache(ttl="40ms", stale="10s")
    @colour.define
    async def ask() -> str:
        calls.append(tenant.get())
        return f"{tenant.get()} {len(calls)}"

    for name in ("acme", "globex"):
        tenant.set(name)
        with scalekit.scope(name):
            await colour.call(ask)
    await colour.sleep(0.05)
    tenant.set("globex")
    with scalekit.scope("globex"):
        assert await colour.call(ask) == "globex 2"
        await colour.until(lambda: len(calls) == 3)
        await colour.sleep(0.005)
        assert await colour.call(ask) == "globex 3"
    assert calls == ["acme", "globex", "globex"]


async def test_a_scope_named_by_an_argument(colour: Colour) -> None:
    """`scope=` keeps apart what `ignore=` would mix, and what is cleared in that scope is cleared here too."""
    for scope in ("user", lambda question, user=None: user):
        ask, calls = counted(colour, scalekit.cache(ignore="user", scope=scope))
        for user in ("ann", "bob", "ann"):
            await colour.call(ask, "q", user)
        assert calls == {("q", "ann"): 1, ("q", "bob"): 1}
        with scalekit.scope("ann"):
            await colour.call(scalekit.controls(ask).cache.clear)
        await colour.call(ask, "q", "ann")
        await colour.call(ask, "q", "bob")
        assert calls == {("q", "ann"): 2, ("q", "bob"): 1}
        with pytest.raises(scalekit.UnkeyableArgument, match="scope="):
            await colour.call(ask, "q")


async def test_clearing_a_scope(colour: Colour) -> None:
    """`clear` inside of a scope ends that scope's answers and those of the scopes in it; outside, all."""
    ask, calls = counted(colour, scalekit.cache)

    async def ask_everywhere() -> None:
        await colour.call(ask, "q")
        for name in ("acme", "globex"):
            with scalekit.scope(name):
                await colour.call(ask, "q")
                with scalekit.scope("bob"):
                    await colour.call(ask, "q")

    await ask_everywhere()
    await ask_everywhere()
    assert calls["q", None] == 5
    with scalekit.scope("acme"):
        await colour.call(scalekit.controls(ask).cache.clear)
    await ask_everywhere()
    assert calls["q", None] == 7
    await colour.call(scalekit.controls(ask).cache.clear)
    await ask_everywhere()
    assert calls["q", None] == 12


async def test_samples(colour: Colour) -> None:
    """Inside of `sample(n)` a call is the n-th sample of itself, in whichever scope."""
    ask, calls = counted(colour, scalekit.cache)
    for _ in range(2):
        for number in range(3):
            with scalekit.sample(number):
                assert await colour.call(ask, "q") == f"q None {number + 1}"
    with scalekit.scope("acme"), scalekit.sample(0):
        assert await colour.call(ask, "q") == "q None 4"
    assert calls["q", None] == 4


async def test_bypass(colour: Colour) -> None:
    """Inside of `bypass()` a call is computed, nothing is looked up, joined or kept; also on the fast path."""
    ask, _ = counted(colour, scalekit.cache)
    assert await colour.call(ask, "q") == await colour.call(ask, "q") == "q None 1"
    with scalekit.bypass():
        assert await colour.call(ask, "q") == "q None 2"
        assert await colour.call(ask, "other") == "other None 1"
    assert await colour.call(ask, "q") == "q None 1"
    assert await colour.call(ask, "other") == "other None 2"
    stats = scalekit.controls(ask).cache.stats()
    assert (stats.hits, stats.misses) == (2, 2)


@pytest.mark.parametrize("name", [None, ""])
def test_nobody_is_no_scope(name: Any) -> None:
    """A tenant that was not found must not share with all others that were not found."""
    with pytest.raises(scalekit.ConfigurationError, match="names nobody"):
        scalekit.scope(name)
    with pytest.raises(scalekit.ConfigurationError, match="no whole number"):
        scalekit.sample("3")  # type: ignore[arg-type]


async def test_methods_in_scopes(colour: Colour) -> None:
    """An object's answers are its own in every scope, and a dead object's number gives nobody its answers."""

    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

        @scalekit.cache
        @colour.define
        async def ask(self, question: str) -> str:
            return f"{self.name} {question}"

    for number in range(200):  # each agent gets the number of a dead one, sooner or later
        agent = Agent(str(number))
        for _ in range(2):
            assert await colour.call(agent.ask, "q") == f"{number} q"
            with scalekit.scope("acme"):
                assert await colour.call(agent.ask, "q") == f"{number} q"
        del agent


async def test_tags(colour: Colour) -> None:
    """Answers are ended by the names that arguments and contents give them, in all functions; others stay."""
    calls: Counter[str] = Counter()

    @scalekit.cache(tags=["doc:{doc[id]}", lambda answer: answer.split(), "all"])
    @colour.define
    async def read(doc: dict[str, Any]) -> str:
        calls["read"] += 1
        return f"by-ann v{doc['id']}"

    @scalekit.cache(tags="doc:{number}")
    @colour.define
    async def summary(number: int) -> str:
        calls["summary"] += 1
        return "short"

    async def ask_all() -> Counter[str]:
        for number in (1, 2):
            await colour.call(read, {"id": number})
            await colour.call(summary, number)
        return calls

    await ask_all()
    assert await ask_all() == {"read": 2, "summary": 2}
    control = scalekit.controls(read).cache
    await colour.call(control.invalidate_tags, "doc:1")
    assert await ask_all() == {"read": 3, "summary": 3}
    await colour.call(control.invalidate_tags, "by-ann")
    assert await ask_all() == {"read": 5, "summary": 3}
    await colour.call(control.invalidate_tags, "v2", "unknown")
    assert await ask_all() == {"read": 6, "summary": 3}
    await colour.call(scalekit.controls(summary).cache.invalidate_tags, "all")
    assert await ask_all() == {"read": 8, "summary": 3}


async def test_tags_in_a_scope(colour: Colour) -> None:
    """Inside of a scope a tag ends that scope's answers; outside, everybody's."""
    ask, calls = counted(colour, scalekit.cache(tags="q:{question}"))

    async def ask_all() -> int:
        for name in ("acme", "globex"):
            with scalekit.scope(name):
                await colour.call(ask, "q")
        return calls["q", None]

    assert await ask_all() == 2
    with scalekit.scope("acme"):
        await colour.call(scalekit.controls(ask).cache.invalidate_tags, "q:q")
    assert await ask_all() == 3
    await colour.call(scalekit.controls(ask).cache.invalidate_tags, "q:q")
    assert await ask_all() == 5


async def test_a_tag_that_is_ended_while_its_answer_is_computed(colour: Colour) -> None:
    """Who asked before gets the answer, it is not kept, and who asks after gets a new one, although it joined."""
    gate, calls = threading.Event(), list[int]()

    @scalekit.cache(tags=lambda answer: [f"t{answer % 1}"])
    @colour.define
    async def ask() -> int:
        calls.append(1)
        number = len(calls)
        while not gate.is_set():
            await colour.sleep(0.001)
        return number

    early = await colour.start(ask)
    await colour.until(lambda: len(calls) == 1)
    joined = await colour.start(ask)
    await colour.until(lambda: scalekit.controls(ask).cache.stats().joined == 1)
    await colour.call(scalekit.controls(ask).cache.invalidate_tags, "t0")
    late = await colour.start(ask)
    await colour.until(lambda: scalekit.controls(ask).cache.stats().joined == 2)
    gate.set()
    assert await early.result() == 1
    assert await joined.result() == 1
    assert await late.result() == 2, "an answer that was invalidated before it was asked for"
    assert await colour.call(ask) == 2


async def test_tags_that_fail_cost_no_caller_anything(colour: Colour) -> None:
    """A tag that cannot be made of an answer or its arguments: the answer is handed out, and not kept."""
    for tags in ("{question.missing}", lambda answer: answer.missing, lambda answer: [""], lambda answer: [None]):
        ask, calls = counted(colour, scalekit.cache(tags=tags))
        for _ in range(2):
            await colour.call(ask, "q")
        assert calls["q", None] == 2
        assert scalekit.controls(ask).cache.stats().unstored == 2


@pytest.mark.parametrize("tags", ["{nothing}", 7, [7], [""], "", "{question!r}", b"x"])
def test_wrong_tags_fail_at_decoration(tags: Any) -> None:
    """A tag that no call could have is said where it is written."""
    with pytest.raises(scalekit.ConfigurationError, match="tags="):

        @scalekit.cache(tags=tags)
        def ask(question: str) -> str:
            return question


@pytest.mark.parametrize("scope", ["{question}", "nothing", "question.", 7, ""])
def test_wrong_scopes_fail_at_decoration(scope: Any) -> None:
    """A scope that no call could have is said where it is written."""
    with pytest.raises(scalekit.ConfigurationError, match="scope="):

        @scalekit.cache(scope=scope)
        def ask(question: str) -> str:
            return question
